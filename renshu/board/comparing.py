"""Runs beside each other: their settings, curves over seeds, and final scores with intervals."""

from __future__ import annotations

import textwrap
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from renshu.board.catalogue import RunRow, clean, plain, regular, settings_of
from renshu.board.charts import Tables, empty_tables
from renshu.errors import RenshuError
from renshu.presets import preset, preset_name
from renshu.tracking.comparison import Curves, bootstrap_band, carried, final_returns, interquartile_mean
from renshu.tracking.curves import read_episodes, read_evaluations, read_metrics

POINTS = 100
"""Points of a curve over seeds."""
_NOT_SETTINGS = {
    "algorithm",
    "environment",
    "environment_id",
    "versions",
    "git",
    "machine",
    "started",
    "command",
    "seed",
}
_NOT_COMPARED = {"checkpoint_every", "eval_every", "eval_episodes", "processes", "reward_threshold"}
_LONGEST = 80
_LARGEST = 256 << 20
_READERS = {"episodes": read_episodes, "evaluations": read_evaluations, "metrics": read_metrics}


@dataclass(frozen=True)
class Group:
    """Runs that differ in their seed alone. settings: those in which the groups differ, as text."""

    environment: str
    algorithm: str
    curves: Curves
    settings: dict[str, str]
    names: list[str]
    threshold: float | None

    @property
    def known(self) -> int:
        """Runs with an episode in the last tenth of the points."""
        return int(np.isfinite(final_returns(self.curves)).sum())

    def final(self) -> tuple[float, float, float]:
        """Compute the interquartile mean of the runs' last tenth, and its 95 % bootstrap interval (NaN for one)."""
        scores = final_returns(self.curves)
        low, high = bootstrap_band(scores[:, None], "iqm")
        return float(interquartile_mean(scores)), float(low[0]), float(high[0])


def tables_of(path: Path) -> tuple[Tables, list[str]]:
    """Read the tables of a run. Returns them, and the faults of those that cannot be read, which are then empty."""
    tables, faults = empty_tables(), []
    for name, read in _READERS.items():
        file = path / f"{name}.csv"
        if regular(file):
            try:
                if file.stat().st_size > _LARGEST:
                    raise RenshuError(f"{file.name} is larger than {_LARGEST >> 20} MB, and is not drawn")
                tables[name] = read(path)
            except (RenshuError, OSError) as error:
                faults.append(clean(str(error)))
    return tables, faults


def flat_settings(settings: Mapping[str, Any]) -> dict[str, str]:
    """List hyperparameters and options as text, `hyperparameters` without that name before them."""
    flat: dict[str, str] = {}
    for name, value in settings.items():
        if name in _NOT_SETTINGS:
            continue
        if name == "hyperparameters" and isinstance(value, dict):
            flat |= {clean(key): plain(item) for key, item in value.items()}
        else:
            flat[clean(name)] = plain(value)
    return flat


def against_preset(settings: Mapping[str, Any]) -> tuple[str, dict[str, str]]:
    """Compare hyperparameters with the preset for the environment, or with the defaults where there is none.

    Returns which of the two, and the names that differ with the other's values. Raises RenshuError for an algorithm
    that this version does not know.
    """
    from renshu.algorithms.registry import algorithm

    name = str(settings.get("algorithm"))
    environment = str(settings.get("environment_id") or settings.get("environment"))
    known = preset_name(name, environment)
    chosen = preset(name, environment).algorithm if known else algorithm(name)()
    other = {key: plain(value) for key, value in chosen.to_json().items()}
    own = settings.get("hyperparameters")
    mine = {key: plain(value) for key, value in own.items()} if isinstance(own, dict) else {}
    differing = {key: value for key, value in other.items() if key in mine and mine[key] != value}
    return (f"preset {known}" if known else "the defaults"), differing


def grouped(rows: Iterable[RunRow]) -> list[Group]:
    """Put runs together that differ in their seed alone, sorted by environment and algorithm.

    A run that cannot be read is left out. A second run of the same seed counts as another seed.
    """
    kinds: dict[tuple[str, str], list[tuple[RunRow, dict[str, str]]]] = {}
    for row in rows:
        try:
            flat = flat_settings(settings_of(row.path))
        except RenshuError:
            continue  # its row on the list of runs says why
        kinds.setdefault((row.environment, row.algorithm), []).append((row, flat))
    return [group for kind in sorted(kinds) for group in _groups(kinds[kind])]


def _groups(runs: Sequence[tuple[RunRow, dict[str, str]]]) -> list[Group]:
    """Part the runs of one algorithm in one environment by those settings that differ among them."""
    names = sorted({name for _, flat in runs for name in flat} - _NOT_COMPARED)
    varying = [name for name in names if len({flat.get(name) for _, flat in runs}) > 1]
    parts: dict[tuple[str, ...], list[RunRow]] = {}
    for row, flat in runs:
        parts.setdefault(tuple(flat.get(name, "") for name in varying), []).append(row)
    groups: list[Group] = []
    for values, rows in parts.items():
        settings = dict(zip(varying, values, strict=True))
        words = ", ".join(f"{name}={value}" for name, value in settings.items())
        label = textwrap.shorten(f"{rows[0].algorithm} {words}".strip(), _LONGEST, placeholder=" ...")
        if any(group.curves.label == label for group in groups):  # they differ in what was cut off
            label = f"{label} ({len(groups) + 1})"
        groups.append(
            Group(
                rows[0].environment,
                rows[0].algorithm,
                _curves(label, rows),
                settings,
                [row.name for row in rows],
                rows[0].threshold,
            )
        )
    return groups


def _curves(label: str, rows: Sequence[RunRow]) -> Curves:
    """Average the returns of the episodes that ended up to each of 100 points since the one before."""
    episodes = [tables_of(row.path)[0]["episodes"] for row in rows]
    last = max((int(table["step"].max()) for table in episodes if table["step"].size), default=0)
    points = min(POINTS, max(last, 0))
    edges = np.linspace(0, max(last, 0), points + 1)[1:]
    returns = np.full((len(rows), points), np.nan)
    for row, table in zip(returns, episodes, strict=True):
        step = table["step"]
        known = np.isfinite(table["return"]) & (step > 0)
        if not known.any():
            continue
        where = np.searchsorted(edges, step[known])
        count = np.bincount(where, minlength=points)
        total = np.bincount(where, table["return"][known], minlength=points)
        ended = int(np.searchsorted(edges, step[known].max())) + 1
        row[count > 0] = total[count > 0] / count[count > 0]
        row[:ended] = carried(row[None, :ended])[0]
    seeds = list(range(len(rows)))
    return Curves(label, edges.round().astype(np.int64), returns, seeds)
