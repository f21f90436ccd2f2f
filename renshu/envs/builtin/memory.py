"""A memory task: a cue at the start of a corridor says which way to turn at its end."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from gymnasium import spaces

from renshu.envs.builtin.drawing import box, canvas, disc
from renshu.envs.device import DeviceEnv, Step
from renshu.errors import HyperparameterError
from renshu.types import Array, Key

WALL, FLOOR, CUE, AGENT = (90, 90, 90), (235, 235, 235), (110, 200, 110), (50, 90, 200)


class MemoryState(NamedTuple):
    """The cue, and the progress of the agent."""

    cue: Array  # [] int32  -1 left, 1 right
    position: Array  # [] int32  steps along the corridor; the junction is at `length`
    turn: Array  # [] int32  -1 turned left, 1 turned right, 0 not yet


@dataclass(frozen=True)
class Memory(DeviceEnv):
    """Walk along a corridor and turn, at its end, the way that the cue at its start indicated.

    Observation: Box of 3 float32: the cue (-1 left, 1 right) in the first observation and 0 in all others; 1 at the
    junction, else 0; the position along the corridor from 0 to 1. Only an agent with a memory can know which way to go.
    Action: Discrete(2), 0 left, 1 right. In the corridor the agent walks on, whatever the action is.
    Reward: 1 for the correct turn, -1 for the wrong one, 0 before. An episode is `length` + 1 steps long, so no time
    limit is needed; without a memory the mean return is 0 at best.

    length: steps from the cue to the junction, 1 or more.

    Raises HyperparameterError when length is not such a number.
    Source: the T-maze of Bakker, Reinforcement Learning with Long Short-Term Memory (2002), without the choice of
    walking back.
    """

    length: int = 10

    id = "renshu/Memory-v0"
    reward_threshold = 0.95
    observation_space = spaces.Box(np.array([-1, 0, 0], np.float32), np.array([1, 1, 1], np.float32))
    action_space = spaces.Discrete(2)

    def __post_init__(self) -> None:
        if not isinstance(self.length, int) or self.length < 1:
            raise HyperparameterError(f"length is a number of steps, 1 or more, not {self.length!r}")

    def reset(self, key: Key) -> tuple[MemoryState, Array]:
        """Begin at the cue, which is left or right with equal probability; the observation is [3] float32."""
        cue = jnp.where(jax.random.bernoulli(key), 1, -1).astype(jnp.int32)
        state = MemoryState(cue, jnp.int32(0), jnp.int32(0))
        return state, self._see(state)

    def step(self, state: MemoryState, action: Array, key: Key) -> Step:
        """Walk on; at the junction turn, which ends the episode."""
        ended = state.position == self.length
        turn = jnp.where(ended, 2 * action - 1, 0).astype(jnp.int32)
        state = MemoryState(state.cue, jnp.minimum(state.position + 1, self.length).astype(jnp.int32), turn)
        return Step(state, self._see(state), (turn * state.cue).astype(jnp.float32), ended)

    def _see(self, state: MemoryState) -> Array:
        cue = jnp.where(state.position == 0, state.cue, 0)
        junction = (state.position == self.length) & (state.turn == 0)
        return jnp.stack([cue, junction, state.position / self.length]).astype(jnp.float32)

    def render(self, state: MemoryState) -> np.ndarray:
        """Draw the maze from above, [120, W, 3] uint8: the agent walks to the right, so that left is up.

        The cue is a green mark above or below the start while the agent can see it, and the correct arm is green once
        the agent has turned.
        """
        cell = 2 * max(1, min(20, 300 // (self.length + 1)))  # even, as videos want it
        image = canvas(120, cell * (self.length + 1))
        image[:] = WALL
        width, x, end = image.shape[1], int(state.position), cell * self.length
        box(image, 0, 40, width, 80, FLOOR)
        box(image, end, 0, width, 120, FLOOR)
        if int(state.turn):
            middle = 60 + 40 * int(state.cue)
            box(image, end, middle - 20, width, middle + 20, CUE)
        elif x == 0:
            disc(image, cell / 2, 60 + 40 * int(state.cue), 0.3 * cell, CUE)
        disc(image, (x + 0.5) * cell, 60 + 40 * int(state.turn), max(2, 0.3 * cell), AGENT)
        return image

    def text(self, state: MemoryState) -> str:
        """Show the maze in three lines: P the agent, L or R the cue while it can be seen, '.' a wall."""
        rows = [["."] * self.length + [" "], [" "] * (self.length + 1), ["."] * self.length + [" "]]
        if int(state.position) == 0:
            rows[1 + int(state.cue)][0] = "R" if int(state.cue) == 1 else "L"
        rows[1 + int(state.turn)][int(state.position)] = "P"
        return "\n".join("".join(row) for row in rows)
