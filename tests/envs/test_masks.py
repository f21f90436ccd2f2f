"""Masks from `info` into observations: one environment, many, in processes, on the device, and faulty ones."""

import gymnasium as gym
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from gymnasium import spaces
from gymnasium.vector import SyncVectorEnv

from renshu.envs.adapt import SpaceConfig, fit_spaces
from renshu.envs.device import DeviceEnv, DeviceEnvs, MaskedDeviceEnv, Step
from renshu.envs.gymnasium.device_as_gym import GymEnv, GymVectorEnv
from renshu.envs.gymnasium.vector import HostEnvs
from renshu.envs.masks import MaskInObservation, has_mask
from renshu.envs.source import EnvSource
from renshu.errors import EnvironmentFault, HyperparameterError, SpaceError
from renshu.types import Accepts, EnvSpec

BOX, ACTIONS = spaces.Box(-1, 1, (2,)), spaces.Discrete(3)
MASKED = spaces.Dict({"action_mask": spaces.MultiBinary(3), "observation": BOX})


class Turns(gym.Env):
    """Only action t % 3 is allowed in step t; three steps an episode. lacks: a step whose info has no mask."""

    observation_space, action_space = BOX, ACTIONS

    def __init__(self, lacks=-1, mask=lambda t: np.arange(3) == t % 3):
        self.lacks, self.mask, self.t = lacks, mask, 0

    def _info(self):
        return {} if self.t == self.lacks else {"action_mask": self.mask(self.t), "prob": 0.5}

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.t = 0
        return np.zeros(2, np.float32), self._info()

    def step(self, action):
        self.t += 1
        return np.full(2, self.t / 10, np.float32), float(action), self.t == 3, False, self._info()


class Board(DeviceEnv):
    """The same as pure functions."""

    observation_space, action_space = BOX, ACTIONS

    def reset(self, key):
        return jnp.int32(0), jnp.zeros(2)

    def step(self, state, action, key):
        t = state + 1
        return Step(t, jnp.full(2, t / 10), jnp.float32(action), t == 3)

    def action_mask(self, state):
        return jnp.arange(3) == state % 3


def masks_of(envs, steps, seed=0):
    """Masks of environment 0: after the reset and after each step."""
    found = [envs.reset(seed)["action_mask"]]
    found += [envs.step(np.zeros(envs.num_envs, np.int64))[0]["action_mask"] for _ in range(steps)]
    return np.array(found)[:, 0].tolist()


ROWS = np.eye(3, dtype=np.int8)[[0, 1, 2, 0, 0, 1]].tolist()  # the fourth ends the episode, the fifth begins one


@pytest.mark.parametrize(
    "given",
    [Turns, Turns(), lambda: SyncVectorEnv([Turns] * 2), Board()],
    ids=["class", "object", "vector", "device"],
)
def test_masks_that_environments_give_are_found_and_go_into_observations(given):
    given = given() if callable(given) and given is not Turns else given
    count = 2 if isinstance(given, SyncVectorEnv) else 1
    source = EnvSource.of(given).with_masks(None)
    envs = HostEnvs(source.vector(count))
    assert envs.single_observation_space == MASKED
    assert masks_of(envs, 5) == ROWS
    assert source.spec(envs.vector_env, count).observation_space == MASKED
    envs.close()


def test_masks_come_from_processes_too():
    envs = HostEnvs(EnvSource.of(Turns).with_masks(None).vector(2, processes=True), timeout=100.0)
    assert envs.single_observation_space == MASKED
    assert masks_of(envs, 5) == ROWS
    envs.close()


@pytest.mark.parametrize("given", ["CartPole-v1", "renshu/CartPole-v1", lambda: Turns(lacks=0)])
def test_where_a_reset_gives_no_masks_observations_stay_as_they_are(given):
    source = EnvSource.of(given).with_masks(None)
    envs = HostEnvs(source.vector(2))
    assert isinstance(envs.single_observation_space, spaces.Box)
    assert envs.reset(0).shape[0] == 2
    assert not has_mask(source.spec(envs.vector_env, 2).observation_space, ACTIONS)


def test_where_a_step_gives_no_mask_everything_is_allowed():
    envs = HostEnvs(EnvSource.of(lambda: Turns(lacks=2)).with_masks(None).vector(1))
    assert masks_of(envs, 3) == [ROWS[0], ROWS[1], [1, 1, 1], ROWS[3]]
    two = SyncVectorEnv([Turns, lambda: Turns(lacks=1)])
    envs = HostEnvs(EnvSource.of(two).with_masks(None).vector(2))
    envs.reset(0)
    obs = envs.step(np.zeros(2, np.int64))[0]
    np.testing.assert_array_equal(obs["action_mask"], [[0, 1, 0], [1, 1, 1]], "one of them gave none")
    assert envs.single_observation_space["action_mask"].contains(obs["action_mask"][0])


