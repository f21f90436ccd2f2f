"""Comparison over many seeds: statistics with confidence intervals, a plot, a table, and the csv file of the curves.

The statistics are those of Agarwal et al. 2021, "Deep Reinforcement Learning at the Edge of the Statistical Precipice".
Values that are not finite count as unknown and are left out everywhere, as in `moving_average`.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

import numpy as np

from renshu.errors import CheckpointError, RenshuError
from renshu.tracking.curves import moving_average
from renshu.tracking.figures import (
    colour_and_dashes,
    finish_axes,
    lone_marker,
    new_figure,
    save_figure,
    say_empty,
    thinned,
)
from renshu.tracking.provenance import write_atomically

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from numpy.typing import ArrayLike
    from rich.table import Table

Statistic: TypeAlias = Literal["mean", "iqm"]

_NAMES = {"mean": "mean", "iqm": "interquartile mean"}
_CUTS = {"mean": 0, "iqm": 4}  # one value in this many is left out at each end; 0 for none
_COLUMNS = ["label", "seed", "step", "return"]
_FINAL_SHARE = 10
_MOST_GAPS = 100
_CONFIDENCE = 0.95


@dataclass(frozen=True, eq=False)
class Curves:
    """The learning curves of one algorithm for S seeds, at the same K points.

    label: its name in legends and tables.
    steps: [K] int64 environment steps at each point, ascending.
    returns: [S, K] float64, the mean return of the episodes that ended around that point; NaN where none had.
    seeds: S different integers.
    name, values: of the label the part that varies not, and the hyperparameters that do, for the columns of a table;
        by default the whole label, and none.
    Raises RenshuError when these do not agree with each other.
    """

    label: str
    steps: np.ndarray
    returns: np.ndarray
    seeds: list[int]
    name: str = ""
    values: Mapping[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        steps, returns = np.asarray(self.steps, np.int64), np.asarray(self.returns, np.float64)
        seeds = [int(seed) for seed in self.seeds]
        if not seeds or steps.ndim != 1 or returns.shape != (len(seeds), steps.size):
            raise RenshuError(
                f"curves {self.label!r}: returns must have the shape [seeds, steps], with one seed or more; got "
                f"returns {returns.shape}, steps {steps.shape} and {len(seeds)} seeds."
            )
        if len(set(seeds)) < len(seeds) or (np.diff(steps) <= 0).any():
            raise RenshuError(
                f"curves {self.label!r}: every seed must be another, and steps must grow from point to point. "
                "Leave out what stands twice."
            )
        given = {"steps": steps, "returns": returns, "seeds": seeds, "name": self.name or self.label}
        for name, value in given.items():
            object.__setattr__(self, name, value)


def smooth(curves: Curves, window: int) -> Curves:
    """Average each point over the last `window` known points of its seed (at the start, over all so far).

    Raises RenshuError when `window` is below 1.
    """
    return replace(curves, returns=np.stack([moving_average(row, window) for row in curves.returns]))


def carried(returns: ArrayLike) -> np.ndarray:
    """Fill what is not known in curves [S, K] with the last known value of the seed; NaN stays before its first.

    Without, a point at which few episodes ended would be of the seeds with short ones only.
    """
    returns = np.asarray(returns, np.float64)
    place = np.where(np.isfinite(returns), np.arange(returns.shape[1]), -1)
    last = np.maximum.accumulate(place, axis=1)
    return np.where(last >= 0, np.take_along_axis(returns, np.maximum(last, 0), axis=1), np.nan)


def interquartile_mean(values: ArrayLike, axis: int = 0) -> np.ndarray:
    """Compute the mean along `axis` of what is left when the lowest and the highest quarter are cut off.

    Of n known values, floor(n / 4) are cut at each end (as in `scipy.stats.trim_mean(values, 0.25)`).
    values: numbers of any shape. Returns float64 of that shape without `axis`, NaN where no value is known.
    Source: Agarwal et al. 2021, section 4.3.
    """
    return _trimmed_mean(values, axis, _CUTS["iqm"])


def bootstrap_band(
    values: ArrayLike,
    statistic: Statistic = "mean",
    confidence: float = _CONFIDENCE,
    resamples: int = 1000,
    seed: int = 0,
) -> tuple[np.ndarray, np.ndarray]:
    """Compute the pointwise confidence interval of a statistic over seeds: the percentile bootstrap (Efron 1979).

    values: [S, K], one row per seed. A point gets an interval when more than half of the seeds, and at least two, are
        known there; it is NaN elsewhere. With few seeds it is too narrow: for normal values, the 95 % interval of the
        mean contains the true mean in 92 % of cases for 30 seeds, in 83 % for 5.
    confidence: between 0 and 1. resamples: how often S seeds are drawn with replacement. seed: of these draws.
    Returns (low, high), each [K] float64.
    Raises RenshuError when an argument is out of range.
    """
    values = np.asarray(values, np.float64)
    _check_statistic(statistic)
    if values.ndim != 2 or not 0 < confidence < 1 or resamples < 1:
        raise RenshuError(
            "bootstrap_band wants values [seeds, points], a confidence between 0 and 1 and one resample or more; got "
            f"shape {values.shape}, confidence {confidence} and {resamples} resamples."
        )
    known = np.isfinite(values)
    counts = known.sum(axis=0)
    ordered = np.sort(np.where(known, values, np.inf), axis=0)
    band = np.full((2, values.shape[1]), np.nan)
    tail = (1 - confidence) / 2
    for count in np.unique(counts[_enough(counts, len(values)) & (counts >= 2)]):
        places = counts == count
        weights = _resampled_weights(int(count), _CUTS[statistic], resamples, np.random.default_rng(seed))
        band[:, places] = np.quantile(weights @ ordered[:count, places], [tail, 1 - tail], axis=0)
    return band[0], band[1]


def final_returns(curves: Curves) -> np.ndarray:
    """Return [S] float64: each seed's mean of its last tenth of the points (at least one), NaN where none is known."""
    last = -(-curves.steps.size // _FINAL_SHARE)
    return _trimmed_mean(curves.returns[:, curves.steps.size - last :], axis=1, cut=0)


def plot_curves(
    curves: Sequence[Curves], path: Path | str, statistic: Statistic = "iqm", title: str | None = None
) -> None:
    """Draw the return against environment steps into the PNG file `path`, 1200 x 675 pixels.

    For each of `curves`, in a colour of its own: the statistic over its seeds bold, its 95 % bootstrap band, and behind
    them every seed faint. Statistic and band are left out where half of the seeds or fewer are known.
    title: None makes one from the labels.
    Raises RenshuError when there are no curves, the statistic is unknown, or `path` cannot be written.
    """
    _check_statistic(statistic)
    if not curves:
        raise RenshuError("plot_curves wants the curves of at least one algorithm, got none.")
    figure, axes = new_figure()
    for number, one in enumerate(curves):
        _draw(axes, one, statistic, number)
    if not any(np.isfinite(one.returns).any() for one in curves):
        say_empty(axes)
    words = " · ".join(one.label for one in curves[:3]) if title is None else title
    finish_axes(figure, axes, words, f"training return: {_NAMES[statistic]}, {_CONFIDENCE:.0%} band")
    save_figure(figure, Path(path))


def table(curves: Sequence[Curves], statistic: Statistic = "iqm") -> Table:
    """Make a table to print: for each of `curves` its final return (see `final_returns`), and what varies in columns.

    The final return is the statistic over the seeds with its 95 % bootstrap interval, then the lowest and the highest
    seed. "3 of 4" seeds means that the fourth finished no episode and is left out. It fits into 80 columns with two
    hyperparameters that vary.
    Raises RenshuError when the statistic is unknown.
    """
    _check_statistic(statistic)
    from rich import box
    from rich.table import Table
    from rich.text import Text

    steps = sorted({int(one.steps[-1]) if one.steps.size else 0 for one in curves})
    reached = f" after {steps[0]:,} steps" if len(steps) == 1 else f" after {steps[0]:,} to {steps[-1]:,} steps"
    title = f"Training return (last {1 / _FINAL_SHARE:.0%}){reached if steps else ''}: {_NAMES[statistic]} over seeds"
    shown = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD, pad_edge=False)
    names = {one.name for one in curves}
    varied = list(dict.fromkeys(name for one in curves for name in one.values))
    if len(names) > 1 or not varied:
        shown.add_column("", overflow="fold")
    for name in (*varied, "seeds", statistic, f"{_CONFIDENCE:.0%} interval", "range"):
        shown.add_column(name, justify="right", no_wrap=True)
    for one in curves:
        finals = final_returns(one)[:, None]
        known = finals[np.isfinite(finals)]
        low, high = bootstrap_band(finals, statistic)
        shown.add_row(
            # A label is not markup: "PPO [gamma=0.9]" must keep its brackets.
            *([Text(one.name)] if len(names) > 1 or not varied else []),
            *(f"{one.values[name]:g}" if name in one.values else "" for name in varied),
            str(len(finals)) if known.size == len(finals) else f"{known.size} of {len(finals)}",
            _number(centre(finals, statistic)[0]),
            f"{_number(low[0])} to {_number(high[0])}" if np.isfinite(low[0]) else "-",
            f"{_number(known.min())} to {_number(known.max())}" if known.size else "-",
        )
    return shown


