"""Common parts of all pages: the bar at the top, cards with charts, tables, and drawing again after a change."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, TypeAlias
from urllib.parse import quote

from nicegui import ui

from renshu.board.charts import Chart, numbers

Cell: TypeAlias = str | tuple[str, str]

EVERY = 2.0
"""Seconds between two looks for changes."""
_PLACES = {"Runs": "/", "Leaderboard": "/leaderboard", "Experiments": "/experiments", "Leagues": "/leagues"}


@contextmanager
def page(title: str) -> Iterator[None]:
    """Lay out a page. Its colours follow the browser's choice of light or dark."""
    ui.page_title(f"{title} · Renshu")
    ui.colors(primary="#2563c9")
    with ui.header().classes("items-center gap-1 py-2 flex-wrap"):
        ui.link("練習 Renshu", "/").classes("text-white text-lg font-bold no-underline mr-3")
        for name, place in _PLACES.items():
            ui.link(name, place).classes("text-white no-underline px-2 py-1 rounded hover:underline")
    with ui.column().classes("w-full max-w-screen-xl mx-auto px-2 sm:px-4 gap-4"):
        ui.label(title).classes("text-xl sm:text-2xl font-bold break-all")
        yield


def run_place(name: str) -> str:
    """Return the address of a run's page."""
    return f"/run/{quote(name)}"


def file_place(name: str, file: str) -> str:
    """Return the address of a file of a run."""
    return f"/file/{quote(name)}?name={quote(file, safe='')}"


class ChartCard:
    """A chart in a card, with its numbers as csv; the picture itself is saved by the chart's own button, as SVG."""

    def __init__(self, title: str, chart: Chart, height: str = "h-80") -> None:
        with ui.card().classes("w-full"):
            with ui.row().classes("w-full items-center justify-between"):
                ui.label(title).classes("font-bold break-all")
                ui.button("csv", icon="download", on_click=self._download).props("flat dense size=sm")
            self._title = title
            self._chart = ui.echart(chart, renderer="svg").classes(f"w-full {height}")

    def show(self, chart: Chart) -> None:
        """Draw another chart in its place, keeping what the visitor zoomed to where nothing has changed."""
        if chart == self._chart.options:
            return
        self._chart.options.clear()
        self._chart.options.update(chart)
        self._chart.update()

    def _download(self) -> None:
        ui.download.content(numbers(self._chart.options), f"{self._title}.csv", "text/csv")


def facts(rows: Sequence[tuple[str, str]]) -> None:
    """Show names and values as a table of text."""
    with ui.grid(columns="minmax(8rem, max-content) 1fr").classes("w-full gap-x-4 gap-y-1 text-sm"):
        for name, value in rows:
            ui.label(name).classes("opacity-70 break-all")
            ui.label(value).classes("break-all")


def table(columns: Sequence[str], rows: Sequence[Sequence[Cell]]) -> None:
    """Show a table of text. A cell is a text, or a text and the address to which it leads."""
    with ui.element("div").classes("w-full overflow-x-auto"), ui.element("table").classes("text-sm text-left w-full"):
        with ui.element("tr"):
            for column in columns:
                with ui.element("th").classes("px-2 py-1 opacity-70 font-normal whitespace-nowrap"):
                    ui.label(column)
        for row in rows:
            with ui.element("tr").classes("border-t border-gray-500/30"):
                for cell in row:
                    with ui.element("td").classes("px-2 py-1 whitespace-nowrap"):
                        ui.label(cell) if isinstance(cell, str) else ui.link(*cell)


def live(look: Callable[[], Any], draw: Callable[[], Any]) -> None:
    """Draw now, and again whenever what `look` returns has changed."""
    seen = look()
    draw()

    def again() -> None:
        nonlocal seen
        now = look()
        if now != seen:
            seen = now
            draw()

    ui.timer(EVERY, again)
