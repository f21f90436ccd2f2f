"""The host loop on scripted environments: what it records, and what it refuses."""

from dataclasses import dataclass
from itertools import pairwise
from typing import Any, ClassVar, NamedTuple

import gymnasium
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from gymnasium import spaces

from renshu import A2C, PPO
from renshu.algorithms.base import Algorithm, Learner
from renshu.errors import NotFiniteError
from renshu.types import Accepts, ActorOutput, Counters, Needs


class Scripted(gymnasium.Env):
    """Observation (episode, step); reward 10 * episode + step; episodes end after `lengths` steps, in turn."""

    def __init__(self, lengths=(3, 1, 2), both_flags=False, reuse=False, truncate=False):
        self.observation_space = spaces.Box(-np.inf, np.inf, (2,), np.float32)
        self.action_space = spaces.Discrete(2)
        self.lengths, self.both_flags, self.reuse, self.truncate = lengths, both_flags, reuse, truncate
        self.episode, self.buffer = -1, np.zeros(2, np.float32)

    def _obs(self):
        if self.reuse:
            self.buffer[:] = (self.episode, self.t)
            return self.buffer
        return np.array([self.episode, self.t], np.float32)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.episode, self.t = self.episode + 1, 0
        return self._obs(), {}

    def step(self, action):
        self.t += 1
        end = self.t >= self.lengths[self.episode % len(self.lengths)]
        terminated, truncated = end and not self.truncate, end and (self.truncate or self.both_flags)
        return self._obs(), 10.0 * self.episode + self.t, terminated, truncated, {}


@dataclass(frozen=True, kw_only=True)
class Recorder(Algorithm):
    """Learns nothing; keeps the rollout it was given, and remembers how many steps its episode has seen."""

    accepts: ClassVar[Accepts] = Accepts(frozenset({"box", "nested", "discrete"}), frozenset({"discrete"}))

    def build(self, spec):
        return RecorderLearner(self, spec)


class RecorderState(NamedTuple):
    params: Any
    counters: Counters


class RecorderLearner(Learner[Any, RecorderState]):
    needs = Needs(steps=4)

    def init(self, key):
        return RecorderState({"w": jnp.zeros(1)}, Counters.zeros())

    def actor_state(self, state):
        return state.params

    def initial_carry(self, num_envs):
        return np.zeros(num_envs, np.int32)

    def act(self, acting, carry, timestep, key, *, explore):
        first = timestep.first
        count = jnp.where(first, 0, carry) + 1
        return ActorOutput(jax.random.randint(key, first.shape, 0, 2), count, {"count": count, "first": first})

    def learn(self, state, rollout, key):
        return state, {"zero": jnp.float32(0)}


def rollouts(env, num_envs, count):
    agent = Recorder().on(env, num_envs=num_envs, seed=0)
    loop = agent.trainer.start_loop(lambda: None)
    return [loop.collect()[0] for _ in range(count)]


def joined(rollouts, name):
    return np.concatenate([np.asarray(getattr(r, name)) for r in rollouts])


@pytest.mark.parametrize("reuse", [False, True])
@pytest.mark.parametrize("both_flags", [False, True])
def test_stream_of_rows(reuse, both_flags):
    """Episodes of 3, 1 and 2 steps, rollouts of 4: rows follow the NEXT_STEP rule across the borders of rollouts."""
    found = rollouts(lambda: Scripted(both_flags=both_flags, reuse=reuse), 2, 3)
    obs = np.concatenate([r.obs[:-1] for r in found] + [found[-1].obs[-1:]])
    rows = [(0, 0), (0, 1), (0, 2), (0, 3), (1, 0), (1, 1), (2, 0), (2, 1), (2, 2), (3, 0), (3, 1), (3, 2), (3, 3)]
    np.testing.assert_array_equal(obs[:, 0], rows)
    np.testing.assert_array_equal(obs[:, 1], rows)
    first = np.concatenate([r.first[:-1] for r in found] + [found[-1].first[-1:]])
    np.testing.assert_array_equal(first[:, 0], [t == 0 for _, t in rows])
    for r, following in pairwise(found):
        np.testing.assert_array_equal(r.obs[-1], following.obs[0])
        np.testing.assert_array_equal(r.first[-1], following.first[0])
    valid, reward = joined(found, "valid"), joined(found, "reward")
    expected = [0.0 if t == 0 else 10.0 * episode + t for episode, t in rows[1:]]
    np.testing.assert_array_equal(reward[:, 1], expected)
    np.testing.assert_array_equal(valid[:, 1], [t != 0 for _, t in rows[1:]])
    ends = [(0, 3), (1, 1), (2, 2), (3, 3)]
    np.testing.assert_array_equal(joined(found, "terminated")[:, 0], [row in ends for row in rows[1:]])


def test_time_limit_is_no_termination():
    found = rollouts(lambda: Scripted(truncate=True), 1, 3)
    assert not joined(found, "terminated").any()
    assert (~joined(found, "valid")).sum() == 3


def test_carry_and_extras():
    """The actor's memory flows from step to step and rollout to rollout; what act records is lined up with its rows."""
    found = rollouts(lambda: Scripted(lengths=(6,)), 2, 3)
    counts = np.concatenate([r.extras["count"] for r in found])
    np.testing.assert_array_equal(counts[:, 0], [1, 2, 3, 4, 5, 6, 7, 1, 2, 3, 4, 5])
    np.testing.assert_array_equal(found[1].carry, counts[3])
    np.testing.assert_array_equal(
        np.concatenate([r.extras["first"] for r in found]), np.concatenate([r.first[:-1] for r in found])
    )
    actions = joined(found, "action")
    assert set(actions.ravel()) == {0, 1}


