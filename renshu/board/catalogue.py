"""Contents of a folder: runs, experiments, searches, leagues. Read again after a change, and never through a link.

Everything here is somebody's data: a value of another kind than expected counts as unknown, a run that cannot be read
is listed with the reason, and a name means a folder only if it was found by walking.
"""

from __future__ import annotations

import json
import math
import os
import platform
import stat
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeAlias

from renshu.errors import RenshuError
from renshu.tracking.curves import EPISODES, EVALUATIONS
from renshu.tracking.lock import holder
from renshu.tracking.provenance import read_settings

State: TypeAlias = Literal["training", "ended", "stopped", "damaged"]
Files: TypeAlias = dict[str, os.stat_result]
"""The files of a run that are read, by name."""
Stamp: TypeAlias = dict[str, tuple[int, int]]
"""Their times and sizes."""

DEPTH = 5
"""Folders above each other that are searched."""
RANKED_EPISODES = 100
"""Episodes that an evaluation needs to count on the leaderboard."""
_WATCHED = {
    "settings.json",
    "episodes.csv",
    "metrics.csv",
    "evaluations.csv",
    "scores.csv",
    "agent.safetensors",
    "lock",
    "study.db",
}
_TAIL = 4096
_SILENT, _LATER = 600.0, 60.0
_MOST_STEPS = 2.0**53
_LARGEST_SETTINGS = 4 << 20
_MARKS = {"curves.csv": "experiments", "pbt.csv": "populations", "ratings.csv": "leagues", "trials.csv": "searches"}


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
    """Runs, experiments, searches and leagues in a folder. `refresh` reads what has changed since the last time.

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
        self.searches: dict[str, Path] = {}
        self.version = 0
        self.is_read = False
        self._stamps: dict[str, Stamp] = {}
        self._lock = threading.Lock()
        self._read_at, self._took = -math.inf, 0.0

    def refresh(self, at_most_every: float = 0.0) -> int:
        """Look into the folder again, unless that was done less than so many seconds ago. Return the version.

        Where looking takes long, because there are many runs, it is done less often. Threads wait for each other.
        """
        with self._lock:
            began = time.monotonic()
            if at_most_every and began - self._read_at < max(at_most_every, 5 * self._took):
                return self.version
            self._look()
            self._read_at = time.monotonic()
            self._took = self._read_at - began
            return self.version

    def _look(self) -> None:
        found: dict[str, dict[str, Path]] = {kind: {} for kind in _MARKS.values()}
        rows: dict[str, RunRow] = {}
        stamps: dict[str, Stamp] = {}
        for kind, name, path, files in _walk(self.root):
            if kind != "runs":
                found[kind][name] = path
                continue
            stamp = {file: (status.st_mtime_ns, status.st_size) for file, status in files.items()}
            old = self.runs.get(name)
            # A training that is killed changes no file.
            same = old is not None and self._stamps.get(name) == stamp and old.state != "training"
            rows[name], stamps[name] = old if same and old is not None else _row(name, path, files), stamp
        changed = rows != self.runs or any(getattr(self, kind) != found[kind] for kind in found)
        self.runs, self._stamps = rows, stamps
        for kind, folders in found.items():
            setattr(self, kind, folders)
        self.version += changed
        self.is_read = True

    def environments(self) -> list[str]:
        """Return the names of all environments, sorted."""
        return sorted({row.environment for row in self.runs.values() if row.environment})


def regular(path: Path) -> bool:
    """Tell whether a path, of which the board's folder was resolved, is a plain file: no link leads to it or is it."""
    try:
        return stat.S_ISREG(os.lstat(path).st_mode) and os.path.realpath(path) == str(path)
    except (OSError, ValueError):
        return False


def settings_of(path: Path) -> dict[str, Any]:
    """Read the settings of a run that was found before. Raises RenshuError where they are not a plain, small file."""
    file = path / "settings.json"
    if not regular(file) or file.stat().st_size > _LARGEST_SETTINGS:
        raise RenshuError(f"settings.json is no plain file of at most {_LARGEST_SETTINGS >> 20} MB")
    return read_settings(path)


def _walk(root: Path) -> Iterator[tuple[str, str, Path, Files]]:
    """Find (kind, name, folder, its watched files) of everything below the root. Links are no files."""
    folders = [(root, 0)]
    while folders:
        folder, depth = folders.pop()
        name = clean(folder.relative_to(root).as_posix() if folder != root else root.name)
        below: list[Path] = []
        files: Files = {}
        try:
            with os.scandir(folder) as entries:
                for entry in entries:
                    if entry.name in _WATCHED or entry.name in _MARKS:
                        with suppress(FileNotFoundError):  # a lock that was let go of meanwhile
                            if entry.is_file(follow_symlinks=False):
                                files[entry.name] = entry.stat(follow_symlinks=False)
                    elif entry.is_dir(follow_symlinks=False) and not entry.name.startswith("."):
                        below.append(folder / entry.name)
        except OSError:
            continue  # deleted meanwhile, or not ours to read
        # Searches for hyperparameters have settings too, and are no runs.
        search = "study.db" in files or {"trials.csv", "settings.json"} <= files.keys()
        if "settings.json" in files and not search:
            yield "runs", name, folder, files
            continue
        yield from ((_MARKS[file], name, folder, files) for file in files if file in _MARKS)
        if depth < DEPTH and not search:
            folders += [(path, depth + 1) for path in below]