def write_csv(curves: Sequence[Curves], path: Path | str) -> None:
    """Write curves to a csv file with the columns label, seed, step, return; a row for each point, NaN as "nan".

    An older file is replaced atomically. `read_csv` returns the same curves bit for bit; those without points leave no
    row.
    Raises RenshuError when two curves have one label, or the file cannot be written.
    """
    labels = [one.label for one in curves]
    if len(set(labels)) < len(labels):
        raise RenshuError(f"the labels {labels} are not all different: the file could not tell them apart. Rename one.")
    write_atomically(Path(path), _csv_chunks(curves))


def read_csv(path: Path | str) -> list[Curves]:
    """Read the curves that `write_csv` wrote, in their order. A point that a seed lacks is NaN.

    Raises CheckpointError, naming the line, when the file is missing or is not such a table.
    """
    found: dict[str, dict[tuple[int, int], float]] = {}
    line = 1
    try:
        with open(path, encoding="utf-8", newline="") as file:
            rows = csv.reader(file)
            if next(rows, None) != _COLUMNS:
                raise ValueError(f"it does not begin with {','.join(_COLUMNS)}")
            for row in rows:
                line = rows.line_num
                label, point, score = _parsed(row)
                if point in found.setdefault(label, {}):
                    raise ValueError(f"seed {point[0]} of {label!r} has step {point[1]} twice")
                found[label][point] = score
    except OSError as error:
        raise CheckpointError(f"cannot read {path}: {error.strerror or error}. Check the path.") from error
    except (ValueError, csv.Error) as error:
        raise CheckpointError(f"{path} was changed or damaged at line {line}: {error}. Fix or delete it.") from error
    return [_from_points(label, points) for label, points in found.items()]


