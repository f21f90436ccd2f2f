"""Statistics over several runs of several tasks, each with a confidence interval, and a plot of performance profiles.

They are those of Agarwal et al. 2021, "Deep Reinforcement Learning at the Edge of the Statistical Precipice", and equal
to those of its library rliable 1.2.0. Everywhere `scores` are the final scores of one algorithm, one number per run and
task, which are comparable between tasks (normalized, say, by the scores of a random and of a human player):

- a matrix [runs, tasks], or
- a dict, task: [runs], such as {"CartPole-v1": final_returns(curves)}, where tasks may differ in their number of runs.

A score that is not finite is refused: runs that failed are seldom average ones, so leaving them out would flatter.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, TypeAlias, get_args

import numpy as np

from renshu.errors import RenshuError
from renshu.tracking.comparison import interquartile_mean
from renshu.tracking.figures import colour_and_dashes, finish_axes, new_figure, save_figure

if TYPE_CHECKING:
    from numpy.typing import ArrayLike

Scores: TypeAlias = "ArrayLike | Mapping[Any, ArrayLike]"
Aggregate: TypeAlias = Literal["iqm", "mean", "median", "optimality_gap"]
Estimate: TypeAlias = Callable[[Sequence[np.ndarray]], np.ndarray]
"""A statistic of the scores of each task, [..., runs]. The leading axes are many data sets at once."""

_TARGET = 1.0
_CELLS = 1 << 22
"""Numbers of each array in one chunk of the bootstrap, at most: 32 MiB."""
_POINTS = 201


class Interval(NamedTuple):
    """A statistic of scores, and the low and high end of its confidence interval.

    The ends are NaN when some task has a single run: nothing is known of how much its runs differ.
    """

    value: float
    low: float
    high: float


def aggregate(
    scores: Scores,
    statistic: Aggregate = "iqm",
    confidence: float = 0.95,
    resamples: int = 2000,
    seed: int = 0,
) -> Interval:
    """Compute one number for all runs and tasks, and its percentile interval of the stratified bootstrap.

    statistic: "iqm", the interquartile mean of all runs of all tasks, where a task with more runs counts for more;
        "mean" or "median", over the tasks, of the mean score of each; "optimality_gap", the mean over the tasks of how
        far runs fall short of a score of 1 (0 for a run that reaches it).
    confidence: between 0 and 1. resamples: how often as many runs as there are, are drawn with replacement, separately
        for each task. seed: of these draws.
    With few runs the interval is too narrow (see `bootstrap_band`).
    Raises RenshuError when an argument is out of range, or a score is not finite, naming run and task.
    Source: Agarwal et al. 2021, sections 4.1 and 4.3.
    """
    if statistic not in get_args(Aggregate):
        raise RenshuError(
            f"there is no statistic {statistic!r}; choose from {', '.join(map(repr, get_args(Aggregate)))}."
        )
    tasks = list(_tasks("scores", scores).values())
    estimate = _ESTIMATES[statistic]
    low, high = _bootstrap(estimate, tasks, confidence, resamples, seed, cells=sum(task.size for task in tasks))
    return Interval(float(estimate(tasks)), float(low), float(high))


def performance_profile(
    scores: Scores,
    thresholds: ArrayLike,
    confidence: float = 0.95,
    resamples: int = 2000,
    seed: int = 0,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Compute the share of runs that score more than each threshold, averaged over tasks, and its pointwise interval.

    thresholds: [K]. confidence, resamples, seed: as for `aggregate`.
    Returns (profile, low, high), each [K] float64; low and high are NaN when some task has a single run.
    Raises RenshuError when an argument is out of range, or a score is not finite, naming run and task.
    Source: Agarwal et al. 2021, section 4.2, "score distributions".
    """
    levels = _numbers("thresholds", thresholds)
    if levels.ndim != 1 or np.isnan(levels).any():
        raise RenshuError(f"thresholds: expected numbers [thresholds], none of them NaN, got {thresholds!r}.")
    tasks = list(_tasks("scores", scores).values())

    def estimate(drawn: Sequence[np.ndarray]) -> np.ndarray:
        return _mean([(runs[..., None] > levels).mean(axis=-2) for runs in drawn])

    cells = max(max(task.size for task in tasks), len(tasks)) * levels.size
    low, high = _bootstrap(estimate, tasks, confidence, resamples, seed, cells)
    return estimate(tasks), low, high


