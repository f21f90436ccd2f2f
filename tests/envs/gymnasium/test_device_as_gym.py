"""One DeviceEnv as a Gymnasium environment, and many as a vector environment."""

import copy
from dataclasses import dataclass
from typing import NamedTuple

import gymnasium
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from gymnasium import spaces
from gymnasium.utils.env_checker import check_env
from gymnasium.vector import AutoresetMode

from renshu.envs.device import DeviceEnv, DeviceEnvs, Step
from renshu.envs.gymnasium.device_as_gym import GymEnv, GymVectorEnv
from renshu.envs.gymnasium.registration import with_limit
from renshu.errors import EnvironmentFault, HyperparameterError, RenshuError


class WalkState(NamedTuple):
    at: jax.Array
    time: jax.Array


@dataclass(frozen=True)
class Walk(DeviceEnv):
    """A noisy walk on a line: the end is at +-1, cut off by itself after `patience` steps, limited to 9."""

    patience: int = 100

    id = "Walk"
    observation_space = spaces.Box(-10, 10, (2,), np.float32)
    action_space = spaces.Discrete(2)
    max_episode_steps = 9

    def reset(self, key):
        state = WalkState(jax.random.uniform(key, (), minval=-0.5, maxval=0.5), jnp.int32(0))
        return state, self._see(state)

    def step(self, state, action, key):
        at = state.at + 0.2 * (2 * action - 1) + 0.1 * jax.random.normal(key)
        state = WalkState(at, state.time + 1)
        return Step(state, self._see(state), -jnp.abs(at), jnp.abs(at) > 1, state.time >= self.patience)

    def _see(self, state):
        return jnp.array([state.at, state.time])

    def render(self, state):
        assert isinstance(state.at, np.ndarray)
        return np.full((4, 6, 3), int(state.time), np.uint8)

    def text(self, state):
        return f"at {float(state.at):.2f}"


@dataclass(frozen=True)
class Nested(DeviceEnv):
    """Counts; observations and actions in parts, of all kinds of dtype. No picture, no text."""

    observation_space = spaces.Dict(
        {"n": spaces.Discrete(100), "two": spaces.Tuple([spaces.MultiBinary(2), spaces.Box(0, 255, (1,), np.uint8)])}
    )
    action_space = spaces.Dict({"add": spaces.Discrete(3), "gain": spaces.Box(0, 1, (2,))})

    def reset(self, key):
        return jnp.int32(0), self._see(jnp.int32(0))

    def step(self, state, action, key):
        state = state + action["add"]
        return Step(state, self._see(state), action["gain"].sum(), state > 50)

    def _see(self, state):
        return {"n": state, "two": (jnp.array([True, False]), state[None])}


def test_one_as_the_pure_functions():
    env, walk, root = GymEnv(Walk()), Walk(), jax.random.key(5)
    obs, info = env.reset(seed=5)
    state, expected = walk.reset(jax.random.fold_in(root, 0))
    np.testing.assert_array_equal(obs, expected)
    assert info == {}
    for count in range(1, 5):
        obs, reward, terminated, truncated, info = env.step(count % 2)
        done = jax.jit(walk.step)(state, count % 2, jax.random.fold_in(root, count))
        state = done.state
        np.testing.assert_allclose(obs, done.obs, rtol=1e-6)
        assert reward == pytest.approx(float(done.reward))
        assert (terminated, truncated, info) == (bool(done.terminated), False, {})
        assert [type(x) for x in (obs, reward, terminated, truncated)] == [np.ndarray, float, bool, bool]
        assert obs.dtype == np.float32
        assert obs.flags.owndata
        assert obs.flags.writeable


def test_seeds_of_one():
    env = GymEnv(Walk())
    first, second, third = env.reset(seed=1)[0], env.reset()[0], env.reset()[0]
    assert len({first[0], second[0], third[0]}) == 3
    np.testing.assert_array_equal(first, env.reset(seed=1)[0])
    np.testing.assert_array_equal(second, env.reset()[0])
    assert GymEnv(Walk()).reset()[0][0] != GymEnv(Walk()).reset()[0][0]