def _trimmed_mean(values: ArrayLike, axis: int, cut: int) -> np.ndarray:
    """Compute the mean of the known values along `axis`, leaving out one in `cut` at each end."""
    values = np.moveaxis(np.asarray(values, np.float64), axis, 0)
    known = np.isfinite(values)
    count = known.sum(axis=0)
    least = count // cut if cut else np.zeros_like(count)
    ordered = np.sort(np.where(known, values, np.inf), axis=0)
    rank = np.arange(len(values)).reshape(-1, *(1,) * (values.ndim - 1))
    kept = (rank >= least) & (rank < count - least)
    with np.errstate(invalid="ignore"):
        return np.where(kept, ordered, 0.0).sum(axis=0) / kept.sum(axis=0)


def _resampled_weights(count: int, cut: int, resamples: int, rng: np.random.Generator) -> np.ndarray:
    """Draw [resamples, count] weights of the ranks of ordered values in a (trimmed) mean of `count` drawn from them.

    Sorted drawn ranks are sorted drawn values, so that one product with the values gives all resampled means.
    """
    least = count // cut if cut else 0
    ranks = np.sort(rng.integers(count, size=(resamples, count)), axis=1)[:, least : count - least]
    places = ranks + count * np.arange(resamples)[:, None]
    drawn = np.bincount(places.ravel(), minlength=resamples * count).reshape(resamples, count)
    return drawn / ranks.shape[1]


