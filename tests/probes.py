"""Probe environments: each is solved only by an agent whose one part is right. Episodes take a few steps."""

from __future__ import annotations

from typing import Any

import gymnasium
import numpy as np
from gymnasium import spaces


class Probe(gymnasium.Env):
    """Observations are vectors of one number; `action_space` is given."""

    def __init__(self, action_space: spaces.Space | None = None) -> None:
        self.observation_space = spaces.Box(-2.0, 2.0, (1,), np.float32)
        self.action_space = action_space or spaces.Discrete(2)

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None):
        super().reset(seed=seed)
        self.t = 0
        self.sign = float(self.np_random.choice([-1.0, 1.0]))
        return self.observe(), {}

    def observe(self) -> np.ndarray:
        return np.array([self.sign], np.float32)


class Value(Probe):
    """One step; the reward is the observation. V(s) = s."""

    def step(self, action):
        return self.observe(), self.sign, True, False, {}


class Discount(Probe):
    """Two steps, a reward of 1 after the second. V(second) = 1, V(first) = gamma."""

    def observe(self) -> np.ndarray:
        return np.array([float(self.t)], np.float32)

    def step(self, action):
        self.t += 1
        return self.observe(), float(self.t == 2), self.t == 2, False, {}


class Policy(Probe):
    """One step; the action must agree with the observation: 1 (or all 1, or +0.5) for +1, 0 (or -0.5) for -1."""

    def step(self, action):
        right = self.sign > 0
        if isinstance(self.action_space, spaces.Box):
            reward = -float(np.abs(np.asarray(action) - 0.5 * self.sign).mean())
        else:
            reward = float(np.mean(np.asarray(action) == right))
        return self.observe(), reward, True, False, {}


class Exploration(Probe):
    """A corridor: left ends with 0.1 at once, right leads to 1 at its end. Greed on what is found first fails."""

    def observe(self) -> np.ndarray:
        return np.array([self.t / 2 - 1], np.float32)

    def step(self, action):
        if action == 0:
            return self.observe(), 0.1, True, False, {}
        self.t += 1
        return self.observe(), float(self.t == 4), self.t == 4, False, {}


class TimeLimit(Probe):
    """A reward of 1 for ever, cut off after 5 steps, which the observation does not tell. V = 1 / (1 - gamma)."""

    def observe(self) -> np.ndarray:
        return np.zeros(1, np.float32)

    def step(self, action):
        self.t += 1
        return self.observe(), 1.0, False, self.t == 5, {}
