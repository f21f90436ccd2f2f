"""Experiments: many seeds and settings of one or several algorithms on an environment, as agents and curves."""

from __future__ import annotations

import dataclasses
import itertools
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, TypeAlias

import gymnasium
import numpy as np
from gymnasium.vector import VectorEnv

from renshu.agent.agent import Agent
from renshu.agent.backends import CompiledBackend
from renshu.agent.options import COUNT, SEED, refuse_unknown
from renshu.algorithms.base import Algorithm
from renshu.algorithms.hyperparameters import Number, kind_of
from renshu.envs.source import EnvSource
from renshu.errors import HyperparameterError, RenshuError, did_you_mean
from renshu.experiments.processes import run_name, train_in_processes
from renshu.experiments.single import Setup, train_in_turn, train_on_cluster
from renshu.experiments.vmapped import Row, Trained, cores, fitted_backend, train_vmapped
from renshu.tracking.comparison import Curves, Statistic, carried, plot_curves, table, write_csv
from renshu.tracking.provenance import writing
from renshu.viewing.notebook import Bar, Shown, html_of, in_notebook

Elsewhere: TypeAlias = Callable[..., Trained] | int | None
"""A function that trains rows elsewhere, or a number of processes."""
_OPTIONS = ("seeds", "steps", "num_envs", "grid", "loop", "bins", "frame_stack", "masks", "env_kwargs", "at_once")
_OPTIONS += ("processes", "run", "workers", "address")


@dataclass(frozen=True, eq=False, repr=False)
class Experiment:
    """Result of `experiment`.

    curves: one Curves a label, over all its seeds. rows: what was trained, in order. seconds: of training, compilation
    apart. `agents[i]` is the trained agent of `rows[i]`, made when it is asked for.
    """

    curves: list[Curves]
    rows: list[Row]
    agents: Sequence[Agent]
    seconds: float
    compile_seconds: float
    environment: str = ""

    def __repr__(self) -> str:
        names = ", ".join(dict.fromkeys(one.name for one in self.curves))
        return f"<Experiment: {len(self.rows)} agents, {names} on {self.environment}, {self.seconds:.1f} s>"

    def _repr_html_(self) -> str:
        return html_of(self.table(), self.plot)

    def plot(self, path: str | Path, statistic: Statistic = "iqm", title: str | None = None) -> Path:
        """Draw the statistic over the seeds, its bootstrap band, and every curve faint behind.

        title: None names algorithms and environment.
        """
        if title is None and self.environment:
            title = f"{', '.join(dict.fromkeys(one.name for one in self.curves))} on {self.environment}"
        plot_curves(self.curves, path, statistic, title)
        return Shown(path)

    def table(self, statistic: Statistic = "iqm") -> Any:
        """Make a table of final returns, for `rich.print`."""
        return table(self.curves, statistic)

    def save(self, path: str | Path) -> Path:
        """Write all curves to a csv file: label, seed, step, return; where no episode ended, the return of before."""
        write_csv(self.curves, path)
        return Path(path)


