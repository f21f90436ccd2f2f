"""Opponents of an agent in games of several players."""

from __future__ import annotations

import warnings
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import jax
from gymnasium.wrappers import TimeLimit

from renshu.agent.compatible import check_game
from renshu.envs.adapters.pettingzoo import SeatInTurns
from renshu.envs.gymnasium.registration import parted
from renshu.envs.players import RANDOM, SELF
from renshu.envs.seats import game_of, name_of, seat, seated_in
from renshu.envs.self_play import Frozen, SelfPlay
from renshu.errors import CheckpointError, SpaceError

if TYPE_CHECKING:
    from renshu.algorithms.base import Algorithm
    from renshu.envs.device import DeviceEnv
    from renshu.envs.source import EnvSource
    from renshu.types import EnvSpec

OPPONENT = "opponent"
"""Name of the argument of games that says who sits in the other seats."""


def seated(source: EnvSource, algorithm: Algorithm, opponent: Any = None, *, explore: bool = True) -> EnvSource:
    """Seat opponents in a game where an algorithm moves for one player; leave all other environments as they are.

    opponent: an agent, which stays as it is now, or what `renshu.envs.seats.as_player` takes. None: one that moves at
    random, or none where the algorithm moves for all players. explore: an agent acts there as in its training.

    Raises SpaceError for an opponent where there are no seats for one, or an agent of another game.
    """
    game, in_turns = source.plain_device, _in_turns(source)
    if opponent is not None and in_turns is not None:
        made = in_turns.against(_frozen(opponent, explore))
        return replace(source, given=made if source.limit is None else TimeLimit(made, source.limit))
    if opponent is None and (game is None or game.players == 1 or algorithm.accepts.players):
        return source
    if game is None or game.players < 2:
        raise _no_seat(source, game, opponent)
    given = RANDOM if opponent is None else _frozen(opponent, explore, game)
    made = seat(game, given)
    if isinstance(source.given, str) and isinstance(given, str):
        return replace(source, kwargs={**source.kwargs, OPPONENT: given})
    return replace(source, given=made, kwargs={})


def _no_seat(source: EnvSource, game: DeviceEnv | None, opponent: Any) -> SpaceError:
    """Say why there is no seat for an opponent."""
    sits = None if game is None else seated_in(game)
    why = "is no game of several players" if sits is None else f"has the opponent {sits.name!r} already"
    if callable(source.given):
        why += " before it is made (pass the environment itself, not a function that makes one)"
    return SpaceError(f"opponent={opponent!r}: {source.name} {why}; leave it out")


def reseated(source: EnvSource, algorithm: Algorithm, opponent: Any, *, explore: bool = True) -> EnvSource:
    """Seat another opponent in a game, in the place of the one that sits there; see `seated`."""
    game = source.plain_device
    if isinstance(source.given, str):
        kwargs = {name: value for name, value in source.kwargs.items() if name != OPPONENT}
        source = replace(source, kwargs=kwargs)
    elif game is not None:
        source = replace(source, given=parted(game)[0])
    return seated(source, algorithm, opponent, explore=explore)


def refuse_copies(opponent: Any) -> None:
    """Raise SpaceError for "self" where nothing is trained: there are no copies of the past."""
    if isinstance(opponent, SelfPlay) or (isinstance(opponent, str) and opponent == SELF):
        raise SpaceError(
            'opponent="self" is for training, which has the copies. Give an agent: this one plays against itself as '
            "itself, and against its past as what was saved then"
        )


def seated_again(source: EnvSource, algorithm: Algorithm, spec: EnvSpec) -> EnvSource:
    """Seat the opponent that the spec of a file names. One that it could not hold is replaced, with a warning."""
    game = source.plain_device
    if game is None or game.players == 1 or algorithm.accepts.players:
        return source
    if OPPONENT in spec.unsaved:
        warnings.warn(
            f"the file does not hold the opponent of {source.name}: random play sits there now. Seat it again by "
            "agent.on(env, opponent=...), or agent.evaluate(opponent=...)",
            stacklevel=4,
        )
    return seated(source, algorithm, spec.kwargs.get(OPPONENT, RANDOM))


def named_opponent(source: EnvSource | None) -> str | None:
    """Name who sits in the other seats of a game; None where there are none."""
    if source is not None and (in_turns := _in_turns(source)) is not None:
        return in_turns.opponent.name
    game = None if source is None else source.plain_device
    opponent = None if game is None else seated_in(game)
    if opponent is None:
        return None
    known = name_of(opponent)
    return known if isinstance(known, str) else opponent.name


def _in_turns(source: EnvSource) -> SeatInTurns | None:
    """Return the seat in a game of PettingZoo that was given; None for all else, and inside a user's own wrappers."""
    given = source.given
    if isinstance(given, TimeLimit) and source.limit is not None:
        given = given.env
    return given if isinstance(given, SeatInTurns) else None


def _frozen(opponent: Any, explore: bool, game: DeviceEnv | None = None) -> Any:
    """Turn an agent into a player that stays as it is; return anything else as it is."""
    trainer = getattr(opponent, "trainer", None)
    if trainer is None:
        return opponent
    name = type(trainer.algorithm).__name__.lower()
    if game is not None:
        check_game(trainer, name, game_of(game))
    if trainer.learner.needs.env_state and trainer.spec.model is None:
        raise CheckpointError(
            f"{name} plans in its environment, which no file holds: give it, as in renshu.load(path, env=game)"
        )
    kept = jax.tree.map(jax.numpy.copy, trainer.actor_state)
    return Frozen(trainer.learner, kept, name, explore)
