"""Gymnasium's classic control tasks as pure functions in float32, equal to Gymnasium's step for step.

Units are metres, kilograms, seconds and radians where a task has any. Constants of the dynamics are fields, each with
Gymnasium's value; a field that is not a finite number, or not above 0 where it must be, raises HyperparameterError.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from itertools import pairwise
from math import atan, cos, degrees, isfinite, pi, remainder, sin
from typing import Any, NamedTuple, cast

import jax
import jax.numpy as jnp
import numpy as np
from gymnasium import spaces

from renshu.envs.builtin.drawing import box, canvas, disc, line
from renshu.envs.device import DeviceEnv, Step
from renshu.errors import HyperparameterError
from renshu.types import Array, Key

BLACK, GREY, BLUE = (0, 0, 0), (128, 128, 128), (50, 90, 200)
RED, BROWN, YELLOW, CYAN = (204, 77, 77), (202, 152, 101), (204, 204, 0), (0, 204, 204)

SIGNED = ("gravity", "g", "goal_position", "goal_velocity")
"""Fields that may be 0 or negative; all others are above 0."""

X_LIMIT, THETA_LIMIT = 2.4, 12 * 2 * pi / 360
"""Limits on the cart's position and the pole's angle in CartPole, in metres and radians; beyond them it ends."""

MAX_VEL_1, MAX_VEL_2 = 4 * pi, 9 * pi
"""Limits at which Acrobot's angular velocities are clipped, in radians per second."""

MIN_POSITION, MAX_POSITION, MAX_SPEED = -1.2, 0.6, 0.07
"""Ends of the mountain car's valley, and the car's maximum speed."""


def _within(*high: float) -> spaces.Box:
    """Return the space of float32 vectors within plus or minus these bounds."""
    return spaces.Box(-np.array(high, np.float32), np.array(high, np.float32))


class _Classic(DeviceEnv):
    """A DeviceEnv that checks its numeric fields."""

    def __post_init__(self) -> None:
        for field in dataclasses.fields(cast(Any, self)):
            value, free = getattr(self, field.name), field.name in SIGNED
            if not isinstance(value, int | float) or not isfinite(value) or not (free or value > 0):
                wanted = "a finite number" if free else "a finite number above 0"
                raise HyperparameterError(f"{type(self).__name__}: {field.name} is {wanted}, not {value!r}")


class CartPoleState(NamedTuple):
    """Cart and pole, each [] float32."""

    x: Array  # position of the cart, metres
    x_dot: Array
    theta: Array  # angle of the pole, radians clockwise from upright
    theta_dot: Array


