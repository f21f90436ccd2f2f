"""The page of one run."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Any

from nicegui import ui

from renshu.board.catalogue import Catalogue, RunRow, plain
from renshu.board.charts import Tables, learning_curve, lengths, metric
from renshu.board.comparing import against_preset, flat_settings, tables_of
from renshu.board.files import videos
from renshu.board.frame import EVERY, ChartCard, facts, file_place, live, page
from renshu.errors import RenshuError
from renshu.tracking.provenance import read_settings

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
        settings = read_settings(row.path)
        other, differing = against_preset(settings)
    except RenshuError as error:
        ui.label(f"{error}").classes("text-sm opacity-70 break-all")
        settings, other, differing = read_settings(row.path), "", {}
    with ui.card().classes("w-full"):
        ui.label("Reproduce").classes("font-bold")
        with ui.row().classes("w-full items-center gap-2 no-wrap"):
            command = reproducing(settings)
            ui.label(command).classes("font-mono text-sm break-all grow")
            ui.button(icon="content_copy", on_click=lambda: ui.clipboard.write(command)).props(
                'flat dense aria-label="copy the command"'
            )
    with ui.grid().classes("w-full grid-cols-1 md:grid-cols-2 gap-4"):
        with ui.card().classes("w-full"):
            ui.label(f"Differs from {other}" if differing else f"Settings, as {other}").classes("font-bold")
            flat = flat_settings(settings)
            facts([(key, f"{flat[key]}   (there {value})") for key, value in differing.items() if key in flat])
            with ui.expansion("All settings").classes("w-full").props("dense"):
                facts(list(flat.items()))
        with ui.card().classes("w-full"):
            ui.label("Versions, code and machine").classes("font-bold")
            kept = ("started", "command", "versions", "git", "machine")
            facts([(key, value) for part in kept for key, value in _flat(part, settings.get(part))])


def _flat(name: str, value: Any) -> list[tuple[str, str]]:
    if isinstance(value, dict):
        return [(str(key), plain(item)) for key, item in value.items()]
    return [] if value is None else [(name, plain(value))]


def reproducing(settings: dict[str, Any]) -> str:
    """Make the command line that trains the run again: its own, or else one with all of its hyperparameters."""
    command = settings.get("command")
    try:
        words = shlex.split(command) if isinstance(command, str) else []
    except ValueError:
        words = []
    seed = plain(settings.get("seed"))
    if len(words) > 1 and Path(words[0]).name == "renshu" and words[1] == "train" and "--resume" not in words:
        drawn = [] if "--seed" in words or seed == "null" else ["--seed", seed]
        return shlex.join(["renshu", *_without(words[1:], "--run"), *drawn])
    words = ["renshu", "train", plain(settings.get("algorithm")).lower(), plain(settings.get("environment"))]
    options = {"--steps": "total_steps", "--seed": "seed", "--envs": "num_envs"}
    words += [
        word for option, name in options.items() if settings.get(name) for word in (option, plain(settings[name]))
    ]
    chosen = settings.get("hyperparameters")
    values = chosen.items() if isinstance(chosen, dict) else ()
    words += [word for name, value in values if value is not None for word in ("--set", f"{name}={plain(value)}")]
    return shlex.join([*words, "--no-preset"])


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
