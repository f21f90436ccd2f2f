"""Renshu's own environments by their Gymnasium ids."""

import json
import subprocess
import sys
import warnings
from dataclasses import fields

import gymnasium
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env

from renshu.envs.device import DeviceEnv
from renshu.envs.gymnasium.device_as_gym import GymEnv, GymVectorEnv
from renshu.envs.gymnasium.registration import ENTRIES, changed_fields, device_env, is_ours, register, with_limit
from renshu.errors import HyperparameterError, UnknownNameError

register()
IDS = sorted(ENTRIES)


def python(code: str) -> str:
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip()


def test_cheap_to_import():
    found = python(
        "import sys, renshu.envs.gymnasium.registration; print(*{name.partition('.')[0] for name in sys.modules})"
    )
    assert not {"jax", "flax"} & set(found.split())
    code = "import sys, gymnasium, renshu.envs.gymnasium.registration as r; r.register(); print(*sys.modules)"
    assert not {"jax", "renshu.envs.gymnasium.device_as_gym", "renshu.envs.device"} & set(python(code).split())


def test_in_a_script_that_never_imported_renshu():
    code = """
import gymnasium
env = gymnasium.make("renshu.envs.gymnasium.registration:renshu/Rocket-v0", x=1.0, v=0.0)
print(env.reset(seed=0)[0].tolist())
print(gymnasium.make_vec("renshu/Rocket-v0", 3, x=0.5, v=-0.5).reset(seed=0)[0].tolist())"""
    first, second = python(code).splitlines()
    assert json.loads(first) == [1, 0]
    assert json.loads(second) == [[0.5, -0.5]] * 3


def test_register_twice():
    before = {id: gymnasium.registry[id] for id in IDS}
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        register()
    assert all(gymnasium.registry[id] is spec for id, spec in before.items())


@pytest.mark.parametrize("id", IDS)
def test_the_table_and_the_classes_agree(id):
    env, entry = device_env(id), ENTRIES[id]
    assert isinstance(env, DeviceEnv)
    assert env.id == id
    assert env.max_episode_steps == entry.max_episode_steps
    assert env.reward_threshold == entry.reward_threshold
    assert entry.path == f"{type(env).__module__}:{type(env).__name__}"
    assert is_ours(env)
    assert changed_fields(env) == {}


@pytest.mark.parametrize("id", IDS)
def test_gymnasiums_checker(id, monkeypatch):
    monkeypatch.setenv("SDL_VIDEODRIVER", "dummy")
    env = gymnasium.make(id).unwrapped
    assert env.metadata["render_modes"] == ["human", "rgb_array", "ansi"]
    with warnings.catch_warnings():
        # Bounds that are the nature of the task, as in Gymnasium's own environments of that name.
        warnings.filterwarnings("ignore", message=r".*(infinity|symmetric and normalized)")
        warnings.simplefilter("error", append=True)
        check_env(env)


@pytest.mark.parametrize("id", IDS)
def test_one_and_many_run(id):
    limit = ENTRIES[id].max_episode_steps
    one, many = gymnasium.make(id), gymnasium.make_vec(id, 3)
    assert isinstance(one.unwrapped, GymEnv)
    assert isinstance(many, GymVectorEnv)
    assert many.env.max_episode_steps == limit
    assert one.spec.max_episode_steps == limit
    assert one.spec.to_json()
    many.action_space.seed(0)
    obs, _ = many.reset(seed=0)
    assert many.observation_space.contains(obs)
    for _ in range(20):
        obs, reward, *_ = many.step(many.action_space.sample())
        assert many.observation_space.contains(obs)
        assert np.isfinite(reward).all()


def test_time_limits():
    id = "renshu/Pendulum-v1"
    for kwargs, limit in (({}, 200), ({"max_episode_steps": None}, 200), ({"max_episode_steps": 7}, 7)):
        assert gymnasium.make_vec(id, 2, **kwargs).env.max_episode_steps == limit
        assert device_env(id, **kwargs).max_episode_steps == limit
        env = gymnasium.make(id, **kwargs)
        env.reset(seed=0)
        assert next(n for n in range(1, 300) if env.step([0.0])[3]) == limit
    assert gymnasium.make_vec(id, 2, max_episode_steps=-1).env.max_episode_steps is None
    assert device_env(id, max_episode_steps=-1).max_episode_steps is None
    with pytest.raises(HyperparameterError, match="max_episode_steps=0"):
        gymnasium.make_vec(id, max_episode_steps=0)


def test_settings():
    env = device_env("renshu/Rocket-v0", x=1.0, v=0.0, max_episode_steps=9)
    assert changed_fields(env) == {"x": 1.0, "v": 0.0, "max_episode_steps": 9}
    assert changed_fields(with_limit(env, -1)) == {"x": 1.0, "v": 0.0, "max_episode_steps": -1}
    assert with_limit(env, 9) is env
    again = device_env("renshu.envs.gymnasium.registration:renshu/Rocket-v0", **changed_fields(env))
    assert (again, again.max_episode_steps) == (env, 9)
    spec = gymnasium.make("renshu/Rocket-v0", x=0.5).spec
    assert device_env(spec.id, **spec.kwargs) == device_env("renshu/Rocket-v0", x=0.5)


def test_wrong_settings_name_the_right_ones():
    names = ", ".join(field.name for field in fields(device_env("renshu/Rocket-v0")))
    for make in (device_env, gymnasium.make, gymnasium.make_vec):
        with pytest.raises(HyperparameterError, match=f"no setting speed. Its settings: {names}, max_episode_steps"):
            make("renshu/Rocket-v0", speed=3)


def test_what_is_not_ours():
    assert device_env("CartPole-v1") is None
    assert device_env("renshu/Rocket-v9") is None

    class Rocket(type(device_env("renshu/Rocket-v0"))):
        pass

    assert not is_ours(Rocket())
    with pytest.raises(UnknownNameError, match="'os:system'"):
        gymnasium.make("renshu/Rocket-v0", device_env="os:system")
