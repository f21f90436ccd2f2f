"""2048: tiles of equal numbers merge as the board is pushed, and a new one comes after every push."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from gymnasium import spaces

from renshu.envs.builtin.drawing import Colour, box, canvas
from renshu.envs.device import DeviceEnv, Step
from renshu.types import Array, Key

NAMES = ("left", "up", "right", "down")
CELL, GAP = 80, 8  # pixels
FRAME: Colour = (187, 173, 160)
LIGHT: Colour = (249, 246, 242)
DARK: Colour = (119, 110, 101)
TILES: tuple[Colour, ...] = (
    (205, 193, 180),
    (238, 228, 218),
    (237, 224, 200),
    (242, 177, 121),
    (245, 149, 99),
    (246, 124, 95),
    (246, 94, 59),
    (237, 207, 114),
    (237, 204, 97),
    (237, 200, 80),
    (237, 197, 63),
    (237, 194, 46),
    (60, 58, 50),
)
"""Colours of an empty cell and of 2, 4, ... 2048, 4096 and above."""


class Game2048State(NamedTuple):
    """The board."""

    board: Array  # [4, 4] int32  exponents: 0 for an empty cell, 1 for the tile 2, 2 for 4, ...


@dataclass(frozen=True)
class Game2048(DeviceEnv):
    """Push all tiles to one side: equal neighbours merge into their sum, then a 2 or, one time in ten, a 4 comes.

    Observation: MultiBinary([4, 4, 16]): the exponent of each cell as one of 16 (0 is empty, 1 the tile 2, 11 the tile
    2048); row 0 is the top. Plane 15 stands for 32768 and all above. The board itself goes as far as can be, to 131072.
    Action: Discrete(4), the side to push to: 0 left, 1 up, 2 right, 3 down. A push that changes nothing is not in the
    mask; chosen all the same, it does nothing, and no tile comes.
    Reward: the sum of the tiles that merging made. An episode ends when no push changes anything.

    Source: Gabriele Cirulli's 2048; actions and rewards as in pgx, in which a push that changes nothing ends the game.
    """

    id = "renshu/2048-v0"
    observation_space = spaces.MultiBinary([4, 4, 16])
    action_space = spaces.Discrete(4)

    def reset(self, key: Key) -> tuple[Game2048State, Array]:
        """Begin with two tiles; the observation is [4, 4, 16] int8."""
        first, second = jax.random.split(key)
        state = Game2048State(_with_tile(_with_tile(jnp.zeros((4, 4), jnp.int32), first), second))
        return state, self._see(state)

    def step(self, state: Game2048State, action: Array, key: Key) -> Step:
        """Push the tiles to one side, and add a tile if that changed anything."""
        pushed, reward = _pushed(state.board, action)
        changed = (pushed != state.board).any()
        state = Game2048State(jnp.where(changed, _with_tile(pushed, key), state.board))
        return Step(state, self._see(state), reward.astype(jnp.float32), ~self.action_mask(state).any())

    def action_mask(self, state: Game2048State) -> Array:
        """Return which pushes change the board: [4] bool."""
        board = state.board

        def moves(front: Array, behind: Array) -> Array:
            return ((behind > 0) & ((front == 0) | (front == behind))).any()

        west, east, north, south = board[:, :-1], board[:, 1:], board[:-1], board[1:]
        return jnp.stack([moves(west, east), moves(north, south), moves(east, west), moves(south, north)])

    def action_name(self, action: int) -> str:
        """Name a side: "left", "up", "right" or "down"."""
        return NAMES[action]

    def _see(self, state: Game2048State) -> Array:
        return (jnp.minimum(state.board, 15)[..., None] == jnp.arange(16)).astype(jnp.int8)

    def render(self, state: Game2048State) -> np.ndarray:
        """Draw the board with its numbers, [328, 328, 3] uint8."""
        from PIL import Image, ImageDraw, ImageFont  # only here: whoever draws nothing need not wait for it

        side = 4 * CELL + GAP
        image = canvas(side, side)
        image[:] = FRAME
        board = np.asarray(state.board)
        for (row, column), exponent in np.ndenumerate(board):
            x, y = column * CELL + GAP, row * CELL + GAP
            box(image, x, y, x + CELL - GAP, y + CELL - GAP, TILES[min(exponent, len(TILES) - 1)])
        drawn = Image.fromarray(image)
        pen = ImageDraw.Draw(drawn)
        for (row, column), exponent in np.ndenumerate(board):
            if exponent:
                number = str(2**exponent)
                font = ImageFont.load_default(size=(34, 34, 34, 28, 24, 20)[min(len(number), 6) - 1])
                middle = column * CELL + (CELL + GAP) / 2, row * CELL + (CELL + GAP) / 2
                pen.text(middle, number, DARK if exponent < 3 else LIGHT, font, anchor="mm")
        return np.array(drawn)

    def text(self, state: Game2048State) -> str:
        """Show the board in four lines, '.' for an empty cell."""
        rows = [[str(2**exponent) if exponent else "." for exponent in row] for row in np.asarray(state.board).tolist()]
        width = max(4, *(len(cell) for row in rows for cell in row))
        return "\n".join(" ".join(f"{cell:>{width}}" for cell in row) for row in rows)


def _pushed(board: Array, side: Array) -> tuple[Array, Array]:
    """Push a board [4, 4] to a side. Returns it without a new tile, and the sum of the tiles that merging made."""
    upright, backward = side % 2 == 1, side >= 2
    lines = jnp.where(upright, board.T, board)
    a, b, c, d = jnp.where(backward, lines[:, ::-1], lines).T
    # Each pass takes one gap to the end, so that after three there is none in front of a tile.
    (a, b) = _closed(a, b)
    (b, c) = _closed(b, c)
    (c, d) = _closed(c, d)
    (a, b) = _closed(a, b)
    (b, c) = _closed(b, c)
    (a, b) = _closed(a, b)
    merge = (a == b) & (a > 0)
    made = jnp.where(merge, 2 << a, 0)
    a, b, c, d = (jnp.where(merge, new, old) for new, old in ((a + 1, a), (c, b), (d, c), (0, d)))
    merge = (b == c) & (b > 0)
    made += jnp.where(merge, 2 << b, 0)
    b, c, d = (jnp.where(merge, new, old) for new, old in ((b + 1, b), (d, c), (0, d)))
    merge = (c == d) & (c > 0)
    made += jnp.where(merge, 2 << c, 0)
    c, d = jnp.where(merge, c + 1, c), jnp.where(merge, 0, d)
    lines = jnp.stack([a, b, c, d], -1)
    lines = jnp.where(backward, lines[:, ::-1], lines)
    return jnp.where(upright, lines.T, lines), made.sum()


def _closed(front: Array, behind: Array) -> tuple[Array, Array]:
    """Let a tile move up where the cell in front of it is empty."""
    return jnp.where(front == 0, behind, front), jnp.where(front == 0, 0, behind)


def _with_tile(board: Array, key: Key) -> Array:
    """Put a tile on one of the empty cells of a board [4, 4], of which there is at least one."""
    place, luck = jax.random.uniform(key, (2,), jnp.float32)
    empty = (board == 0).reshape(16)
    rank = jnp.cumsum(empty)
    wanted = jnp.minimum((place * rank[-1]).astype(jnp.int32), rank[-1] - 1) + 1
    here = (empty & (rank == wanted)).reshape(4, 4)
    return jnp.where(here, jnp.where(luck < 0.9, 1, 2), board)
