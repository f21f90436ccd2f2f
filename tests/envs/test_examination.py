"""Examination of environments: each kind of fault is found, and a good environment has none."""

import gymnasium
import numpy as np
import pytest
from gymnasium import spaces
from typer.testing import CliRunner

from renshu import check_env
from renshu.cli import app
from renshu.errors import HyperparameterError


class Plain(gymnasium.Env):
    """A good environment; each argument spoils something."""

    action_space = spaces.Discrete(2)

    def __init__(self, scale=1.0, reward=1.0, high=1.0, ends=True, chance=False, bad=False, actions=None):
        self.scale, self.gain, self.ends, self.chance, self.bad = scale, reward, ends, chance, bad
        self.observation_space = spaces.Box(-high, high, (2,), np.float32)
        self.action_space = actions or spaces.Discrete(2)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.t = 0
        return self.seen(), {}

    def seen(self):
        noise = np.random.uniform if self.chance else self.np_random.uniform
        values = self.scale * np.asarray(noise(-1, 1, 2), np.float32)
        return np.where(self.bad and self.t == 7, np.nan, values).astype(np.float32)

    def step(self, action):
        self.t += 1
        return self.seen(), self.gain, self.ends and self.t == 10, False, {}


def test_a_good_environment():
    found = check_env(Plain(), steps=200)
    assert found.ok
    assert {finding.level for finding in found.findings} == {"fine"}
    text = str(found)
    assert text.startswith("Plain\n")
    assert "random episodes take 10 steps, 0 of 20 cut off" in text
    assert "steps a second" in text


@pytest.mark.parametrize(
    ("spoiled", "level", "text"),
    [
        ({"scale": 2.0}, "error", "lie outside of Box"),
        ({"scale": 100.0, "high": 1000.0}, "warning", "norm_obs=True"),
        ({"reward": 500.0}, "warning", "rewards reach 500: norm_reward=True"),
        ({"reward": 0.0}, "warning", "no reward in 200 random steps"),
        ({"reward": float("nan")}, "error", "rewards hold NaN"),
        ({"ends": False}, "warning", "no time limit: max_episode_steps= sets one"),
        ({"chance": True}, "warning", "give other episodes: draw all chance from self.np_random"),
        ({"bad": True}, "error", "hold NaN or infinity"),
        ({"actions": spaces.Box(-np.inf, np.inf, (1,))}, "warning", "have no bounds"),
        ({"actions": spaces.Tuple([spaces.Discrete(2)])}, "error", "make them a Box, Discrete"),
    ],
    ids=lambda x: "-".join(x) if isinstance(x, dict) else "",
)
def test_each_fault_is_found(spoiled, level, text):
    found = check_env(lambda: Plain(**spoiled), steps=200)
    assert any(finding.level == level and text in finding.text for finding in found.findings), str(found)
    assert found.ok == all(finding.level != "error" for finding in found.findings)


def test_in_the_shell():
    done = CliRunner().invoke(app, ["check", "CartPole-v1", "--steps", "300"])
    assert done.exit_code == 0
    assert "CartPole-v1" in done.output
    assert "the same seed and actions give the same episodes" in done.output


class Old(Plain):
    """Four values from a step, as before Gymnasium."""

    def step(self, action):
        return super().step(action)[:4]


class Falls(Plain):
    """Raises in the third step."""

    def step(self, action):
        if self.t == 2:
            raise ValueError("the robot fell over")
        return super().step(action)


class Masked(Plain):
    """Allows action 1 alone, and raises for the other."""

    def reset(self, **how):
        return super().reset(**how)[0], {"action_mask": np.array([0, 1], np.int8)}

    def step(self, action):
        assert action == 1
        return *super().step(action)[:4], {"action_mask": np.array([0, 1], np.int8)}


@pytest.mark.parametrize(("env", "text"), [(Old, "returned"), (Falls, "the robot fell over")])
def test_what_is_broken_is_an_error_and_no_traceback(env, text):
    found = check_env(env, steps=50)
    assert not found.ok
    assert any(finding.level == "error" and text in finding.text for finding in found.findings), str(found)


def test_masks_are_kept_to():
    assert not any("AssertionError" in finding.text for finding in _by_random_steps(check_env(Masked, steps=50)))


def _by_random_steps(found):
    # Gymnasium's own checker knows no masks.
    return [finding for finding in found.findings if "own checker" not in finding.text]


def test_no_steps_are_refused():
    with pytest.raises(HyperparameterError, match="at least 1"):
        check_env(Plain, steps=0)
