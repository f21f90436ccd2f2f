"""Games of pgx, with all their seats."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
from gymnasium import spaces

from renshu.envs.adapters.base import Adapter, check_name, load, space_like
from renshu.envs.device import Step
from renshu.types import Array, PyTree


class Pgx(Adapter):
    """A game of pgx. Its players move one at a time, and observation and mask are those of the player to move.

    Rewards are [P] float32 where it is for P players, a number where it is for one. Who has the first move is drawn for
    each game, as pgx does. An illegal move ends the game with pgx's penalty. A learner that moves for one player alone
    gets opponents: `PPO().on(Pgx("connect_four"), opponent="random")`.

    env: its name ("tic_tac_toe", "connect_four") or the object. max_episode_steps: the time limit in moves; the MinAtar
    games may need one.
    Raises UnknownNameError for a name that pgx does not know, EnvironmentFault when pgx is not installed.
    """

    def __init__(self, env: Any, *, max_episode_steps: int | None = None) -> None:
        if isinstance(env, str):
            library = load("pgx", "games")
            check_name(env, library.available_envs(), "pgx")
            env = library.make(env)
        first = jax.eval_shape(env.init, jax.ShapeDtypeStruct((2,), jnp.uint32))
        actions = spaces.Discrete(first.legal_action_mask.shape[0])
        self.players = int(env.num_players)
        super().__init__("pgx", env, space_like(first.observation), actions, max_episode_steps)

    @property
    def name(self) -> str:
        """Name of the library and its name for the game."""
        return f"pgx:{self.env.id}"

    def action_mask(self, state: Any) -> Array:
        """Return the legal actions in a state: [A] bool. When the game has ended, all are legal."""
        return state.legal_action_mask

    def to_play(self, state: Any) -> Array:
        """Return the seat of the player to move: [] int32."""
        return jnp.asarray(state.current_player, jnp.int32)

    def _reset(self, key: Array) -> tuple[PyTree, PyTree]:
        state = self.env.init(key)
        return state, state.observation

    def _step(self, state: Any, action: PyTree, key: Array) -> Step:
        after = self.env.step(state, action, key)
        reward = after.rewards if self.players > 1 else after.rewards[0]
        return Step(after, after.observation, reward, after.terminated, after.truncated)
