"""Charts as ECharts takes them: plain data made from the tables of runs. Legible on a light and on a dark page."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Sequence
from typing import Any, Literal, TypeAlias

import numpy as np

from renshu.tracking.comparison import Curves, bootstrap_band, centre
from renshu.tracking.curves import EPISODES, EVALUATIONS, recent_moments
from renshu.tracking.figures import COLOURS, colour_and_dashes, thinned

Axis: TypeAlias = Literal["steps", "minutes"]
Chart: TypeAlias = dict[str, Any]
Tables: TypeAlias = dict[str, dict[str, np.ndarray]]

_GREY = "#7c8796"
"""Colour of text and axes, legible on white and on black."""
_MOST_MEMBERS = 64
_WIDE = 20.0
_TYPES = {"-": "solid", "--": "dashed", ":": "dotted", "-.": [8, 3, 2, 3]}


def empty_tables() -> Tables:
    """Return the tables of a run that has not begun: "episodes" and "evaluations" without rows."""
    return {
        "episodes": {name: np.zeros(0) for name in EPISODES},
        "evaluations": {name: np.zeros(0) for name in EVALUATIONS},
        "metrics": {"step": np.zeros(0)},
    }


def learning_curve(tables: Tables, axis: Axis, threshold: float | None = None) -> Chart:
    """Draw a run's training episodes faint, the mean of the recent ones bold, and its evaluations ± deviation."""
    episodes, evaluations = tables["episodes"], tables["evaluations"]
    place = thinned(episodes["step"].size)
    x, score = _axis(episodes["step"], episodes, axis), episodes["return"]
    mean = recent_moments(episodes["step"], score)[0] if score.size else score
    series = [
        {
            "name": "episode",
            "type": "scatter",
            "symbolSize": 4,
            "itemStyle": {"color": COLOURS[0], "opacity": 0.25},
            "data": _points(x[place], score[place]),
            "silent": True,
        },
        _line("mean of recent episodes", _points(x[place], mean[place]), COLOURS[0], width=2.5),
    ]
    if evaluations["step"].size:
        at = _axis(evaluations["step"], episodes, axis)
        low, high = evaluations["mean"] - evaluations["std"], evaluations["mean"] + evaluations["std"]
        marked = _line("evaluation ± std", _points(at, evaluations["mean"]), COLOURS[1])
        series.append(marked | {"showSymbol": True, "symbol": "circle", "symbolSize": 7, "z": 4})
        series += _band("evaluation ± std", at, low, high, COLOURS[1])
    if threshold is not None:
        series[1]["markLine"] = _marked(_mark(threshold, "threshold"))
    return _chart(series, axis, "return")


def lengths(tables: Tables, axis: Axis) -> Chart:
    """Draw the mean length of the recent training episodes."""
    episodes = tables["episodes"]
    length = episodes["length"].astype(np.float64)
    mean = recent_moments(episodes["step"], length)[0] if length.size else length
    place = thinned(length.size)
    x = _axis(episodes["step"], episodes, axis)
    return _chart([_line("length of recent episodes", _points(x[place], mean[place]), COLOURS[2])], axis, "steps")


def metric(tables: Tables, name: str, axis: Axis) -> Chart:
    """Draw one measurement of the learner."""
    metrics = tables["metrics"]
    place = thinned(metrics["step"].size)
    x = _axis(metrics["step"], tables["episodes"], axis)
    return _chart([_line(name, _points(x[place], metrics[name][place]), COLOURS[3])], axis, "")


