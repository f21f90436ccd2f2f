"""Games between competitors, many at once, and matches of two of them."""

from __future__ import annotations

import copy
import math
import threading
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from renshu.arena.players import Competitor, Left, Moved, TakeBack, View
from renshu.arena.rules import Position, Rules, numbered, rules_of
from renshu.envs.device import DeviceEnv
from renshu.errors import HyperparameterError, RenshuError
from renshu.types import PyTree

NORMAL_95 = 1.96
"""Half the width of a 95 % interval, in standard deviations."""


class OutOfTime(RenshuError):
    """A competitor that thought longer than it may. competitor, seat: which one."""

    def __init__(self, competitor: Competitor, seat: int, limit: float, game: str, games: int) -> None:
        self.competitor, self.seat = competitor.name, seat
        super().__init__(
            f"{competitor.name}, in seat {seat} of {game}, thought longer than the {limit:g} s that it has for a move "
            f"in {games} games: let it look at less, or give it more time"
        )


class Games(NamedTuple):
    """Results of games that were played at once."""

    returns: np.ndarray  # [count, P] float32
    lengths: np.ndarray  # [count] int32  moves
    actions: np.ndarray  # [T, count] int32, -1 after the end
    seed: int  # with the number of a game, of all chance in it
    names: tuple[str, ...]  # of the competitors, by seat
    states: PyTree = ()  # [T + 1, count, ...]  of the game, with record=True


class Standing(NamedTuple):
    """Games in progress."""

    position: Position
    over: np.ndarray  # [count] bool
    returns: np.ndarray  # [count, P]
    lengths: np.ndarray  # [count]
    moved: np.ndarray  # [count, P] bool  who sits there has chosen a move in that game
    actions: tuple[np.ndarray, ...] = ()
    states: tuple[PyTree, ...] = ()


def play_games(
    game: DeviceEnv,
    competitors: Sequence[Competitor],
    count: int,
    *,
    seed: int,
    openings: int = 0,
    time_limit: float | None = None,
    record: bool = False,
) -> Games:
    """Play `count` games at once, from their beginning to their end.

    game: of two players or more; a limit of steps that it has counts. competitors: one for each seat; one that sits in
    several is copied. seed: of all chance. openings: moves at the beginning of each game that are drawn at random, so
    that competitors who always choose the same do not play one game again and again. time_limit: seconds that a
    competitor has for its moves in all games together; its first ones, during which programs are compiled, and a person
    have all the time they want. record: keep all states.

    Raises OutOfTime where a competitor thinks longer; its thread cannot be stopped, and goes on in the background until
    it has an answer, or the process ends. Raises RenshuError, naming competitor, game and move, for an action that is
    not allowed; SpaceError for an environment of one player; HyperparameterError for arguments out of range.
    """
    rules = rules_of(game)
    count = _whole("count", count, 1)
    seats = _each_its_own(rules.game, competitors)
    openings, seed = _whole("openings", openings, 0), _whole("seed", seed, 0)
    return _Table(rules, seats, count, seed, openings, time_limit, record).play()


