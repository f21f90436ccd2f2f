"""A rocket on a line: bring it to the origin, at rest."""

from __future__ import annotations

from dataclasses import dataclass
from math import isfinite
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from gymnasium import spaces

from renshu.envs.builtin.drawing import box, canvas, disc, line
from renshu.envs.device import DeviceEnv, Step
from renshu.errors import HyperparameterError
from renshu.types import Array, Key

LIMIT = 2.0
"""Limit on |x| and |v|; beyond it the episode ends in failure."""

REWARDS = ("article", "rest")


class RocketState(NamedTuple):
    """Position and velocity of the rocket, and thrust of its engine."""

    x: Array  # [] float32  position
    v: Array  # [] float32  velocity
    thrust: Array  # [] float32  the last action, -1 to 1; 0 at the start


@dataclass(frozen=True)
class Rocket(DeviceEnv):
    """A rocket of mass 1 on a line without friction: x' = v, v' = thrust. All quantities are dimensionless.

    Observation: position and velocity, Box(-3, 3, (2,)) float32. Action: the thrust, Box(-1, 1, (1,)) float32, clipped.
    A step takes `dt`, integrated by the classical Runge-Kutta method (RK4) under constant thrust.

    x, v: values at the start of an episode, within +-2. None draws a size from 0.5 to 1 and a random sign.
    reward: the reward of a step, computed at the state that the step leads to.
      "article": 1 / (x^2 + 1), and -10 |v| while moving away from the origin (x v > 0), and 1 / (v^2 + 1) while moving
      toward it (x v < 0). It rewards moving, so that its best policy does not come to rest.
      "rest": -(x^2 + 0.1 v^2 + 0.001 thrust^2), the cost of a linear-quadratic regulator, whose best policy does.
    Either way, -500 is added and the episode ends when |x| or |v| passes 2.
    goal: True: +500 is added and the episode ends at the origin, where |x| and |v| are both at most `tolerance`.
      False: nothing happens there and the episode continues, so that keeping still can be learned and measured.
    tolerance: the largest |x| and |v| that count as the origin.
    dt: duration of a step.

    Raises HyperparameterError for an unknown reward, a start outside the limits, or a tolerance or dt that is not
    positive.
    """

    x: float | None = None
    v: float | None = None
    reward: str = "article"
    goal: bool = True
    tolerance: float = 0.05
    dt: float = 0.01

    id = "renshu/Rocket-v0"
    max_episode_steps = 500
    observation_space = spaces.Box(-3, 3, (2,), np.float32)
    action_space = spaces.Box(-1, 1, (1,), np.float32)

    def __post_init__(self) -> None:
        if self.reward not in REWARDS:
            raise HyperparameterError(f"reward is one of {', '.join(map(repr, REWARDS))}, not {self.reward!r}")
        for name, value in (("x", self.x), ("v", self.v)):
            if value is not None and not abs(value) <= LIMIT:
                raise HyperparameterError(f"{name} starts within +-{LIMIT:g}, or is None for random, not {value!r}")
        for name, value in (("tolerance", self.tolerance), ("dt", self.dt)):
            if not (isfinite(value) and value > 0):
                raise HyperparameterError(f"{name} is a number above 0, not {value!r}")

    def reset(self, key: Key) -> tuple[RocketState, Array]:
        """Begin at `x` and `v`, or at random; the observation is [2] float32."""
        x, v = (_start(given, jax.random.fold_in(key, i)) for i, given in enumerate((self.x, self.v)))
        return RocketState(x, v, jnp.float32(0)), jnp.stack([x, v])

    def step(self, state: RocketState, action: Array, key: Key) -> Step:
        """Fly for `dt` under constant thrust."""
        thrust = action[0].clip(-1, 1).astype(jnp.float32)
        x, v = _runge_kutta(jnp.stack([state.x, state.v]), thrust, self.dt)
        lost = (abs(x) > LIMIT) | (abs(v) > LIMIT)
        arrived = (abs(x) <= self.tolerance) & (abs(v) <= self.tolerance) & self.goal
        if self.reward == "article":
            away, toward = x * v > 0, x * v < 0
            reward = 1 / (x**2 + 1) + jnp.where(away, -10 * abs(v), jnp.where(toward, 1 / (v**2 + 1), 0))
        else:
            reward = -(x**2 + 0.1 * v**2 + 0.001 * thrust**2)
        reward = reward + jnp.where(lost, -500.0, 0.0) + jnp.where(arrived, 500.0, 0.0)
        return Step(RocketState(x, v, thrust), jnp.stack([x, v]), reward.astype(jnp.float32), lost | arrived)

    def render(self, state: RocketState) -> np.ndarray:
        """Draw the track from -2 to 2, its target, the rocket, its flame and its velocity, [120, 600, 3] uint8."""
        image = canvas(120, 600)
        x, thrust = _column(float(state.x)), float(state.thrust)
        line(image, 20, 90, 580, 90, 2, (0, 0, 0))
        for mark in range(-2, 3):
            line(image, _column(mark), 85, _column(mark), 95, 2, (0, 0, 0))
        line(image, 300, 30, 300, 84, 2, (60, 160, 60))
        disc(image, 300, 90, 6, (60, 160, 60))
        # The flame comes out at the back: thrust to the right is fire to the left.
        if abs(thrust) > 0.01:
            tail = x - np.sign(thrust) * 22
            line(image, tail, 70, tail - 40 * thrust, 70, 8, (240, 140, 30))
        box(image, x - 20, 60, x + 20, 80, (50, 90, 200))
        line(image, x, 50, x + 40 * float(state.v), 50, 3, (150, 150, 150))
        return image

    def text(self, state: RocketState) -> str:
        """Show the track in two lines: | the ends, + the target, O the rocket, < or > its flame; and the numbers."""
        x, v, thrust = float(state.x), float(state.v), float(state.thrust)
        track = [*"|", *"-" * 20, "+", *"-" * 20, *"|"]
        place = round((min(max(x, -LIMIT), LIMIT) + LIMIT) / (2 * LIMIT) * 40) + 1
        if abs(thrust) > 0.01:
            track[place - 1 if thrust > 0 else place + 1] = ">" if thrust > 0 else "<"
        track[place] = "O"
        return f"{''.join(track)}\nx {x:+.3f}  v {v:+.3f}  thrust {thrust:+.2f}"


