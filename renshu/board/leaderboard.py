"""Rankings: the runs of each environment by the mean of at least 100 greedy episodes, less one deviation."""

from __future__ import annotations

import tomllib
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache
from importlib import resources
from typing import Any

from renshu.board.catalogue import RunRow, Score


@dataclass(frozen=True)
class ZooScore:
    """The best score that RL Baselines3 Zoo has published for an environment. std, steps: None where not known."""

    algorithm: str
    mean: float
    std: float | None
    steps: int | None

    @property
    def lower(self) -> float | None:
        """Mean less one deviation; None where that is not known."""
        return None if self.std is None else self.mean - self.std


@dataclass(frozen=True)
class Ranking:
    """The runs of an environment, best first. unranked: those without an evaluation of 100 episodes. zoo: RL Zoo's."""

    environment: str
    rows: list[tuple[RunRow, Score]]
    unranked: list[RunRow]
    zoo: ZooScore | None


def rankings(rows: Iterable[RunRow]) -> list[Ranking]:
    """Rank the runs of each environment, environments by name. Runs that cannot be read are left out."""
    parts: dict[str, list[RunRow]] = {}
    for row in rows:
        if row.environment:
            parts.setdefault(row.environment, []).append(row)
    return [_ranking(environment, parts[environment]) for environment in sorted(parts)]


def _ranking(environment: str, rows: list[RunRow]) -> Ranking:
    ranked = [(row, row.ranked) for row in rows if row.ranked is not None]
    ranked.sort(key=lambda pair: (-pair[1].lower, pair[0].steps))
    unranked = [row for row in rows if row.ranked is None]
    return Ranking(environment, ranked, unranked, zoo_score(environment))


def zoo_score(environment: str) -> ZooScore | None:
    """Return the score to beat in an environment; None where none is known. Renshu's own count as Gymnasium's."""
    found = _zoo().get(environment.removeprefix("renshu/"))
    return ZooScore(found["algorithm"], found["mean"], found.get("std"), found.get("steps")) if found else None


@cache
def _zoo() -> dict[str, dict[str, Any]]:
    return tomllib.loads((resources.files("renshu.board") / "zoo.toml").read_text(encoding="utf-8"))
