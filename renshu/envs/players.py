"""Players of games as pure functions: they take the seats that are not the learner's."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

from renshu.types import Array, Key, PyTree

Opponent = Callable[[Key, PyTree, Array], Array]
"""The simplest player: a function from a key, its observation and its legal actions ([A] bool) to an action."""

RANDOM, SELF = "random", "self"


class Sight(NamedTuple):
    """Everything that the player to move may look at, of one game."""

    obs: PyTree
    legal: Array  # [A] bool
    state: PyTree  # the game's own, for players that plan
    first: Array  # [] bool   it is this player's first move of the game


class Player(ABC):
    """A player of games as pure functions, for all seats but the learner's. Subclass it for one that remembers."""

    name = ""

    def begin(self, key: Key) -> PyTree:
        """Return the player's memory at the start of a game: a pytree of arrays of fixed shape and dtype."""
        return ()

    @abstractmethod
    def move(self, memory: PyTree, sight: Sight, key: Key) -> tuple[Array, PyTree]:
        """Choose an action, [] int32, and return the memory after it."""

    def filed(self, memory: PyTree) -> dict[str, Array]:
        """Name who it is that plays, where that differs by game: flags, [] bool, under which returns are filed."""
        return {}


class RandomPlayer(Player):
    """A player that chooses among the legal actions at random."""

    name = RANDOM

    def move(self, memory: PyTree, sight: Sight, key: Key) -> tuple[Array, PyTree]:
        """Choose a legal action."""
        return jax.random.categorical(key, jnp.where(sight.legal, 0.0, -jnp.inf)), memory


class FunctionPlayer(Player):
    """A player made of a function; see `Opponent`."""

    def __init__(self, function: Opponent) -> None:
        self.function, self.name = function, getattr(function, "__name__", type(function).__name__)

    def move(self, memory: PyTree, sight: Sight, key: Key) -> tuple[Array, PyTree]:
        """Choose the function's action."""
        return jnp.asarray(self.function(key, sight.obs, sight.legal), jnp.int32), memory
