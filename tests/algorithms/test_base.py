"""The contract: an algorithm of one's own, as a user would write it in one file, gets loops, files and errors."""

from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import renshu
from renshu import PPO, Algorithm, Learner
from renshu.algorithms.hyperparameters import integer, number
from renshu.algorithms.registry import algorithm, algorithms
from renshu.errors import CheckpointError, HyperparameterError, SpaceError, UnknownNameError, did_you_mean
from renshu.ops.returns import discounted_returns
from renshu.types import Accepts, ActorOutput, Counters, EnvSpec, Needs
from tests import probes
from tests.algorithms.rollouts import assert_same


class State(NamedTuple):
    params: Any
    counters: Counters


@dataclass(frozen=True, kw_only=True)
class Reinforce(Algorithm):
    """REINFORCE (Williams 1992) with a linear softmax policy: no value function, no optimiser."""

    accepts: ClassVar[Accepts] = Accepts(observations=frozenset({"box"}), actions=frozenset({"discrete"}))
    step_size: float = number(0.5, "step size", above=0)
    n_steps: int = integer(16, "steps of each environment for one update", least=1)

    def build(self, spec):
        return ReinforceLearner(self, spec)


class ReinforceLearner(Learner[Any, State]):
    def __init__(self, algorithm, spec):
        super().__init__(algorithm, spec)
        self.needs = Needs(steps=algorithm.n_steps)

    def init(self, key):
        shape = (self.spec.observation_space.shape[0], int(self.spec.action_space.n))  # type: ignore
        return State({"w": jnp.zeros(shape)}, Counters.zeros())

    def actor_state(self, state):
        return state.params

    def act(self, acting, carry, timestep, key, *, explore):
        logits = timestep.obs @ acting["w"]
        return ActorOutput(jax.random.categorical(key, logits) if explore else jnp.argmax(logits, -1), carry)

    def learn(self, state, rollout, key):
        nothing = jnp.zeros(rollout.first.shape)
        returns = discounted_returns(rollout.reward, nothing, rollout.terminated, rollout.valid, 1.0)

        def loss(params):
            log_prob = jax.nn.log_softmax(rollout.obs[:-1] @ params["w"])
            chosen = jnp.take_along_axis(log_prob, rollout.action[..., None], -1)[..., 0]
            return -(chosen * (returns - 0.5) * rollout.valid).sum() / rollout.valid.sum()

        grad = jax.grad(loss)(state.params)
        params = jax.tree.map(lambda p, g: p - self.config.step_size * g, state.params, grad)
        counters = state.counters.after(rollout, 1)
        return State(params, counters), {"return": returns.mean()}


@dataclass(frozen=True, kw_only=True)
class Random(Algorithm):
    """Learns nothing, and has nothing to say of it."""

    accepts: ClassVar[Accepts] = Reinforce.accepts

    def build(self, spec):
        return RandomLearner(self, spec)


class RandomLearner(ReinforceLearner):
    def __init__(self, algorithm, spec):
        Learner.__init__(self, algorithm, spec)
        self.needs = Needs(steps=4)

    def act(self, acting, carry, timestep, key, *, explore):
        return ActorOutput(jax.random.randint(key, timestep.first.shape, 0, int(self.spec.action_space.n)), carry)  # type: ignore

    def learn(self, state, rollout, key):
        return state._replace(counters=state.counters.after(rollout, 0)), {}


@pytest.fixture(scope="module")
def trained():
    return Reinforce().on(probes.Policy, num_envs=8, seed=0).learn(3000, progress=False)


def test_an_own_algorithm_learns_in_the_host_loop(trained):
    assert trained.steps >= 3000
    assert trained.steps == int(trained.state.counters.steps)
    assert trained.evaluate(episodes=20).mean == 1.0
    assert trained.predict(np.array([[1.0], [-1.0]], np.float32)).tolist() == [1, 0]
    assert trained.parameters["w"].shape == (1, 2)


def test_an_own_algorithm_is_saved_and_loaded(trained, tmp_path):
    path = trained.save(tmp_path / "own.safetensors")
    loaded = renshu.load(path, algorithm=Reinforce, env=probes.Policy)
    assert loaded.algorithm == Reinforce()
    assert_same(loaded.state, trained.state)
    before = loaded.steps
    assert loaded.learn(100, progress=False).steps >= before + 100
    changed = renshu.load(path, algorithm=Reinforce, step_size=0.1)
    assert changed.algorithm == Reinforce(step_size=0.1)


def test_a_file_of_an_own_algorithm_asks_for_its_class(trained, tmp_path):
    path = trained.save(tmp_path / "own.safetensors")
    with pytest.raises(CheckpointError, match=r"agent of Reinforce.*algorithm=Reinforce"):
        renshu.load(path)
    with pytest.raises(CheckpointError, match="agent of Reinforce, not of PPO"):
        renshu.load(path, algorithm=PPO)


def test_an_own_algorithm_without_metrics():
    agent = Random().on(probes.Policy, num_envs=2, seed=0).learn(40, progress=False)
    assert agent.steps >= 40
    assert set(np.asarray(agent.predict(np.zeros((100, 1), np.float32)))) == {0, 1}


def test_an_own_algorithm_has_the_errors_of_all():
    with pytest.raises(HyperparameterError, match=r"no hyperparameter 'stepsize'\. Did you mean step_size"):
        Reinforce(stepsize=1.0)  # type: ignore[call-arg]
    with pytest.raises(HyperparameterError, match="Reinforce: step_size must be a finite number > 0"):
        Reinforce(step_size=0)
    with pytest.raises(SpaceError, match="Reinforce takes only Discrete"):
        Reinforce().on("Pendulum-v1", bins=5000)


def test_what_it_cannot_explain(trained):
    with pytest.raises(NotImplementedError, match="Reinforce has nothing to explain"):
        trained.explain(np.zeros(1, np.float32))


def test_defaults_of_a_learner():
    learner = Reinforce().build(EnvSpec(probes.Probe().observation_space, probes.Probe().action_space, 3))
    state = learner.init(jax.random.key(0))
    assert learner.needs.max_lag == 0
    assert learner.initial_carry(5) == ()
    assert learner.resize(state) is state


def test_algorithms_are_found_by_their_name():
    assert algorithm("PPO") is algorithm("ppo") is renshu.PPO
    assert algorithms()["A2C"] is renshu.A2C
    assert all(issubclass(found, Algorithm) for found in algorithms().values())
    with pytest.raises(UnknownNameError, match=r"no algorithm 'DDPGG'\. There are: A2C.*PPO"):
        algorithm("DDPGG")
    for module in ("base", "hyperparameters", "actor_critic"):
        with pytest.raises(UnknownNameError, match="There are"):
            algorithm(module)


def test_a_name_that_renshu_does_not_have():
    with pytest.raises(ImportError, match="NoSuch"):
        from renshu import NoSuch  # type: ignore[attr-defined]  # noqa: F401
    with pytest.raises(AttributeError, match=r"renshu has no 'NoSuch'.*A2C.*PPO"):
        _ = renshu.NoSuch
    assert not hasattr(renshu, "_private")


def test_words_that_help_after_a_wrong_name():
    assert did_you_mean("gama", ["gamma", "n_steps"]) == " Did you mean gamma?"
    assert did_you_mean("xyz", ["gamma", "n_steps"]) == " It has: gamma, n_steps."


def test_the_contract_has_to_be_kept():
    with pytest.raises(TypeError, match="abstract"):
        Algorithm()  # type: ignore[abstract]
    with pytest.raises(TypeError, match="abstract"):
        Learner(PPO(), None)  # type: ignore[abstract]
