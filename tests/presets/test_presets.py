"""Every preset builds its algorithm and fits its number of environments."""

import importlib.util
from functools import cache

import numpy as np
import pytest
from gymnasium import spaces

from renshu import A2C, PPO, SAC, TD3, TQC, preset
from renshu.algorithms.registry import algorithm, algorithms
from renshu.envs.source import EnvSource
from renshu.errors import HyperparameterError, UnknownNameError
from renshu.ops.schedules import Linear
from renshu.presets import GROUPS, preset_name, presets
from renshu.types import EnvSpec

ALL = [(name, environment) for name, tables in presets().items() for environment in tables]
MUJOCO = ("Reacher", "Swimmer", "HalfCheetah", "Hopper", "Walker2d", "Ant")
PACKAGES = {"gymnax/": "gymnax", **dict.fromkeys(MUJOCO, "mujoco"), "CarRacing": "Box2D"}
IMAGES = spaces.Box(0, 255, (84, 84, 1), np.uint8)


def needs(environment: str) -> None:
    """Skip where the package of an environment is missing."""
    for name, package in PACKAGES.items():
        if environment.startswith(name) and importlib.util.find_spec(package) is None:
            pytest.skip(f"{package} is not installed")


@cache
def spaces_of(environment: str) -> tuple[spaces.Space, spaces.Space]:
    """Observations and actions of an environment, made and reset; those of any game for a group of them."""
    if environment in GROUPS:
        return IMAGES, spaces.Discrete(6)
    env = EnvSource.of(environment).single()
    obs, _ = env.reset(seed=0)
    assert env.observation_space.contains(obs)
    env.close()
    return env.observation_space, env.action_space


def test_every_file_of_presets_is_an_algorithms():
    assert set(presets()) <= {name.lower() for name in algorithms()}
    assert ("ppo", "CartPole-v1") in ALL


@pytest.mark.parametrize(("name", "environment"), ALL)
def test_every_preset_builds(name: str, environment: str):
    found = preset(name, environment)
    assert type(found.algorithm) is algorithm(name)
    assert found.environment == environment
    assert isinstance(found.num_envs, int)
    assert isinstance(found.total_steps, int)
    needs(environment)
    spec = EnvSpec(*spaces_of(environment), found.num_envs, max_episode_steps=200)
    if type(found.algorithm).accepts.actions == {"discrete"} and isinstance(spec.action_space, spaces.Box):
        spec = EnvSpec(spec.observation_space, spaces.Discrete(5), found.num_envs)
    assert 0 < found.algorithm.build(spec).needs.steps * found.num_envs <= found.total_steps


SHORT = {"learning_starts": 20, "buffer_size": 200, "batch_size": 16}


@pytest.mark.parametrize(
    ("name", "environment", "short"),
    [
        ("sac", "Hopper-v5", SHORT),
        ("td3", "Reacher-v5", SHORT),
        ("tqc", "HalfCheetah-v5", SHORT),
        ("ppo", "Ant-v5", {"n_steps": 16, "batch_size": 16}),
        ("ppo", "CarRacing-v3", {"n_steps": 8, "batch_size": 8, "n_epochs": 1}),
    ],
)
def test_physics_can_be_learned(name, environment, short):
    """Actions are scaled to the environment's, and CarRacing's picture goes through the convolution."""
    needs(environment)
    found = preset(name, environment, **short)
    agent = found.algorithm.on(environment, num_envs=1, seed=0, **found.options)
    assert isinstance(agent.algorithm, SAC | TD3 | TQC | PPO)
    assert any("convolved" in note for note in agent.fitted.notes) == (environment == "CarRacing-v3")
    assert agent.fitted.spec.frame_stack == found.options.get("frame_stack", 1)
    agent.learn(32, progress=False)
    assert agent.steps >= 32


def test_names_of_presets():
    assert preset_name("pqn", "Breakout-MinAtar") == preset_name("pqn", "gymnax/Breakout-MinAtar")
    assert preset_name("ppo", "retro/Airstriker-Genesis-v0") == "retro"
    assert preset_name("ppo", "ALE/Breakout-v5") == "atari"
    assert preset_name("ppo", "renshu/CartPole-v1") == "CartPole-v1"
    assert preset_name("ppo", "Nothing-v0") is None


def test_what_a_preset_says_arrives():
    found = preset("PPO", "CartPole-v1")
    assert found.num_envs == 8
    assert found.algorithm == PPO(
        n_steps=32,
        batch_size=256,
        n_epochs=20,
        gamma=0.98,
        gae_lambda=0.8,
        learning_rate=Linear(1e-3),
        clip_range=Linear(0.2),
    )


def test_overrides_replace_single_hyperparameters():
    plain, changed = preset("a2c", "Pendulum-v1"), preset("a2c", "Pendulum-v1", gamma=0.5, learning_rate=1e-4)
    assert changed.algorithm == A2C.from_json(plain.algorithm.to_json(), gamma=0.5, learning_rate=1e-4)
    assert (changed.num_envs, changed.total_steps) == (plain.num_envs, plain.total_steps)
    assert preset("a2c", "Pendulum-v1") == plain
    with pytest.raises(HyperparameterError, match="gama"):
        preset("ppo", "CartPole-v1", gama=0.5)


def test_an_unknown_preset_lists_the_known_ones():
    with pytest.raises(UnknownNameError, match=r"no preset of PPO for 'CartPole-v9'.*CartPole-v1, Pendulum-v1"):
        preset("ppo", "CartPole-v9")
    with pytest.raises(UnknownNameError, match=r"A2C.*PPO"):
        preset("pppo", "CartPole-v1")


def test_a_preset_may_hold_options_of_fitting(monkeypatch):
    data = {"num_envs": 2, "total_steps": 64, "bins": 3, "frame_stack": 2, "masks": False, "learning_starts": 8}
    monkeypatch.setattr("renshu.presets.presets", lambda: {"dqn": {"Pendulum-v1": data}})
    found = preset("dqn", "Pendulum-v1")
    assert found.options == {"bins": 3, "frame_stack": 2, "masks": False}
    agent = found.algorithm.on("Pendulum-v1", num_envs=found.num_envs, **found.options)
    assert agent.fitted.spec.action_space == spaces.Discrete(3)
    assert agent.fitted.spec.frame_stack == 2
