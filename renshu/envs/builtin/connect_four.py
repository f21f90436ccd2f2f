"""Connect Four: discs dropped into seven columns, four in a row win."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from gymnasium import spaces

from renshu.envs.builtin.boards import by_seat, discs, paid, standing, written
from renshu.envs.builtin.drawing import Colour, canvas
from renshu.envs.games import Game
from renshu.types import Array, Key

ROWS, COLUMNS = 6, 7
FULL = 2**ROWS - 1
CELL = 60  # pixels
BOARD: Colour = (40, 80, 170)
COLOURS: tuple[Colour, ...] = ((245, 245, 250), (215, 60, 60), (245, 205, 60))


class ConnectFourState(NamedTuple):
    """Discs of both players by column, bit 0 at the bottom, and the seat of the player to move."""

    own: Array  # [7] uint8  of the player to move
    other: Array  # [7] uint8
    seat: Array  # [] int32


@dataclass(frozen=True)
class ConnectFour(Game):
    """Drop discs in turn into seven columns of six squares; four in a row, column or diagonal win.

    Observation: MultiBinary([6, 7, 2]): the discs of the player to move, and those of the other; row 0 is the top.
    Action: Discrete(7), the column from the left. Their names are "1" to "7". A full column is not allowed.
    Reward: 1 for the winner and -1 for the loser, at the end; 0 for both in a draw.

    Source: the usual rules; observation and actions are laid out as in pgx.
    """

    id = "renshu/ConnectFour-v0"
    observation_space = spaces.MultiBinary([ROWS, COLUMNS, 2])
    action_space = spaces.Discrete(COLUMNS)

    def begin(self, key: Key) -> ConnectFourState:
        """Set up the empty board; seat 0 begins."""
        empty = jnp.zeros(COLUMNS, jnp.uint8)
        return ConnectFourState(empty, empty, jnp.int32(0))

    def move(self, state: ConnectFourState, action: Array, key: Key) -> tuple[ConnectFourState, Array, Array]:
        """Drop a disc into a column that is not full."""
        filled = state.own | state.other
        # A column is filled from bit 0 without gaps, so that adding 1 carries to the lowest free square.
        own = state.own | jnp.where(jnp.arange(COLUMNS) == action, filled + jnp.uint8(1), 0)
        won = _has_four(own)
        over = won | ((own | state.other) == FULL).all()
        return ConnectFourState(state.other, own, 1 - state.seat), paid(state.seat, won), over

    def observe(self, state: ConnectFourState) -> Array:
        """Return the discs of both players, [6, 7, 2] int8."""
        heights = jnp.arange(ROWS - 1, -1, -1, dtype=jnp.uint8)[:, None, None]
        return ((jnp.stack([state.own, state.other], -1) >> heights) & 1).astype(jnp.int8)

    def to_play(self, state: ConnectFourState) -> Array:
        """Return the seat of the player to move: [] int32."""
        return state.seat

    def action_mask(self, state: ConnectFourState) -> Array:
        """Return which columns are not full: [7] bool."""
        return (state.own | state.other) != FULL

    def action_name(self, action: int) -> str:
        """Name a column: "1" is the leftmost."""
        return str(action + 1)

    def render(self, state: ConnectFourState) -> np.ndarray:
        """Draw the board, [360, 420, 3] uint8: red discs of seat 0, yellow ones of seat 1."""
        image = canvas(ROWS * CELL, COLUMNS * CELL)
        image[:] = BOARD
        discs(image, by_seat(self.observe(state), state.seat), CELL, COLOURS)
        return image

    def text(self, state: ConnectFourState) -> str:
        """Show the board in seven lines, X of seat 0 and O of seat 1, and in an eighth whose turn it is or who has won.

        The numbers below the board are the names of its columns.
        """
        # Only the player who has just moved can have four.
        won, full = bool(_has_four(state.other)), bool(((state.own | state.other) == FULL).all())
        cells = by_seat(self.observe(state), state.seat)
        result = -1 if won else 0 if full else None
        return "\n".join([*written(cells, "1234567"), standing(state.seat, result)])


def _has_four(columns: Array) -> Array:
    """Tell whether a player's discs [7] have four in a row: upright, level, or along a diagonal."""
    upright = columns & (columns >> 1) & (columns >> 2) & (columns >> 3)
    a, b, c, d = (columns[i : i + 4] for i in range(4))
    level = a & b & c & d
    rising = a & (b >> 1) & (c >> 2) & (d >> 3)
    falling = (a >> 3) & (b >> 2) & (c >> 1) & d
    return upright.any() | (level | rising | falling).any()
