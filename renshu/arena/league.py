"""Leagues: everyone against everyone, and ratings of what came of it."""

from __future__ import annotations

import csv
import io
import itertools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from renshu.arena.match import NORMAL_95, Result, match
from renshu.arena.players import Competitor
from renshu.envs.device import DeviceEnv
from renshu.envs.players import RANDOM
from renshu.errors import HyperparameterError
from renshu.tracking.figures import COLOURS, INK, save_figure
from renshu.tracking.provenance import write_atomically, writing

if TYPE_CHECKING:
    from rich.table import Table

ELO = 400 / math.log(10)
"""Points of Elo's scale for a factor e of the odds."""
PRIOR = 0.5
"""Games of the prior: so much of a draw that each played against a player of average strength."""


class Ratings(NamedTuple):
    """Strength on Elo's scale: 400 points more are odds of 10 to 1."""

    elo: np.ndarray  # [n]
    low: np.ndarray  # [n]  of 95 % intervals of the distance to the anchor, or to the mean
    high: np.ndarray  # [n]


def ratings(points: np.ndarray, games: np.ndarray, anchor: int | None = None) -> Ratings:
    """Rate n players by the most likely strengths in the model of Bradley and Terry.

    points: [n, n], of each against each, a draw is half a point. games: [n, n], played by each against each. anchor:
    who has 0; None: the mean has. Intervals come from the Fisher information, as if draws were half a win and half a
    loss, which makes them wide. A weak prior keeps those finite who have won all games.

    Raises HyperparameterError where points and games do not fit.
    """
    points, games = np.asarray(points, float), np.asarray(games, float)
    n = len(games)
    square = points.shape == games.shape == (n, n) and n > 0
    if not square or not np.allclose(games, games.T) or not np.allclose(points + points.T, games):
        raise HyperparameterError(
            f"points {points.shape} and games {games.shape} must be [n, n], the games symmetric, and the points of two "
            "against each other must add up to their games"
        )
    if anchor is not None and not 0 <= anchor < n:
        raise HyperparameterError(f"anchor={anchor}: there are the players 0 to {n - 1}")
    strength, information = np.zeros(n), np.eye(n)
    for _ in range(1000):
        expected = 1 / (1 + np.exp(strength[None] - strength[:, None]))
        own = 1 / (1 + np.exp(-strength))
        slope = (points - games * expected).sum(1) + PRIOR * (0.5 - own)
        information = -games * expected * (1 - expected)
        np.fill_diagonal(information, 0.0)
        np.fill_diagonal(information, -information.sum(1) + PRIOR * own * (1 - own))
        step = np.linalg.solve(information, slope)
        # Far from the top the curve is nearly flat, and a whole step of Newton's would leap over it.
        strength = strength + step * min(1.0, 1.0 / np.abs(step).max(initial=1e-12))
        if np.abs(step).max() < 1e-10:
            break
    around = np.full((n, n), 1 / n) if anchor is None else np.tile(np.arange(n) == anchor, (n, 1)).astype(float)
    contrast = np.eye(n) - around
    spread = np.sqrt(np.diag(contrast @ np.linalg.inv(information) @ contrast.T).clip(0))
    elo = ELO * (contrast @ strength)
    return Ratings(elo, elo - ELO * NORMAL_95 * spread, elo + ELO * NORMAL_95 * spread)