@dataclass(frozen=True, kw_only=True)
class CartPole(_Classic):
    """Keep a pole upright on a cart that is pushed left (0) or right (1) at every step. The reward is 1 per step.

    Observation: x, x_dot, theta, theta_dot, [4] float32. Ends when |x| passes 2.4 m or |theta| passes 12 degrees.
    gravity (m/s^2), masscart and masspole (kg), length (half the pole's, m), force_mag (N), tau (s per step, Euler).
    Source: Barto, Sutton and Anderson, Neuronlike adaptive elements (1983), as in Gymnasium's CartPole-v1.
    """

    gravity: float = 9.8
    masscart: float = 1.0
    masspole: float = 0.1
    length: float = 0.5
    force_mag: float = 10.0
    tau: float = 0.02

    id = "renshu/CartPole-v1"
    max_episode_steps = 500
    reward_threshold = 475.0
    observation_space = _within(2 * X_LIMIT, np.inf, 2 * THETA_LIMIT, np.inf)
    action_space = spaces.Discrete(2)

    def reset(self, key: Key) -> tuple[CartPoleState, Array]:
        """Begin with all four numbers uniform in +-0.05."""
        start = jax.random.uniform(key, (4,), jnp.float32, -0.05, 0.05)
        return CartPoleState(*start), start

    def step(self, state: CartPoleState, action: Array, key: Key) -> Step:
        """Push to the right for action 1, else to the left, for `tau` seconds."""
        _, x_dot, theta, theta_dot = state
        per_mass, polemass_length = 1 / (self.masspole + self.masscart), self.masspole * self.length
        coupling = polemass_length * per_mass
        force = jnp.where(action == 1, self.force_mag, -self.force_mag)
        costheta, sintheta = jnp.cos(theta), jnp.sin(theta)
        temp = (force + polemass_length * theta_dot * theta_dot * sintheta) * per_mass
        thetaacc = (self.gravity * sintheta - costheta * temp) / (self.length * 4 / 3 - coupling * costheta * costheta)
        xacc = temp - coupling * thetaacc * costheta
        slope = (x_dot, xacc, theta_dot, thetaacc)
        after = CartPoleState(*(y + self.tau * dy for y, dy in zip(state, slope, strict=True)))
        terminated = (abs(after.x) > X_LIMIT) | (abs(after.theta) > THETA_LIMIT)
        return Step(after, jnp.stack(after), jnp.float32(1), terminated)

    def render(self, state: CartPoleState) -> np.ndarray:
        """Draw track, cart and pole from -2.4 m to 2.4 m, [400, 600, 3] uint8."""
        image, scale = canvas(400, 600), 600 / (2 * X_LIMIT)
        x, theta, pole = 300 + scale * float(state.x), float(state.theta), 2 * self.length * scale
        line(image, 0, 300, 600, 300, 1, BLACK)
        box(image, x - 25, 285, x + 25, 315, BLACK)
        line(image, x, 292, x + pole * sin(theta), 292 - pole * cos(theta), 10, BROWN)
        disc(image, x, 292, 5, BLUE)
        return image

    def text(self, state: CartPoleState) -> str:
        """Show the four numbers, angles in degrees."""
        return (
            f"position {float(state.x):+.3f} m  velocity {float(state.x_dot):+.3f} m/s\n"
            f"angle {_degrees(state.theta)}  angular velocity {_degrees(state.theta_dot)}/s"
        )


class PendulumState(NamedTuple):
    """A pendulum, each [] float32."""

    theta: Array  # radians counter-clockwise from upright, within a little more than +-pi
    theta_dot: Array
    torque: Array  # the last action, for the picture; 0 at the start


@dataclass(frozen=True, kw_only=True)
class Pendulum(_Classic):
    """Swing a pendulum up with a weak motor and hold it there. A step costs theta^2 + 0.1 theta_dot^2 + 0.001 torque^2.

    Observation: cos(theta), sin(theta), theta_dot, [3] float32. Action: the torque, Box(-2, 2, (1,)) float32, clipped.
    g (m/s^2), m (kg), l (m), dt (s per step, semi-implicit Euler). theta_dot stays within +-8.
    The angle is wrapped to one turn at every step, whereas Gymnasium lets it grow: float32 would lose digits.
    Source: Gymnasium's Pendulum-v1.
    """

    g: float = 10.0
    m: float = 1.0
    l: float = 1.0  # noqa: E741  Gymnasium's name
    dt: float = 0.05

    id = "renshu/Pendulum-v1"
    max_episode_steps = 200
    observation_space = _within(1, 1, 8)
    action_space = spaces.Box(-2, 2, (1,), np.float32)

    def reset(self, key: Key) -> tuple[PendulumState, Array]:
        """Begin at any angle, with an angular velocity uniform in +-1."""
        theta, theta_dot = jax.random.uniform(key, (2,), jnp.float32, -1, 1) * jnp.array([pi, 1], jnp.float32)
        state = PendulumState(theta, theta_dot, jnp.float32(0))
        return state, _observe(state[:1], state[1:2])

    def step(self, state: PendulumState, action: Array, key: Key) -> Step:
        """Apply the torque for `dt` seconds; the cost is that of the state before."""
        theta, theta_dot = _one_turn(state.theta), state.theta_dot
        torque = jnp.float32(action[0]).clip(-2, 2)
        cost = theta * theta + 0.1 * theta_dot * theta_dot + 0.001 * torque * torque
        fall, push = 3 * self.g / (2 * self.l) * self.dt, 3 / (self.m * self.l**2) * self.dt
        theta_dot = (theta_dot + fall * jnp.sin(theta) + push * torque).clip(-8, 8)
        after = PendulumState(theta + theta_dot * self.dt, theta_dot, torque)
        return Step(after, _observe(after[:1], after[1:2]), -cost, jnp.bool_(False))

    def render(self, state: PendulumState) -> np.ndarray:
        """Draw the rod, and the torque as an arc around its axle, [400, 400, 3] uint8."""
        image, length = canvas(400, 400), 400 / 4.4
        theta, torque = float(state.theta), float(state.torque)
        line(image, 200, 200, 200 - length * sin(theta), 200 - length * cos(theta), 0.2 * length, RED)
        if torque:
            arc = [(200 - 35 * sin(turn), 200 - 35 * cos(turn)) for turn in np.linspace(0, torque, 9)]
            for (x0, y0), (x1, y1) in pairwise(arc):
                line(image, x0, y0, x1, y1, 3, GREY)
            disc(image, *arc[-1], 5, GREY)
        disc(image, 200, 200, 0.05 * length, BLACK)
        return image

    def text(self, state: PendulumState) -> str:
        """Show angle (0 is upright) and angular velocity in degrees, and the torque."""
        return (
            f"angle {_degrees(remainder(float(state.theta), 2 * pi))}  angular velocity {_degrees(state.theta_dot)}/s\n"
            f"torque {float(state.torque):+.2f} N m"
        )