def test_one_ends():
    env = GymEnv(Walk(patience=3))
    env.reset(seed=0)
    assert [env.step(i % 2)[3] for i in range(3)] == [False, False, True]
    with pytest.raises(EnvironmentFault, match=r"Walk.*ended.*reset"):
        env.step(0)
    env.reset()
    env.step(0)


def test_time_limit_of_one():
    for env, length in ((GymEnv(Walk(), time_limit=True), 9), (GymEnv(with_limit(Walk(), 4), time_limit=True), 4)):
        for _ in range(2):
            env.reset(seed=0)
            flags = [env.step(i % 2)[2:4] for i in range(length)]
            assert flags == [(False, False)] * (length - 1) + [(False, True)]


def test_one_refuses():
    env = GymEnv(Walk(), "ansi")
    with pytest.raises(EnvironmentFault, match="before the first reset"):
        env.step(0)
    with pytest.raises(EnvironmentFault, match="before the first reset"):
        env.render()
    env.reset(seed=0)
    with pytest.raises(EnvironmentFault, match=r"Walk got actions of shape \(1,\); expected \(\)"):
        env.step([0])
    with pytest.raises(RenshuError, match="expected None, human, rgb_array, ansi"):
        GymEnv(Walk(), "rgb")
    with pytest.raises(HyperparameterError, match="'rgb_array'"):
        GymEnv(Nested(), "rgb_array")


def test_nested_values():
    env = GymEnv(Nested())
    obs, _ = env.reset(seed=0)
    assert env.observation_space.contains(obs)
    assert isinstance(obs["n"], np.int64)
    env.step({"add": 2, "gain": [0.5, 0.25]})
    obs, reward, *_ = env.step({"add": 1, "gain": np.array([0.5, 0.25])})
    assert env.observation_space.contains(obs)
    assert (obs["n"], obs["two"][1].tolist(), reward) == (3, [3], 0.75)

    envs = GymVectorEnv(Nested(), 3)
    assert envs.observation_space.contains(envs.reset(seed=0)[0])
    obs, reward, *_ = envs.step({"add": np.array([0, 1, 2]), "gain": np.full((3, 2), 0.5, np.float32)})
    assert envs.observation_space.contains(obs)
    assert obs["n"].tolist() == [0, 1, 2]
    assert obs["two"][1].tolist() == [[0], [1], [2]]
    assert reward.tolist() == [1, 1, 1]


@pytest.mark.filterwarnings("error")
def test_gymnasiums_checker():
    with pytest.warns(UserWarning, match="alternative render modes"):  # it knows no id of it
        check_env(GymEnv(Walk(), "rgb_array"))
    copied = copy.deepcopy(GymEnv(Walk()))
    assert copied.observation_space.contains(copied.reset(seed=0)[0])


def test_pictures_of_one():
    env = GymEnv(Walk(), "rgb_array")
    env.reset(seed=0)
    env.step(1)
    assert env.render().shape == (4, 6, 3)
    assert env.render().max() == 1
    assert GymEnv(Walk()).render() is None
    text = GymEnv(Walk(), "ansi")
    obs, _ = text.reset(seed=0)
    assert text.render() == f"at {obs[0]:.2f}"


def test_a_window(monkeypatch):
    pygame = pytest.importorskip("pygame")
    monkeypatch.setenv("SDL_VIDEODRIVER", "dummy")
    env = GymEnv(Walk(), "human")
    env.reset(seed=0)
    env.step(1)
    assert env.render() is None
    window = pygame.display.get_surface()
    assert window.get_size() == (6, 4)
    assert window.get_at((0, 0))[:3] == (1, 1, 1)
    env.close()
    env.close()
    assert not pygame.display.get_init()


def test_no_window_without_pygame(monkeypatch):
    monkeypatch.setattr("renshu.envs.gymnasium.device_as_gym.find_spec", lambda name: None)
    with pytest.raises(EnvironmentFault, match="pip install pygame"):
        GymEnv(Walk(), "human")


