"""The pages that list: all runs, the leaderboard, experiments and leagues."""

from __future__ import annotations

from typing import Any
from urllib.parse import urlencode

from nicegui import ui

from renshu.board.catalogue import Catalogue, RunRow
from renshu.board.compare_page import MOST_COMPARED
from renshu.board.files import videos
from renshu.board.frame import EVERY, Cell, file_place, live, page, run_place, table
from renshu.board.leaderboard import Ranking, rankings

_STATES = {"training": "● training", "ended": "✓ ended", "stopped": "■ stopped", "damaged": "✗ damaged"}
_LINK = """(cell) => {
    const link = document.createElement("a");
    link.href = "/run/" + cell.value.split("/").map(encodeURIComponent).join("/");
    link.textContent = cell.value;
    link.className = "underline";
    return link;
}"""
_NUMBER = {"type": "rightAligned", "filter": "agNumberColumnFilter"}
_NUMBER |= {":valueFormatter": "(cell) => cell.value == null ? '' : cell.value.toLocaleString('en')"}
_COLUMNS: tuple[dict[str, Any], ...] = (
    {"field": "name", "headerName": "run", "pinned": "left", "width": 190, ":cellRenderer": _LINK},
    {"field": "state", "headerName": "state", "width": 120},
    {"field": "algorithm", "headerName": "algorithm", "width": 125},
    {"field": "environment", "headerName": "environment", "width": 200},
    {"field": "steps", "headerName": "steps", "width": 115, **_NUMBER},
    {"field": "share", "headerName": "%", "width": 70, **_NUMBER},
    {"field": "score", "headerName": "evaluated", "width": 115, **_NUMBER},
    {"field": "std", "headerName": "± std", "width": 90, **_NUMBER},
    {"field": "training", "headerName": "last return", "width": 120, **_NUMBER},
    {"field": "minutes", "headerName": "minutes", "width": 100, **_NUMBER},
    {"field": "seed", "headerName": "seed", "width": 90, "type": "rightAligned"},
    {"field": "started", "headerName": "started (UTC)", "width": 170, "sort": "desc"},
    {"field": "fault", "headerName": "wrong with it", "width": 300},
)
_MOST_RANKED = 50


def runs_page(catalogue: Catalogue) -> None:
    """Show all runs: sorted and filtered by the visitor, chosen ones compared, new and changed ones at once."""
    with page("All runs"):
        shown = {name: _cells(row) for name, row in catalogue.runs.items()}
        with ui.row().classes("w-full items-center gap-2"):
            search = ui.input(placeholder="filter: name, algorithm, environment, state").classes("grow min-w-[14rem]")
            count = ui.label(_counted(catalogue)).classes("opacity-70 text-sm")
            button = ui.button("compare chosen", icon="stacked_line_chart")
        common = {"sortable": True, "filter": True, "resizable": True}
        grid = ui.aggrid(
            {
                "columnDefs": [dict(column) for column in _COLUMNS],
                "defaultColDef": common,
                "rowData": list(shown.values()),
                "rowSelection": {"mode": "multiRow", "headerCheckbox": True, "selectAll": "filtered"},
                "selectionColumnDef": {"pinned": "left", "width": 50},
                ":getRowId": "(params) => 'run:' + params.data.name",
                "enableCellTextSelection": True,
            },
            auto_size_columns=False,
        ).classes("w-full h-[70vh]")
        search.on_value_change(lambda event: grid.run_grid_method("setGridOption", "quickFilterText", event.value))
        button.on_click(lambda: _compare(grid))
        seen = catalogue.version

        def again() -> None:
            nonlocal seen
            if catalogue.refresh(EVERY / 2) == seen:
                return
            seen = catalogue.version
            now = {name: _cells(row) for name, row in catalogue.runs.items()}
            change = {
                "add": [cells for name, cells in now.items() if name not in shown],
                "update": [cells for name, cells in now.items() if name in shown and shown[name] != cells],
                "remove": [cells for name, cells in shown.items() if name not in now],
            }
            shown.clear()
            shown.update(now)
            grid.run_grid_method("applyTransaction", change)
            count.set_text(_counted(catalogue))

        ui.timer(EVERY, again)