class Nested(Scripted):
    """The observation in parts of several kinds, in float64 and int64."""

    def __init__(self):
        super().__init__()
        self.observation_space = spaces.Dict(
            {
                "z": spaces.Box(-np.inf, np.inf, (2,), np.float64),
                "a": spaces.Tuple((spaces.Discrete(9), spaces.Box(0, 255, (3,), np.uint8))),
            }
        )

    def _obs(self):
        return {
            "z": np.array([self.episode, self.t], np.float64),
            "a": (np.int64(self.t), np.full(3, self.t, np.uint8)),
        }


def test_nested_observations_are_stored_leaf_by_leaf():
    (r,) = rollouts(Nested, 2, 1)
    steps = [0, 1, 2, 3, 0]
    assert r.obs["z"].dtype == np.float32
    assert r.obs["a"][0].dtype == np.int32
    assert r.obs["a"][1].dtype == np.uint8
    np.testing.assert_array_equal(r.obs["z"][:, 1, 1], steps)
    np.testing.assert_array_equal(r.obs["a"][0][:, 0], steps)
    np.testing.assert_array_equal(r.obs["a"][1][:, 1, 2], steps)


class Bad(Scripted):
    """Gives NaN or infinity at one step of one environment."""

    made = 0

    def __init__(self, what, value, at=5):
        super().__init__(lengths=(100,))
        self.action_space = spaces.Box(-1, 1, (2,), np.float32)
        self.what, self.value, self.at = what, value, at
        self.index, Bad.made = Bad.made, Bad.made + 1

    def step(self, action):
        assert np.isfinite(action).all()
        obs, reward, *flags = super().step(action)
        if self.t == self.at and self.index == 1:
            if self.what == "observation":
                obs[1] = self.value
            else:
                reward = self.value
        return obs, reward, *flags


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("what", ["observation", "reward"])
@pytest.mark.parametrize("n_steps", [4, 8])
def test_not_finite_environment(what, value, n_steps):
    """The error names the environment and the step; nothing is learned from the bad rollout."""
    Bad.made = 0
    agent = A2C(n_steps=n_steps, net_arch=[4]).on(lambda: Bad(what, value), num_envs=3, seed=0)
    with pytest.raises(NotFiniteError, match=rf"{what} of environment 1 is .*(nan|inf)") as error:
        agent.learn(1000, progress=False)
    assert agent.steps == (12 if n_steps == 4 else 0)
    assert f"began at step {agent.steps}" in str(error.value)
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(agent.parameters))


def test_nan_in_a_float64_observation_too_large_for_float32():
    class Large(Scripted):
        def __init__(self):
            super().__init__()
            self.observation_space = spaces.Box(-np.inf, np.inf, (2,), np.float64)

        def _obs(self):
            return np.array([0.0, 1e300 if self.t == 2 else 0.0])

    agent = A2C(n_steps=4, net_arch=[4]).on(Large, seed=0)
    with np.errstate(over="ignore"), pytest.raises(NotFiniteError, match="observation of environment 0 is inf"):
        agent.learn(100, progress=False)


def test_not_finite_loss():
    """An absurd learning rate breaks the parameters; the update that does is thrown away and named."""
    agent = PPO(n_steps=8, batch_size=8, n_epochs=2, net_arch=[4], learning_rate=1e38, max_grad_norm=1e30).on(
        lambda: Scripted(), seed=0
    )
    with pytest.raises(NotFiniteError, match=r"update after step \d+ .*thrown away"):
        agent.learn(1000, progress=False)
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(agent.parameters))
    assert np.isfinite(agent.explain(np.zeros(2, np.float32))["value"])


def test_same_seed_same_run_to_the_bit():
    def parameters(seed):
        agent = PPO(n_steps=16, batch_size=16, n_epochs=2, net_arch=[8]).on("CartPole-v1", num_envs=2, seed=seed)
        return jax.tree.leaves(agent.learn(200, progress=False).parameters)

    once, again, other = parameters(3), parameters(3), parameters(4)
    assert all(np.array_equal(a, b) for a, b in zip(once, again, strict=True))
    assert not all(np.array_equal(a, b) for a, b in zip(once, other, strict=True))


def test_nothing_is_compiled_twice():
    agent = PPO(n_steps=16, batch_size=16, n_epochs=2, net_arch=[8]).on("CartPole-v1", num_envs=2, seed=0)
    agent.learn(64, progress=False)
    agent.evaluate(2)
    compiled = agent.trainer.programs.compiled()
    agent.learn(300, progress=False).learn(300, progress=False)
    agent.evaluate(2)
    assert agent.trainer.programs.compiled() == compiled


def test_not_finite_action_never_reaches_the_environment():
    """Parameters that went NaN elsewhere: the environment, which asserts finite actions, is not stepped with them."""
    Bad.made = 5
    agent = A2C(n_steps=4, net_arch=[4]).on(lambda: Bad("nothing", 0.0), num_envs=2, seed=0)
    state = agent.state
    agent.trainer._state = state._replace(params=jax.tree.map(lambda x: x * jnp.nan, state.params))
    with pytest.raises(NotFiniteError, match=r"the action of environment 0 is nan at step 0"):
        agent.learn(100, progress=False)
    with pytest.raises(NotFiniteError, match="action"):
        agent.evaluate(1)
