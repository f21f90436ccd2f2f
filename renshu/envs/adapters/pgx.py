"""Games of pgx, as environments for one player."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from gymnasium import spaces

from renshu.envs.adapters.base import Adapter, check_name, load, space_like
from renshu.envs.device import Step
from renshu.types import Array, Key, PyTree

Opponent = Callable[[Key, Array, Array], Array]
"""A player of pgx: a function from a key, its observation and its legal actions ([A] bool) to its action ([] int32)."""


class PgxState(NamedTuple):
    """A game in which it is our turn, or which has ended."""

    game: Any  # pgx's state
    seat: Array  # [] int32   the player we are
    owed: Array  # [] float32 our reward from before our first move


class Pgx(Adapter):
    """A game of pgx, played by us in one seat and by an opponent in all others: the reward is ours.

    Our seat is newly drawn for each game, so that we move first in half of the two-player games. A step is our move and
    the replies to it, until it is our turn again. An illegal move ends the game with pgx's penalty (-1 for us);
    `action_mask(state)` says which are legal. After the last move the observation is of the player next in turn.

    env: its name ("tic_tac_toe", "connect_four") or the object. opponent: a pure function from a key, its observation
    and its legal actions ([A] bool) to its action; None moves at random. max_episode_steps: the time limit in our
    moves; the MinAtar games may need one.
    Raises UnknownNameError for a name that pgx does not know, EnvironmentFault when pgx is not installed.
    """

    def __init__(self, env: Any, opponent: Opponent | None = None, *, max_episode_steps: int | None = None) -> None:
        if isinstance(env, str):
            library = load("pgx", "games")
            check_name(env, library.available_envs(), "pgx")
            env = library.make(env)
        self.opponent = opponent or _random_legal
        first = jax.eval_shape(env.init, jax.ShapeDtypeStruct((2,), jnp.uint32))
        actions = spaces.Discrete(first.legal_action_mask.shape[0])
        super().__init__("pgx", env, space_like(first.observation), actions, max_episode_steps)

    @property
    def name(self) -> str:
        """Name of the library and its name for the game."""
        return f"pgx:{self.env.id}"

    def action_mask(self, state: PgxState) -> Array:
        """Return the legal actions in a state: [A] bool. When the game has ended, all are legal."""
        return state.game.legal_action_mask

    def _reset(self, key: Array) -> tuple[PyTree, PyTree]:
        begin, draw, reply = jax.random.split(key, 3)
        seat = jax.random.randint(draw, (), 0, self.env.num_players)
        game, owed = self._others(self.env.init(begin), seat, reply, jnp.float32(0.0))
        return PgxState(game, seat, owed), game.observation

    def _step(self, state: PgxState, action: PyTree, key: Array) -> Step:
        move, reply = jax.random.split(key)
        game = self.env.step(state.game, action, move)
        game, reward = self._others(game, state.seat, reply, state.owed + game.rewards[state.seat])
        after = PgxState(game, state.seat, jnp.float32(0.0))
        return Step(after, game.observation, reward, game.terminated, game.truncated)

    def _others(self, game: Any, seat: Array, key: Array, reward: Array) -> tuple[Any, Array]:
        """Let the opponent move until it is our turn or the game has ended, and add to our reward."""
        if self.env.num_players == 1:
            return game, reward

        def theirs(now: tuple[Any, Array, Array]) -> Array:
            return ~(now[0].terminated | now[0].truncated) & (now[0].current_player != seat)

        def play(now: tuple[Any, Array, Array]) -> tuple[Any, Array, Array]:
            game, key, reward = now
            key, choose, move = jax.random.split(key, 3)
            game = self.env.step(game, self.opponent(choose, game.observation, game.legal_action_mask), move)
            return game, key, reward + game.rewards[seat]

        game, _, reward = jax.lax.while_loop(theirs, play, (game, key, reward))
        return game, reward


def _random_legal(key: Key, observation: Array, legal: Array) -> Array:
    return jax.random.categorical(key, jnp.where(legal, 0.0, -jnp.inf))