def experiment(
    algorithms: Algorithm | Sequence[Algorithm] | Mapping[str, Algorithm],
    env: Any,
    *,
    seeds: int | Sequence[int] = 8,
    steps: int,
    num_envs: int | None = None,
    grid: Mapping[str, Sequence[float]] | None = None,
    loop: str | None = None,
    bins: int | Sequence[int] | None = None,
    frame_stack: int | None = None,
    masks: bool | None = None,
    env_kwargs: dict[str, Any] | None = None,
    at_once: int | None = None,
    processes: int | None = None,
    run: str | Path | None = None,
    workers: int | None = None,
    address: str | None = None,
    points: int = 100,
    progress: bool = True,
    **unknown: Any,
) -> Experiment:
    """Train every algorithm with every seed and every combination of the grid's values.

    On a DeviceEnv all seeds and values of an algorithm train at once, in a program for each core; elsewhere each in a
    process, one for each core at a time.

    algorithms: one, several, or a dict by label. env, loop, bins, frame_stack, masks, env_kwargs: as for
    Agent.
    seeds: how many (0, 1, ...), or which. steps: environment steps of each agent, at least. num_envs: of each agent.
    grid: values of hyperparameters that are plain numbers, as {"learning_rate": [1e-3, 3e-4]}.
    at_once: agents that train in one program at most; None chooses by memory. processes: that train at a time; 1: all
    in this one, in turn. run: a folder, for a run folder of each agent, which then has a process of its own. workers:
    processes of a Ray cluster to which seeds and values are dealt, whatever the environment; address: of one that runs,
    "auto" for this machine's.
    points: of each curve, about.

    Raises HyperparameterError for a grid that is not possible, before anything is trained.
    """
    refuse_unknown("experiment(...)", unknown, _OPTIONS, {})
    chosen = [SEED.check("seeds", seed) for seed in (range(seeds) if isinstance(seeds, int) else seeds)]
    if not chosen or len(set(chosen)) < len(chosen):
        raise HyperparameterError(f"seeds={seeds!r}: expected how many, at least 1, or different numbers")
    num_envs = None if num_envs is None else COUNT.check("num_envs", num_envs)
    at_once = None if at_once is None else COUNT.check("at_once", at_once)
    workers = None if workers is None else COUNT.check("workers", workers)
    processes = None if processes is None else COUNT.check("processes", processes)
    if address is not None and workers is None:
        raise HyperparameterError(f"experiment: address={address!r} is of a Ray cluster: give workers= too")
    folder = _run_folder(run, workers, processes)
    steps, points = COUNT.check("steps", steps), COUNT.check("points", points)
    options = {"num_envs": num_envs, "loop": loop, "env_kwargs": env_kwargs}
    options |= {"bins": bins, "frame_stack": frame_stack, "masks": masks}
    setup, source = Setup(env, options, steps, min(points, steps)), EnvSource.of(env, env_kwargs)
    how: Elsewhere = partial(train_on_cluster, workers=workers, address=address) if workers is not None else processes
    # Checked for all of them before the first is trained.
    groups = [_rows(label, algorithm, grid or {}, chosen) for label, algorithm in _labelled(algorithms).items()]
    order = [row for rows in groups for row in rows]
    if folder is not None and (twice := [name for name, n in Counter(map(run_name, order)).items() if n > 1]):
        raise HyperparameterError(
            f"run={str(run)!r}: two agents would be in {twice[0]!r}; give labels that differ more"
        )
    curves: dict[int, Curves] = {}  # by the place of the first row
    agents: dict[int, Callable[[], Agent]] = {}
    seconds = compiling = 0.0
    with bar_of(len(order) * steps if progress else None) as advance:
        for rows, train in [part for group in groups for part in _parts(setup, group, source, at_once, folder, how)]:
            found = train(setup, rows, advance)
            places = [next(i for i, row in enumerate(order) if row is one) for one in rows]
            curves |= zip(places[:: len(chosen)], _curves(rows, found.curves, chosen), strict=True)
            agents |= zip(places, found.agents, strict=True)
            seconds, compiling = seconds + found.seconds, compiling + found.compile_seconds
    in_order = [agents[i] for i in range(len(order))]
    return Experiment([curves[i] for i in sorted(curves)], order, Agents(in_order), seconds, compiling, source.name)


def _run_folder(run: str | Path | None, workers: int | None, processes: int | None) -> Path | None:
    """Return the folder of run folders. Raises HyperparameterError, RenshuError for one that cannot be."""
    if workers is not None and (run is not None or processes is not None):
        raise HyperparameterError("experiment: workers= are Ray's; leave processes= and run= out, or workers=")
    if run is None:
        return None
    with writing(Path(run)):
        if Path(run).exists() and any(Path(run).iterdir()):
            raise RenshuError(f"{run} is not empty: give another folder for the runs of this experiment")
    return Path(run)


def _parts(
    setup: Setup, rows: list[Row], source: EnvSource, at_once: int | None, folder: Path | None, how: Elsewhere
) -> list[tuple[list[Row], Callable[..., Trained]]]:
    """Part the rows of an algorithm into those that are trained together, each with the function that does it.

    how: a function that trains them all elsewhere; or how many processes, None: one for each core.
    """
    if not isinstance(how, int | None):
        return [(rows, how)]
    backend, fits = fitted_backend(rows[0].algorithm, source, **setup.options)
    if isinstance(backend, CompiledBackend) and folder is None:
        if how is not None:
            raise HyperparameterError(
                f"experiment: processes={how} is for environments in Python, or with run=: {source.name} is compiled, "
                'and all seeds of it are one program (loop="host" has it in Python)'
            )

        def by_programs(setup: Setup, rows: list[Row], advance: Callable[[int], None]) -> Trained:
            return train_vmapped(backend, rows, fits, setup.steps, setup.points, at_once, advance)

        return [(part, by_programs) for part in _alike(rows)]
    count = min(len(rows), cores() if how is None else how)
    itself = isinstance(source.given, gymnasium.Env | VectorEnv)  # an object trains itself, so it does so here
    if folder is None and (count == 1 or itself):
        return [(rows, train_in_turn)]
    return [(rows, partial(train_in_processes, count=count, folder=folder))]


