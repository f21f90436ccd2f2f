"""Numbers in the `info` of an episode's last step: from both kinds of environment to reports and evaluations."""

from dataclasses import dataclass
from typing import NamedTuple

import gymnasium
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from gymnasium import spaces

from renshu import A2C
from renshu.envs.device import DeviceEnv, Step
from renshu.errors import SpaceError
from renshu.loops.report import info_numbers

TINY = A2C(n_steps=5, net_arch=[4])


class Reached(gymnasium.Env):
    """Episodes of four steps; the third of each environment, and each after it, succeeds."""

    observation_space = spaces.Box(-1.0, 1.0, (2,), np.float32)
    action_space = spaces.Discrete(2)
    episodes = t = 0

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.t = 0
        self.episodes += 1
        return np.zeros(2, np.float32), {"is_success": False}

    def step(self, action):
        self.t += 1
        info = {"t": self.t, "words": "none", "where": np.zeros(3), "nested": {"x": 1.0}}
        if self.t == 4:
            info |= {"is_success": self.episodes >= 3, "energy": np.float32(0.5)}
        return np.zeros(2, np.float32), 1.0, self.t == 4, False, info


class Place(NamedTuple):
    t: jax.Array


@dataclass(frozen=True)
class Half(DeviceEnv):
    """Episodes of four steps, of which half succeed by chance."""

    shape: tuple[int, ...] = ()
    observation_space = spaces.Box(-1.0, 1.0, (2,), np.float32)
    action_space = spaces.Discrete(2)
    max_episode_steps = 4

    def reset(self, key):
        return Place(jnp.int32(0)), jnp.zeros(2)

    def step(self, state, action, key):
        t = state.t + 1
        info = {"is_success": jax.random.bernoulli(key, 0.5, self.shape), "t": t}
        return Step(Place(t), jnp.zeros(2), jnp.float32(1.0), jnp.bool_(False), info=info)


def test_training_reports_success_and_other_numbers(tmp_path):
    agent = TINY.on(Reached, num_envs=2, seed=0)
    seen: list[dict] = []
    agent.learn(200, progress=False, callbacks=[lambda agent, metrics: seen.append(metrics)], run=tmp_path / "run")
    assert set(agent.recent_info) == {"is_success", "energy", "t"}
    success = list(agent.recent_info["is_success"])
    assert success == sorted(success)
    assert 2 <= success.count(0.0) <= 4, "environments may be reset once more before training"
    assert success.count(1.0) > 20
    assert set(agent.recent_info["t"]) == {4}
    assert seen[-1]["success_rate"] == pytest.approx(np.mean(success))
    assert (seen[-1]["info/energy"], seen[-1]["info/t"]) == (0.5, 4)
    assert "success_rate" in (tmp_path / "run" / "metrics.csv").read_text()


@pytest.mark.parametrize("processes", [False, True])
def test_evaluation_shows_the_share_of_successes(processes):
    agent = TINY.on(Reached, num_envs=1, seed=0, processes=processes)
    found = agent.evaluate(4, num_envs=1)
    assert list(found.info["is_success"]) == [0, 0, 1, 1]
    assert found.success_rate == 0.5
    assert str(found) == "4.00 ± 0.00, success 50%"
    assert "success_rate=0.50" in repr(found)


def test_without_successes_nothing_is_shown():
    agent = TINY.on("renshu/CartPole-v1", seed=0)
    found = agent.evaluate(2)
    assert found.info == {}
    assert found.success_rate is None
    assert "success" not in str(found) + repr(found)


def test_both_loops_report_the_same():
    agents = [
        TINY.on(Half(), num_envs=3, seed=2, loop=loop).learn(400, progress=False) for loop in ("host", "compiled")
    ]
    host, compiled = ({name: list(x) for name, x in agent.recent_info.items()} for agent in agents)
    assert host == compiled
    assert set(host["t"]) == {4}
    assert 0.2 < np.mean(host["is_success"]) < 0.8
    assert agents[1].evaluate(40).success_rate == pytest.approx(0.5, abs=0.3)


def test_info_of_a_device_env_is_numbers():
    with pytest.raises(SpaceError, match=r"info.'is_success'. of a step must be one number"):
        TINY.on(Half(shape=(2,)), num_envs=3, loop="compiled").learn(20, progress=False)


def test_numbers_are_told_from_the_rest():
    infos = {
        **{"a": np.array([1, 2]), "_a": np.array([True, False]), "b": np.array([True, False]), "c": [1, 2]},
        **{"d": np.array(["x", 1.5], object), "action_mask": np.ones(2), "e": np.ones((2, 3)), "f": {"g": np.ones(2)}},
    }
    assert info_numbers(infos, 0) == {"a": 1.0, "b": 1.0}
    assert info_numbers(infos, 1) == {"b": 0.0, "d": 1.5}