@dataclass(frozen=True)
class League:
    """Result of everyone against everyone.

    game: its name. names: of the n competitors. results: of the matches, by the numbers of both, the smaller first.
    """

    game: str
    names: tuple[str, ...]
    results: dict[tuple[int, int], Result]

    @property
    def points(self) -> np.ndarray:
        """Points of each against each, [n, n]."""
        points = np.zeros((len(self.names),) * 2)
        for (a, b), result in self.results.items():
            points[a, b], points[b, a] = result.score * result.games, (1 - result.score) * result.games
        return points

    @property
    def games(self) -> np.ndarray:
        """Games of each against each, [n, n]."""
        games = np.zeros((len(self.names),) * 2)
        for (a, b), result in self.results.items():
            games[a, b] = games[b, a] = result.games
        return games

    @property
    def ratings(self) -> Ratings:
        """Ratings, with "random" at 0 where it plays, otherwise with the mean there."""
        anchor = self.names.index(RANDOM) if RANDOM in self.names else None
        return ratings(self.points, self.games, anchor)

    @property
    def order(self) -> list[int]:
        """Numbers of the competitors, the strongest first."""
        return [int(i) for i in np.argsort(-self.ratings.elo, kind="stable")]

    def table(self) -> Table:
        """Make a table for the terminal: a row for each competitor, the strongest first."""
        from rich.table import Table

        table = Table(title=f"{self.game}, {int(self.games.sum()) // 2} games", box=None, pad_edge=False)
        table.add_column("")
        for name in ("Elo", "95 % interval", "score", "won", "drawn", "lost"):
            table.add_column(name, justify="right")
        found = self.ratings
        for i in self.order:
            won, drawn, lost = self._counts(i)
            share = (won + drawn / 2) / max(1, won + drawn + lost)
            between = f"{found.low[i]:.0f} to {found.high[i]:.0f}"
            table.add_row(self.names[i], f"{found.elo[i]:.0f}", between, f"{share:.3f}", *map(str, (won, drawn, lost)))
        return table

    def save(self, folder: str | Path) -> list[Path]:
        """Write ratings.csv, matches.csv and league.png. Returns their paths; raises RenshuError where that fails."""
        folder = Path(folder)
        with writing(folder):
            folder.mkdir(parents=True, exist_ok=True)
        found = self.ratings
        rated: list[list[object]] = [["name", "elo", "low", "high", "won", "drawn", "lost"]]
        for i in self.order:
            numbers = [f"{x[i]:.1f}" for x in found]
            rated.append([self.names[i], *numbers, *self._counts(i)])
        matches: list[list[object]] = [["a", "b", "seat_of_a", "won", "drawn", "lost"]]
        for (a, b), result in self.results.items():
            for seat in range(2):
                matches.append([self.names[a], self.names[b], seat, *result.by_seat[seat].tolist()])
        paths = [folder / "ratings.csv", folder / "matches.csv", folder / "league.png"]
        for path, rows in zip(paths[:2], (rated, matches), strict=True):
            lines = io.StringIO()
            csv.writer(lines, lineterminator="\n").writerows(rows)
            write_atomically(path, [lines.getvalue().encode()])
        self.plot(paths[2])
        return paths

    def plot(self, path: Path) -> None:
        """Draw ratings with their intervals, and the scores of each against each, to a PNG file."""
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure

        order, found = self.order, self.ratings
        names, rows = [self.names[i] for i in order], np.arange(len(order))
        figure = Figure(figsize=(11, 1.8 + 0.55 * len(order)), layout="constrained")
        FigureCanvasAgg(figure)
        left, right = figure.subplots(1, 2)
        elo = found.elo[order]
        reach = np.stack([elo - found.low[order], found.high[order] - elo])
        left.errorbar(elo, rows, xerr=reach, fmt="o", color=COLOURS[0], capsize=3)
        left.set_xlabel(f"Elo, {RANDOM} is 0" if RANDOM in self.names else "Elo, the mean is 0", color=INK)
        left.grid(axis="x", color="#e4e7ec", linewidth=0.8)
        left.set_axisbelow(True)
        with np.errstate(invalid="ignore"):
            shares = (self.points / self.games)[np.ix_(order, order)]
        right.imshow(shares, vmin=0, vmax=1, cmap="RdYlBu", alpha=0.6, aspect="auto")
        for (row, column), share in np.ndenumerate(shares):
            right.text(column, row, "" if row == column else f"{share:.2f}", ha="center", va="center", color=INK)
        right.set_xticks(rows, names, rotation=30, ha="right", parse_math=False)
        for axes in (left, right):
            axes.set_yticks(rows, names, parse_math=False)
            axes.set_ylim(len(order) - 0.5, -0.5)
            axes.tick_params(colors=INK, labelsize=9, length=3)
        left.set_title(self.game, loc="left", size=12, weight="bold", color=INK, parse_math=False)
        right.set_title("score of the row against the column", loc="left", size=10, color=INK)
        save_figure(figure, path)

    def _counts(self, number: int) -> tuple[int, int, int]:
        """Return games won, drawn and lost by a competitor."""
        won = drawn = lost = 0
        for (a, b), result in self.results.items():
            if number in (a, b):
                ours, theirs = (result.wins, result.losses) if number == a else (result.losses, result.wins)
                won, drawn, lost = won + ours, drawn + result.draws, lost + theirs
        return won, drawn, lost


def play_league(
    game: DeviceEnv,
    competitors: Sequence[Competitor],
    count: int,
    seed: int,
    *,
    openings: int = 0,
    time_limit: float | None = None,
    tell: Callable[[Result], object] = lambda result: None,
) -> League:
    """Let everyone play `count` games against everyone else.

    competitors: two or more, of different names. tell: is called with the result of each match as it ends. The rest is
    as for `match`, whose errors it raises. Raises HyperparameterError for other competitors.
    """
    names = tuple(competitor.name for competitor in competitors)
    if len(names) < 2 or len(set(names)) < len(names):
        raise HyperparameterError(f"a league has two competitors or more, of different names; these are {list(names)}")
    if game.players != 2:
        raise HyperparameterError(f"a league plays games of two; {game.name} has {game.players} players")
    results = {}
    for number, (a, b) in enumerate(itertools.combinations(range(len(names)), 2)):
        how = {"openings": openings, "time_limit": time_limit}
        results[a, b] = match(game, competitors[a], competitors[b], count, seed + number, **how)
        tell(results[a, b])
    return League(game.name, names, results)