def _counted(catalogue: Catalogue) -> str:
    training = sum(row.state == "training" for row in catalogue.runs.values())
    return f"{len(catalogue.runs):,} runs, {training} training"


def _cells(row: RunRow) -> dict[str, Any]:
    """List what is known of a run: ten thousand of them are sent at once."""
    score = row.evaluated
    cells = {
        "name": row.name,
        "state": _STATES[row.state],
        "algorithm": row.algorithm,
        "environment": row.environment,
        "seed": None if row.seed is None else str(row.seed),
        "steps": row.steps,
        "share": None if not row.total_steps else min(100, round(100 * row.steps / row.total_steps)),
        "score": None if score is None else round(score.mean, 2),
        "std": None if score is None else round(score.std, 2),
        "training": None if row.train_return is None else round(row.train_return, 2),
        "minutes": None if row.seconds is None else round(row.seconds / 60, 1),
        "started": row.started.replace("T", " ")[:19],
        "fault": row.fault,
    }
    return {name: value for name, value in cells.items() if value is not None and value != ""}


async def _compare(grid: ui.aggrid) -> None:
    names = [str(row["name"]) for row in await grid.get_selected_rows()]
    if not names or len(names) > MOST_COMPARED:
        ui.notify(f"Tick 1 to {MOST_COMPARED} runs to compare them; {len(names)} are ticked.")
        return
    ui.navigate.to("/compare?" + urlencode([("run", name) for name in names]))


def leaderboard_page(catalogue: Catalogue) -> None:
    """Rank the runs of each environment."""
    with page("Leaderboard"):
        ui.label(
            "By the mean of at least 100 greedy episodes less one deviation. A run gets there by "
            "renshu evaluate RUN --episodes 100, or by evaluations of 100 episodes while it trains."
        ).classes("text-sm opacity-70")

        @ui.refreshable
        def draw() -> None:
            found = rankings(catalogue.runs.values())
            for ranking in found:
                _ranked(ranking)
            if not found:
                ui.label("No run yet in this folder.")

        def ranks() -> object:
            catalogue.refresh(EVERY / 2)
            found = rankings(catalogue.runs.values())
            return [([(row.name, score) for row, score in one.rows], len(one.unranked)) for one in found]

        live(ranks, lambda: draw.refresh() if draw.targets else draw())


def _ranked(ranking: Ranking) -> None:
    rows: list[list[Cell]] = []
    if (zoo := ranking.zoo) is not None:
        spread = "" if zoo.std is None else f" ± {zoo.std:,.1f}"
        lower = "" if zoo.lower is None else f"{zoo.lower:,.1f}"
        zoo_cells = ["RL Zoo", "to beat", zoo.algorithm, lower, f"{zoo.mean:,.1f}{spread}", ""]
        rows.append([*zoo_cells, "" if zoo.steps is None else f"{zoo.steps:,}", "", "", "", ""])
    for number, (row, score) in enumerate(ranking.rows[:_MOST_RANKED], start=1):
        minutes = "" if row.seconds is None else f"{row.seconds / 60:.1f}"
        video = next((file for file in videos(row.path) if file.endswith(".mp4")), None)
        cells: list[Cell] = [(row.name, run_place(row.name)), str(number), row.algorithm, f"{score.lower:,.1f}"]
        cells += [f"{score.mean:,.1f} ± {score.std:,.1f}", str(score.episodes), f"{score.step:,}", minutes]
        cells += ["" if row.seed is None else str(row.seed), "solved" if row.solved else ""]
        rows.append([*cells, (video, file_place(row.name, video)) if video else ""])
    with ui.card().classes("w-full"):
        ui.label(ranking.environment).classes("font-bold break-all")
        columns = ["run", "rank", "algorithm", "mean - std", "mean ± std", "episodes", "steps", "minutes", "seed"]
        table([*columns, "", "video"], rows)
        if len(ranking.rows) > _MOST_RANKED:
            ui.label(f"and {len(ranking.rows) - _MOST_RANKED:,} more").classes("text-sm opacity-70")
        if ranking.unranked:
            ui.label(f"{len(ranking.unranked)} without an evaluation of 100 episodes").classes("text-sm opacity-70")