class _Table:
    """The games, and who sits there."""

    def __init__(
        self,
        rules: Rules,
        seats: list[Competitor],
        count: int,
        seed: int,
        openings: int,
        limit: float | None,
        record: bool,
    ) -> None:
        if limit is not None and not limit > 0:
            raise HyperparameterError(f"time_limit={limit!r}: expected a number of seconds above 0, or None")
        if count > 1 and any(competitor.takes_back for competitor in seats):
            raise HyperparameterError(f"count={count}: a person plays one game at a time")
        for competitor in seats:
            competitor.check(rules.game)
        self.rules, self.seats, self.count, self.limit, self.record = rules, seats, count, limit, record
        self.openings, self.draw = openings, np.random.default_rng([seed, 0])
        self.seed, self.rows = np.uint32(seed), numbered(count)
        self.names = tuple(competitor.name for competitor in seats)
        self.timed = [False] * len(seats)
        self.history: list[tuple[int, Standing, list[dict[str, Any]]]] = []

    def play(self) -> Games:
        for seat, competitor in enumerate(self.seats):
            competitor.begin(self.count, seed_of(int(self.seed), seat))
        players = len(self.seats)
        now = Standing(
            self.rules.begin(self.seed, self.rows),
            np.zeros(self.count, np.bool_),
            np.zeros((self.count, players), np.float32),
            np.zeros(self.count, np.int32),
            np.zeros((self.count, players), np.bool_),
        )
        while not now.over.all():
            opening = len(now.actions) < self.openings
            try:
                chosen = self._drawn(now) if opening else self._chosen(now)
            except TakeBack:
                now = self._before()
            else:
                now = self._after(now, chosen, opening)
        kept = (*now.states, now.position.state)
        return Games(
            now.returns,
            now.lengths,
            np.stack(now.actions),
            int(self.seed),
            self.names,
            jax.tree.map(lambda *x: jnp.stack(x), *kept) if self.record else (),
        )

    def _drawn(self, now: Standing) -> np.ndarray:
        """Draw a move in each game: [count], -1 where it is over."""
        chance = np.where(np.asarray(now.position.legal), self.draw.random((self.count, self.rules.actions)), -1.0)
        return np.where(now.over, -1, chance.argmax(axis=1)).astype(np.int32)

    def _chosen(self, now: Standing) -> np.ndarray:
        """Ask all who are to move in any game: actions [count], -1 in those that are over."""
        legal, seat = np.asarray(now.position.legal), np.asarray(now.position.seat)
        chosen = np.full(self.count, -1, np.int32)
        for number, competitor in enumerate(self.seats):
            mine = ~now.over & (seat == number)
            if not mine.any():
                continue
            if competitor.takes_back:
                self.history.append((number, now, [dict(vars(each)) for each in self.seats]))
            # Where a game is over nothing may be allowed, which some networks cannot bear.
            shown = legal | now.over[:, None]
            view = View(now.position.obs, shown, now.position.state, seat, ~now.moved[:, number], mine)
            answer = np.asarray(self._answer(competitor, number, view))
            self._check(competitor, number, answer, now, legal, mine)
            chosen = np.where(mine, answer, chosen).astype(np.int32)
        return chosen

    def _answer(self, competitor: Competitor, seat: int, view: View) -> Any:
        first, self.timed[seat] = not self.timed[seat], True
        if self.limit is None or first or competitor.takes_back:
            return competitor.choose(view)
        answers: list[Any] = []
        errors: list[BaseException] = []

        def think() -> None:
            try:
                answers.append(competitor.choose(view))
            except BaseException as error:
                errors.append(error)

        thread = threading.Thread(target=think, name=f"{competitor.name} thinks", daemon=True)
        thread.start()
        thread.join(self.limit)
        if errors:
            raise errors[0]
        if not answers:
            raise OutOfTime(competitor, seat, self.limit, self.rules.game.name, int(view.mine.sum()))
        return answers[0]

    def _check(
        self, competitor: Competitor, seat: int, answer: np.ndarray, now: Standing, legal: np.ndarray, mine: np.ndarray
    ) -> None:
        who = f"{competitor.name}, in seat {seat} of {self.rules.game.name},"
        if answer.shape != (self.count,) or answer.dtype.kind not in "iu":
            raise RenshuError(
                f"{who} answered with {answer.dtype} of shape {answer.shape}: choose returns whole numbers of shape "
                f"({self.count},)"
            )
        number = np.where(mine, answer, 0)
        inside = (number >= 0) & (number < self.rules.actions)
        allowed = legal[self.rows, np.where(inside, number, 0)] & inside
        wrong = np.flatnonzero(mine & ~allowed)
        if len(wrong):
            i = wrong[0]
            names = [f"{a} ({self.rules.game.action_name(int(a))})" for a in np.flatnonzero(legal[i])]
            name = f" ({self.rules.game.action_name(int(answer[i]))})" if inside[i] else ""
            raise RenshuError(
                f"{who} chose {answer[i]}{name} as move {now.lengths[i] + 1} of game {i}, which is not allowed. "
                f"Allowed are: {', '.join(names)}"
            )

    def _after(self, now: Standing, chosen: np.ndarray, opening: bool) -> Standing:
        move = np.int32(len(now.actions))
        action = np.maximum(chosen, 0)
        position, reward, over, cut = self.rules.step(now.position, action, now.over, self.seed, self.rows, move)
        lengths = now.lengths + ~now.over
        ended = np.asarray(over) | np.asarray(cut)
        if (most := self.rules.game.max_episode_steps) is not None:
            ended |= lengths >= most
        seat = np.asarray(now.position.seat)
        asked = ~now.over & (not opening)
        moved = now.moved | ((np.arange(len(self.seats)) == seat[:, None]) & asked[:, None])
        states = (*now.states, now.position.state) if self.record else ()
        for competitor in self.seats:
            competitor.watch(Moved(position.state, seat, chosen, ended, self.names))
        return Standing(
            position, ended, now.returns + np.asarray(reward), lengths, moved, (*now.actions, chosen), states
        )

    def _before(self) -> Standing:
        """Return to how things stood at the move before of the one who takes back; its present move is the last."""
        asks = self.history.pop()[0]
        while True:
            number, standing, known = self.history.pop()
            if number == asks:
                break
        for each, attributes in zip(self.seats, known, strict=True):
            vars(each).clear()
            vars(each).update(attributes)
        return standing


