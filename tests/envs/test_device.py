"""Many copies of a DeviceEnv: resets by the NEXT_STEP rule, time limits, and randomness that is never used twice."""

from dataclasses import dataclass
from functools import cache
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from gymnasium import spaces
from hypothesis import given, settings
from hypothesis import strategies as st

from renshu.envs.device import DeviceEnv, DeviceEnvs, Step

TERMINATED, TRUNCATED, BOTH = 0, 1, 2


class CounterState(NamedTuple):
    t: jax.Array
    length: jax.Array
    end: jax.Array


@dataclass(frozen=True)
class Counter(DeviceEnv):
    """Each episode draws its length and how it ends; its observation tells both, and the steps so far."""

    longest: int = 5
    max_episode_steps: int | None = None
    observation_space = spaces.Box(-np.inf, np.inf, (4,), np.float32)
    action_space = spaces.Discrete(2)

    def reset(self, key):
        how, many = jax.random.split(key)
        length, end = jax.random.randint(many, (), 1, self.longest + 1), jax.random.randint(how, (), 0, 3)
        return self._seen(CounterState(jnp.int32(0), length, end), -1)

    def step(self, state, action, key):
        state, obs = self._seen(state._replace(t=state.t + 1), action)
        over = state.t >= state.length
        terminated, truncated = over & (state.end != TRUNCATED), over & (state.end != TERMINATED)
        return Step(state, obs, 10.0 * state.t + action, terminated, truncated)

    def _seen(self, state, action):
        return state, jnp.array([*state, action], jnp.float32)


@dataclass(frozen=True)
class Keys(DeviceEnv):
    """The observation is the key that made it; a step ends the episode with a probability of a third."""

    observation_space = spaces.Box(0, 2**32 - 1, (2,), np.uint32)
    action_space = spaces.Discrete(2)

    def reset(self, key):
        return jnp.int32(0), jax.random.key_data(key)

    def step(self, state, action, key):
        return Step(state, jax.random.key_data(key), jnp.float32(0), jax.random.bernoulli(key, 1 / 3))


@cache
def program(env, num_envs):
    envs = DeviceEnvs(env, num_envs)

    def play(key, actions):
        state, first = envs.reset(key)
        state, told = jax.lax.scan(envs.step, state, actions)
        return first, told, state

    return jax.jit(play)


def played(env, actions, seed=0):
    """Observations [T + 1, N, ...] and outcomes [T, N] of these actions [T, N]."""
    first, told, state = program(env, np.shape(actions)[1])(jax.random.key(seed), jnp.asarray(actions))
    obs = np.concatenate([np.asarray(first)[None], told.obs])
    return obs, *(np.asarray(x) for x in (told.reward, told.terminated, told.truncated)), state


KINDS = [(Counter(4), 3), (Counter(4, max_episode_steps=3), 3), (Counter(4, max_episode_steps=1), 2), (Counter(1), 1)]


@settings(max_examples=40, deadline=None)
@given(st.sampled_from(KINDS), st.integers(0, 2**32 - 1))
def test_against_a_loop_in_python(kind, seed):
    """Only what an episode drew at its beginning is read off; all else is said before by plain Python."""
    (env, num_envs), steps = kind, 30
    longest, limit = env.longest, env.max_episode_steps
    actions = np.random.default_rng(seed).integers(0, 2, (steps, num_envs))
    obs, reward, terminated, truncated, state = played(env, actions, seed)
    for n in range(num_envs):
        t, ended = 0, False
        _, length, end, _ = obs[0, n]
        for k in range(steps):
            if ended:
                assert obs[k + 1, n, 0] == 0
                assert obs[k + 1, n, 3] == -1, "the action of a reset step is not seen"
                assert (reward[k, n], terminated[k, n], truncated[k, n]) == (0, False, False)
                t, ended, (_, length, end, _) = 0, False, obs[k + 1, n]
                assert 1 <= length <= longest
                continue
            t += 1
            assert obs[k + 1, n].tolist() == [t, length, end, actions[k, n]], "the true last one at an end, too"
            assert reward[k, n] == 10 * t + actions[k, n]
            assert terminated[k, n] == (t >= length and end != TRUNCATED)
            assert truncated[k, n] == ((t >= length and end != TERMINATED) or t == limit)
            ended = terminated[k, n] or truncated[k, n]
        assert state.ended[n] == ended
        assert state.elapsed[n] == t


def test_dtypes_and_shapes():
    obs, reward, terminated, truncated, state = played(Counter(), np.zeros((3, 2), int))
    assert (obs.shape, obs.dtype) == ((4, 2, 4), np.float32)
    assert [(x.shape, x.dtype) for x in (reward, terminated, truncated)] == [((3, 2), t) for t in ("f4", "?", "?")]
    assert (state.elapsed.dtype, state.count.dtype, int(state.count)) == (np.int32, np.int32, 4)
    assert state.key == jax.random.fold_in(jax.random.key(0), np.uint32(2**32 - 1)), (
        "the root stays as it was: snapshots of any step tell the same story"
    )


def test_no_key_is_used_twice():
    obs, *_, state = played(Keys(), np.zeros((50, 8), int))
    seen = {tuple(key) for key in obs.reshape(-1, 2).tolist()}
    assert len(seen) == 51 * 8
    assert int(state.ended.sum()) < 8, "some end and some go on"


def test_episodes_begin_apart():
    """Environments that end together, as after every time limit, do not begin alike; nor does one begin twice alike."""
    obs, *_ = played(Counter(10**6, max_episode_steps=2), np.zeros((30, 8), int))
    lengths = obs[::3, :, 1]
    assert (obs[::3, :, 0] == 0).all()
    assert len(np.unique(lengths)) == lengths.size


def test_the_same_key_gives_the_same_and_another_one_another():
    actions = np.zeros((20, 3), int)
    first, again, other = (played(Counter(100), actions, seed)[0] for seed in (1, 1, 2))
    np.testing.assert_array_equal(first, again)
    assert not np.array_equal(first, other)


def test_one_environment_does_not_hear_of_the_others():
    """What the others do, and when they end, changes nothing here."""
    left, right = np.zeros((20, 3), int), np.zeros((20, 3), int)
    right[:, 1:] = 1
    a, b = (played(Counter(4), actions)[0] for actions in (left, right))
    np.testing.assert_array_equal(a[:, 0], b[:, 0])
    assert not np.array_equal(a[:, 1], b[:, 1])


def test_what_it_is_called_and_what_it_cannot_do():
    env = Counter(max_episode_steps=7)
    spec = env.spec(3)
    assert (spec.num_envs, spec.max_episode_steps, spec.id, spec.reward_threshold) == (3, 7, None, None)
    assert (spec.observation_space, spec.action_space) == (env.observation_space, env.action_space)
    state, _ = env.reset(jax.random.key(0))
    with pytest.raises(NotImplementedError, match="Counter has no picture"):
        env.render(state)
    with pytest.raises(NotImplementedError, match="Counter has no text"):
        env.text(state)
