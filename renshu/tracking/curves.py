"""Learning curves: the csv tables that hold them, functions that read them back, and plots."""

from __future__ import annotations

import csv
import io
import os
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

import numpy as np

from renshu.errors import CheckpointError, RenshuError
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
from renshu.tracking.provenance import read_settings, write_atomically, writing
from renshu.tracking.recent import first_recent

if TYPE_CHECKING:
    from matplotlib.axes import Axes

EPISODES = ("step", "env", "return", "length", "seconds")
EVALUATIONS = ("step", "mean", "std", "min", "max", "length", "episodes")
_PALE_BLUE = "#8fb0ea"


class Table:
    """A csv file of numbers that grows by rows; the first column is `step`.

    A line without its newline was cut short by a crash, and is dropped at the next append. Rows are buffered until
    `flush` or `close`; an append after `close` opens the file again.
    Writing raises RenshuError, naming path and reason; a damaged line raises CheckpointError.
    """

    def __init__(self, path: Path, columns: Iterable[str]):
        self.path = path
        self.columns = list(columns)
        self._file: TextIO | None = None
        self._empty = True

    def append(self, rows: Iterable[Sequence[float]]) -> None:
        """Add rows, each with a number for every one of `columns`."""
        file = self._open()
        with writing(self.path):
            if self._empty:
                file.write(_csv_line(self.columns))
                self._empty = False
            csv.writer(file, lineterminator="\n").writerows(rows)

    def add_columns(self, names: Iterable[str]) -> None:
        """Add the columns that are new. Earlier rows read as NaN there."""
        self._open()
        if new := [name for name in names if name not in self.columns]:
            self.columns += new
            if not self._empty:
                self.close()
                write_atomically(self.path, self._widened(len(new)))

    def truncate(self, step: int) -> None:
        """Drop the rows beyond `step`, atomically."""
        self.close()
        if self.path.exists():
            write_atomically(self.path, self._until(step))

    def tail(self, n: int) -> list[list[float]]:
        """Read the last `n` rows."""
        if not self.path.exists():
            return []
        with open(self.path, "rb") as file:
            lines = deque(islice(file, 1, None), maxlen=n)
        return [[float(field) for field in line.split(b",")] for line in lines]

    def flush(self) -> None:
        """Write the buffered rows."""
        if self._file is not None:
            with writing(self.path):
                self._file.flush()

    def close(self) -> None:
        """Write the buffered rows and close the file."""
        file, self._file = self._file, None
        if file is not None:
            with writing(self.path):
                file.close()

    def _open(self) -> TextIO:
        if self._file is None:
            with writing(self.path):
                self._empty = not _cut_to_lines(self.path)
                if not self._empty:
                    with open(self.path, encoding="utf-8", errors="replace", newline="") as file:
                        self.columns = next(csv.reader(file))
                self._file = open(self.path, "a", encoding="utf-8", newline="", buffering=1 << 16)  # noqa: SIM115
        return self._file

    def _widened(self, extra: int) -> Iterator[bytes]:
        with open(self.path, "rb") as file:
            next(file)
            yield _csv_line(self.columns).encode()
            for line in file:
                yield line[:-1] + b",nan" * extra + b"\n"

    def _until(self, step: int) -> Iterator[bytes]:
        with open(self.path, "rb") as file:
            header = next(file, b"")
            if not header.endswith(b"\n"):
                return
            yield header
            width = len(next(csv.reader([header.decode("utf-8", "replace")])))
            for number, line in enumerate(file, start=2):
                if not line.endswith(b"\n"):
                    return
                try:
                    row = [float(field) for field in line.split(b",")]
                except ValueError:
                    row = []
                if len(row) != width:
                    raise CheckpointError(
                        f"line {number} of {self.path} is not a row of {width} numbers: {line[:60]!r}. "
                        "The file was changed or damaged: fix or delete that line."
                    )
                if row[0] <= step:
                    yield line


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


def plot_runs(
    paths: Sequence[Path | str], out: Path | str, *, window: int | None = None, title: str | None = None
) -> None:
    """Draw the return against environment steps into the PNG file `out`, 1200 x 675 pixels.

    paths: the folders of the runs. One run: every training episode faint, their moving average bold, evaluations as
        markers with a band of one standard deviation. Several: for each the moving average, with a band of the standard
        deviation in the window. A reward threshold that all share is a dashed line.
    window: episodes of the moving average; None: the recent ones, those of the last 10,000 steps, 20 to 100.
    title: None makes one from the settings.
    Raises RenshuError when there are no paths or `out` cannot be written, otherwise as `read_episodes` does.
    """
    if not paths:
        raise RenshuError("plot_runs wants the folder of at least one run, got none.")
    runs = [Path(path) for path in paths]
    settings = [read_settings(run) for run in runs]
    figure, axes = new_figure()
    if len(runs) == 1:
        empty = not _draw_one(axes, runs[0], window)
    else:
        empty = not any([_draw_several(axes, run, window, number) for number, run in enumerate(runs)])
    if empty:
        say_empty(axes)
    threshold, *others = {setting.get("reward_threshold") for setting in settings}
    if isinstance(threshold, int | float) and not others and not empty:
        axes.axhline(threshold, color=INK, linestyle=(0, (5, 4)), linewidth=1, label=f"threshold {threshold:,g}")
    finish_axes(figure, axes, _title(runs, settings) if title is None else title)
    save_figure(figure, Path(out))


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
        mean, place = _curve(step, score, window)[0], thinned(step.size)
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
    mean, std = _curve(step, episodes["return"], window)
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


def _curve(step: np.ndarray, score: np.ndarray, window: int | None) -> tuple[np.ndarray, np.ndarray]:
    """Compute mean and standard deviation at each episode: of the recent ones, or of `window`."""
    return _moments(score, first_recent(step)) if window is None else _moving_moments(score, window)


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
    file = Path(path) / name
    data = file.read_bytes() if file.exists() else b""
    lines = data.decode("utf-8", "replace").split("\n")[:-1]
    if lines:
        columns = next(csv.reader(lines[:1]))
    try:
        rows = (
            np.loadtxt(lines[1:], delimiter=",", comments=None, ndmin=2)
            if len(lines) > 1
            else np.zeros((0, len(columns)))
        )
        if rows.shape[1] != len(columns):
            raise ValueError(f"rows of {rows.shape[1]} numbers under {len(columns)} names")
    except ValueError as error:
        raise CheckpointError(f"{file} was changed or damaged: {error}. Fix or delete that line.") from error
    table = dict(zip(columns, rows.T, strict=True))
    return {key: column.astype(np.int64) if key in integers else column for key, column in table.items()}


def _cut_to_lines(path: Path) -> int:
    """Cut off a last line that a crash left without its end; return the size of the file, 0 if it is missing."""
    if not path.exists():
        return 0
    with open(path, "r+b") as file:
        size = file.seek(0, os.SEEK_END)
        start = file.seek(max(0, size - (1 << 16)))
        end = start + file.read(size - start).rfind(b"\n") + 1
        if end < size:
            file.truncate(end)
    return end


def _csv_line(fields: Sequence[str]) -> str:
    line = io.StringIO()
    csv.writer(line, lineterminator="\n").writerow(fields)
    return line.getvalue()