def comparison(
    curves: Sequence[Curves], threshold: float | None = None, line: tuple[str, float] | None = None
) -> Chart:
    """Draw curves: of several seeds the interquartile mean, its 95 % bootstrap band, and every seed faint.

    The mean is drawn where more than half of the seeds are known. line: name and height of another score to beat.
    """
    series: list[Chart] = []
    for place, one in enumerate(curves):
        colour, dashes = colour_and_dashes(place)
        middle = centre(one.returns, "iqm") if one.steps.size else np.zeros(0)
        bold = _line(one.label, _points(one.steps, middle), colour, width=2.5, dashes=dashes) | {"z": 4}
        series.append(bold)
        if len(one.seeds) > 1:
            low, high = bootstrap_band(one.returns, "iqm")
            series += _band(one.label, one.steps, low, high, colour)
            for seed, returns in zip(one.seeds, one.returns, strict=True):
                faint = _line(one.label, _points(one.steps, returns), colour, width=0.8)
                faint |= {"lineStyle": {"width": 0.8, "opacity": 0.35, "color": colour}, "silent": True}
                series.append(faint | {"id": f"{one.label}, seed {seed}"})
    marks = [_mark(threshold, "threshold")] if threshold is not None else []
    marks += [_mark(line[1], line[0], "insideEndBottom")] if line is not None else []
    if series and marks:
        series[0]["markLine"] = _marked(*marks)
    several = any(len(one.seeds) > 1 for one in curves)
    return _chart(series, "steps", "training return" + (": interquartile mean, 95 % band" if several else ""))


def population(members: dict[str, np.ndarray], name: str) -> Chart:
    """Draw a column of a population's table, a line for each member."""
    series = []
    for member in np.unique(members["member"])[:_MOST_MEMBERS]:
        mine = members["member"] == member
        colour, dashes = colour_and_dashes(int(member))
        data = _points(members["steps"][mine], members[name][mine])
        series.append(_line(f"member {int(member)}", data, colour, dashes=dashes))
    return _chart(series, "steps", name)


def history(trials: np.ndarray, scores: np.ndarray) -> Chart:
    """Draw the score of each trial of a search, and the best so far. trials, scores: [n]; NaN: none."""
    known = np.isfinite(scores)
    best = np.maximum.accumulate(np.where(known, scores, -np.inf)) if scores.size else scores
    best = np.where(np.isfinite(best), best, np.nan)
    series = [_dots("trial", _points(trials[known], scores[known]), COLOURS[0])]
    series.append(_line("best so far", _points(trials, best), COLOURS[1]) | {"step": "end"})
    return _chart(series, "trial", "mean return")


def slice_of(name: str, values: Sequence[float | str], scores: np.ndarray) -> Chart:
    """Draw scores of trials against one hyperparameter: by logarithm where it is above 0 and spans much, or choices."""
    numeric = all(isinstance(value, float) for value in values)
    points = [[value, score] for value, score in zip(values, scores.tolist(), strict=True)]
    chart = _chart([_dots(name, points, COLOURS[0])], name, "mean return")
    if not numeric:
        chart["xAxis"] |= {"type": "category", "data": sorted({str(value) for value in values})}
    else:
        low, high = min(values, default=0.0), max(values, default=0.0)
        logarithmic = isinstance(low, float) and isinstance(high, float) and low > 0 and high > _WIDE * low
        chart["xAxis"] |= {"type": "log" if logarithmic else "value", "scale": True, "min": None, "max": None}
    return chart


def importance(shares: dict[str, float]) -> Chart:
    """Draw the share of each hyperparameter as a bar, the largest at the top."""
    ordered = sorted(shares.items(), key=lambda item: item[1])
    bar = {"name": "share", "type": "bar", "itemStyle": {"color": COLOURS[0]}}
    bar["data"] = [[share, name] for name, share in ordered]
    chart = _chart([bar], "share of the differences", "")
    chart["xAxis"]["max"] = None
    chart["yAxis"] = {"type": "category", "data": [name for name, _ in ordered], "axisLabel": {"color": _GREY}}
    return chart


def numbers(chart: Chart) -> str:
    """Write the points of a chart as csv: series, x, y. A band is two series, its low and its high end."""
    text = io.StringIO()
    rows = csv.writer(text, lineterminator="\n")
    rows.writerow(["series", "x", "y"])
    low: list[list[float]] = []
    for one in chart["series"]:
        name, data = _harmless(one.get("id", one["name"])), one["data"]
        if one.get("stack") is not None:
            if "areaStyle" in one:  # what is stacked is the width
                data = [[x, base + width] for (x, base), (_, width) in zip(low, data, strict=True)]
                name = f"{name}, high"
            else:
                low, name = data, f"{name}, low"
        rows.writerows([name, *map(_plain, (x, y))] for x, y in data if y is not None)
    return text.getvalue()


def _plain(cell: float | str) -> float | str:
    return _harmless(cell) if isinstance(cell, str) else cell