def centre(values: np.ndarray, statistic: Statistic) -> np.ndarray:
    """Return [K]: the statistic of `values` [S, K] where enough seeds are known, else NaN."""
    enough = _enough(np.isfinite(values).sum(axis=0), len(values))
    return np.where(enough, _trimmed_mean(values, 0, _CUTS[statistic]), np.nan)


def _enough(counts: np.ndarray, seeds: int) -> np.ndarray:
    """Tell where enough seeds are known: a few known ones are those with short episodes, not a fair sample of all."""
    return 2 * counts > seeds


def _check_statistic(statistic: str) -> None:
    if statistic not in _NAMES:
        raise RenshuError(f"there is no statistic {statistic!r}; choose from {', '.join(map(repr, _NAMES))}.")


def _draw(axes: Axes, curves: Curves, statistic: Statistic, number: int) -> None:
    from matplotlib.colors import to_rgb

    place = thinned(curves.steps.size) if curves.steps.size else np.zeros(0, np.int64)
    steps, returns = curves.steps[place], curves.returns[:, place]
    middle = centre(returns, statistic)
    seeds = len(curves.seeds)
    colour, dashes = colour_and_dashes(number)
    # Mixed with white: where thousands of seeds overlap, band and statistic must still stand out.
    faint = {"color": 0.6 + 0.4 * np.array(to_rgb(colour)), "alpha": float(np.clip(2 / np.sqrt(seeds), 0.1, 0.8))}
    axes.plot(steps, returns.T, linewidth=0.7, marker=lone_marker(steps), zorder=1.5, **faint)
    axes.fill_between(steps, *bootstrap_band(returns, statistic), color=colour, alpha=0.2, linewidth=0, zorder=1.8)
    known = np.isfinite(middle)
    name = f"{curves.label} ({seeds:,} seed{'s' if seeds > 1 else ''})"
    style: dict[str, Any] = {"color": colour, "linestyle": dashes, "linewidth": 2.2, "zorder": 2.5}
    axes.plot(steps[known], middle[known], label=name, marker=lone_marker(steps[known]), **style)


def _number(value: float) -> str:
    if not np.isfinite(value):
        return "-"
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.1f}" if abs(value) >= 100 else f"{value:.3g}"


def _csv_chunks(curves: Sequence[Curves]) -> Iterator[bytes]:
    yield (",".join(_COLUMNS) + "\n").encode()
    for one in curves:
        steps = one.steps.tolist()
        for seed, row in zip(one.seeds, one.returns.tolist(), strict=True):
            chunk = io.StringIO()
            writer = csv.writer(chunk, lineterminator="\n", quoting=csv.QUOTE_NONNUMERIC)
            writer.writerows((one.label, seed, step, score) for step, score in zip(steps, row, strict=True))
            yield chunk.getvalue().encode()


def _parsed(row: list[str]) -> tuple[str, tuple[int, int], float]:
    if len(row) != len(_COLUMNS):
        raise ValueError(f"{len(row)} fields, not {', '.join(_COLUMNS)}")
    label, seed, step, score = row
    return label, (int(seed), int(step)), float(score)


def _from_points(label: str, points: dict[tuple[int, int], float]) -> Curves:
    seeds_and_steps = len({seed for seed, _ in points}) * len({step for _, step in points})
    if seeds_and_steps > _MOST_GAPS * len(points) + 10**6:
        raise CheckpointError(f"the curves of {label!r} have next to no step in common, as no experiment's have")
    # A dictionary keeps the order in which the seeds appear in the file.
    seeds = {seed: row for row, seed in enumerate(dict.fromkeys(seed for seed, _ in points))}
    steps = np.unique(np.array([step for _, step in points], np.int64))
    returns = np.full((len(seeds), steps.size), np.nan)
    rows = [seeds[seed] for seed, _ in points]
    returns[rows, np.searchsorted(steps, [step for _, step in points])] = list(points.values())
    return Curves(label, steps, returns, list(seeds))
