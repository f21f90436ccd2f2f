"""The page of one run."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Any

from nicegui import ui

from renshu.board.catalogue import Catalogue, RunRow, clean, plain, settings_of
from renshu.board.charts import Tables, learning_curve, lengths, metric
from renshu.board.comparing import against_preset, flat_settings, tables_of
from renshu.board.files import videos
from renshu.board.frame import EVERY, ChartCard, facts, file_place, live, page
from renshu.errors import RenshuError

_MOST_METRICS = 40
_DRAWN = ("step", "return_mean", "length_mean")


def run_page(catalogue: Catalogue, name: str) -> None:
    """Show a run: curves, losses, videos, settings, and the command that reproduces it."""
    catalogue.refresh(EVERY / 2)
    row = catalogue.runs.get(name)
    if row is None:
        with page("No such run"):
            ui.label(f"{name} is no run in this folder; it may have been deleted or renamed.")
            ui.link("All runs", "/")
        return
    with page(name):
        head = ui.label().classes("text-sm opacity-80 break-words")
        axis = ui.toggle({"steps": "steps", "minutes": "wall time"}, value="steps").props("dense")
        faults = ui.column().classes("w-full")
        tables, _ = tables_of(row.path)
        cards = {"curve": ChartCard("Learning curve", learning_curve(tables, "steps", row.threshold), "h-96")}
        with ui.grid().classes("w-full grid-cols-1 md:grid-cols-2 gap-4"):
            cards["lengths"] = ChartCard("Episode lengths", lengths(tables, "steps"), "h-64")
            metrics = ui.element("div").classes("contents")
        if row.state != "damaged":
            _settings(row)
        _videos(row)

        def draw() -> None:
            now = catalogue.runs.get(name)
            if now is None:
                head.set_text("deleted or renamed")
                return
            tables, wrong = tables_of(now.path)
            head.set_text(_heading(now))
            faults.clear()
            with faults:
                for fault in [now.fault, *wrong] if now.fault else wrong:
                    ui.label(fault).classes("text-red-600 dark:text-red-400 text-sm break-all")
            _draw(cards, metrics, tables, axis.value, now.threshold)

        axis.on_value_change(draw)
        live(lambda: (catalogue.refresh(EVERY / 2), catalogue.runs.get(name))[1], draw)


def _heading(row: RunRow) -> str:
    steps = f"{row.steps:,} steps" + (f" of {row.total_steps:,}" if row.total_steps else "")
    parts = [row.algorithm, row.environment, row.state, steps]
    if row.evaluated is not None:
        score = row.evaluated
        parts.append(f"evaluated {score.mean:,.1f} ± {score.std:,.1f} ({score.episodes} episodes at {score.step:,})")
    return " · ".join(part for part in parts if part)


def _draw(cards: dict[str, ChartCard], metrics: Any, tables: Tables, axis: Any, threshold: float | None) -> None:
    cards["curve"].show(learning_curve(tables, axis, threshold))
    cards["lengths"].show(lengths(tables, axis))
    for name in [name for name in tables["metrics"] if name not in _DRAWN][:_MOST_METRICS]:
        if f"metric {name}" in cards:
            cards[f"metric {name}"].show(metric(tables, name, axis))
        else:
            with metrics:
                cards[f"metric {name}"] = ChartCard(name, metric(tables, name, axis), "h-64")


def _settings(row: RunRow) -> None:
    try:
        settings = settings_of(row.path)
    except RenshuError as error:
        ui.label(clean(str(error))).classes("text-sm opacity-70 break-all")
        return
    _command(settings)
    try:
        other, differing = against_preset(settings)
        heading = f"Differs from {other}" if differing else f"Settings, which are those of {other}"
    except RenshuError as error:  # of another version, or somebody's own
        heading, differing = f"Settings ({clean(str(error))})", {}
    with ui.grid().classes("w-full grid-cols-1 md:grid-cols-2 gap-4"):
        with ui.card().classes("w-full"):
            ui.label(heading).classes("font-bold break-all")
            flat = flat_settings(settings)
            facts([(key, f"{flat[key]}   (there {value})") for key, value in differing.items() if key in flat])
            with ui.expansion("All settings").classes("w-full").props("dense"):
                facts(list(flat.items()))
        with ui.card().classes("w-full"):
            ui.label("Versions, code and machine").classes("font-bold")
            kept = ("started", "command", "versions", "git", "machine")
            facts([(key, value) for part in kept for key, value in _flat(part, settings.get(part))])


def _command(settings: dict[str, Any]) -> None:
    """Show the command that trains the run again; from a program of its owner, what was called."""
    command = reproducing(settings)
    with ui.card().classes("w-full"):
        ui.label("Reproduce" if command else "Trained from Python, by").classes("font-bold")
        shown = command or plain(settings.get("command"))
        with ui.row().classes("w-full items-center gap-2 no-wrap"):
            # A terminal runs a line that ends in a newline, and takes others for keys: nothing of that is to be copied.
            ui.label(shown if shown.isprintable() else repr(shown)).classes("font-mono text-sm break-all grow")
            if command and command.isprintable():
                button = ui.button(icon="content_copy", on_click=lambda: ui.clipboard.write(command))
                button.props('flat dense aria-label="copy the command"')


def _flat(name: str, value: Any) -> list[tuple[str, str]]:
    if isinstance(value, dict):
        return [(clean(key), plain(item)) for key, item in value.items()]
    return [] if value is None else [(name, plain(value))]


def reproducing(settings: dict[str, Any]) -> str:
    """Make the command line that trains the run again, with the seed that was drawn; "" where it was no command."""
    command, seed = settings.get("command"), settings.get("seed")
    try:
        words = shlex.split(command) if isinstance(command, str) else []
    except ValueError:
        words = []
    resumed = any(word == "--resume" or word.startswith("--resume=") for word in words)
    if len(words) < 2 or Path(words[0]).name != "renshu" or words[1] != "train" or resumed:
        return ""
    known = any(word == "--seed" or word.startswith("--seed=") for word in words) or seed is None
    return shlex.join(["renshu", *_without(words[1:], "--run"), *([] if known else ["--seed", plain(seed)])])


def _without(words: list[str], option: str) -> list[str]:
    """Leave out an option and its value."""
    kept, skip = [], False
    for word in words:
        if not skip and word != option and not word.startswith(f"{option}="):
            kept.append(word)
        skip = word == option
    return kept


def _videos(row: RunRow) -> None:
    found = videos(row.path)
    if not found:
        return
    with ui.card().classes("w-full"):
        ui.label("Videos and pictures").classes("font-bold")
        with ui.row().classes("w-full flex-wrap gap-4"):
            for file in found:
                place = file_place(row.name, file)
                with ui.column().classes("gap-1"):
                    if file.endswith(".mp4"):
                        ui.video(place).classes("w-80 max-w-full")
                    else:
                        ui.element("img").props["src"] = place
                    ui.label(file).classes("text-xs opacity-70 break-all")