def probability_of_improvement(
    x: Scores, y: Scores, confidence: float = 0.95, resamples: int = 2000, seed: int = 0
) -> Interval:
    """Compute the probability that a run of X scores more than one of Y on the same task, averaged over tasks.

    Equal scores count as one half (the Mann-Whitney statistic). It says how likely an improvement is, not its size.

    x, y: the scores of both, on the same tasks; numbers of runs may differ. confidence, resamples, seed: as for
        `aggregate`; runs of X and of Y are drawn independently.
    Raises RenshuError when the tasks or their numbers differ, an argument is out of range, or a score is not finite,
        naming run and task.
    Source: Agarwal et al. 2021, section 4.3.
    """
    ours, theirs = _tasks("x", x), _tasks("y", y)
    if ours.keys() != theirs.keys():
        raise RenshuError(
            f"x and y must be of the same tasks, to be compared task by task; got {list(ours)} and {list(theirs)}."
        )
    tasks = [*ours.values(), *(theirs[task] for task in ours)]

    def estimate(drawn: Sequence[np.ndarray]) -> np.ndarray:
        pairs = zip(drawn[: len(ours)], drawn[len(ours) :], strict=True)
        return _mean([_improvement(runs[..., :, None], others[..., None, :]) for runs, others in pairs])

    cells = max(ours[task].size * theirs[task].size for task in ours)
    low, high = _bootstrap(estimate, tasks, confidence, resamples, seed, cells)
    return Interval(float(estimate(tasks)), float(low), float(high))


def plot_profiles(
    scores: Mapping[str, Scores],
    path: Path | str,
    thresholds: ArrayLike | None = None,
    title: str = "Performance profiles",
) -> None:
    """Draw the performance profile of each algorithm and its 95 % band into the PNG file `path`, 1200 x 675 pixels.

    scores: label: scores. thresholds: [K], ascending; None spreads 201 from the lowest to the highest of all scores.
    Raises RenshuError when there is no algorithm, `path` cannot be written, or as `performance_profile`.
    """
    from matplotlib.ticker import ScalarFormatter

    if not scores:
        raise RenshuError("plot_profiles wants the scores of at least one algorithm, got none.")
    checked = {label: _tasks(label, one) for label, one in scores.items()}
    if thresholds is None:
        every = np.concatenate([runs for tasks in checked.values() for runs in tasks.values()])
        thresholds = np.linspace(every.min(), every.max(), _POINTS)
    figure, axes = new_figure()
    levels = np.asarray(thresholds)
    for number, (label, one) in enumerate(checked.items()):
        profile, low, high = performance_profile(one, levels)
        colour, dashes = colour_and_dashes(number)
        axes.fill_between(levels, low, high, color=colour, alpha=0.2, linewidth=0)
        axes.plot(levels, profile, color=colour, linestyle=dashes, linewidth=2.2, label=label)
    finish_axes(figure, axes, title, "share of runs with a higher score (95% band)")
    # Scores, unlike steps, may be negative.
    axes.set_xlim(auto=True)
    axes.autoscale(axis="x", tight=True)
    axes.set_xlabel("score")
    axes.xaxis.set_major_formatter(ScalarFormatter())
    save_figure(figure, Path(path))


def _interquartile(tasks: Sequence[np.ndarray]) -> np.ndarray:
    return interquartile_mean(np.concatenate(tasks, axis=-1), axis=-1)


def _mean_of_tasks(tasks: Sequence[np.ndarray]) -> np.ndarray:
    return _mean([runs.mean(axis=-1) for runs in tasks])


def _median_of_tasks(tasks: Sequence[np.ndarray]) -> np.ndarray:
    return np.median([runs.mean(axis=-1) for runs in tasks], axis=0)


