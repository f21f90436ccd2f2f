"""Contents of a folder: runs, experiments, leagues. Read again where a file has changed, and never through a link.

Everything here is somebody's data: a value of another kind than expected counts as unknown, a run that cannot be read
is listed with the reason, and a name means a folder only if it was found by walking.
"""

from __future__ import annotations

import json
import math
import os
import stat
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeAlias

from renshu.errors import RenshuError
from renshu.tracking.curves import EPISODES, EVALUATIONS
from renshu.tracking.lock import holder
from renshu.tracking.provenance import read_settings

State: TypeAlias = Literal["training", "ended", "stopped", "damaged"]
Stamp: TypeAlias = tuple[tuple[int, int], ...]

DEPTH = 5
"""Folders above each other that are searched."""
RANKED_EPISODES = 100
"""Episodes that an evaluation needs to count on the leaderboard."""
_TABLES = ("episodes.csv", "evaluations.csv", "scores.csv")
_WATCHED = ("settings.json", *_TABLES, "agent.safetensors", "lock")
_TAIL = 4096
_LARGEST_SETTINGS = 4 << 20
_MARKS = {"curves.csv": "experiments", "pbt.csv": "populations", "ratings.csv": "leagues"}


@dataclass(frozen=True)
class Score:
    """An evaluation: mean and deviation of the returns of whole greedy episodes, after `step` training steps."""

    step: int
    mean: float
    std: float
    episodes: int

    @property
    def lower(self) -> float:
        """Mean minus one deviation, by which the Hugging Face course ranks."""
        return self.mean - self.std


@dataclass(frozen=True)
class RunRow:
    """A run as lists show it; None: unknown.

    name: path inside the board's folder, with "/". evaluated: the newest evaluation; ranked: the newest of at least 100
    episodes. train_return: of the newest episode that ended. fault: the reason why the run cannot be read.
    """

    name: str
    path: Path
    state: State
    algorithm: str = ""
    environment: str = ""
    seed: int | None = None
    steps: int = 0
    total_steps: int | None = None
    seconds: float | None = None
    train_return: float | None = None
    evaluated: Score | None = None
    ranked: Score | None = None
    threshold: float | None = None
    started: str = ""
    changed: float = 0.0
    fault: str = ""

    @property
    def solved(self) -> bool:
        """True where the ranked score has reached the environment's threshold."""
        return self.ranked is not None and self.threshold is not None and self.ranked.mean >= self.threshold


class Catalogue:
    """Runs, experiments and leagues in a folder. `refresh` reads what has changed since the last time.

    version: grows with each change, so that a page knows whether to draw itself again.
    """

    def __init__(self, root: Path | str) -> None:
        self.root = Path(root).resolve()
        if not self.root.is_dir():
            raise RenshuError(f"{root} is not a folder. Give the folder that holds your runs, as runs/")
        self.runs: dict[str, RunRow] = {}
        self.experiments: dict[str, Path] = {}
        self.populations: dict[str, Path] = {}
        self.leagues: dict[str, Path] = {}
        self.version = 0
        self._stamps: dict[str, Stamp] = {}
        self._read_at = -math.inf

    def refresh(self, at_most_every: float = 0.0) -> int:
        """Look into the folder again, unless that was done less than so many seconds ago. Return the version."""
        now = time.monotonic()
        if now - self._read_at < at_most_every:
            return self.version
        self._read_at = now
        found: dict[str, dict[str, Path]] = {kind: {} for kind in ("runs", *_MARKS.values())}
        for kind, name, path in _walk(self.root):
            found[kind][name] = path
        changed = found["runs"].keys() != self.runs.keys()
        rows: dict[str, RunRow] = {}
        for name, path in found["runs"].items():
            stamp = _stamp(path)
            # A training that is killed changes no file.
            if self._stamps.get(name) == stamp and self.runs[name].state != "training":
                rows[name] = self.runs[name]
                continue
            rows[name] = _row(name, path)
            self._stamps[name] = stamp
            changed |= rows[name] != self.runs.get(name)
        self.runs = rows
        for kind in _MARKS.values():
            changed |= getattr(self, kind) != found[kind]
            setattr(self, kind, found[kind])
        self.version += changed
        return self.version

    def environments(self) -> list[str]:
        """Return the names of all environments, sorted."""
        return sorted({row.environment for row in self.runs.values() if row.environment})


def regular(path: Path) -> bool:
    """Tell whether a path is a plain file: no link, no folder, nothing that would wait."""
    try:
        return stat.S_ISREG(os.lstat(path).st_mode)
    except (OSError, ValueError):
        return False


