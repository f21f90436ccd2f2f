"""A learner of one's own: extras and carries of any form, and updates that go wrong, the same in both loops."""

from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from renshu import Algorithm, Learner, load
from renshu.algorithms.hyperparameters import choice, integer
from renshu.errors import NotFiniteError
from renshu.tracking.run import Run
from renshu.types import Accepts, ActorOutput, Counters, Needs
from tests.loops.tiny import Faulty, same

FORMS: dict[str, Any] = {
    "nothing": lambda x: (),
    "array": lambda x: x,
    "tuple": lambda x: (x, 2 * x),
    "dict": lambda x: {"one": x, "nested": {"two": 2 * x}},
}


@dataclass(frozen=True, kw_only=True)
class Walk(Algorithm):
    """Moves a weight by what `act` recorded and remembered; becomes NaN, without a word, in one of its updates."""

    accepts: ClassVar[Accepts] = Accepts(frozenset({"box"}), frozenset({"discrete"}))
    form: str = choice("array", "of extras and carry", tuple(FORMS))
    bad_update: int = integer(0, "the update that goes wrong, from 1; 0: none", least=0)

    def build(self, spec):
        return WalkLearner(self, spec)


class State(NamedTuple):
    params: Any
    counters: Counters


class WalkLearner(Learner[Walk, State]):
    def __init__(self, config, spec):
        super().__init__(config, spec)
        self.needs = Needs(steps=4)
        self.shaped = FORMS[config.form]

    def init(self, key):
        return State({"weight": jnp.float32(0.5)}, Counters.zeros())

    def actor_state(self, state):
        return state.params

    def initial_carry(self, num_envs):
        return self.shaped(jnp.zeros(num_envs))

    def act(self, acting, carry, timestep, key, *, explore):
        drawn = jax.random.uniform(key, timestep.first.shape)
        carry = jax.tree.map(lambda x: jnp.where(timestep.first, 0.0, x) + drawn, carry)
        return ActorOutput((drawn > acting["weight"]).astype(jnp.int32), carry, self.shaped(drawn))

    def learn(self, state, rollout, key):
        counters = state.counters.after(rollout, updates=1)
        seen = sum((x.sum() for x in jax.tree.leaves((rollout.extras, rollout.carry))), rollout.reward.sum())
        bad = counters.updates == self.config.bad_update
        weight = jnp.where(bad, jnp.nan, 0.5 + 0.1 * jnp.sin(seen + state.params["weight"]))
        return State({"weight": weight}, counters), {"seen": seen}


@pytest.mark.parametrize("form", FORMS)
def test_extras_and_carry_have_any_form(form):
    agents = [Walk(form=form).on(Faulty(), num_envs=2, seed=1, loop=loop) for loop in ("host", "compiled")]
    for agent in agents:
        agent.learn(80, progress=False)
    host, compiled = agents
    assert same(host.state, compiled.state)
    assert float(host.parameters["weight"]) != 0.5
    assert int(host.state.counters.updates) == 10


@pytest.mark.parametrize("loop", ["host", "compiled"])
def test_an_update_that_goes_wrong_changes_nothing(loop, tmp_path):
    good, bad = (Walk(bad_update=update).on(Faulty(), num_envs=2, seed=1, loop=loop) for update in (0, 4))
    good.learn(24, progress=False)
    with pytest.raises(NotFiniteError, match="thrown away"):
        bad.learn(80, progress=False, run=tmp_path / "run")
    assert np.isfinite(bad.parameters["weight"])
    assert same(bad.parameters, good.parameters)
    saved = load(Run.open(tmp_path / "run").latest_checkpoint, algorithm=Walk)
    assert same(saved.parameters, good.parameters)