class AcrobotState(NamedTuple):
    """Two links, each [] float32."""

    theta1: Array  # angle of the first link, radians counter-clockwise from hanging down, +-pi
    theta2: Array  # angle of the second relative to the first, +-pi
    dtheta1: Array
    dtheta2: Array


@dataclass(frozen=True, kw_only=True)
class Acrobot(_Classic):
    """Swing two links up with a motor between them until the tip is one link above the axle, at -1 a step, 0 there.

    Observation: cos and sin of theta1, cos and sin of theta2, dtheta1, dtheta2, [6] float32. Action: 0, 1 or 2 for a
    torque of -1, 0 or 1 N m. Velocities are clipped at 4 pi and 9 pi. A step of `dt` seconds is one step of RK4.
    gravity (m/s^2); link_length, link_com (position of the centre of mass), link_mass and link_moi apply to both links.
    Source: Sutton, Generalization in reinforcement learning (1996), by the "book" equations in Gymnasium's Acrobot-v1.
    """

    gravity: float = 9.8
    link_length: float = 1.0
    link_com: float = 0.5
    link_mass: float = 1.0
    link_moi: float = 1.0
    dt: float = 0.2

    id = "renshu/Acrobot-v1"
    max_episode_steps = 500
    reward_threshold = -100.0
    observation_space = _within(1, 1, 1, 1, MAX_VEL_1, MAX_VEL_2)
    action_space = spaces.Discrete(3)

    def reset(self, key: Key) -> tuple[AcrobotState, Array]:
        """Begin with all four numbers uniform in +-0.1, hanging down."""
        state = AcrobotState(*jax.random.uniform(key, (4,), jnp.float32, -0.1, 0.1))
        return state, _observe(state[:2], state[2:])

    def step(self, state: AcrobotState, action: Array, key: Key) -> Step:
        torque, dt = jnp.float32(action) - 1, self.dt

        def ahead(slope: AcrobotState, time: float) -> AcrobotState:
            return AcrobotState(*(y + time * k for y, k in zip(state, slope, strict=True)))

        k1 = self._slope(state, torque)
        k2 = self._slope(ahead(k1, dt / 2), torque)
        k3 = self._slope(ahead(k2, dt / 2), torque)
        k4 = self._slope(ahead(k3, dt), torque)
        mean = AcrobotState(*(a + 2 * (b + c) + d for a, b, c, d in zip(k1, k2, k3, k4, strict=True)))
        theta1, theta2, dtheta1, dtheta2 = ahead(mean, dt / 6)
        dtheta1, dtheta2 = dtheta1.clip(-MAX_VEL_1, MAX_VEL_1), dtheta2.clip(-MAX_VEL_2, MAX_VEL_2)
        after = AcrobotState(_one_turn(theta1), _one_turn(theta2), dtheta1, dtheta2)
        obs = _observe(after[:2], after[2:])
        cos1, sin1, cos2, sin2 = obs[:4]
        terminated = -cos1 - (cos1 * cos2 - sin1 * sin2) > 1  # cos(theta1 + theta2) without another cosine
        return Step(after, obs, jnp.where(terminated, 0, jnp.float32(-1)), terminated)

    def _slope(self, y: AcrobotState, torque: Array) -> AcrobotState:
        """Compute a state's derivative by the book's equations, solved for both accelerations with one division."""
        l, lc, m, moi = self.link_length, self.link_com, self.link_mass, self.link_moi  # noqa: E741
        b, e = m * l * lc, m * lc**2 + moi
        cos2, sin2 = jnp.cos(y.theta2), b * jnp.sin(y.theta2)
        d1, d2 = 2 * e + m * l**2 + 2 * b * cos2, e + b * cos2
        phi2 = m * lc * self.gravity * jnp.sin(y.theta1 + y.theta2)
        phi1 = phi2 + m * (lc + l) * self.gravity * jnp.sin(y.theta1) - sin2 * y.dtheta2 * (y.dtheta2 + 2 * y.dtheta1)
        rest = torque - sin2 * y.dtheta1 * y.dtheta1 - phi2
        scale = 1 / (d1 * e - d2 * d2)
        return AcrobotState(y.dtheta1, y.dtheta2, -(d2 * rest + e * phi1) * scale, (d1 * rest + d2 * phi1) * scale)

    def render(self, state: AcrobotState) -> np.ndarray:
        """Draw both links, and the height that the tip must reach, [400, 400, 3] uint8."""
        image, length = canvas(400, 400), 400 / 4.4
        x, y, angle = 200.0, 200.0, 0.0
        line(image, 0, 200 - length, 400, 200 - length, 1, BLACK)
        for theta in (float(state.theta1), float(state.theta2)):
            angle += theta
            tip_x, tip_y = x + length * sin(angle), y + length * cos(angle)
            line(image, x, y, tip_x, tip_y, 0.2 * length, CYAN)
            disc(image, x, y, 0.1 * length, YELLOW)
            x, y = tip_x, tip_y
        return image

    def text(self, state: AcrobotState) -> str:
        """Show angles (0 is hanging down, and in line with the first link) and angular velocities in degrees."""
        first, second = float(state.theta1), float(state.theta2)
        return (
            f"angles {_degrees(first)} {_degrees(second)}  height of the tip {-cos(first) - cos(first + second):+.2f}\n"
            f"angular velocities {_degrees(state.dtheta1)}/s {_degrees(state.dtheta2)}/s"
        )


