"""Every algorithm of the registry goes through the same questions; a new line there is asked, too."""

import dataclasses
import itertools
import re
import time
from contextlib import nullcontext
from functools import lru_cache
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from renshu import load
from renshu.algorithms import registry
from renshu.errors import HyperparameterError, NotFiniteError, SpaceError
from renshu.experiments.vmapped import PopulationTrainer, Row
from tests.contract.algorithms import (
    CASES,
    FEW,
    HUGE,
    LEARNS_NOTHING,
    SEED,
    STEADY,
    STILL,
    TARGET,
    WRONG,
    Signs,
    advance,
    put,
    trained,
)
from tests.loops.tiny import copied, same

LIMIT = 30.0
"""Seconds of a CPU that no question may take, compiling included. It should be 8: see the table below all tests."""
YARDSTICK = 1.7
"""Seconds of a CPU that `yardstick` takes where LIMIT holds as it is; on a slower machine it grows with them."""

METRICS = Path(__file__).parents[2] / "docs" / "guide" / "metrics.md"
EXPLAINED = set(re.findall(r"`([\w/<>]+)`", METRICS.read_text().partition("## Numbers of your own")[0]))
"""Names of metrics that the guide has in its table."""

# One algorithm after the other, so that a worker of pytest-xdist compiles for its own ones.
every = pytest.mark.parametrize("case", CASES, scope="module")
loops = pytest.mark.parametrize("loop", ["host", "compiled"])


pytestmark = pytest.mark.usefixtures("compiled_fast", "exact_module")


@pytest.fixture(scope="module", autouse=True)
def _let_go():
    yield
    trained.cache_clear()  # a process may hold so many programs and no more


@lru_cache
def yardstick():
    """Seconds of a CPU for compiling a few programs, which are new in each process: none is read from disk."""
    began, new = time.process_time(), float(time.time_ns() % 1_000_003)

    def loss(weights, x):
        def layer(x, w):
            return jnp.tanh(x @ w) + jnp.sort(x, axis=-1), x.sum()

        y, sums = jax.lax.scan(layer, x, weights)
        return (y**2).sum() + new * sums.sum()

    for size in range(4, 11):
        whole = jax.jit(jax.grad(lambda weights, x: sum(loss(weights * k, x) for k in range(1, 5))))
        whole.lower(jnp.ones((3, size, size)), jnp.ones((5, size))).compile()
    return time.process_time() - began


@pytest.fixture(autouse=True)
def _in_time(record_property):
    limit = LIMIT * max(1.0, yardstick() / YARDSTICK)
    began = time.process_time()  # of the CPU: others on the machine do not count
    yield
    seconds = time.process_time() - began
    record_property("seconds", seconds)
    assert seconds < limit, f"this question took {seconds:.0f} s, and may take {limit:.0f} on this machine"


def finite(tree):
    return all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(tree))


@pytest.mark.parametrize("name", sorted(registry.MODULES.keys() - LEARNS_NOTHING))
def test_every_algorithm_is_asked(name):
    """About all of its values that may be traced, and about masks if it takes them."""
    cases = [trained(case) for case, given in CASES.items() if given.algorithm == name]
    assert cases, f"give {name} tiny settings and an environment in CASES of tests/contract/algorithms.py"
    missing = set.intersection(*(case.left_open for case in cases))
    assert not missing, f"give {missing} of {name} a number in CASES of tests/contract/algorithms.py"
    assert cases[0].kind.accepts.masks == any(case.env.gives_masks for case in cases)


@every
def test_it_learns(case):
    """Greedy actions depend on the observation as they should, and did not before."""
    env, course = trained(case).env, trained(case).compiled
    assert env.score(course.untrained) < env.enough < env.score(course.trained)


@every
def test_the_guide_explains_its_metrics(case):
    """All that its program gives, those that a rollout without a gradient step lacks included."""
    course = trained(case).compiled
    names = course.agent.trainer.start_loop(nullcontext).train_iteration.metric_names
    assert {*names, *course.metrics} <= EXPLAINED
    assert names or not CASES[case].steps


@every
def test_a_file_holds_everything(case, tmp_path):
    course, path = trained(case).compiled, tmp_path / "agent.safetensors"
    path.write_bytes(course.content)
    again = load(path, env=trained(case).env, **trained(case).algorithm.unsaved())
    assert same(again.state, course.few)
    np.testing.assert_array_equal(trained(case).greedy(again), course.greedy)
    advance(again, FEW)
    assert same(again.state, course.later), "as if nothing had been between"


@every
def test_host_loop_and_compiled_loop_are_the_same_to_the_bit(case):
    course, (agent, state) = trained(case).compiled, trained(case).host
    assert (agent.loop_name, course.agent.loop_name) == ("host", "compiled")
    assert same(state, course.few)
    assert int(course.few.counters.updates) > 0 < int(course.few.counters.episodes)
    assert not same(course.few.params, course.first.params), "something was learned"


