"""Heuristics: functions that judge positions where a search stops, for games that have one here."""

from __future__ import annotations

import itertools

import jax.numpy as jnp
import numpy as np

from renshu.arena.players import Heuristic
from renshu.envs.builtin.connect_four import COLUMNS, ROWS, ConnectFour
from renshu.envs.builtin.othello import Othello
from renshu.envs.device import DeviceEnv
from renshu.types import Array, PyTree

MOST = 0.95
"""Bound of all guesses: a won game is worth more."""


def heuristic_of(game: DeviceEnv) -> Heuristic | None:
    """Return the heuristic of a game, for `AlphaBeta`; None where there is none here."""
    if isinstance(game, Othello):
        return othello(game)
    return connect_four(game) if isinstance(game, ConnectFour) else None


def othello(game: Othello) -> Heuristic:
    """Judge by corners, the squares beside them, edges, moves that the player to move has, and a little by discs."""
    distance = np.minimum(np.arange(game.size), np.arange(game.size)[::-1])
    rows, columns = np.meshgrid(distance, distance, indexing="ij")
    near, far = np.minimum(rows, columns), np.maximum(rows, columns)
    weights = np.select(
        [far == 0, (near == 0) & (far == 1), (near == 1) & (far == 1), near == 0], [10.0, -2.0, -4.0, 1.0], 0.2
    )

    def judge(state: PyTree) -> Array:
        own, other = jnp.moveaxis(game.observe(state).astype(jnp.float32), -1, 0)
        moves = game.action_mask(state)[:-1].sum()
        return MOST * jnp.tanh(((own - other) * weights).sum() / 40 + (moves - 3) / 20)

    return judge


def connect_four(game: ConnectFour) -> Heuristic:
    """Judge by the fours that can still be made: each counts by the square of the discs that it has already."""
    steps = ((0, 1), (1, 0), (1, 1), (1, -1))
    fours = [
        [(row + i * down) * COLUMNS + column + i * right for i in range(4)]
        for (row, column), (down, right) in itertools.product(np.ndindex(ROWS, COLUMNS), steps)
        if row + 3 * down < ROWS and 0 <= column + 3 * right < COLUMNS
    ]
    index = np.array(fours)

    def judge(state: PyTree) -> Array:
        discs = game.observe(state).astype(jnp.float32).reshape(-1, 2)
        own, other = jnp.moveaxis(discs[index].sum(1), -1, 0)
        worth = jnp.where(other == 0, own**2, 0.0) - jnp.where(own == 0, other**2, 0.0)
        return MOST * jnp.tanh(worth.sum() / 60)

    return judge
