"""Games of several players as pure functions: they move one at a time, and each is paid rewards of its own."""

from __future__ import annotations

from abc import abstractmethod

import jax
import jax.numpy as jnp

from renshu.envs.device import DeviceEnv, Step
from renshu.types import Array, Key, PyTree


class Game(DeviceEnv):
    """A game of `players` players, who sit in seats 0 to P - 1 and move one at a time. A subclass has its rules.

    Observation and mask are those of the player to move. Rewards are [P] float32, one for each seat, whoever moved. An
    action that is not allowed ends the game: the player who chose it is paid -1, and the others share 1.
    """

    players = 2

    @abstractmethod
    def begin(self, key: Key) -> PyTree:
        """Set up a game. Returns its state, any pytree of arrays of fixed shape and dtype."""

    @abstractmethod
    def move(self, state: PyTree, action: Array, key: Key) -> tuple[PyTree, Array, Array]:
        """Make a move that is allowed. Returns the state after it, rewards [P] float32, and whether the game is over.

        Whom `to_play` names after the last move has no meaning.
        """

    @abstractmethod
    def observe(self, state: PyTree) -> PyTree:
        """Return the observation of the player to move, as the observation space says."""

    @abstractmethod
    def to_play(self, state: PyTree) -> Array:
        """Return the seat of the player to move: [] int32."""

    @abstractmethod
    def action_mask(self, state: PyTree) -> Array:
        """Return which of n Discrete actions are allowed: [n] bool. At the end of a game it has no meaning."""

    def reset(self, key: Key) -> tuple[PyTree, PyTree]:
        """Begin a game."""
        state = self.begin(key)
        return state, self.observe(state)

    def step(self, state: PyTree, action: PyTree, key: Key) -> Step:
        """Make a move, or end the game by one that is not allowed."""
        allowed, seat = self.action_mask(state)[action] != 0, self.to_play(state)
        after, reward, over = self.move(state, action, key)
        after = jax.tree.map(lambda new, old: jnp.where(allowed, new, old), after, state)
        penalty = jnp.where(jnp.arange(self.players) == seat, -1.0, 1.0 / (self.players - 1)).astype(jnp.float32)
        return Step(after, self.observe(after), jnp.where(allowed, reward, penalty), over | ~allowed)
