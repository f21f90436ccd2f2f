"""Opponents of an agent in games of several players."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import jax

from renshu.envs.seats import RANDOM
from renshu.envs.self_play import Frozen

if TYPE_CHECKING:
    from renshu.algorithms.base import Algorithm
    from renshu.envs.source import EnvSource


def seated(source: EnvSource, algorithm: Algorithm, opponent: Any = None) -> EnvSource:
    """Seat opponents in a game where an algorithm moves for one player; leave all other environments as they are.

    opponent: an agent, which stays as it is now, or what `renshu.envs.seats.as_player` takes. None: one that moves at
    random, or none where the algorithm moves for all players. Raises SpaceError for an opponent where there are no
    seats for one.
    """
    trainer = getattr(opponent, "trainer", None)
    if trainer is not None:
        kept = jax.tree.map(jax.numpy.copy, trainer.actor_state)
        opponent = Frozen(trainer.learner, kept, type(trainer.algorithm).__name__.lower())
    if opponent is None:
        if source.players == 1 or algorithm.accepts.players:
            return source
        opponent = RANDOM
    return source.with_opponent(opponent)
