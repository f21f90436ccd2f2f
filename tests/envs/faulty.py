"""Environments that do one thing wrong, at a step of your choice, and otherwise count their steps."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable
from typing import Any

import gymnasium
import numpy as np
from gymnasium import spaces
from gymnasium.vector import AutoresetMode, VectorEnv

OBS = np.zeros(4, np.float32)


class Counting(gymnasium.Env):
    """Observation [4] float32 of the step number; episodes of `length` steps; reward is the step number.

    `fault(step)` is called in each step before it returns and may raise, never come back, or return a tuple to return
    in place of (observation, reward, terminated, truncated, info); None changes nothing. `at_reset` is the same for
    (observation, info).
    """

    action_space = spaces.Discrete(2)

    def __init__(
        self,
        fault: Callable[[int], Any] | None = None,
        length: int = 10,
        at_reset: Callable[[], Any] | None = None,
        observation_space: spaces.Space | None = None,
        render_mode: str | None = None,
    ) -> None:
        self.observation_space = observation_space or spaces.Box(-np.inf, np.inf, (4,))
        self.fault, self.length, self.at_reset, self.render_mode = fault, length, at_reset, render_mode
        self.count = 0
        self.closed = False

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> Any:
        super().reset(seed=seed)
        self.count = 0
        result = self.at_reset() if self.at_reset else None
        return (OBS.copy(), {}) if result is None else result

    def step(self, action: Any) -> Any:
        self.count += 1
        result = self.fault(self.count) if self.fault else None
        if result is not None:
            return result
        obs = np.full(4, self.count, np.float32)
        return obs, float(self.count), self.count >= self.length, False, {"noise": object()}

    def close(self) -> None:
        self.closed = True


class Reusing(Counting):
    """Returns the same observation array each time, changed in place."""

    def __init__(self) -> None:
        super().__init__(length=3)
        self.buffer = np.zeros(4, np.float32)

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> Any:
        super().reset(seed=seed)
        self.buffer[:] = 0
        return self.buffer, {}

    def step(self, action: Any) -> Any:
        self.buffer[:], *rest = super().step(action)
        return self.buffer, *rest


class Noisy(Counting):
    """Observations drawn from its own random numbers, episodes of random length."""

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> Any:
        super().reset(seed=seed)
        return self.np_random.normal(size=4).astype(np.float32), {}

    def step(self, action: Any) -> Any:
        obs = self.np_random.normal(size=4).astype(np.float32) + action
        return obs, float(obs[0]), bool(self.np_random.random() < 0.2), bool(self.np_random.random() < 0.2), {}


class Batch(VectorEnv):
    """A vector environment of two that returns `result` from step (None: what is right)."""

    metadata = {"autoreset_mode": AutoresetMode.NEXT_STEP}  # noqa: RUF012
    num_envs = 2
    single_observation_space = spaces.Box(-1, 1, (4,))
    single_action_space = spaces.Discrete(2)

    def __init__(self, result: Any = None, first: Any = None) -> None:
        self.result, self.first = result, first

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> Any:
        return (np.zeros((2, 4), np.float32), {}) if self.first is None else self.first

    def step(self, actions: Any) -> Any:
        if isinstance(self.result, Exception):
            raise self.result
        no = np.zeros(2, bool)
        return (np.zeros((2, 4), np.float32), np.zeros(2), no, no, {}) if self.result is None else self.result


def returning(value: Any, at: int = 3) -> Callable[[int], Any]:
    """Return `value` in step `at`."""
    return lambda step: value if step == at else None


def raising(step: int) -> None:
    if step == 3:
        raise ValueError("50% bad")


def exiting(step: int) -> None:
    if step == 3:
        sys.exit(7)


def dying(step: int) -> None:
    if step == 3:
        os._exit(3)


def hanging(step: int) -> None:
    if step == 3:
        time.sleep(600)
