"""Result of a search for hyperparameters: a table of its trials, and a preset file with the evidence in its head."""

from __future__ import annotations

import csv
import io
import json
import math
import re
import textwrap
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

from renshu.algorithms.base import Algorithm
from renshu.errors import HyperparameterError
from renshu.experiments.plan import Plan
from renshu.experiments.ranges import written
from renshu.experiments.study import Record, Score
from renshu.tracking.provenance import versions, write_atomically
from renshu.viewing.notebook import html_of

SHOWN = 10
"""Trials in a table."""
_KEYS = str.maketrans({"\u007f": "\\u007f"})  # JSON lets it stand in a text, TOML does not


@dataclass(frozen=True, eq=False, repr=False)
class Tuning:
    """Result of `tune`.

    algorithm: what the search came to, the best trial's, or the start where that did better on fresh seeds. values: of
    what was searched, by name. score: on fresh seeds. start_score: of the algorithm before the search, on the same
    ones; None where it could not be trained. trial: its number. records: all trials, by number. folder: of the study.
    preset: the file that says it all, in the form of renshu's presets.
    """

    algorithm: Algorithm
    values: dict[str, Any]
    score: Score
    start_score: Score | None
    trial: int
    records: Sequence[Record]
    plan: Plan
    folder: Path
    preset: Path

    def __repr__(self) -> str:
        return f"<Tuning: {self.plan.title}, {counted(self.records)}, {self.score} on fresh seeds>"

    def _repr_html_(self) -> str:
        return html_of(self.table())

    def table(self) -> Any:
        """Make a table of the best trials, for `rich.print`."""
        from rich.table import Table

        shown = Table(title=f"{self.plan.title}: {counted(self.records)}", title_justify="left")
        shown.add_column("trial", justify="right", no_wrap=True)
        shown.add_column("return", justify="right", no_wrap=True)
        shown.add_column("hyperparameters")
        scored = sorted((-one.score.mean, one.number, one) for one in self.records if one.score is not None)
        for _, number, one in scored[:SHOWN]:
            shown.add_row(str(number), str(one.score), tried(one))
        return shown


def tried(record: Record) -> str:
    """Describe the values of a trial."""
    if record.start:
        return "as before the search"
    params = (f"{name} {x:.4g}" if isinstance(x, float) else f"{name} {x}" for name, x in record.params.items())
    return ", ".join(params)


def counted(records: Sequence[Record]) -> str:
    """Say how many trials there are, and how they ended."""
    found = Counter(one.state for one in records)
    words = [f"{n} {state}" for state in ("complete", "pruned", "failed", "running", "refused") if (n := found[state])]
    count = sum(one.counts for one in records)
    return f"{count} trial{'s' * (count != 1)} ({', '.join(words) or 'none ended'})"


def values_of(plan: Plan, algorithm: Algorithm) -> dict[str, Any]:
    """Return the values of what was searched."""
    return {name: getattr(algorithm, name) for name in plan.ranges}


def write_trials(folder: Path, records: Sequence[Record], shares: Mapping[str, float]) -> None:
    """Write all trials, and what each hyperparameter accounts for, as csv: the board's pages are made of them."""
    names = list(dict.fromkeys(name for one in records for name in one.params))
    rows: list[list[Any]] = [["trial", "state", "start", "return", "std", *names]]
    for one in records:
        score = ["", ""] if one.score is None else [f"{one.score.mean:.9g}", f"{one.score.std:.9g}"]
        rows.append([one.number, one.state, int(one.start), *score, *(_cell(one.params, name) for name in names)])
    _write_csv(folder / "trials.csv", rows)
    _write_csv(folder / "importance.csv", [["hyperparameter", "share"], *shares.items()])


def _cell(params: Mapping[str, Any], name: str) -> Any:
    return str(params[name]) if name in params else ""


def _write_csv(path: Path, rows: Sequence[Sequence[Any]]) -> None:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(rows)
    write_atomically(path, [text.getvalue().encode()])


# --- the preset -------------------------------------------------------------------------------------------------------


def write_preset(
    path: Path, plan: Plan, algorithm: Algorithm, records: Sequence[Record], final: Mapping[str, Any], best: Record
) -> Path:
    """Write an algorithm as a preset, with the evidence as comments before it. Raises RenshuError as the disk does."""
    evidence = [textwrap.wrap(line, 116, subsequent_indent="  ") for line in _evidence(plan, records, final, best)]
    lines = [f"# {line}" for wrapped in evidence for line in wrapped]
    lines += ["", f"[{_toml(plan.environment)}]"]
    if algorithm.default_num_envs == 1:
        lines.append(f"num_envs = {plan.num_envs or 1}")
    lines.append(f"total_steps = {plan.steps}")
    lines += [f"{name} = {_toml(value)}" for name, value in plan.options.items() if value is not None]
    json_of = algorithm.to_json()
    lines += [f"{name} = {_toml(json_of[name])}" for name in algorithm.changed()]
    write_atomically(path, ["\n".join([*lines, ""]).encode()])
    return path


def _evidence(plan: Plan, records: Sequence[Record], final: Mapping[str, Any], best: Record) -> list[str]:
    """Return the lines of the head."""
    start = next((one for one in records if one.start and one.score is not None), None)
    found = Score(tuple(final["best"]))
    before = "could not be trained" if final["start"] is None else str(Score(tuple(final["start"])))
    packages = {name: number for name, number in versions().items() if number} | {"optuna": version("optuna")}
    lines = [
        f"{plan.title}, found by renshu.tune on {datetime.now(UTC):%Y-%m-%d}.",
        f"Search: {counted(records)} of {plan.steps:,} steps, each with the seeds {_listed(plan.seeds)};",
        f"sampler {plan.sampler}, pruner {plan.pruner}. Scores are means of {plan.eval_episodes} greedy episodes of "
        "each seed, ± deviation over the seeds.",
        *(f"{name}: {_range(searched)}" for name, searched in plan.ranges.items()),
        f"In the search: {start.score if start else 'none'} before, {best.score} for the best, trial {best.number}.",
        f"Trained again on the seeds {_listed(final['seeds'])}, by which nothing was chosen: {before} before, {found} "
        "for the best.",
    ]
    if best.start:
        lines.append("Nothing was better than what was before, which stands below.")
    elif final["held"]:
        lines.append("The best did no worse there, and stands below.")
    else:
        lines.append("It was worse there: what was before stands below.")
    if plan.env_kwargs:
        lines.append(f"Arguments of the environment: {plan.env_kwargs!r}")
    return [*lines, "Versions: " + ", ".join(f"{name} {number}" for name, number in packages.items())]


def _listed(seeds: Sequence[int]) -> str:
    return ", ".join(map(str, seeds))


def _range(searched: Any) -> str:
    one = written(searched)
    return one if isinstance(one, str) else ", ".join(map(str, one))


def _key(name: str) -> str:
    return name if re.fullmatch(r"[A-Za-z0-9_-]+", name) else _toml(name)


def _toml(value: Any) -> str:
    """Write plain data as a value of TOML, on one line. Raises HyperparameterError for what it has no form for."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, str):
        return json.dumps(value, ensure_ascii=False).translate(_KEYS)
    if isinstance(value, int) or (isinstance(value, float) and math.isfinite(value)):
        return repr(value)
    if isinstance(value, list | tuple):
        return f"[{', '.join(_toml(one) for one in value)}]"
    if isinstance(value, Mapping):
        return f"{{ {', '.join(f'{_key(str(name))} = {_toml(one)}' for name, one in value.items())} }}"
    raise HyperparameterError(f"a preset cannot hold {value!r}: TOML has no such value")