class MountainCarState(NamedTuple):
    """A car in a valley, each [] float32, dimensionless."""

    position: Array  # -1.2 to 0.6; the bottom is at -pi / 6
    velocity: Array  # +-0.07 per step


@dataclass(frozen=True, kw_only=True)
class _Valley(_Classic):
    """Common part of both mountain cars: the valley, the start and the goal."""

    gravity: float = 0.0025
    goal_position: float = 0.5
    goal_velocity: float = 0.0

    observation_space = spaces.Box(*np.array([[MIN_POSITION, -MAX_SPEED], [MAX_POSITION, MAX_SPEED]], np.float32))

    def reset(self, key: Key) -> tuple[MountainCarState, Array]:
        """Begin at rest, at a position uniform in -0.6 to -0.4."""
        state = MountainCarState(jax.random.uniform(key, (), jnp.float32, -0.6, -0.4), jnp.float32(0))
        return state, jnp.stack(state)

    def _drive(self, state: MountainCarState, push: Array) -> tuple[MountainCarState, Array]:
        """Return the state after one step, and whether the car has arrived. The wall on the left stops it."""
        velocity = (state.velocity + push - self.gravity * jnp.cos(3 * state.position)).clip(-MAX_SPEED, MAX_SPEED)
        position = (state.position + velocity).clip(MIN_POSITION, MAX_POSITION)
        velocity = jnp.where((position <= MIN_POSITION) & (velocity < 0), 0, velocity)
        arrived = (position >= self.goal_position) & (velocity >= self.goal_velocity)
        return MountainCarState(position, velocity), arrived

    def render(self, state: MountainCarState) -> np.ndarray:
        """Draw valley, car and flag, [400, 600, 3] uint8."""
        image = canvas(400, 600)
        for (x0, y0), (x1, y1) in pairwise(_ground(x) for x in np.linspace(MIN_POSITION, MAX_POSITION, 41)):
            line(image, x0, y0, x1, y1, 2, BLACK)
        x, y = _ground(self.goal_position)
        line(image, x, y, x, y - 50, 2, BLACK)
        line(image, x + 3, y - 46, x + 20, y - 46, 8, YELLOW)
        position = float(state.position)
        x, y = _ground(position)
        slope = atan(3 * 0.45 * cos(3 * position))

        def place(along: float, up: float) -> tuple[float, float]:
            return x + along * cos(slope) - up * sin(slope), y - along * sin(slope) - up * cos(slope)

        line(image, *place(-12, 18), *place(12, 18), 16, BLUE)
        for side in (-12, 12):
            disc(image, *place(side, 8), 8, GREY)
        return image

    def text(self, state: MountainCarState) -> str:
        """Show position, goal and velocity."""
        position, velocity = map(float, state)
        return f"position {position:+.3f}, the goal is {self.goal_position:+.2f}  velocity {velocity:+.4f}"