def can_be_caught(x: Array, v: Array) -> Array:
    """Tell whether a Rocket at these positions and velocities, any shape, can still come to rest within its limits.

    Full braking comes to rest at x + v |v| / 2; from there the way back never needs |v| above the square root of 2.
    The time it takes is ignored: 3.45 units of time from the farthest random start, 4.83 from the farthest of all.
    """
    return (abs(x) <= LIMIT) & (abs(v) <= LIMIT) & (abs(x + v * abs(v) / 2) <= LIMIT)


def _start(given: float | None, key: Key) -> Array:
    """Return a starting value, [] float32: as given, or 0.5 to 1 in size with a random sign."""
    if given is not None:
        return jnp.float32(given)
    size = jax.random.uniform(key, dtype=jnp.float32, minval=0.5, maxval=1.0)
    return size * jax.random.rademacher(jax.random.fold_in(key, 0), (), jnp.float32)


def _runge_kutta(y: Array, thrust: Array, dt: float) -> Array:
    """Take one step of RK4 for y = [x, v] with y' = [v, thrust]."""

    def slope(y: Array) -> Array:
        return jnp.stack([y[1], thrust])

    k1 = slope(y)
    k2 = slope(y + dt / 2 * k1)
    k3 = slope(y + dt / 2 * k2)
    k4 = slope(y + dt * k3)
    return y + dt / 6 * (k1 + 2 * k2 + 2 * k3 + k4)


def _column(x: float) -> float:
    """Return the pixel column at which a position is drawn."""
    return 300 + 140 * x
