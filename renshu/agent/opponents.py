"""Opponents of an agent in games of several players."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from renshu.envs.seats import RANDOM

if TYPE_CHECKING:
    from renshu.algorithms.base import Algorithm
    from renshu.envs.source import EnvSource


def seated(source: EnvSource, algorithm: Algorithm, opponent: Any = None) -> EnvSource:
    """Seat opponents in a game where an algorithm moves for one player; leave all other environments as they are.

    opponent: see `renshu.envs.seats.as_player`. None: one that moves at random, or none where the algorithm moves for
    all players. Raises SpaceError for an opponent where there are no seats for one.
    """
    if opponent is None:
        if source.players == 1 or algorithm.accepts.players:
            return source
        opponent = RANDOM
    return source.with_opponent(opponent)