@every
@loops
@pytest.mark.parametrize("remaining", [WRONG, HUGE], ids=["nan", "huge"])
def test_an_update_that_goes_wrong_changes_nothing(case, loop, remaining):
    if not CASES[case].steps:
        pytest.skip("it takes no step along a gradient, whose size could be too large")
    course = trained(case).compiled
    agent = course.agent if loop == "compiled" else trained(case).host[0]
    put(agent, course.few, remaining)
    with pytest.raises(NotFiniteError, match=r"went wrong: .*parameters are those from before"):
        advance(agent, 3)  # one without a gradient step may come before
    assert same(agent.parameters, course.few.params)
    after = agent.state
    if hasattr(after, "memory"):
        after = after._replace(memory=course.few.memory)
    assert finite(after)
    put(agent, copied(after), STEADY)
    advance(agent, 2)
    assert not same(agent.parameters, course.few.params), "it learns on"
    assert finite(agent.state)


@every
def test_the_ratio_of_new_to_old_policy_begins_at_one(case):
    """While parameters stand still every minibatch is a first one. Who clips no ratio has no metric of it."""
    course = trained(case).compiled
    if not hasattr(trained(case).algorithm, "clip_range"):
        assert not {"approx_kl", "clip_fraction"} & set(course.metrics)
        return
    assert course.metrics["approx_kl"] > 1e-6
    put(course.agent, course.few, STILL)
    metrics = advance(course.agent, 1)
    assert metrics["approx_kl"] == pytest.approx(0, abs=1e-7)
    assert metrics["clip_fraction"] == 0
    assert same(course.agent.parameters, course.few.params)


@every
def test_what_is_not_allowed_is_never_done(case):
    """In training it would have been a NotFiniteError; here masks have nothing to do with the state."""
    algorithm, env = trained(case).algorithm, trained(case).env
    if not algorithm.accepts.masks:
        with pytest.raises(HyperparameterError, match=f"{CASES[case].algorithm} cannot leave out actions by a mask"):
            algorithm.on(env, masks=True)
        return
    if not env.gives_masks:
        with pytest.raises(SpaceError, match="masks=True, but there are none"):
            algorithm.on(env, masks=True)
        return
    course, rng = trained(case).compiled, np.random.default_rng(0)
    agent = course.agent
    assert agent.trainer.space_config.masks
    assert finite(course.later)
    assert not same(course.later.params, course.first.params)
    put(agent, course.later, STEADY)
    observations = Signs.contexts[rng.integers(4, size=400)]
    allowed = rng.uniform(size=(400, 4)) < 0.4
    allowed[np.arange(400), rng.integers(4, size=400)] = True
    ways = [{"search": False}, {"env_state": observations}] if agent.plans else [{}]
    best = agent.predict(observations, np.ones((400, 4), np.int8), **ways[0])
    for mask in (allowed, np.arange(4) != best[:, None]):
        for deterministic, way in itertools.product((True, False), ways):
            chosen = agent.predict(observations, mask.astype(np.int8), deterministic=deterministic, **way)
            assert mask[np.arange(400), chosen].all()


def distance(one, other):
    """Largest difference between two trees of arrays, relative to numbers above 1."""

    def of(a, b):
        a, b = np.asarray(a, np.float64), np.asarray(b, np.float64)
        return np.max(np.abs(a - b) / np.maximum(np.abs(b), 1.0), initial=0.0)

    return max(map(of, jax.tree.leaves(one), jax.tree.leaves(other)), default=0.0)


def parted(state):
    """A learner's state but for what acting recorded in its memory, and that."""
    memory = getattr(state, "memory", ())
    if not hasattr(memory, "ring"):
        return state, ()
    return state._replace(memory=memory._replace(ring=memory.ring._replace(extras=()))), memory.ring.extras


@every
def test_rows_of_one_program_are_single_runs(case):
    """A row with the values of the case, and one for each value that may be traced, with another number in it.

    The first is the agent that trains alone, whose values are constants. The learner of the rows was made with other
    numbers: it would differ if they were built in anywhere. Each of the others differs, so each value matters.
    """
    made, agent = trained(case), trained(case).compiled.agent
    points = {"its own": {}, **{name: {name: value} for name, value in made.changed.items()}}
    algorithm = dataclasses.replace(made.algorithm, **made.changed)
    rows = [
        Row(label, algorithm, {**made.values, **point}, SEED, tuple(made.values)) for label, point in points.items()
    ]
    trainer = PopulationTrainer(agent.trainer.backend, algorithm, agent.trainer.space_config)
    program = trainer.compile(rows, TARGET)
    population, _ = program(trainer.start(*trainer.inputs(rows), np.int32(TARGET)), np.int32(0), np.int32(FEW))
    assert np.asarray(population.finite).all()
    stacked = jax.device_get(population.state)
    states = {row.label: jax.tree.map(lambda x, i=i: x[i], stacked) for i, row in enumerate(rows)}
    (learned, found), (alone, recorded) = parted(states["its own"]), parted(made.compiled.few)
    assert distance(learned, alone) < 1e-5
    assert distance(found, recorded) < CASES[case].recorded
    assert [label for label, state in states.items() if distance(state, states["its own"]) < 1e-4] == ["its own"]
