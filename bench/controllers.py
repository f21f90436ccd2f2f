"""Classical controllers of the rocket's double integrator, x' = v, v' = thrust: PID, and a linear-quadratic regulator.

Both are policies for one flight: called with an observation `[x, v]` they return the thrust, cut off at +-1.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np


@dataclass
class PID:
    """Proportional, integral and derivative control towards x = 0. It keeps the integral, so use one object per flight.

    By default the gains put all three poles of the closed loop at -w for w = 2 per second: (s + w)^3 = s^3 + 3 w s^2 +
    3 w^2 s + w^3 gives its derivative, proportional and integral gain. The derivative is that of the measured position,
    which is the velocity. The integral stands still while the thrust is cut off, because otherwise it would wind up.
    dt: seconds between two calls.
    """

    kp: float = 3 * 2.0**2
    ki: float = 2.0**3
    kd: float = 3 * 2.0
    dt: float = 0.01
    integral: float = 0.0

    def __call__(self, obs: Sequence[float] | np.ndarray) -> float:
        """Return the thrust, -1 to 1."""
        x, v = obs
        wanted = -self.kp * x - self.ki * (self.integral + x * self.dt) - self.kd * v
        if abs(wanted) <= 1:
            self.integral += x * self.dt
        return float(np.clip(wanted, -1, 1))


@dataclass
class LQR:
    """The linear law of least cost where each step costs x^2 + 0.1 v^2 + r thrust^2 and thrust is not limited.

    r: price of thrust; 0.001 makes it the cost of `Rocket(reward="rest")`. dt: seconds per step of constant thrust.
    Source: the discrete algebraic Riccati equation, iterated from the cost of one step.
    """

    r: float = 0.001
    dt: float = 0.01

    def __post_init__(self) -> None:
        a = np.array([[1, self.dt], [0, 1]])
        b = np.array([[self.dt**2 / 2], [self.dt]])
        cost = np.diag([1.0, 0.1])
        p, change = cost, np.inf
        while change > 1e-9:
            self.gains = np.linalg.solve(self.r + b.T @ p @ b, b.T @ p @ a)
            after = cost + a.T @ p @ (a - b @ self.gains)
            p, change = after, np.abs(after - p).max()

    def __call__(self, obs: Sequence[float] | np.ndarray) -> float:
        """Return the thrust, -1 to 1."""
        return float(np.clip(-self.gains[0] @ np.asarray(obs, float), -1, 1))
