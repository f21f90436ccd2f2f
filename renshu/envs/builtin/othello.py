"""Othello, also called Reversi, on boards of eight, six or four squares to a side."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from gymnasium import spaces

from renshu.envs.builtin.boards import LETTERS, by_seat, discs, grid, paid, standing, written
from renshu.envs.builtin.drawing import Colour
from renshu.envs.games import Game
from renshu.errors import HyperparameterError
from renshu.types import Array, Key

SIZES = (4, 6, 8)
CELL = 50  # pixels
CLOTH: Colour = (30, 120, 75)
EDGE: Colour = (15, 70, 45)
COLOURS: tuple[Colour | None, ...] = (None, (20, 20, 20), (245, 245, 245))


class Squares(NamedTuple):
    """Squares of a board as bits, the first 32 in `low`. Two words, because JAX has no uint64 by default."""

    low: Array  # [] uint32, or [K] for several boards
    high: Array

    def __and__(self, other: Squares) -> Squares:
        return Squares(self.low & other.low, self.high & other.high)

    def __or__(self, other: Squares) -> Squares:
        return Squares(self.low | other.low, self.high | other.high)

    def __invert__(self) -> Squares:
        return Squares(~self.low, ~self.high)

    def any(self) -> Array:
        """Tell whether there is a square: [] bool."""
        return (self.low | self.high) != 0

    def total(self) -> Array:
        """Count the squares: [] int32."""
        low, high = jax.lax.population_count(self.low), jax.lax.population_count(self.high)
        return (low + high).astype(jnp.int32)

    def where(self, condition: Array) -> Squares:
        """Return the same squares, or none where a condition [] bool is False."""
        return Squares(jnp.where(condition, self.low, 0), jnp.where(condition, self.high, 0))

    def up(self, by: Array) -> Squares:
        """Move every square by some places towards the end of the board."""
        return Squares(self.low << by, (self.high << by) | (self.low >> (32 - by)))

    def down(self, by: Array) -> Squares:
        """Move every square by some places towards the beginning of the board."""
        return Squares((self.low >> by) | (self.high << (32 - by)), self.high >> by)

    def union(self) -> Squares:
        """Unite several sets of squares, whose words are [K]."""
        # XLA computes what leads to a reduction once; a chain of scalars it would repeat for all that depends on it.
        low, high = (jax.lax.reduce(word, np.uint32(0), jax.lax.bitwise_or, [0]) for word in self)
        return Squares(low, high)


class OthelloState(NamedTuple):
    """Discs of both players, what the player to move may do, and that player's seat."""

    own: Squares  # of the player to move
    other: Squares
    moves: Squares  # on which the player to move may put a disc
    seat: Array  # [] int32