@dataclass(frozen=True, kw_only=True)
class MountainCar(_Valley):
    """Drive an underpowered car out of a valley by swinging: push left (0), not at all (1) or right (2), at -1 a step.

    Observation: position and velocity, [2] float32. Ends at `goal_position`, at no less than `goal_velocity`.
    force and gravity: change of velocity in a step by a push and by the slope.
    Source: Moore, Efficient memory-based learning for robot control (1990), as in Gymnasium's MountainCar-v0.
    """

    force: float = 0.001

    id = "renshu/MountainCar-v0"
    max_episode_steps = 200
    reward_threshold = -110.0
    action_space = spaces.Discrete(3)

    def step(self, state: MountainCarState, action: Array, key: Key) -> Step:
        after, arrived = self._drive(state, (jnp.float32(action) - 1) * self.force)
        return Step(after, jnp.stack(after), jnp.float32(-1), arrived)


@dataclass(frozen=True, kw_only=True)
class MountainCarContinuous(_Valley):
    """Drive an underpowered car out of a valley with little fuel: a step costs 0.1 action^2, and arriving earns 100.

    Observation: position and velocity, [2] float32. Action: the push, Box(-1, 1, (1,)) float32, clipped except in its
    cost. Ends at `goal_position`, at no less than `goal_velocity`.
    power and gravity: change of velocity in a step by a push of 1 and by the slope.
    Source: Gymnasium's MountainCarContinuous-v0.
    """

    goal_position: float = 0.45
    power: float = 0.0015

    id = "renshu/MountainCarContinuous-v0"
    max_episode_steps = 999
    reward_threshold = 90.0
    action_space = spaces.Box(-1, 1, (1,), np.float32)

    def step(self, state: MountainCarState, action: Array, key: Key) -> Step:
        push = jnp.float32(action[0])
        after, arrived = self._drive(state, push.clip(-1, 1) * self.power)
        return Step(after, jnp.stack(after), jnp.where(arrived, 100, jnp.float32(0)) - 0.1 * push * push, arrived)


def _one_turn(angle: Array) -> Array:
    """Wrap an angle to within +-pi."""
    return angle - 2 * pi * jnp.round(angle * (1 / (2 * pi)))


def _observe(angles: tuple[Array, ...], velocities: tuple[Array, ...]) -> Array:
    """Stack cosine and sine of each angle, then the velocities, into one vector."""
    return jnp.stack([*(f(angle) for angle in angles for f in (jnp.cos, jnp.sin)), *velocities])


def _degrees(angle: Array | float) -> str:
    return f"{degrees(float(angle)):+.1f}°"


def _ground(position: float) -> tuple[float, float]:
    """Return the pixel at which the valley's ground is drawn; its height is 0.55 + 0.45 sin(3 position)."""
    scale = 600 / (MAX_POSITION - MIN_POSITION)
    return scale * (position - MIN_POSITION), 400 - scale * (0.55 + 0.45 * sin(3 * position))