def _alike(rows: list[Row]) -> list[list[Row]]:
    """Part rows into those that one program can train: they differ in seeds and in values that may be traced."""
    parts: dict[tuple, list[Row]] = {}
    for row in rows:
        built_in = tuple((name, value) for name, value in row.values.items() if name not in row.traced)
        parts.setdefault(built_in, []).append(row)
    return list(parts.values())


class Agents(Sequence):
    """Agents that are made when first accessed."""

    def __init__(self, makers: list[Callable[[], Agent]]) -> None:
        self._makers, self._made = makers, {}

    def __len__(self) -> int:
        return len(self._makers)

    def __getitem__(self, index: Any) -> Any:
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        index = range(len(self))[index]
        if index not in self._made:
            self._made[index] = self._makers[index]()
        return self._made[index]


def _labelled(algorithms: Any) -> dict[str, Algorithm]:
    if isinstance(algorithms, Mapping):
        return dict(algorithms)
    several = [algorithms] if isinstance(algorithms, Algorithm) else list(algorithms)
    names = [type(algorithm).__name__ for algorithm in several]
    if len(set(names)) < len(names):
        raise HyperparameterError(f"two algorithms have one name ({', '.join(names)}): give a dict, label: algorithm")
    return dict(zip(names, several, strict=True))


def _rows(label: str, algorithm: Algorithm, grid: Mapping[str, Sequence[float]], seeds: list[int]) -> list[Row]:
    fields = {field.name: kind_of(field) for field in dataclasses.fields(algorithm)}
    for name, values in grid.items():
        if name not in fields:
            raise HyperparameterError(f"{type(algorithm).__name__} has no {name!r}.{did_you_mean(name, list(fields))}")
        kind = fields[name]
        plain = isinstance(kind, Number) and not kind.integer and len(set(values)) == len(values) > 0
        if not plain or not all(isinstance(v, int | float) and not isinstance(v, bool) for v in values):
            raise HyperparameterError(
                f"grid: {name} must vary over different plain numbers that shape no array, not {list(values)!r}. For "
                'anything else give several algorithms: {"a": PPO(...), "b": PPO(...)}'
            )
    rows: list[Row] = []
    traced = tuple(name for name in grid if getattr(fields[name], "traceable", False))
    for point in itertools.product(*grid.values()):
        values = dict(zip(grid, point, strict=True))
        words = ", ".join(f"{name}={value:g}" for name, value in values.items())
        made = dataclasses.replace(algorithm, **values)
        rows += [Row(f"{label} {words}".strip(), made, values, seed, traced, label) for seed in seeds]
    return rows


def _curves(rows: list[Row], found: list[tuple[np.ndarray, np.ndarray]], seeds: list[int]) -> list[Curves]:
    curves = []
    for first in range(0, len(rows), len(seeds)):
        group = found[first : first + len(seeds)]
        steps = np.mean([steps for steps, _ in group], axis=0).round().astype(np.int64)
        returns = np.stack([returns for _, returns in group])
        grows = np.diff(steps, prepend=0) > 0  # not where every environment only reset
        row = rows[first]
        known = carried(returns)[:, grows]
        curves.append(Curves(row.label, steps[grows], known, seeds, row.name, row.values))
    return curves


@contextmanager
def bar_of(total: int | None) -> Iterator[Callable[[int], None]]:
    """Show a progress bar over the steps of all agents together."""
    if total is None:
        yield lambda steps: None
        return
    if in_notebook():
        shown, done = Bar("", total, 0), 0

        def advance(steps: int) -> None:
            nonlocal done
            done += steps
            shown.show(min(done, total), "", "")

        yield advance
        return
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn("{task.completed:>13,.0f}/{task.total:,.0f} steps"), TimeRemainingColumn())
    with Progress(BarColumn(bar_width=30), *columns, console=Console(stderr=True)) as bar:
        task = bar.add_task("", total=total)
        yield lambda steps: bar.update(task, advance=steps)