def _harmless(name: str) -> str:
    """Keep a spreadsheet from taking a name for a formula."""
    return f"'{name}" if name[:1] in "=+-@\t\r" and name else name


def _axis(step: np.ndarray, episodes: dict[str, np.ndarray], axis: Axis) -> np.ndarray:
    """Place steps on the axis of a chart; the time at a step is that of the episodes around it."""
    if axis == "steps" or not episodes["step"].size:
        return step.astype(np.float64)
    return np.round(np.interp(step, episodes["step"], episodes["seconds"]) / 60, 4)


def _points(x: np.ndarray, y: np.ndarray) -> list[list[float | None]]:
    # JSON has no NaN; a null is a gap.
    known = np.isfinite(y)
    heights = np.where(known, y, 0.0).tolist()
    return [[at, height if sure else None] for at, height, sure in zip(x.tolist(), heights, known, strict=True)]


def _line(name: str, data: list[Any], colour: str, width: float = 1.6, dashes: str = "-") -> Chart:
    return {
        "name": name,
        "type": "line",
        "showSymbol": len(data) == 1,
        "data": data,
        "itemStyle": {"color": colour},
        "lineStyle": {"width": width, "color": colour, "type": _TYPES[dashes]},
    }


def _dots(name: str, data: list[Any], colour: str) -> Chart:
    return {
        "name": name,
        "type": "scatter",
        "symbolSize": 8,
        "itemStyle": {"color": colour, "opacity": 0.7},
        "data": data,
    }


def _band(name: str, x: np.ndarray, low: np.ndarray, high: np.ndarray, colour: str) -> list[Chart]:
    """Fill between two curves: an invisible one, and the area of a second one stacked on it."""
    known = np.isfinite(low) & np.isfinite(high)
    x, low, high = x[known], low[known], high[known]
    common = {"name": name, "type": "line", "stack": f"band {name} {colour}", "stackStrategy": "all", "silent": True}
    common |= {"symbol": "none", "lineStyle": {"opacity": 0}, "tooltip": {"show": False}}
    common |= {"itemStyle": {"color": colour}}
    return [
        common | {"data": _points(x, low)},
        common | {"data": _points(x, high - low), "areaStyle": {"color": colour, "opacity": 0.18}},
    ]


def _marked(*marks: Chart) -> Chart:
    style = {"type": "dashed", "color": _GREY}
    return {"silent": True, "symbol": "none", "lineStyle": style, "data": list(marks)}


def _mark(height: float, name: str, place: str = "insideStartTop") -> Chart:
    words = f"{name} {height:,g}".replace("{", "(")  # a brace would begin a name of ECharts
    return {"yAxis": height, "label": {"formatter": words, "color": _GREY, "position": place}}


def _chart(series: Iterable[Chart], axis: str, height: str) -> Chart:
    series = list(series)
    names = list(dict.fromkeys(one["name"] for one in series))
    text, faint = {"color": _GREY}, {"lineStyle": {"color": _GREY, "opacity": 0.2}}
    style = {"type": "value", "axisLabel": text, "splitLine": faint, "axisLine": {"lineStyle": text}}
    unit = "environment steps" if axis == "steps" else axis
    across = {"name": unit, "nameLocation": "middle", "nameGap": 26, "nameTextStyle": text, "min": 0, "max": "dataMax"}
    across["axisLine"] = {"onZero": False, "lineStyle": text}  # at the bottom where returns are negative, too
    up = {"name": height, "nameTextStyle": {"color": _GREY, "align": "left"}, "scale": True}
    tools = {"dataZoom": {"yAxisIndex": "none"}, "saveAsImage": {"name": "renshu"}}
    legend = {"bottom": 0, "type": "scroll", "data": names, "textStyle": text}
    return {
        "animation": False,
        "backgroundColor": "transparent",
        "aria": {"enabled": True},
        "grid": {"left": 12, "right": 24, "top": 50, "bottom": 62 if len(names) > 1 else 34, "containLabel": True},
        "tooltip": {"trigger": "axis", "renderMode": "richText", "confine": True},
        "legend": legend | {"show": len(names) > 1},
        "toolbox": {"right": 10, "top": 0, "feature": tools},
        "xAxis": style | across,
        "yAxis": style | up,
        "series": series,
    }
