"""Learning curves: functions that read them from the tables of a run, and plots."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from renshu.errors import RenshuError, UnknownNameError
from renshu.tracking.figures import (
    COLOURS,
    INK,
    colour_and_dashes,
    finish_axes,
    lone_marker,
    new_figure,
    save_figure,
    say_empty,
    thinned,
)
from renshu.tracking.provenance import read_settings
from renshu.tracking.recent import first_recent
from renshu.tracking.tables import read_table

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

EPISODES = ("step", "env", "return", "length", "seconds")
EVALUATIONS = ("step", "mean", "std", "min", "max", "length", "episodes")
_PALE_BLUE = "#8fb0ea"


def read_episodes(path: Path | str) -> dict[str, np.ndarray]:
    """Read the finished training episodes of the run in the folder `path`, oldest first.

    Returns arrays [K]: "step", "env", "length" int64; "return", "seconds" float64. K is 0 when none has finished.
    Raises UnknownNameError when the folder holds no run, CheckpointError when the table is damaged; a last line that a
    crash cut short is left out.
    """
    return _read(path, "episodes.csv", EPISODES, integers=("step", "env", "length"))


def read_evaluations(path: Path | str) -> dict[str, np.ndarray]:
    """Read the evaluations of the run in the folder `path`, oldest first.

    Returns arrays [K]: "step", "episodes" int64; "mean", "std", "min", "max" of the returns and the mean "length"
    float64. Raises as `read_episodes` does.
    """
    return _read(path, "evaluations.csv", EVALUATIONS, integers=("step", "episodes"))


def read_scores(path: Path | str) -> dict[str, np.ndarray]:
    """Read the evaluations that were made after the training, as `read_evaluations` does, oldest first."""
    return _read(path, "scores.csv", EVALUATIONS, integers=("step", "episodes"))


def read_metrics(path: Path | str) -> dict[str, np.ndarray]:
    """Read the learner's measurements in the run in the folder `path`, oldest first.

    Returns arrays [K]: "step" int64 and each metric float64, NaN where it was not logged. Raises as `read_episodes`.
    """
    return _read(path, "metrics.csv", ("step",), integers=("step",))


def moving_average(x: np.ndarray, window: int = 100) -> np.ndarray:
    """Compute the mean of the last `window` values at each place; at the start, of all values so far.

    x: [K] numbers; those that are not finite are left out. Returns [K] float64, NaN where the window holds none.
    Raises RenshuError when `x` has another shape or `window` is below 1.
    """
    return _moving_moments(x, window)[0]


def recent_moments(step: np.ndarray, score: np.ndarray, window: int | None = None) -> tuple[np.ndarray, np.ndarray]:
    """Compute mean and standard deviation at each episode: of the recent ones, or of the last `window`.

    step, score: [K] steps at which episodes ended, ascending, and their returns. Recent are those of the last 10,000
    steps, 20 to 100. Returns two arrays [K] float64, NaN where nothing finite is known.
    """
    return _moments(score, first_recent(step)) if window is None else _moving_moments(score, window)


def plot_runs(
    paths: Sequence[Path | str], out: Path | str, *, window: int | None = None, title: str | None = None
) -> None:
    """Draw the return against environment steps into the PNG file `out`, 1200 x 675 pixels.

    paths: the folders of the runs; of several, those that hold no run are left out with a warning.
    One run: every training episode faint, their moving average bold, evaluations as markers with a band of one standard
        deviation. Several: for each the moving average, with a band of the standard deviation in the window; a panel
        for each environment, 510 pixels high. A reward threshold that all of a panel share is a dashed line.
    window: episodes of the moving average; None: the recent ones, those of the last 10,000 steps, 20 to 100.
    title: None makes one from the settings.
    Raises RenshuError when there are no paths or `out` cannot be written, otherwise as `read_episodes` does.
    """
    if not paths:
        raise RenshuError("plot_runs wants the folder of at least one run, got none.")
    runs = _readable([Path(path) for path in paths])
    figure, axes = new_figure()
    if len(runs) == 1:
        _finish(figure, axes, runs, window, title)
        save_figure(figure, Path(out))
        return
    panels: dict[Any, dict[Path, dict[str, Any]]] = {}
    for run, setting in runs.items():
        panels.setdefault(setting.get("environment"), {})[run] = setting
    if len(panels) > 1:
        figure.clear()
        figure.set_size_inches(8, 3.4 * len(panels))
    several = [axes] if len(panels) == 1 else figure.subplots(len(panels))
    for axes, chosen in zip(several, panels.values(), strict=True):
        _finish(figure, axes, chosen, window, title if len(panels) == 1 else None, legend_inside=len(panels) > 1)
    save_figure(figure, Path(out))


def _readable(paths: list[Path]) -> dict[Path, dict[str, Any]]:
    """Read the settings of runs. Warns of folders that hold none, unless there is no other."""
    found: dict[Path, dict[str, Any]] = {}
    for path in paths:
        try:
            found[path] = read_settings(path)
        except UnknownNameError as error:
            if len(paths) == 1:
                raise
            warnings.warn(f"left out: {error}", stacklevel=3)
    if not found:
        raise UnknownNameError(f"none of {', '.join(map(str, paths))} is the folder of a run")
    return found


def _finish(
    figure: Figure,
    axes: Axes,
    runs: dict[Path, dict[str, Any]],
    window: int | None,
    title: str | None,
    legend_inside: bool = False,
) -> None:
    """Draw runs into axes, with their threshold, title and legend."""
    if len(runs) == 1 and not legend_inside:
        empty = not _draw_one(axes, next(iter(runs)), window)
    else:
        empty = not any([_draw_several(axes, run, window, number) for number, run in enumerate(runs)])
    if empty:
        say_empty(axes)
    settings = list(runs.values())
    threshold, *others = {setting.get("reward_threshold") for setting in settings}
    if isinstance(threshold, int | float) and not others and not empty:
        axes.axhline(threshold, color=INK, linestyle=(0, (5, 4)), linewidth=1, label=f"threshold {threshold:,g}")
    words = _title(list(runs), settings) if title is None else title
    finish_axes(figure, axes, words, "training return", legend_inside=legend_inside)


def _draw_one(axes: Axes, run: Path, window: int | None) -> bool:
    """Draw a run by itself; return whether there was anything to draw."""
    episodes, evaluations = read_episodes(run), read_evaluations(run)
    step, score = episodes["step"], episodes["return"]
    if step.size:
        # A pale colour, not a transparent one: where a million episodes overlap, the mean must still stand out.
        dots = {"color": _PALE_BLUE, "linestyle": "none", "marker": "o", "markeredgewidth": 0}
        axes.plot(
            step,
            score,
            markersize=3.5,
            alpha=float(np.clip(20 / np.sqrt(step.size), 0.15, 0.7)),
            label="episode",
            **dots,
        )
        mean, place = recent_moments(step, score, window)[0], thinned(step.size)
        line = {"color": COLOURS[0], "linewidth": 2.2, "marker": lone_marker(step)}
        axes.plot(
            step[place],
            mean[place],
            label="mean of recent episodes" if window is None else f"mean of {window} episodes",
            **line,
        )
    if evaluations["step"].size:
        step, mean, std = (evaluations[name] for name in ("step", "mean", "std"))
        axes.fill_between(step, mean - std, mean + std, color=COLOURS[1], alpha=0.18, linewidth=0)
        style = {"color": COLOURS[1], "linewidth": 1.2, "marker": "o", "markersize": 5, "markeredgecolor": "white"}
        axes.plot(step, mean, label="evaluation ± std", **style)
    return bool(episodes["step"].size or evaluations["step"].size)


def _draw_several(axes: Axes, run: Path, window: int | None, number: int) -> bool:
    """Draw a run as the one with that number among others; return whether there was anything to draw."""
    episodes = read_episodes(run)
    step, place = episodes["step"], thinned(episodes["step"].size)
    mean, std = recent_moments(step, episodes["return"], window)
    colour, dashes = colour_and_dashes(number)
    axes.fill_between(step[place], (mean - std)[place], (mean + std)[place], color=colour, alpha=0.13, linewidth=0)
    name = run.absolute().name if step.size else f"{run.absolute().name} (no finished episode yet)"
    line = {"color": colour, "linestyle": dashes, "linewidth": 2, "marker": lone_marker(step)}
    axes.plot(step[place], mean[place], label=name, **line)
    return bool(step.size)


def _title(runs: list[Path], settings: list[dict[str, Any]]) -> str:
    algorithms = {setting.get("algorithm") for setting in settings}
    environments = {setting.get("environment") for setting in settings}
    parts = [str(names.pop()) for names in (algorithms, environments) if len(names) == 1 and None not in names]
    return " on ".join(parts) or " · ".join(run.absolute().name for run in runs[:3])


def _moving_moments(x: np.ndarray, window: int) -> tuple[np.ndarray, np.ndarray]:
    """Compute mean and standard deviation of the last `window` finite values at each place."""
    x = np.asarray(x, np.float64)
    if x.ndim != 1 or window < 1:
        raise RenshuError(
            f"a moving average wants one row of numbers and a window of 1 or more, got shape {x.shape} and {window}."
        )
    return _moments(x, np.maximum(np.arange(x.size) - window + 1, 0))


def _moments(x: np.ndarray, first: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Compute mean and standard deviation of the finite values from `first` on, at each place."""
    known = np.isfinite(x)
    # Around zero the sums of squares lose the fewest digits.
    centre = x[known].mean() if known.any() else 0.0
    shifted = np.where(known, x - centre, 0.0)
    with np.errstate(divide="ignore", invalid="ignore"):
        count = _sums(known.astype(np.float64), first)
        mean = _sums(shifted, first) / count
        variance = _sums(shifted**2, first) / count - mean**2
    return mean + centre, np.sqrt(np.maximum(variance, 0.0))


def _sums(x: np.ndarray, first: np.ndarray) -> np.ndarray:
    total = np.concatenate([[0.0], np.cumsum(x)])
    return total[1:] - total[first]


def _read(path: Path | str, name: str, columns: Sequence[str], *, integers: Sequence[str]) -> dict[str, np.ndarray]:
    read_settings(path)
    return read_table(Path(path) / name, columns, integers=integers)