def _walk(root: Path) -> Iterator[tuple[str, str, Path]]:
    """Find (kind, name, folder) of everything below the root."""
    folders = [(root, 0)]
    while folders:
        folder, depth = folders.pop()
        name = folder.relative_to(root).as_posix() if folder != root else root.name
        below, marks, is_run = [], [], False
        try:
            with os.scandir(folder) as entries:
                for entry in entries:
                    if entry.is_dir(follow_symlinks=False):
                        if not entry.name.startswith("."):
                            below.append(folder / entry.name)
                    elif entry.name == "settings.json":
                        is_run |= entry.is_file(follow_symlinks=False)
                    elif entry.name in _MARKS and entry.is_file(follow_symlinks=False):
                        marks.append(_MARKS[entry.name])
        except OSError:
            continue  # deleted meanwhile, or not ours to read
        if is_run:
            yield "runs", name, folder
            continue
        yield from ((kind, name, folder) for kind in marks)
        if depth < DEPTH:
            folders += [(path, depth + 1) for path in below]


def _stamp(path: Path) -> Stamp:
    stamps = []
    for name in _WATCHED:
        try:
            found = os.lstat(path / name)
            stamps.append((found.st_mtime_ns, found.st_size))
        except OSError:
            stamps.append((0, -1))
    return tuple(stamps)


def _row(name: str, path: Path) -> RunRow:
    """Read a run as lists show it."""
    changed = max(stamp[0] for stamp in _stamp(path)) / 1e9
    try:
        if (path / "settings.json").stat().st_size > _LARGEST_SETTINGS:
            raise RenshuError(f"settings.json is larger than {_LARGEST_SETTINGS >> 20} MB")
        settings = read_settings(path)
        episodes = _last_row(path / "episodes.csv", EPISODES)
        evaluations = [_score(row) for row in _last_rows(path / "evaluations.csv", EVALUATIONS)]
        kept = [_score(row) for row in _last_rows(path / "scores.csv", EVALUATIONS)]
        scores = [*kept[::-1], *evaluations[::-1]]
    except (RenshuError, OSError) as error:
        return RunRow(name, path, "damaged", fault=str(error)[:300], changed=changed)
    newest = evaluations[-1] if evaluations else None
    steps = max(int(episodes.get("step", 0)), newest.step if newest else 0)
    return RunRow(
        name,
        path,
        _state(path),
        words(settings.get("algorithm")),
        words(settings.get("environment")),
        whole(settings.get("seed")),
        steps,
        whole(settings.get("total_steps")),
        episodes.get("seconds"),
        episodes.get("return"),
        newest,
        next((score for score in scores if score.episodes >= RANKED_EPISODES), None),
        number(settings.get("reward_threshold")),
        words(settings.get("started")),
        changed,
    )


def _state(path: Path) -> State:
    if holder(path) is not None:
        return "training"
    return "ended" if regular(path / "agent.safetensors") else "stopped"


def words(value: Any) -> str:
    """Return a text of somebody's file, at most 200 letters long; "" for anything else."""
    return value[:200] if isinstance(value, str) else ""


def number(value: Any) -> float | None:
    """Return a finite number of somebody's file; None for anything else."""
    plain = isinstance(value, int | float) and not isinstance(value, bool)
    return float(value) if plain and abs(value) < 1e300 and math.isfinite(value) else None


def whole(value: Any) -> int | None:
    """Return a whole number of somebody's file; None for anything else."""
    return value if isinstance(value, int) and not isinstance(value, bool) and abs(value) < 2**63 else None


def _score(row: dict[str, float]) -> Score:
    return Score(int(row["step"]), row["mean"], row["std"], int(row["episodes"]))


def _last_row(file: Path, columns: tuple[str, ...]) -> dict[str, float]:
    """Read the newest row of a table that can be read; {} where there is none."""
    return next(reversed(_last_rows(file, columns)), {})


def _last_rows(file: Path, columns: tuple[str, ...]) -> list[dict[str, float]]:
    """Read the rows in the last 4 kB of a table, oldest first; rows that are not whole or not finite are left out."""
    if not regular(file):
        return []
    with open(file, "rb") as opened:
        size = opened.seek(0, os.SEEK_END)
        opened.seek(max(0, size - _TAIL))
        lines = opened.read(_TAIL).split(b"\n")
    rows = []
    for line in lines[1:-1]:  # the first is the header, or cut; the last is not yet whole
        try:
            values = [float(value) for value in line.split(b",")]
        except ValueError:
            continue
        if len(values) == len(columns) and all(map(math.isfinite, values)):
            rows.append(dict(zip(columns, values, strict=True)))
    return rows


def plain(value: Any) -> str:
    """Write a value of settings.json on one line, a schedule as the command line takes it."""
    if isinstance(value, str):
        return value
    if isinstance(value, dict) and value.get("schedule") == "linear" and value.get("until", 1.0) == 1.0:
        end = f":{plain(value['end'])}" if value.get("end") else ""
        return f"linear:{plain(value.get('start'))}{end}"
    return json.dumps(value, ensure_ascii=False)