@pytest.mark.parametrize("mask", [[1, 0], [0.5, 0.5, 0.0], "all"], ids=["short", "floats", "text"])
def test_faulty_masks_are_told_of(mask):
    envs = HostEnvs(EnvSource.of(lambda: Turns(mask=lambda t: mask)).with_masks(None).vector(2), name="mine")
    with pytest.raises(EnvironmentFault, match=r"mine returned in reset .* shape \(2, 3\).*fix info\['action_mask'\]"):
        envs.reset(0)
    with pytest.raises(EnvironmentFault, match=r"shape \(3,\)"):
        MaskInObservation(Turns(mask=lambda t: mask)).reset()


def test_environments_to_watch_have_masks_in_their_observations():
    env = EnvSource.of(Turns).with_masks(True).single()
    assert env.observation_space == MASKED
    obs, info = env.reset(seed=0)
    assert obs["action_mask"].tolist() == [1, 0, 0]
    assert info["prob"] == 0.5
    obs, *_ = env.step(0)
    assert obs["action_mask"].tolist() == [0, 1, 0]
    assert env.observation_space.contains(obs)
    assert EnvSource.of(Turns).single().observation_space == BOX


def test_device_environments_give_masks_in_both_ways():
    env = MaskedDeviceEnv(Board())
    assert env.observation_space == MASKED
    envs = DeviceEnvs(env, 2)
    state, obs = envs.reset(jax.random.key(0))
    found = [obs["action_mask"][0].tolist()]
    for _ in range(5):
        state, outcome = envs.step(state, jnp.zeros(2, jnp.int32))
        found.append(outcome.obs["action_mask"][0].tolist())
    assert found == ROWS
    single = GymEnv(Board())
    assert single.reset(seed=0)[1]["action_mask"].tolist() == [True, False, False]
    assert single.step(0)[4]["action_mask"].tolist() == [False, True, False]
    assert GymVectorEnv(Board(), 2).reset(seed=0)[1]["action_mask"].shape == (2, 3)
    assert EnvSource.of(Board()).device.observation_space == BOX, "not asked for"

    class Wrong(Board):
        def action_mask(self, state):
            return jnp.ones(4, jnp.bool_)

    with pytest.raises(SpaceError, match=r"action_mask of Wrong has the shape \(4,\)"):
        MaskedDeviceEnv(Wrong())


@pytest.mark.parametrize("mask", [spaces.MultiBinary(3), spaces.Box(0, 1, (3,), np.int8)], ids=str)
def test_observations_that_are_a_dict_with_a_mask_are_taken_as_they_are(mask):
    space = spaces.Dict({"observation": BOX, "action_mask": mask})
    assert has_mask(space, ACTIONS)
    others = (
        (BOX, ACTIONS),
        (space, spaces.Discrete(4)),
        (space, spaces.MultiBinary(3)),
        (spaces.Dict({**space.spaces, "more": BOX}), ACTIONS),
        (spaces.Dict({"observation": BOX, "action_mask": spaces.Box(0, 1, (3,))}), ACTIONS),
    )
    assert not any(has_mask(*pair) for pair in others)

    class Own(Turns):
        observation_space = space

    envs = HostEnvs(EnvSource.of(Own).with_masks(True).vector(1))
    assert envs.single_observation_space == space


def test_what_is_fitted():
    kinds = frozenset({"box", "nested", "multi_binary"})
    accepts = Accepts(observations=kinds, actions=frozenset({"discrete"}), masks=True)
    spec = EnvSpec(MASKED, ACTIONS, 2)
    fitted = fit_spaces(spec, accepts, algorithm="X", config=SpaceConfig(masks=True))
    assert fitted.spec.masks
    assert fitted.spec.network_space == BOX
    assert fitted.notes[:2] == (
        f"observation: {BOX}, flattened",
        "action_mask: actions not allowed are left out of sampling, maximum and target",
    )
    off = fit_spaces(spec, accepts, algorithm="X")
    assert (off.spec.masks, off.spec.network_space) == (False, MASKED)
    with pytest.raises(SpaceError, match=r"masks=True, but there are none"):
        fit_spaces(EnvSpec(BOX, ACTIONS, 2), accepts, algorithm="X", config=SpaceConfig(masks=True))
    without = Accepts(observations=accepts.observations, actions=accepts.actions)
    with pytest.raises(HyperparameterError, match="X cannot leave out actions by a mask"):
        fit_spaces(spec, without, algorithm="X", config=SpaceConfig(masks=True))
    with pytest.raises(HyperparameterError, match="expected True or False"):
        SpaceConfig(masks=3)  # type: ignore[arg-type]


def test_it_is_kept_as_json_only_where_it_is_used():
    assert SpaceConfig().to_json() == {"bins": 5, "frame_stack": 1}
    used = SpaceConfig(masks=True)
    assert used.to_json() == {"bins": 5, "frame_stack": 1, "masks": True}
    assert SpaceConfig.from_json(used.to_json()) == used
    assert used.override(frame_stack=2) == SpaceConfig(frame_stack=2, masks=True)
    assert used.override(masks=False) == SpaceConfig()
