"""Rules of a game as compiled functions of many games at once."""

from __future__ import annotations

from functools import lru_cache
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from renshu import runtime
from renshu.envs.device import DeviceEnv, MaskedDeviceEnv
from renshu.errors import SpaceError
from renshu.ops.rows import choose
from renshu.types import Array, Key, PyTree


class Position(NamedTuple):
    """Many games at once, as they stand."""

    state: PyTree  # [B, ...]  the game's own states
    obs: PyTree  # [B, ...]  of the players to move
    legal: Array  # [B, A] bool
    seat: Array  # [B] int32  of the player to move


class Rules:
    """Compiled functions of a game.

    begin(seed, rows) -> Position: games with the numbers `rows`, [B] int32. step(position, action, over, seed, rows,
    move) -> (Position, rewards [B, P] float32, ended [B] bool, cut [B] bool); games that are over stay as they are and
    pay nothing. Chance in a game depends on the seed, its number and the number of the move alone, so that each can be
    played again by itself. take(tree, index) -> the rows of a tree of arrays at `index`.

    Raises SpaceError for an environment of one player, or whose actions are not Discrete from 0.
    """

    def __init__(self, game: DeviceEnv) -> None:
        runtime.prepare()
        self.game = game
        self.actions = int(getattr(game.action_space, "n", 0))
        if game.players < 2:
            raise SpaceError(f"{game.name} is for one player: a game of two or more is wanted here, without opponents")
        if not self.actions or getattr(game.action_space, "start", 0):
            raise SpaceError(f"{game.name} has actions of {game.action_space}: games here have Discrete ones from 0")
        self.begin = jax.jit(self._begin)
        self.step = jax.jit(self._step)
        self.take = jax.jit(lambda tree, index: jax.tree.map(lambda x: x[index], tree))

    def key(self, seed: Array, row: Array, move: Array) -> Key:
        """Return the key of a move in a game, of its beginning for move 0."""
        return jax.random.fold_in(jax.random.fold_in(jax.random.key(seed), row), move)

    def _keys(self, seed: Array, rows: Array, move: Array) -> Key:
        return jax.vmap(self.key, (None, 0, None))(seed, rows, move)

    def _begin(self, seed: Array, rows: Array) -> Position:
        return self._seen(*jax.vmap(self.game.reset)(self._keys(seed, rows, jnp.int32(0))))

    def _step(
        self, position: Position, action: Array, over: Array, seed: Array, rows: Array, move: Array
    ) -> tuple[Position, Array, Array, Array]:
        keys = self._keys(seed, rows, move + 1)
        after = jax.vmap(self.game.step)(position.state, action, keys)
        new = self._seen(after.state, after.obs)
        kept = jax.tree.map(lambda new, old: choose(over, old, new), new, position)
        cut = jnp.broadcast_to(jnp.asarray(after.truncated), over.shape)
        reward = jnp.where(over[:, None], 0.0, after.reward.astype(jnp.float32))
        return kept, reward, over | after.terminated, ~over & cut

    def _seen(self, state: PyTree, obs: PyTree) -> Position:
        seat = jax.vmap(self.game.to_play)(state).astype(jnp.int32)
        if not self.game.gives_masks:
            return Position(state, obs, jnp.ones((len(seat), self.actions), jnp.bool_), seat)
        return Position(state, obs, jax.vmap(self.game.action_mask)(state) != 0, seat)


def rules_of(game: DeviceEnv) -> Rules:
    """Return the rules of a game; those of the same game again are not compiled anew. Masks in observations go."""
    while isinstance(game, MaskedDeviceEnv):
        game = game.env
    try:
        return _kept(game, game.max_episode_steps)
    except TypeError:  # not hashable
        return Rules(game)


@lru_cache(maxsize=32)
def _kept(game: DeviceEnv, limit: int | None) -> Rules:
    # A limit is no field of a game, so that two which differ by it alone are equal.
    return Rules(game)


def numbered(count: int) -> np.ndarray:
    """Return the numbers of so many games, [count] int32."""
    return np.arange(count, dtype=np.int32)
