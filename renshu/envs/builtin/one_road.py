"""One road: a row of cells along which only one action leads to the goal."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from gymnasium import spaces

from renshu.envs.builtin.drawing import Colour, box, canvas, disc
from renshu.envs.device import DeviceEnv, Step
from renshu.errors import HyperparameterError
from renshu.types import Array, Key

ROAD: Colour = (225, 225, 240)
GOAL: Colour = (110, 200, 110)
AGENT: Colour = (50, 90, 200)


class OneRoadState(NamedTuple):
    """Position of the agent."""

    position: Array  # [] int32  0 to `length`, where the goal is


@dataclass(frozen=True)
class OneRoad(DeviceEnv):
    """Walk along a road whose goal pays only at its end: a test of exploration.

    Observation: Discrete(length + 1), the position.
    Action: Discrete(actions): 0 is a step forward, any other is wrong: it ends the episode, or leads back to the start
    where `ends` is False.
    Reward: 1 on arriving at the goal, which ends the episode; 0 for any other step.

    length: steps to the goal, 1 or more; the time limit is 1.1 times that, rounded down. actions: 2 or more.
    OneRoad(length=20, actions=16, ends=False) is SimpleDistributedRL's OneRoad-hard.

    Raises HyperparameterError when length or actions is not such a number.
    Source: SimpleDistributedRL's OneRoad, whose settings are called N, action and is_end, with its threshold.
    """

    length: int = 10
    actions: int = 2
    ends: bool = True

    id = "renshu/OneRoad-v0"
    reward_threshold = 1.0

    def __post_init__(self) -> None:
        for name, value, least in (("length", self.length, 1), ("actions", self.actions, 2)):
            if not isinstance(value, int) or value < least:
                raise HyperparameterError(f"{name} is a whole number, {least} or more, not {value!r}")
        set_ = object.__setattr__  # the dataclass is frozen
        set_(self, "observation_space", spaces.Discrete(self.length + 1))
        set_(self, "action_space", spaces.Discrete(self.actions))
        set_(self, "max_episode_steps", int(1.1 * self.length))

    def reset(self, key: Key) -> tuple[OneRoadState, Array]:
        """Begin at the start; the observation is [] int32."""
        return OneRoadState(jnp.int32(0)), jnp.int32(0)

    def step(self, state: OneRoadState, action: Array, key: Key) -> Step:
        """Step forward, or go wrong."""
        forward = action == 0
        elsewhere = state.position if self.ends else 0
        position = jnp.where(forward, state.position + 1, elsewhere).astype(jnp.int32)
        arrived = position == self.length
        over = arrived | ~forward if self.ends else arrived
        return Step(OneRoadState(position), position, arrived.astype(jnp.float32), over)

    def render(self, state: OneRoadState) -> np.ndarray:
        """Draw the road, [60, W, 3] uint8: the goal green, the agent blue."""
        cell = 2 * max(2, min(20, 400 // (self.length + 1)))  # even, as videos want it
        image = canvas(60, cell * (self.length + 1))
        for i in range(self.length + 1):
            box(image, i * cell, 10, (i + 1) * cell - 1, 50, GOAL if i == self.length else ROAD)
        disc(image, (int(state.position) + 0.5) * cell, 30, 0.3 * cell, AGENT)
        return image

    def text(self, state: OneRoadState) -> str:
        """Show the road in one line: P the agent, G the goal, '.' any other cell."""
        cells = ["."] * self.length + ["G"]
        cells[int(state.position)] = "P"
        return "".join(cells)
