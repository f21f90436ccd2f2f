"""All games that a competitor can get into: its moves against every reply."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from renshu.arena.match import seed_of
from renshu.arena.players import Competitor, View
from renshu.arena.rules import Position, Rules, numbered, rules_of
from renshu.envs.device import DeviceEnv
from renshu.errors import HyperparameterError, RenshuError

BATCH = 1024
"""Positions that are looked at together."""


class Leaves(NamedTuple):
    """Games that have ended, counted by how they ended for the competitor."""

    wins: int
    draws: int
    losses: int


class _Branches(NamedTuple):
    position: Position  # [n or more, ...]
    returns: np.ndarray  # [n, P]
    moved: np.ndarray  # [n] bool  by the competitor


def never_loses(game: DeviceEnv, competitor: Competitor, seat: int, most: int = 1_000_000, *, seed: int = 0) -> Leaves:
    """Play a competitor's choices against every reply of the others, and count all games that come of it.

    It loses to nobody where `losses` is 0. That holds for a competitor that chooses the same in the same position, and
    remembers nothing of a game: it is asked about many positions at once, which may be of different games. Chance in a
    game is one fixed outcome.

    seat: the competitor's. most: positions to look at. seed: of the competitor.

    Raises RenshuError where there are more positions, HyperparameterError where there is no such seat, and SpaceError
    for an environment of one player.
    """
    rules = rules_of(game)
    if not 0 <= seat < rules.game.players:
        raise HyperparameterError(f"seat={seat}: {rules.game.name} has the seats 0 to {rules.game.players - 1}")
    competitor.check(rules.game)
    begun = rules.begin(np.uint32(seed), numbered(1))
    waiting = [_Branches(begun, np.zeros((1, rules.game.players), np.float32), np.zeros(1, np.bool_))]
    counts, looked = np.zeros(3, np.int64), 0
    while waiting:
        branches = waiting.pop()
        looked += len(branches.moved)
        if looked > most:
            raise RenshuError(
                f"{competitor.name} gets into more than {most:,} positions of {rules.game.name}: allow more by most=, "
                "or take a smaller game"
            )
        after, ended = _grown(rules, competitor, seat, seed, branches)
        ahead = np.sign(ended[:, seat] - np.delete(ended, seat, axis=1).max(axis=1, initial=-np.inf))
        counts += [(ahead == sign).sum() for sign in (1, 0, -1)]
        waiting += after
    return Leaves(*map(int, counts))


def _grown(
    rules: Rules, competitor: Competitor, seat: int, seed: int, branches: _Branches
) -> tuple[list[_Branches], np.ndarray]:
    """Make every move from some positions: those that go on, in batches, and the returns of those that ended."""
    count = len(branches.moved)
    legal, mine = np.asarray(branches.position.legal)[:count], np.asarray(branches.position.seat)[:count] == seat
    if mine.any():
        choice = _choices(rules, competitor, seed, branches, mine)
        legal = np.where(mine[:, None], np.arange(rules.actions) == choice[:, None], legal)
    rows, actions = np.nonzero(legal)
    after: list[_Branches] = []
    ended = []
    for at in range(0, len(rows), BATCH):
        index, action = rows[at : at + BATCH], actions[at : at + BATCH]
        size = _power(len(index))
        position = rules.take(branches.position, _padded(index, size))
        no, numbers = np.zeros(size, np.bool_), numbered(size)
        position, reward, over, cut = rules.step(
            position, _padded(action, size).astype(np.int32), no, np.uint32(seed), numbers, np.int32(0)
        )
        returns = branches.returns[index] + np.asarray(reward)[: len(index)]
        over = (np.asarray(over) | np.asarray(cut))[: len(index)]
        ended.append(returns[over])
        on = np.flatnonzero(~over)
        if len(on):
            kept = rules.take(position, _padded(on, _power(len(on))))
            after.append(_Branches(kept, returns[on], (branches.moved | mine)[index][on]))
    return after, np.concatenate(ended)


def _choices(rules: Rules, competitor: Competitor, seed: int, branches: _Branches, mine: np.ndarray) -> np.ndarray:
    """Ask the competitor for its moves: [n] int, of its own positions."""
    count, size = len(mine), _power(len(mine))
    index = _padded(np.arange(count), size)
    position = rules.take(branches.position, index)
    competitor.begin(size, seed_of(seed, 0))
    own = mine[index] & (np.arange(size) < count)
    legal, first = np.asarray(position.legal), ~branches.moved[index]
    view = View(position.obs, legal, position.state, np.asarray(position.seat), first, own)
    choice = np.asarray(competitor.choose(view))[:count]
    wrong = mine & ~np.take_along_axis(legal[:count], np.clip(choice, 0, rules.actions - 1)[:, None], 1)[:, 0]
    if wrong.any():
        raise RenshuError(f"{competitor.name} chose {choice[wrong][0]} in {rules.game.name}, which is not allowed")
    return choice


def _power(count: int) -> int:
    """Return the next power of two: of few sizes few programs are compiled."""
    return 1 << (count - 1).bit_length()


def _padded(values: np.ndarray, size: int) -> np.ndarray:
    return np.concatenate([values, np.full(size - len(values), values[0])])
