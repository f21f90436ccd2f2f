"""The Grid world: four by three cells, a goal, a pit, and moves that slip."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from gymnasium import spaces

from renshu.envs.builtin.drawing import Colour, box, canvas, disc
from renshu.envs.device import DeviceEnv, Step
from renshu.errors import HyperparameterError
from renshu.types import Array, Key

FIELD = ("......", ".   G.", ". . X.", ".S   .", "......")
"""Rows from top to bottom. '.' is wall, G the goal, X the pit, S the start."""

LAYERS = ".GX"
"""Marks that have a layer of their own in an image, after the agent's."""

MOVES = ((-1, 0), (0, 1), (1, 0), (0, -1))
"""Steps (x, y) of the actions left, down, right, up. Neighbours in this order are at right angles to each other."""

CELL = 48  # pixels
COLOURS: dict[str, Colour] = {".": (90, 90, 90), "G": (110, 200, 110), "X": (220, 90, 90), "S": (225, 225, 240)}


class GridState(NamedTuple):
    """Position of the agent."""

    x: Array  # [] int32  column, 0 at the left
    y: Array  # [] int32  row, 0 at the top


@dataclass(frozen=True)
class Grid(DeviceEnv):
    """Walk from the bottom left to the goal at the top right, past the pit below it.

    Observation: the column and row of the agent, MultiDiscrete([6, 5]). They are two integers rather than a Box,
    because a cell is a label, not an amount: a network gets it one-hot, a table as the index of the product. With
    layers=True an image instead, MultiBinary([5, 6, 4]): where the agent, the walls, the goal and the pit are.
    Action: Discrete(4), 0 left, 1 down, 2 right, 3 up. A move into a wall leaves the agent where it is.
    Reward: `goal_reward` or `pit_reward` on arriving there, which ends the episode; `move_reward` for any other step.

    move_prob: the probability that a move goes as chosen; the two sides share the rest equally.
    move_prob=1, move_reward=0 is SimpleDistributedRL's EasyGrid.
    The best policy reaches 0.745 on average: the 0.705 of Russell and Norvig without the cost of the first cell.

    Raises HyperparameterError where move_prob is not a probability.
    Source: Russell and Norvig, Artificial Intelligence, the sequential decision problem of figure 17.1; layout, order
    of actions, rewards, time limit and threshold as in SimpleDistributedRL's Grid.
    """

    move_prob: float = 0.8
    move_reward: float = -0.04
    goal_reward: float = 1.0
    pit_reward: float = -1.0
    layers: bool = False

    id = "renshu/Grid-v0"
    max_episode_steps = 50
    reward_threshold = 0.65
    observation_space = spaces.MultiDiscrete([len(FIELD[0]), len(FIELD)], dtype=np.int32)
    action_space = spaces.Discrete(4)

    def __post_init__(self) -> None:
        if not 0 <= self.move_prob <= 1:
            raise HyperparameterError(f"move_prob is a probability, 0 to 1, not {self.move_prob!r}")
        if self.layers:
            object.__setattr__(self, "observation_space", spaces.MultiBinary([*_where(".").shape, 1 + len(LAYERS)]))

    def reset(self, key: Key) -> tuple[GridState, Array]:
        """Begin at the start, with the observation [2] int32, or [5, 6, 4] int8."""
        (y,), (x,) = np.nonzero(_where("S"))
        state = GridState(jnp.int32(x), jnp.int32(y))
        return state, self._observed(state)

    def step(self, state: GridState, action: Array, key: Key) -> Step:
        """Move, or slip to a side."""
        luck = jax.random.uniform(key, dtype=jnp.float32)
        slip = jnp.where(luck < self.move_prob, 0, jnp.where(luck < (1 + self.move_prob) / 2, 1, -1))
        dx, dy = jnp.asarray(MOVES, jnp.int32)[(action + slip) % 4]
        x, y = state.x + dx, state.y + dy
        wall = jnp.asarray(_where("."))[y, x]
        state = GridState(jnp.where(wall, state.x, x), jnp.where(wall, state.y, y))
        goal, pit = (jnp.asarray(_where(mark))[state.y, state.x] for mark in "GX")
        reward = jnp.where(goal, self.goal_reward, jnp.where(pit, self.pit_reward, self.move_reward))
        return Step(state, self._observed(state), reward.astype(jnp.float32), goal | pit)

    def render(self, state: GridState) -> np.ndarray:
        """Draw the field from above, [240, 288, 3] uint8: goal green, pit red, agent blue."""
        image = canvas(CELL * len(FIELD), CELL * len(FIELD[0]))
        for y, row in enumerate(FIELD):
            for x, mark in enumerate(row):
                if mark in COLOURS:
                    box(image, x * CELL, y * CELL, (x + 1) * CELL - 1, (y + 1) * CELL - 1, COLOURS[mark])
        disc(image, (int(state.x) + 0.5) * CELL, (int(state.y) + 0.5) * CELL, 0.3 * CELL, (50, 90, 200))
        return image

    def text(self, state: GridState) -> str:
        """Show the field in five lines: P the agent, G the goal, X the pit, S the start, '.' a wall."""
        rows = [list(row) for row in FIELD]
        rows[int(state.y)][int(state.x)] = "P"
        return "\n".join("".join(row) for row in rows)

    def _observed(self, state: GridState) -> Array:
        if not self.layers:
            return jnp.stack(state)
        still = np.stack([_where(mark) for mark in LAYERS], -1).astype(np.int8)
        agent = jnp.zeros(still.shape[:2], jnp.int8).at[state.y, state.x].set(1)
        return jnp.concatenate([agent[..., None], still], -1)


def _where(mark: str) -> np.ndarray:
    """Return which cells have a mark, [5, 6] bool."""
    return np.array([[cell == mark for cell in row] for row in FIELD])