def seed_of(seed: int, seat: int) -> int:
    """Return the seed of whoever sits in a seat: far from those of others, and of neighbouring seeds."""
    return int(np.random.SeedSequence([seed, seat + 1]).generate_state(1)[0])


def _each_its_own(game: DeviceEnv, competitors: Sequence[Competitor]) -> list[Competitor]:
    if len(competitors) != game.players:
        raise HyperparameterError(f"{len(competitors)} competitors: {game.name} has {game.players} seats, one for each")
    seats: list[Competitor] = []
    for competitor in competitors:
        again = any(competitor is other for other in seats)
        seats.append(copy.copy(competitor) if again else competitor)
    return seats


def _whole(name: str, value: int, least: int) -> int:
    if isinstance(value, bool) or not isinstance(value, int | np.integer) or not least <= value < 2**32:
        raise HyperparameterError(f"{name}={value!r}: expected a whole number from {least} to 2**32 - 1")
    return int(value)


# --- matches of two ---------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Result:
    """Result of a match for the first of two.

    names: of both. by_seat: [2, 3] int, its wins, draws and losses in seat 0 and in seat 1. lengths: moves of the games
    on average.
    """

    names: tuple[str, str]
    by_seat: np.ndarray
    lengths: float

    @classmethod
    def of(cls, names: tuple[str, str], played: Iterable[tuple[int, Games]]) -> Result:
        """Count games of two. names: of both. played: games, with the seat of the first in them."""
        by_seat, lengths = np.zeros((2, 3), np.int64), []
        for seat, games in played:
            ahead = np.sign(games.returns[:, seat] - games.returns[:, 1 - seat])
            by_seat[seat] += [(ahead == sign).sum() for sign in (1, 0, -1)]
            lengths.append(games.lengths)
        return cls(names, by_seat, float(np.concatenate(lengths).mean()))

    @property
    def wins(self) -> int:
        """Games that the first has won."""
        return int(self.by_seat[:, 0].sum())

    @property
    def draws(self) -> int:
        """Games that nobody has won."""
        return int(self.by_seat[:, 1].sum())

    @property
    def losses(self) -> int:
        """Games that the second has won."""
        return int(self.by_seat[:, 2].sum())

    @property
    def games(self) -> int:
        """Games of the match."""
        return int(self.by_seat.sum())

    @property
    def score(self) -> float:
        """Share of the points: 1 for a win, 1/2 for a draw."""
        return (self.wins + self.draws / 2) / self.games

    @property
    def interval(self) -> tuple[float, float]:
        """95 % interval of the score: Wilson's, as if a draw were half a win and half a loss, which makes it wide."""
        return wilson(self.score, self.games)

    def __str__(self) -> str:
        low, high = self.interval
        a, b = self.names
        return (
            f"{a} against {b}: {self.wins} won, {self.draws} drawn, {self.losses} lost; score {self.score:.3f} "
            f"({low:.3f} to {high:.3f})"
        )


def wilson(score: float, games: int) -> tuple[float, float]:
    """Return Wilson's 95 % interval of a share of so many games."""
    square = NORMAL_95**2 / games
    centre = (score + square / 2) / (1 + square)
    reach = NORMAL_95 / (1 + square) * math.sqrt(score * (1 - score) / games + square / (4 * games))
    return max(0.0, centre - reach), min(1.0, centre + reach)


def match(
    game: DeviceEnv,
    a: Competitor,
    b: Competitor,
    count: int,
    seed: int,
    *,
    openings: int = 0,
    time_limit: float | None = None,
) -> Result:
    """Let two competitors play `count` games, half of them with `a` in seat 0, half with `b`, of the same openings.

    count: even, 2 or more. A person plays one game after the other, in turn in each seat, and keeps those that are over
    on leaving. Otherwise as `play_games`, whose errors it raises; Left by a person who has finished none.
    """
    if _whole("count", count, 2) % 2:
        raise HyperparameterError(f"count={count}: expected an even number of games, half for each seat")
    at_once = 1 if a.takes_back or b.takes_back else count // 2
    played: list[tuple[int, Games]] = []
    try:
        for number in range(count // at_once):
            seat = number % 2
            pair, own = ((a, b), (b, a))[seat], seed + number // 2
            games = play_games(game, pair, at_once, seed=own, openings=openings, time_limit=time_limit)
            played.append((seat, games))
    except Left:
        if not played:
            raise
    return Result.of((a.name, b.name), played)
