"""The pages of several runs: a comparison, an experiment, a league."""

from __future__ import annotations

import csv
import math
import textwrap
from collections.abc import Sequence
from pathlib import Path
from urllib.parse import urlencode

import numpy as np
from nicegui import ui

from renshu.board.catalogue import Catalogue, clean, regular
from renshu.board.charts import comparison, population
from renshu.board.comparing import Group, grouped
from renshu.board.frame import EVERY, Cell, ChartCard, live, page, run_place, table
from renshu.board.leaderboard import zoo_score
from renshu.errors import RenshuError
from renshu.tracking.comparison import Curves, bootstrap_band, final_returns, interquartile_mean, read_csv
from renshu.tracking.tables import read_table

MOST_COMPARED = 64
"""Runs, labels and columns that a page shows at most."""
_FINAL = "Training return in the last tenth: interquartile mean of the runs, 95 % interval where there are several"
_MEMBERS = {"interval", "member", "steps", "return", "parent"}
_LARGEST = 16 << 20
_MOST_ROWS = 200


def compare_page(catalogue: Catalogue, names: Sequence[str]) -> None:
    """Show runs beside each other: a chart for each environment, final scores, and the settings that differ."""
    catalogue.refresh(EVERY / 2)
    names = list(dict.fromkeys(names))
    with page("Comparison"):
        if len(names) > MOST_COMPARED:
            ui.label(f"These are the first {MOST_COMPARED} of {len(names)} runs.")
            names = names[:MOST_COMPARED]
        missing = [name for name in names if name not in catalogue.runs]
        if missing or not names:
            words = f"No such run: {', '.join(missing)}" if missing else "Choose runs on the page of all runs."
            ui.label(words).classes("break-all")
            ui.link("All runs", "/")
        cards: dict[str, ChartCard] = {}
        charts = ui.column().classes("w-full gap-4")
        scores = ui.column().classes("w-full gap-4")

        def draw() -> None:
            rows = [catalogue.runs[name] for name in names if name in catalogue.runs]
            groups = grouped(rows)
            for environment in sorted({group.environment for group in groups}):
                part = [group for group in groups if group.environment == environment]
                zoo = zoo_score(environment)
                line = (f"RL Zoo {zoo.algorithm}", zoo.mean) if zoo else None
                chart = comparison([group.curves for group in part], part[0].threshold, line)
                if environment in cards:
                    cards[environment].show(chart)
                else:
                    with charts:
                        cards[environment] = ChartCard(environment, chart, "h-96")
            scores.clear()
            with scores:
                _scores(groups)

        live(lambda: (catalogue.refresh(EVERY / 2), [catalogue.runs.get(name) for name in names])[1], draw)


def _scores(groups: Sequence[Group]) -> None:
    if not groups:
        return
    names = list(dict.fromkeys(name for group in groups for name in group.settings))
    rows: list[list[Cell]] = []
    for group in groups:
        cells: list[Cell] = [group.algorithm, group.environment]
        cells += [textwrap.shorten(group.settings.get(name, ""), 40, placeholder=" ...") for name in names]
        lone = group.names[0] if len(group.names) == 1 else None
        count = str(len(group.names)) if group.known == len(group.names) else f"{group.known} of {len(group.names)}"
        rows.append([*cells, (lone, run_place(lone)) if lone else count, _interval(*group.final())])
    with ui.card().classes("w-full"):
        ui.label(_FINAL).classes("font-bold")
        table(["algorithm", "environment", *names, "runs", "final return"], rows)


def _interval(value: float, low: float, high: float) -> str:
    if not math.isfinite(value):
        return "no finished episode"
    return f"{value:,.1f}" + (f" ({low:,.1f} to {high:,.1f})" if math.isfinite(low) else "")


def experiments_page(catalogue: Catalogue) -> None:
    """List experiments (folders with a curves.csv), populations (pbt.csv) and searches (trials.csv)."""
    catalogue.refresh(EVERY / 2)
    with page("Experiments"):
        found = sorted(catalogue.experiments.keys() | catalogue.populations.keys())
        for name in found:
            ui.link(name, "/experiment?" + urlencode({"name": name}))
        for name in sorted(catalogue.searches):
            ui.link(f"{name} (search)", "/search?" + urlencode({"name": name}))
        if not found and not catalogue.searches:
            ui.label("No experiment in this folder: renshu experiment ... --out FOLDER makes one.")


def experiment_page(catalogue: Catalogue, name: str) -> None:
    """Show an experiment: its curves over seeds, and the final return of each."""
    catalogue.refresh(EVERY / 2)
    curves, members = catalogue.experiments.get(name), catalogue.populations.get(name)
    with page(name if curves or members else "No such experiment"):
        try:
            if curves is not None:
                _experiment(read_csv(_small(curves / "curves.csv"))[:MOST_COMPARED])
            if members is not None:
                _population(_members(members / "pbt.csv"))
        except (RenshuError, OSError, ValueError, OverflowError) as error:
            ui.label(clean(str(error))).classes("break-all")
        ui.link("Experiments", "/experiments")


def _experiment(curves: Sequence[Curves]) -> None:
    """Show curves over seeds, and the final return of each."""
    ChartCard("Curves", comparison(curves), "h-96")
    rows = []
    for one in curves:
        scores = final_returns(one)
        low, high = bootstrap_band(scores[:, None], "iqm")
        interval = _interval(float(interquartile_mean(scores)), float(low[0]), float(high[0]))
        rows.append([one.label, str(len(one.seeds)), interval])
    with ui.card().classes("w-full"):
        ui.label(_FINAL).classes("font-bold")
        table(["", "seeds", "final return"], rows)


def _population(members: dict[str, np.ndarray]) -> None:
    """Show the returns and the hyperparameters of the members of a population."""
    for name in ["return", *(name for name in members if name not in _MEMBERS)][:MOST_COMPARED]:
        ChartCard(name, population(members, name))


def _members(path: Path) -> dict[str, np.ndarray]:
    """Read the table of a population."""
    members = read_table(_small(path), ("interval",), integers=())
    if missing := _MEMBERS - members.keys():
        raise RenshuError(f"{path.name} is no table of a population: it has no {', '.join(sorted(missing))}")
    return members


def _small(path: Path) -> Path:
    """Return the path of a plain file that is not too large to read."""
    if not regular(path) or path.stat().st_size > _LARGEST:
        raise RenshuError(f"{path.name} is no plain file of at most {_LARGEST >> 20} MB")
    return path


def leagues_page(catalogue: Catalogue) -> None:
    """Show the leagues of games: the ratings of each."""
    catalogue.refresh(EVERY / 2)
    with page("Leagues"):
        for name, path in sorted(catalogue.leagues.items()):
            with ui.card().classes("w-full"):
                ui.label(name).classes("font-bold break-all")
                rows = csv_rows(path / "ratings.csv")
                if rows:
                    table([str(cell) for cell in rows[0]], rows[1:])
                else:
                    ui.label("ratings.csv cannot be read")
        if not catalogue.leagues:
            ui.label("No league in this folder: renshu league ... --out FOLDER makes one.")


def csv_rows(path: Path, most: int = _MOST_ROWS) -> list[list[Cell]]:
    """Read a small table of somebody's as text; [] where it is none."""
    try:
        _small(path)
        with open(path, newline="", encoding="utf-8") as file:
            return [
                [clean(cell[:200]) for cell in row[:MOST_COMPARED]]
                for row, _ in zip(csv.reader(file), range(most), strict=False)
            ]
    except (RenshuError, OSError, UnicodeDecodeError, csv.Error):
        return []
