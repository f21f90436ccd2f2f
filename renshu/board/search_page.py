"""The page of a search for hyperparameters: its trials over time, what mattered, and each hyperparameter by itself."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TypeAlias

import numpy as np
from nicegui import ui

from renshu.board.catalogue import Catalogue
from renshu.board.charts import history, importance, slice_of
from renshu.board.compare_page import csv_rows
from renshu.board.frame import EVERY, ChartCard, live, page, table

Trial: TypeAlias = dict[str, str]

_SHOWN, _MOST_TRIALS = 20, 2_000
_KNOWN = ("trial", "state", "start", "return", "std")


def search_page(catalogue: Catalogue, name: str) -> None:
    """Show a search, live: history, importance, a slice for each hyperparameter, and the best trials."""
    catalogue.refresh(EVERY / 2)
    folder = catalogue.searches.get(name)
    with page(name if folder is not None else "No such search"):
        if folder is not None:

            @ui.refreshable
            def draw() -> None:
                _search(folder)

            live(lambda: _trials(folder), lambda: draw.refresh() if draw.targets else draw())
        ui.link("Experiments", "/experiments")


def _search(folder: Path) -> None:
    trials = _trials(folder)
    ui.label(_counted(trials)).classes("opacity-70")
    scored = [trial for trial in trials if math.isfinite(_number(trial["return"]))]
    if not scored:
        ui.label("No trial has a score yet.")
        return
    scores = np.array([_number(trial["return"]) for trial in scored])
    numbers = np.array([_number(trial["trial"]) for trial in scored])
    ChartCard("Trials", history(numbers, scores))
    if shares := _shares(folder):
        ChartCard("What the hyperparameters account for", importance(shares))
    names = [name for name in scored[0] if name not in _KNOWN]
    with ui.grid().classes("w-full grid-cols-1 md:grid-cols-2 gap-4"):
        for name in names:
            having = [trial[name] != "" for trial in scored]
            values = [_value(trial[name]) for trial in scored if trial[name] != ""]
            if any(isinstance(value, str) for value in values):
                values = [str(value) for value in values]
            if values:
                ChartCard(name, slice_of(name, values, scores[having]), "h-64")
    with ui.card().classes("w-full"):
        ui.label("The best trials").classes("font-bold")
        best = sorted(scored, key=lambda trial: -_number(trial["return"]))[:_SHOWN]
        rows = [[trial["trial"], _score(trial), *(trial[name] for name in names)] for trial in best]
        table(["trial", "mean ± std", *names], rows)


def _trials(folder: Path) -> list[Trial]:
    """Read trials.csv; [] where it is no such table. Rows of another length than the header are left out."""
    rows = [[str(cell) for cell in row] for row in csv_rows(folder / "trials.csv", _MOST_TRIALS)]
    if not rows or not set(_KNOWN) <= set(rows[0]):
        return []
    return [dict(zip(rows[0], row, strict=True)) for row in rows[1:] if len(row) == len(rows[0])]


def _shares(folder: Path) -> dict[str, float]:
    rows = [[str(cell) for cell in row] for row in csv_rows(folder / "importance.csv")[1:]]
    found = {row[0]: _number(row[1]) for row in rows if len(row) == 2}
    return {name: share for name, share in found.items() if math.isfinite(share)}


def _counted(trials: list[Trial]) -> str:
    states = [trial["state"] for trial in trials]
    words = ", ".join(f"{states.count(state)} {state}" for state in dict.fromkeys(states))
    return f"{len(trials)} trials: {words}" if trials else "no trials yet"


def _score(trial: Trial) -> str:
    return f"{_number(trial['return']):,.1f} ± {_number(trial['std']):,.1f}"


def _value(text: str) -> float | str:
    value = _number(text)
    return value if math.isfinite(value) else text


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return math.nan