@dataclass(frozen=True)
class Othello(Game):
    """Put discs in turn so that they enclose rows of the other's, which change sides; most discs win.

    Observation: MultiBinary([size, size, 2]): the discs of the player to move, and those of the other; row 0 is the
    top.
    Action: Discrete(size * size + 1): the square, row by row from the top left, and at the end of them the pass, which
    is allowed when no square is. Their names are "a1" to "h8" (the letter is the column from the left, the number the
    row from the top) and "pass".
    Reward: 1 for the winner and -1 for the loser, at the end; 0 for both in a draw. A game ends when neither player
    can put a disc.

    size: squares to a side: 8, 6 or 4. Seat 0 is black and begins; in the 8 x 8 opening it has d5 and e4.

    Raises HyperparameterError for any other size.
    Source: the rules of the World Othello Federation; observation and actions are laid out as in pgx, which asks two
    passes in a row before a game ends.
    """

    size: int = 8

    id = "renshu/Othello-v0"

    def __post_init__(self) -> None:
        if not isinstance(self.size, int) or self.size not in SIZES:
            raise HyperparameterError(f"size is the number of squares to a side, 4, 6 or 8, not {self.size!r}")
        set_ = object.__setattr__  # the dataclass is frozen
        set_(self, "observation_space", spaces.MultiBinary([self.size, self.size, 2]))
        set_(self, "action_space", spaces.Discrete(self.size**2 + 1))

    def begin(self, key: Key) -> OthelloState:
        """Set up the four discs in the middle; seat 0 begins."""
        half = self.size // 2
        own = _squares([(half - 1) * self.size + half, half * self.size + half - 1])
        other = _squares([(half - 1) * self.size + half - 1, half * self.size + half])
        own, other = jax.tree.map(jnp.asarray, (own, other))
        return OthelloState(own, other, self._moves(own, other), jnp.int32(0))

    def move(self, state: OthelloState, action: Array, key: Key) -> tuple[OthelloState, Array, Array]:
        """Put a disc that turns at least one of the other's over, or pass."""
        placed = self._square(action)
        turned = self._turned(placed, state.own, state.other)
        own, other = state.own | placed | turned, state.other & ~turned
        moves = self._moves(other, own)
        over = ~moves.any() & ~self._moves(own, other).any()
        result = jnp.where(over, jnp.sign(own.total() - other.total()), 0)
        return OthelloState(other, own, moves, 1 - state.seat), paid(state.seat, result), over

    def observe(self, state: OthelloState) -> Array:
        """Return the discs of both players, [size, size, 2] int8."""
        square = jnp.arange(self.size**2, dtype=jnp.uint32).reshape(self.size, self.size, 1)
        mine = jnp.arange(2) == 0
        low, high = (jnp.where(mine, a, b) for a, b in zip(state.own, state.other, strict=True))
        return _bits(Squares(low, high), square).astype(jnp.int8)

    def to_play(self, state: OthelloState) -> Array:
        """Return the seat of the player to move: [] int32."""
        return state.seat

    def action_mask(self, state: OthelloState) -> Array:
        """Return which squares turn discs over, and whether none does: [size * size + 1] bool."""
        number = jnp.arange(self.size**2 + 1, dtype=jnp.uint32)
        return jnp.where(number < self.size**2, _bits(state.moves, number) == 1, ~state.moves.any())

    def action_name(self, action: int) -> str:
        """Name a square: "a1" is the top left; or "pass"."""
        if action == self.size**2:
            return "pass"
        return f"{LETTERS[action % self.size]}{action // self.size + 1}"

    def render(self, state: OthelloState) -> np.ndarray:
        """Draw the board, [50 * size, 50 * size, 3] uint8: black discs of seat 0, white ones of seat 1."""
        image = grid(self.size, self.size, CELL, CLOTH, EDGE)
        discs(image, by_seat(self.observe(state), state.seat), CELL, COLOURS)
        return image

    def text(self, state: OthelloState) -> str:
        """Show the board in size + 1 lines, X of seat 0 and O of seat 1, and in a last one the discs and whose turn."""
        cells, seat = by_seat(self.observe(state), state.seat), int(state.seat)
        own, other = int((cells == 1 + seat).sum()), int((cells == 2 - seat).sum())
        over = not state.moves.any() and not self._moves(state.other, state.own).any()
        lines = written(cells, LETTERS[: self.size], [str(i + 1) for i in range(self.size)], above=True)
        count = f"X {(own, other)[seat]}, O {(other, own)[seat]}"
        return "\n".join([*lines, f"{count}: {standing(seat, int(np.sign(own - other)) if over else None)}"])

    @cached_property
    def _directions(self) -> tuple[np.ndarray, Squares]:
        """Places by which a step moves a square, [4] uint32, and the squares that a row to be turned can be on, [4]."""
        n = self.size
        everywhere = np.ones((n, n), bool)
        inner = everywhere.copy()
        inner[:, [0, -1]] = False  # a row that goes on past the edge would come back on the other side
        on = [_squares(np.flatnonzero(where).tolist()) for where in (inner, inner, everywhere, inner)]
        return np.array([1, n - 1, n, n + 1], np.uint32), Squares(*map(np.stack, zip(*on, strict=True)))

    def _rows(self, start: Squares, other: Squares) -> list[tuple[Squares, Squares]]:
        """Return the discs of `other` in a row from any square of `start`, and what is beyond: [4] of each sense."""
        by, on = self._directions
        through, found = other & on, []
        for move in (Squares.up, Squares.down):
            row = move(start, by) & through
            row |= move(row, by) & through
            # Two squares at a time from here, through pairs of the other's discs: size - 2 squares at most.
            pairs = through & move(through, by)
            for _ in range(self.size // 2 - 2):
                row |= move(row, 2 * by) & pairs
            found.append((row, move(row, by)))
        return found

    def _moves(self, own: Squares, other: Squares) -> Squares:
        """Return the squares on which a player may put a disc."""
        (_, up), (_, down) = self._rows(own, other)
        return (up | down).union() & ~(own | other) & _squares(range(self.size**2))

    def _turned(self, placed: Squares, own: Squares, other: Squares) -> Squares:
        """Return the discs that change sides when a player puts one."""
        up, down = (row.where((beyond & own).any()) for row, beyond in self._rows(placed, other))
        return (up | down).union()

    def _square(self, action: Array) -> Squares:
        """Return the one square of an action, or none for a pass."""
        action = jnp.asarray(action)
        bit = jnp.where(action < self.size**2, jnp.uint32(1) << (action & 31).astype(jnp.uint32), 0)
        return Squares(jnp.where(action < 32, bit, 0), jnp.where(action < 32, 0, bit))


def _squares(numbers: Iterable[int]) -> Squares:
    board = sum(1 << number for number in numbers)
    return Squares(np.uint32(board & 0xFFFFFFFF), np.uint32(board >> 32))


def _bits(squares: Squares, number: Array) -> Array:
    """Return 1 or 0, uint32, for whether squares hold the one of a number."""
    return (jnp.where(number < 32, squares.low, squares.high) >> (number & 31)) & 1