def _row(name: str, path: Path, files: Files) -> RunRow:
    """Read a run as lists show it."""
    changed = max(file.st_mtime for file in files.values())
    try:
        if files["settings.json"].st_size > _LARGEST_SETTINGS:
            raise RenshuError(f"settings.json is larger than {_LARGEST_SETTINGS >> 20} MB")
        settings = read_settings(path)
        episode = next(_newest(path, files, "episodes.csv", EPISODES), {})
        evaluations = [_score(row) for row in _newest(path, files, "evaluations.csv", EVALUATIONS)]
        kept = [_score(row) for row in _newest(path, files, "scores.csv", EVALUATIONS)]
    except (RenshuError, OSError) as error:
        return RunRow(name, path, "damaged", fault=clean(str(error))[:300], changed=changed)
    # The newest first; at one step what was measured after the training, of the best agent, comes before the rest.
    scores = sorted(kept + evaluations, key=lambda score: -score.step)
    total = whole(settings.get("total_steps"))
    steps = max(int(episode.get("step", 0)), scores[0].step if scores else 0)
    return RunRow(
        name,
        path,
        _state(path, files, changed, steps, total),
        words(settings.get("algorithm")),
        words(settings.get("environment")),
        whole(settings.get("seed")),
        steps,
        total,
        episode.get("seconds"),
        episode.get("return"),
        scores[0] if scores else None,
        next((score for score in scores if score.episodes >= RANKED_EPISODES), None),
        number(settings.get("reward_threshold")),
        words(settings.get("started")),
        changed,
    )


def _state(path: Path, files: Files, changed: float, steps: int, total: int | None) -> State:
    held = holder(path) if "lock" in files else None
    # It is not known of a process on another machine whether it lives; one that does writes now and then.
    if held is not None and (held.endswith(f" on {platform.node()}") or time.time() - changed < _SILENT):
        return "training"
    if "agent.safetensors" not in files:
        return "stopped"
    # One that was ended, resumed and killed has the agent of before.
    later = changed - files["agent.safetensors"].st_mtime > _LATER
    return "stopped" if later and total is not None and steps < total else "ended"


def clean(text: str) -> str:
    """Return a text of somebody's that can be written as UTF-8."""
    return text.encode("utf-8", "backslashreplace").decode()


def words(value: Any) -> str:
    """Return a text of somebody's file, at most 200 letters long; "" for anything else."""
    return clean(value[:200]) if isinstance(value, str) else ""


def number(value: Any) -> float | None:
    """Return a finite number of somebody's file; None for anything else."""
    plain = isinstance(value, int | float) and not isinstance(value, bool)
    return float(value) if plain and abs(value) < 1e300 and math.isfinite(value) else None


def whole(value: Any) -> int | None:
    """Return a whole number of somebody's file; None for anything else."""
    return value if isinstance(value, int) and not isinstance(value, bool) and abs(value) < 2**63 else None


def _score(row: dict[str, float]) -> Score:
    return Score(int(row["step"]), row["mean"], row["std"], int(row["episodes"]))


def _newest(path: Path, files: Files, name: str, columns: tuple[str, ...]) -> Iterator[dict[str, float]]:
    """Read the rows in the last 4 kB of a table, newest first; rows that are not whole or not finite are left out."""
    if name not in files or not files[name].st_size:
        return
    with open(f"{path}{os.sep}{name}", "rb", opener=_not_through_links) as opened:
        opened.seek(max(0, files[name].st_size - _TAIL))
        lines = opened.read(_TAIL).split(b"\n")
    for line in lines[-2:0:-1]:  # the first is the header, or cut; the last is not yet whole
        try:
            values = [float(value) for value in line.split(b",")]
        except ValueError:
            continue
        fits = len(values) == len(columns) and all(map(math.isfinite, values))
        if fits and 0 <= values[0] < _MOST_STEPS:
            yield dict(zip(columns, values, strict=True))


def _not_through_links(path: str, flags: int) -> int:
    return os.open(path, flags | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0))


def plain(value: Any) -> str:
    """Write a value of settings.json on one line, a linear schedule as the command line takes it."""
    if isinstance(value, str):
        return clean(value)
    if isinstance(value, dict) and value.get("schedule") == "linear":
        end, until = value.get("end", 0.0), value.get("until", 1.0)
        rest = [end, until] if until != 1.0 else [end] if end else []
        return ":".join(["linear", *(plain(part) for part in (value.get("start"), *rest))])
    return clean(json.dumps(value, ensure_ascii=False))