def _optimality_gap(tasks: Sequence[np.ndarray]) -> np.ndarray:
    return _mean([_TARGET - np.minimum(runs, _TARGET).mean(axis=-1) for runs in tasks])


_ESTIMATES: dict[str, Estimate] = {
    "iqm": _interquartile,
    "mean": _mean_of_tasks,
    "median": _median_of_tasks,
    "optimality_gap": _optimality_gap,
}


def _mean(of_tasks: list[np.ndarray]) -> np.ndarray:
    """Average over tasks, each with the same weight however many runs it has."""
    return np.mean(of_tasks, axis=0)


def _improvement(runs: np.ndarray, others: np.ndarray) -> np.ndarray:
    pairs = (-2, -1)
    return ((runs > others).mean(axis=pairs) + (runs >= others).mean(axis=pairs)) / 2


def _bootstrap(
    estimate: Estimate, tasks: Sequence[np.ndarray], confidence: float, resamples: int, seed: int, cells: int
) -> np.ndarray:
    """Compute the percentile interval of an estimate. cells: numbers that it handles for one resample.

    Returns [2, ...]: low and high. Raises RenshuError when confidence or resamples are out of range.
    """
    if not 0 < confidence < 1 or resamples < 1:
        raise RenshuError(
            "the bootstrap wants a confidence between 0 and 1 and one resample or more; got confidence "
            f"{confidence} and {resamples} resamples."
        )
    sizes = [task.size for task in tasks]
    if min(sizes) < 2:
        return np.full((2, *np.shape(estimate(tasks))), np.nan)
    chunks = _draws(sizes, resamples, seed, at_once=max(1, _CELLS // max(cells, sum(sizes))))
    estimates = [estimate([task[drawn] for task, drawn in zip(tasks, chunk, strict=True)]) for chunk in chunks]
    tail = (1 - confidence) / 2
    return np.quantile(np.concatenate(estimates), [tail, 1 - tail], axis=0)


def _draws(sizes: Sequence[int], resamples: int, seed: int, at_once: int) -> Iterator[list[np.ndarray]]:
    """Draw runs for each task with replacement, as chunks of [at_once, runs] indices a task.

    Each task has a generator of its own, so that the size of the chunks does not change what is drawn.
    """
    generators = np.random.default_rng(seed).spawn(len(sizes))
    for start in range(0, resamples, at_once):
        count = min(at_once, resamples - start)
        yield [rng.integers(size, size=(count, size)) for rng, size in zip(generators, sizes, strict=True)]


def _tasks(name: str, scores: Scores) -> dict[Hashable, np.ndarray]:
    """Return the scores of each task, [runs] float64, once they are known to be as described at the top."""
    if isinstance(scores, Mapping):
        tasks: dict[Hashable, np.ndarray] = {task: _numbers(f"{name}[{task!r}]", runs) for task, runs in scores.items()}
        shapes = [runs.shape for runs in tasks.values()]
    else:
        matrix = _numbers(name, scores)
        tasks = dict(enumerate(matrix.T))
        shapes = [matrix.shape[:1]] if matrix.ndim == 2 and matrix.shape[1] else []
    if not shapes or any(len(shape) != 1 or not shape[0] for shape in shapes):
        raise RenshuError(
            f"{name}: expected a matrix [runs, tasks], or a dict, task: [runs], with one run and one task or more."
        )
    for task, runs in tasks.items():
        unknown = np.flatnonzero(~np.isfinite(runs))
        if unknown.size:
            raise RenshuError(
                f"{name}: run {unknown[0]} of task {task!r} scored {runs[unknown[0]]}. A statistic without it would "
                "flatter. Repeat the run, or give it the score that a failure deserves."
            )
    return tasks


def _numbers(name: str, values: object) -> np.ndarray:
    try:
        return np.asarray(values, np.float64)
    except (TypeError, ValueError) as error:
        raise RenshuError(
            f"{name} are not an array of numbers: {error}. For tasks with different numbers of runs give a dict, "
            "task: [runs]."
        ) from error
