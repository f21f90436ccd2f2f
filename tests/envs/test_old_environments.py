"""Environments of older interfaces, and actions of several parts: the answer says what to write."""

import re
import types

import gymnasium
import numpy as np
import pytest
from gymnasium import spaces

from renshu import PPO
from renshu.errors import EnvironmentFault, SpaceError

OBS = np.zeros(2, np.float32)
SMALL = {"n_steps": 8, "batch_size": 8, "n_epochs": 1, "net_arch": [4]}


class Base:
    """Neither a gymnasium.Env nor of Gym."""

    observation_space = spaces.Box(-1, 1, (2,))
    action_space: spaces.Space = spaces.Discrete(2)
    render_mode = None

    def reset(self, *, seed=None, options=None):
        return OBS, {}

    def step(self, action):
        return OBS, 0.0, False, True, {}


class Unseeded(Base, gymnasium.Env):
    def reset(self):
        return OBS, {}


class Alone(Base, gymnasium.Env):
    def reset(self, *, seed=None, options=None):
        return OBS


class FourValues(Base, gymnasium.Env):
    def step(self, action):
        return OBS, 0.0, True, {}


@pytest.mark.parametrize(
    ("env", "answer"),
    [
        (Unseeded, r"Write def reset\(self, \*, seed=None, options=None\), which returns observation, \{\}.*shimmy"),
        (Alone, r"reset must return \(observation, info\): write return observation, \{\}"),
        (FourValues, "write return observation, reward, done, False, info.*shimmy"),
    ],
)
def test_methods_of_the_old_interface(env, answer):
    with pytest.raises(EnvironmentFault, match=answer):
        PPO(**SMALL).on(env).learn(16, progress=False)


def test_a_class_that_is_no_environment():
    with pytest.raises(SpaceError, match=r"not a gymnasium\.Env\. Let it be one: class Base\(gymnasium\.Env\)"):
        PPO().on(Base)
    with pytest.raises(SpaceError, match=r"Let it be one: class Base\(gymnasium\.Env\)"):
        PPO().on(Base())


def test_an_environment_of_gym():
    old = type("Old", (Base,), {"__module__": "gym.envs.old"})
    with pytest.raises(SpaceError, match=r"shimmy\.GymV21CompatibilityV0\(env=OldEnv\(\)\)"):
        PPO().on(old)


@pytest.mark.parametrize(
    ("space", "other"),
    [
        (spaces.Tuple((spaces.Discrete(2), spaces.Discrete(3))), spaces.MultiDiscrete([2, 3])),
        (spaces.Dict({"x": spaces.Discrete(2), "y": spaces.Discrete(3)}), spaces.MultiDiscrete([2, 3])),
        (spaces.Tuple((spaces.Box(-1, 1, (1,)), spaces.Box(0, 2, (2,)))), spaces.Box(-1, 1, (3,))),
        (spaces.Dict({"x": spaces.Box(-1, 1, (1,)), "y": spaces.Box(0, 2, (2,))}), spaces.Box(-1, 1, (3,))),
    ],
    ids=str,
)
def test_actions_of_several_parts_are_answered_with_a_wrapper_that_works(space, other):
    class MyEnv(Base, gymnasium.Env):
        action_space = space

        def step(self, action):
            assert space.contains(action)
            return super().step(action)

    with pytest.raises(SpaceError, match="Put the parts into one: lambda: ") as error:
        PPO().on(MyEnv)
    make = eval(re.search(r"lambda: .*$", str(error.value))[0], {"gymnasium": gymnasium, "MyEnv": MyEnv})
    agent = PPO(**SMALL).on(make).learn(16, progress=False)
    assert agent.fitted.spec.action_space == other


def test_actions_of_mixed_parts():
    mixed = spaces.Tuple((spaces.Discrete(2), spaces.Box(-1, 1, (1,))))
    env = types.new_class("Mixed", (Base, gymnasium.Env), {}, lambda body: body.update(action_space=mixed))
    with pytest.raises(SpaceError, match=r"Put the parts into one Box, in gymnasium\.wrappers\.TransformAction"):
        PPO().on(env)
