"""Parts that board games of two players share: planes of bits, rewards, text and pictures."""

from __future__ import annotations

from collections.abc import Sequence

import jax.numpy as jnp
import numpy as np

from renshu.envs.builtin.drawing import Colour, canvas, disc, line
from renshu.types import Array

LETTERS = "abcdefgh"
MARKS = ".XO"
"""Marks of an empty square, of seat 0 and of seat 1 in text."""
PAPER, INK = (250, 248, 240), (70, 70, 70)


def paid(seat: Array, result: Array) -> Array:
    """Return the rewards [2] float32 of a game that ends with `result` for a seat: 1 won, 0 drawn, -1 lost."""
    result = jnp.asarray(result).astype(jnp.int32)  # of which there is no -0
    return jnp.where(jnp.arange(2) == seat, result, -result).astype(jnp.float32)


def by_seat(obs: Array, seat: Array) -> np.ndarray:
    """Turn the planes [R, C, 2] that a seat sees into cells [R, C] int: 0 empty, 1 of seat 0, 2 of seat 1. On host."""
    mine, others = np.moveaxis(np.asarray(obs), -1, 0).astype(int)
    return mine * (1 + int(seat)) + others * (2 - int(seat))


def written(cells: np.ndarray, columns: Sequence[str], rows: Sequence[str] = (), above: bool = False) -> list[str]:
    """Write cells [R, C] as lines: the names of columns below or above them, those of rows, if any, to the left."""
    lines = [" ".join(MARKS[cell] for cell in row) for row in cells]
    names = " ".join(columns)
    if rows:
        lines, names = [f"{name} {line}" for name, line in zip(rows, lines, strict=True)], f"  {names}"
    return [names, *lines] if above else [*lines, names]


def standing(seat: Array, result: int | None) -> str:
    """Say whom it is to move, or how the game has ended: 1 won, 0 drawn, -1 lost by the seat; None: it goes on."""
    if result is None:
        return f"{MARKS[1 + int(seat)]} to move"
    return f"{MARKS[1 + int(seat) if result == 1 else 2 - int(seat)]} has won" if result else "Draw"


def grid(rows: int, columns: int, cell: int, paper: Colour, ink: Colour) -> np.ndarray:
    """Draw an empty board of square cells with lines between them, [rows * cell, columns * cell, 3] uint8."""
    image = canvas(rows * cell, columns * cell)
    image[:] = paper
    for i in range(rows + 1):
        line(image, 0, i * cell, columns * cell, i * cell, 2, ink)
    for i in range(columns + 1):
        line(image, i * cell, 0, i * cell, rows * cell, 2, ink)
    return image


def discs(image: np.ndarray, cells: np.ndarray, cell: int, colours: Sequence[Colour | None]) -> None:
    """Draw a disc on every cell of [R, C], in the colour of what it holds; none where that is None."""
    for (row, column), value in np.ndenumerate(cells):
        if (colour := colours[value]) is not None:
            disc(image, (column + 0.5) * cell, (row + 0.5) * cell, 0.4 * cell, colour)
