"""Tic-tac-toe: three in a row on three by three squares."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from gymnasium import spaces

from renshu.envs.builtin.boards import INK, LETTERS, PAPER, by_seat, grid, paid, standing, written
from renshu.envs.builtin.drawing import Colour, disc, line
from renshu.envs.games import Game
from renshu.types import Array, Key

LINES = (0o007, 0o070, 0o700, 0o111, 0o222, 0o444, 0o421, 0o124)
"""Squares of each row, column and diagonal, as bits."""
FULL = 0o777
CELL = 80  # pixels
CROSS: Colour = (50, 90, 200)
RING: Colour = (220, 90, 90)


class TicTacToeState(NamedTuple):
    """Squares of both players, bit i for square i, and the seat of the player to move."""

    own: Array  # [] uint32  of the player to move
    other: Array  # [] uint32
    seat: Array  # [] int32


@dataclass(frozen=True)
class TicTacToe(Game):
    """Put marks in turn on three by three squares; three in a row, column or diagonal win.

    Observation: MultiBinary([3, 3, 2]): the marks of the player to move, and those of the other; row 0 is the top.
    Action: Discrete(9), the square, row by row from the top left. Their names are "a1" to "c3": the letter is the
    column from the left, the number the row from the bottom.
    Reward: 1 for the winner and -1 for the loser, at the end; 0 for both in a draw.

    Source: the usual rules; observation and actions are laid out as in pgx.
    """

    id = "renshu/TicTacToe-v0"
    observation_space = spaces.MultiBinary([3, 3, 2])
    action_space = spaces.Discrete(9)

    def begin(self, key: Key) -> TicTacToeState:
        """Set up the empty board; seat 0 begins."""
        return TicTacToeState(jnp.uint32(0), jnp.uint32(0), jnp.int32(0))

    def move(self, state: TicTacToeState, action: Array, key: Key) -> tuple[TicTacToeState, Array, Array]:
        """Put a mark on a free square."""
        own = state.own | (jnp.uint32(1) << jnp.asarray(action).astype(jnp.uint32))
        won = _has_line(own)
        over = won | ((own | state.other) == FULL)
        return TicTacToeState(state.other, own, 1 - state.seat), paid(state.seat, won), over

    def observe(self, state: TicTacToeState) -> Array:
        """Return the marks of both players, [3, 3, 2] int8."""
        return _bits(jnp.stack([state.own, state.other])).T.reshape(3, 3, 2).astype(jnp.int8)

    def to_play(self, state: TicTacToeState) -> Array:
        """Return the seat of the player to move: [] int32."""
        return state.seat

    def action_mask(self, state: TicTacToeState) -> Array:
        """Return which squares are free: [9] bool."""
        return _bits(state.own | state.other) == 0

    def action_name(self, action: int) -> str:
        """Name a square: "a3" is the top left, "c1" the bottom right."""
        return f"{LETTERS[action % 3]}{3 - action // 3}"

    def render(self, state: TicTacToeState) -> np.ndarray:
        """Draw the board, [240, 240, 3] uint8: crosses of seat 0, rings of seat 1."""
        image = grid(3, 3, CELL, PAPER, INK)
        for (row, column), cell in np.ndenumerate(by_seat(self.observe(state), state.seat)):
            x, y, reach = (column + 0.5) * CELL, (row + 0.5) * CELL, 0.27 * CELL
            if cell == 1:
                line(image, x - reach, y - reach, x + reach, y + reach, 9, CROSS)
                line(image, x - reach, y + reach, x + reach, y - reach, 9, CROSS)
            elif cell == 2:
                disc(image, x, y, reach + 5, RING)
                disc(image, x, y, reach - 4, PAPER)
        return image

    def text(self, state: TicTacToeState) -> str:
        """Show the board in four lines, X of seat 0 and O of seat 1, and in a fifth whose turn it is or who has won."""
        # Only the player who has just moved can have a line.
        won, full = bool(_has_line(state.other)), bool((state.own | state.other) == FULL)
        cells = by_seat(self.observe(state), state.seat)
        result = -1 if won else 0 if full else None
        return "\n".join([*written(cells, LETTERS[:3], "321"), standing(state.seat, result)])


def _bits(board: Array) -> Array:
    """Return the bits of boards [...] as [..., 9], of the same dtype."""
    return (board[..., None] >> jnp.arange(9, dtype=jnp.uint32)) & 1


def _has_line(board: Array) -> Array:
    won = jnp.bool_(False)
    for row in LINES:
        won |= (board & row) == row
    return won
