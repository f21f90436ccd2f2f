"""Every preset builds its algorithm and fits its number of environments."""

import gymnasium
import numpy as np
import pytest
from gymnasium import spaces

from renshu import A2C, PPO, preset
from renshu.algorithms.registry import algorithm, algorithms
from renshu.errors import HyperparameterError, UnknownNameError
from renshu.ops.schedules import Linear
from renshu.presets import presets
from renshu.types import EnvSpec

ALL = [(name, environment) for name, tables in presets().items() for environment in tables]
CONTINUOUS = ("Pendulum", "MountainCarContinuous", "LunarLanderContinuous", "BipedalWalker")


def test_every_file_of_presets_is_an_algorithms():
    assert set(presets()) <= {name.lower() for name in algorithms()}
    assert ("ppo", "CartPole-v1") in ALL


@pytest.mark.parametrize(("name", "environment"), ALL)
def test_every_preset_builds(name: str, environment: str):
    found = preset(name, environment)
    assert type(found.algorithm) is algorithm(name)
    assert found.environment == environment
    assert gymnasium.spec(environment).id == environment
    assert isinstance(found.num_envs, int)
    assert isinstance(found.total_steps, int)
    action = spaces.Box(-1, 1, (1,)) if environment.startswith(CONTINUOUS) else spaces.Discrete(2)
    spec = EnvSpec(spaces.Box(-1, 1, (3,), np.float32), action, found.num_envs)
    assert 0 < found.algorithm.build(spec).needs.steps * found.num_envs <= found.total_steps


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
