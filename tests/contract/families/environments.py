"""Environments for learners that plan and for learners that evolve."""

from dataclasses import dataclass
from itertools import combinations, product
from typing import ClassVar, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from gymnasium import spaces

from renshu.envs.device import DeviceEnv, Step

LINES = np.array([[0, 1, 2], [3, 4, 5], [6, 7, 8], [0, 3, 6], [1, 4, 7], [2, 5, 8], [0, 4, 8], [2, 4, 6]])


def _boards():
    """All boards on which the player to move has two in a line whose third cell is empty, the other two elsewhere."""
    for line, empty in product(LINES, range(3)):
        for others in combinations(np.setdiff1d(range(9), line), 2):
            cells = np.zeros(9, np.int32)
            cells[line], cells[list(others)] = 1, -1
            cells[line[empty]] = 0
            yield cells


BOARDS = np.array(list(_boards()))


class Board(NamedTuple):
    cells: jax.Array  # [9] int32  1 of the player to move, -1 of the other, 0 empty


@dataclass(frozen=True)
class TicTacToe(DeviceEnv):
    """The last move of a game, on one of BOARDS.

    Observation: Box of 18, the cells of each player. Action: Discrete(9), a cell. An episode is one move; it gives 1
    for three in a line, -1 for a cell that is not empty, else 0.
    """

    observation_space: ClassVar = spaces.Box(0.0, 1.0, (18,), np.float32)
    action_space: ClassVar = spaces.Discrete(9)

    def reset(self, key):
        cells = jnp.asarray(BOARDS)[jax.random.randint(key, (), 0, len(BOARDS))]
        return Board(cells), self.see(cells)

    def step(self, state, action, key):
        cells = state.cells.at[action].set(1)
        won = (cells[LINES] == 1).all(axis=1).any()
        reward = jnp.where(state.cells[action] != 0, -1.0, won.astype(jnp.float32))
        return Step(Board(cells), self.see(cells), reward, jnp.bool_(True))

    def see(self, cells):
        return jnp.concatenate([cells == 1, cells == -1]).astype(jnp.float32)


class Motion(NamedTuple):
    position: jax.Array  # [] float32
    speed: jax.Array  # [] float32


@dataclass(frozen=True)
class Point(DeviceEnv):
    """A point between -1 and 1, pushed left or right and away from 0; it ends outside, or after 20 steps.

    Observation: Box of 2, position and speed. Action: Discrete(2), left or right. Reward: 1 a step.
    spread: largest distance from 0 at the start.
    """

    spread: float = 0.5
    max_episode_steps: ClassVar = 20
    observation_space: ClassVar = spaces.Box(-np.inf, np.inf, (2,), np.float32)
    action_space: ClassVar = spaces.Discrete(2)

    def reset(self, key):
        state = Motion(jax.random.uniform(key, minval=-self.spread, maxval=self.spread), jnp.float32(0.0))
        return state, jnp.stack(state)

    def step(self, state, action, key):
        speed = state.speed + 0.1 * state.position + 0.1 * (2.0 * action - 1.0)
        state = Motion(state.position + speed, speed)
        return Step(state, jnp.stack(state), jnp.float32(1.0), jnp.abs(state.position) > 1.0)