def test_many_to_the_bit():
    envs, pure = GymVectorEnv(Walk(), 5), DeviceEnvs(Walk(), 5)
    obs, info = envs.reset(seed=3)
    state, expected = jax.jit(pure.reset)(jax.random.key(3))
    np.testing.assert_array_equal(obs, expected)
    assert info == {}
    step, actions, seen = jax.jit(pure.step), np.random.default_rng(0), np.zeros(3, np.int64)
    for _ in range(60):
        action = actions.integers(2, size=5)
        ended = np.asarray(state.ended)
        obs, reward, terminated, truncated, info = envs.step(action)
        state, expected = step(state, action)
        assert info == expected.info == {}
        for ours, theirs in zip((obs, reward, terminated, truncated), expected[:4], strict=True):
            np.testing.assert_array_equal(ours, theirs)
            assert ours.flags.owndata
        assert (reward[ended] == 0).all()
        seen += [terminated.sum(), truncated.sum(), ended.sum()]
    assert (seen > 3).all()
    assert [x.dtype for x in (obs, reward, terminated, truncated)] == [np.float32, np.float32, np.bool_, np.bool_]
    assert jax.tree.all(jax.tree.map(lambda a, b: bool((a == b).all()), envs.state, state))


def test_many_limits():
    envs = GymVectorEnv(with_limit(Walk(patience=6), 4), 2)
    assert envs.metadata["autoreset_mode"] == AutoresetMode.NEXT_STEP
    envs.reset(seed=0)
    flags = [envs.step(np.array([i % 2, i % 2]))[3].tolist() for i in range(9)]
    assert [flag[0] for flag in flags] == [False, False, False, True, False, False, False, False, True]
    own = GymVectorEnv(with_limit(Walk(patience=6), -1), 1)
    own.reset(seed=0)
    assert [bool(own.step(np.array([i % 2]))[3][0]) for i in range(7)] == [False] * 5 + [True, False]


def test_seeds_and_states_of_many():
    envs = GymVectorEnv(Walk(), 3)
    first, second = envs.reset(seed=1)[0], envs.reset()[0]
    assert len({*first[:, 0], *second[:, 0]}) == 6
    np.testing.assert_array_equal(first, envs.reset(seed=1)[0])
    np.testing.assert_array_equal(second, envs.reset()[0])
    action, other = np.array([0, 1, 1]), GymVectorEnv(Walk(), 3)
    other.state = envs.state
    np.testing.assert_array_equal(envs.step(action)[0], other.step(action)[0])
    assert GymVectorEnv(Walk(), 1).reset()[0][0, 0] != GymVectorEnv(Walk(), 1).reset()[0][0, 0]


def test_many_refuse():
    envs = GymVectorEnv(Walk(), 3, "rgb_array")
    for call in (lambda: envs.step(np.zeros(3, np.int64)), envs.render):
        with pytest.raises(EnvironmentFault, match="before the first reset"):
            call()
    envs.reset(seed=0)
    with pytest.raises(EnvironmentFault, match=r"3 Walk got actions of shape \(3, 1\); expected \(3,\)"):
        envs.step(np.zeros((3, 1), np.int64))
    with pytest.raises(HyperparameterError, match="num_envs=0"):
        GymVectorEnv(Walk(), 0)
    with pytest.raises(HyperparameterError, match="expected None, rgb_array, ansi"):
        GymVectorEnv(Walk(), 2, "human")


def test_pictures_of_many():
    envs = GymVectorEnv(Walk(), 3, "rgb_array")
    envs.reset(seed=0)
    envs.step(np.ones(3, np.int64))
    frames = envs.render()
    assert [frame.shape for frame in frames] == [(4, 6, 3)] * 3
    texts = GymVectorEnv(Walk(), 2, "ansi")
    obs, _ = texts.reset(seed=0)
    assert texts.render() == tuple(f"at {x:.2f}" for x in obs[:, 0])
    assert GymVectorEnv(Walk(), 2).render() is None


def test_gymnasiums_wrappers():
    envs = gymnasium.wrappers.vector.RecordEpisodeStatistics(GymVectorEnv(Walk(), 2))
    envs.reset(seed=0)
    lengths = []
    for i in range(25):
        info = envs.step(np.full(2, i % 2))[4]
        if "episode" in info:
            lengths += info["episode"]["l"][info["_episode"]].tolist()
    assert max(lengths) == 9
