"""Many seeds, and many settings, of one or several algorithms on an environment: agents and curves."""

from __future__ import annotations

import copy
import dataclasses
import itertools
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from renshu.agent import COUNT, SEED, Agent, streams
from renshu.algorithms.base import Algorithm, near
from renshu.algorithms.hyperparameters import Number, kind_of
from renshu.envs.adapt import fit
from renshu.envs.device import DeviceEnvs
from renshu.envs.source import EnvSource
from renshu.errors import HyperparameterError, NotFiniteError
from renshu.grounds import CompiledGround, HostGround, ground
from renshu.loops.compiled import Iterate, Scene
from renshu.loops.programs import compiler_options, in_sequence
from renshu.tracking.comparison import Curves, Statistic, plot_curves, table, write_csv
from renshu.types import Array, Key

MEMORY = 2**31
"""Bytes that rows trained at once may take by estimate, before they are sliced."""


@dataclass(frozen=True)
class Row:
    """One agent of an experiment: its label, the algorithm with the grid's values, the values alone, its seed."""

    label: str
    algorithm: Algorithm
    values: Mapping[str, float]
    seed: int


@dataclass(frozen=True, eq=False)
class Experiment:
    """What `experiment` returns.

    curves: one Curves a label, over all its seeds. rows: what was trained, in order. seconds: of training, compilation
    apart. `agents[i]` is the trained agent of `rows[i]`, made when it is asked for.
    """

    curves: list[Curves]
    rows: list[Row]
    agents: Sequence[Agent]
    seconds: float
    compile_seconds: float

    def plot(self, path: str | Path, statistic: Statistic = "iqm", title: str | None = None) -> Path:
        """Draw the statistic over the seeds, its bootstrap band, and every curve faint behind."""
        plot_curves(self.curves, path, statistic, title)
        return Path(path)

    def table(self, statistic: Statistic = "iqm") -> Any:
        """Final returns as a table for `rich.print`."""
        return table(self.curves, statistic)

    def save(self, path: str | Path) -> Path:
        """Write all curves to a csv file: label, seed, step, return."""
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
    env_kwargs: dict[str, Any] | None = None,
    at_once: int | None = None,
    points: int = 100,
    progress: bool = True,
) -> Experiment:
    """Train every algorithm with every seed and every combination of the grid's values.

    A DeviceEnv trains all seeds and values of an algorithm in one program; other environments one after the other.

    algorithms: one, several, or a dict by label. env: as for Agent. seeds: how many (0, 1, ...), or which.
    steps: environment steps of each agent, at least. num_envs: environments of each agent.
    grid: values of hyperparameters that are plain numbers, as {"learning_rate": [1e-3, 3e-4]}.
    at_once: how many agents train in one program; None asks the memory. points: how many each curve has, about.

    Raises HyperparameterError for what cannot be varied so, before anything is trained.
    """
    chosen = [SEED.check("seeds", seed) for seed in (range(seeds) if isinstance(seeds, int) else seeds)]
    if not chosen or len(set(chosen)) < len(chosen):
        raise HyperparameterError(f"seeds={seeds!r}: expected how many, at least 1, or different numbers")
    num_envs = None if num_envs is None else COUNT.check("num_envs", num_envs)
    at_once = None if at_once is None else COUNT.check("at_once", at_once)
    steps, points = COUNT.check("steps", steps), COUNT.check("points", points)
    source = EnvSource.of(env, env_kwargs)
    # Checked for all of them before the first is trained.
    groups = [_rows(label, algorithm, grid or {}, chosen) for label, algorithm in _labelled(algorithms).items()]
    curves: list[Curves] = []
    agents: list[Callable[[], Agent]] = []
    seconds = compiling = 0.0
    with _bar(sum(map(len, groups)) * steps if progress else None) as advance:
        for rows in groups:
            place = ground(source, num_envs, loop=loop, processes=False, timeout=120.0)
            if isinstance(place, CompiledGround):
                found = _train_together(place, rows, steps, points, at_once, advance)
            else:
                found = _train_in_turn(place, rows, steps, points, advance)
            place.close()
            curves += _curves(rows, found.curves, chosen)
            agents += found.agents
            seconds, compiling = seconds + found.seconds, compiling + found.compile_seconds
    return Experiment(curves, [row for rows in groups for row in rows], _Agents(agents), seconds, compiling)


class Trained(NamedTuple):
    """What training some rows gave."""

    curves: list[tuple[np.ndarray, np.ndarray]]  # for each row steps [K] and returns [K]
    agents: list[Callable[[], Agent]]
    seconds: float
    compile_seconds: float


class _Agents(Sequence):
    """Agents that are made when they are first asked for."""

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
            raise HyperparameterError(f"{type(algorithm).__name__} has no {name!r}.{near(name, list(fields))}")
        kind = fields[name]
        plain = isinstance(kind, Number) and not kind.integer and len(set(values)) == len(values) > 0
        if not plain or not all(isinstance(v, int | float) and not isinstance(v, bool) for v in values):
            raise HyperparameterError(
                f"grid: {name} must vary over different plain numbers that shape no array, not {list(values)!r}. For "
                'anything else give several algorithms: {"a": PPO(...), "b": PPO(...)}'
            )
    rows = []
    for point in itertools.product(*grid.values()):
        values = dict(zip(grid, point, strict=True))
        words = ", ".join(f"{name}={value:g}" for name, value in values.items())
        made = dataclasses.replace(algorithm, **values)
        rows += [Row(f"{label} {words}".strip(), made, values, seed) for seed in seeds]
    return rows


def _curves(rows: list[Row], found: list[tuple[np.ndarray, np.ndarray]], seeds: list[int]) -> list[Curves]:
    curves = []
    for first in range(0, len(rows), len(seeds)):
        group = found[first : first + len(seeds)]
        steps = np.mean([steps for steps, _ in group], axis=0).round().astype(np.int64)
        returns = np.stack([returns for _, returns in group])
        grows = np.diff(steps, prepend=0) > 0  # not where every environment only reset
        curves.append(Curves(rows[first].label, steps[grows], returns[:, grows], seeds))
    return curves


# --- one after the other: any environment ---------------------------------------------------------------------------


def _train_in_turn(place: HostGround, rows: list[Row], steps: int, points: int, advance: Callable) -> Trained:
    began, curves, agents = time.perf_counter(), [], []
    points = min(points, steps)
    edges = np.linspace(0, steps, points + 1)[1:]
    for row in rows:
        agent = Agent(
            row.algorithm,
            place.source.given,
            num_envs=place.num_envs,
            seed=row.seed,
            loop="host",
            env_kwargs=place.source.kwargs,
        )
        agent.set_target(steps)
        loop, total, count = agent.start_loop(nullcontext), np.zeros(points), np.zeros(points)
        while agent.steps < steps:
            report = loop.advance(steps)
            where = np.minimum(np.searchsorted(edges, report.finished.steps), points - 1)
            np.add.at(total, where, report.finished.returns)
            np.add.at(count, where, 1)
            advance(report.steps)
        agent.close()
        curves.append((edges, np.where(count > 0, total / np.maximum(count, 1), np.nan)))
        agents.append(lambda agent=agent: agent)
    return Trained(curves, agents, time.perf_counter() - began, 0.0)


# --- all at once: DeviceEnvs ----------------------------------------------------------------------------------------


class Many(NamedTuple):
    """Rows in the middle of training, [R, ...]."""

    state: Any
    scene: Scene
    key: Key
    values: dict[str, Array]
    fine: Array  # [R] bool  no NaN so far


class Heard(NamedTuple):
    """What the host hears of some rollouts of each row, [R]."""

    total: Array  # float32  sum of the returns of the episodes that ended
    count: Array  # int32    how many
    steps: Array  # int32    valid steps


class Together:
    """Programs that start and train rows of one algorithm at once, with the grid's values as traced numbers."""

    def __init__(self, place: CompiledGround, algorithm: Algorithm) -> None:
        fitted = fit(
            place.spec(),
            algorithm.accepts,
            algorithm=type(algorithm).__name__,
            own_network=getattr(algorithm, "network", None) is not None,
        )
        self.algorithm, self.fitted = algorithm, fitted
        self.envs = DeviceEnvs(place.env, place.num_envs)
        self.rollout = algorithm.build(fitted.spec).rollout_length * place.num_envs
        options = compiler_options() | in_sequence()
        self.start = jax.jit(jax.vmap(self._start, (0, 0, None)), compiler_options=options)
        self.visit = jax.jit(self._visit, donate_argnums=0, compiler_options=options)

    def iterate(self, values: Mapping[str, Array]) -> Iterate:
        """A rollout and an update of the algorithm with these values, which may be traced."""
        algorithm = copy.copy(self.algorithm)
        for name, value in values.items():
            object.__setattr__(algorithm, name, value)  # past the checks, which a traced number cannot answer
        return Iterate(algorithm.build(self.fitted.spec), self.envs, self.fitted.decode_action)

    def _start(self, seed: Array, values: dict[str, Array], steps: Array) -> Many:
        iterate, keys = self.iterate(values), streams(seed, 4)
        state = iterate.learner.init(keys[0])
        state = state._replace(counters=state.counters._replace(target=steps))
        return Many(state, iterate.start(jax.random.key(seed)), keys[1], values, jnp.bool_(True))

    def _visit(self, many: Many, iteration: Array, count: Array) -> tuple[Many, Heard]:
        def body(i: Array, carry: tuple[Many, Heard]) -> tuple[Many, Heard]:
            return jax.vmap(self._iterate_one, (0, 0, None))(*carry, iteration + i)

        rows = many.fine.shape
        nothing = Heard(jnp.zeros(rows), jnp.zeros(rows, jnp.int32), jnp.zeros(rows, jnp.int32))
        return jax.lax.fori_loop(0, count, body, (many, nothing))

    def _iterate_one(self, many: Many, heard: Heard, iteration: Array) -> tuple[Many, Heard]:
        state, scene, told = self.iterate(many.values)(many.state, many.scene, many.key, iteration)
        fine = many.fine & jnp.isfinite(told.metrics).all() & ~told.faults.any()
        heard = Heard(
            heard.total + jnp.where(told.ended, told.returns, 0.0).sum(),
            heard.count + told.ended.sum(dtype=jnp.int32),
            heard.steps + told.steps.sum(),
        )
        return many._replace(state=state, scene=scene, fine=fine), heard


def _train_together(
    place: CompiledGround, rows: list[Row], steps: int, points: int, at_once: int | None, advance: Callable
) -> Trained:
    together = Together(place, rows[0].algorithm)
    limit = at_once or _slice(together, rows, steps)
    iterations = -(-steps // together.rollout)
    visit = max(1, iterations // points)
    curves, agents, seconds, compiling = [], [], 0.0, 0.0
    for first in range(0, len(rows), limit):
        part = rows[first : first + limit]
        seeds = np.array([row.seed for row in part], np.uint32)
        values = {name: np.array([row.values[name] for row in part], np.float32) for name in part[0].values}
        began = time.perf_counter()
        many = together.start(seeds, values, np.int32(steps))
        visit_program = together.visit.lower(many, np.int32(0), np.int32(1)).compile()
        jax.block_until_ready(many)
        compiling, began = compiling + time.perf_counter() - began, time.perf_counter()
        heard, iteration, done = [], 0, np.zeros(len(part), np.int64)
        while (done < steps).any():
            count = min(visit, max(1, -(-(steps - int(done.min())) // together.rollout)))
            many, news = visit_program(many, np.int32(iteration), np.int32(count))
            heard.append(jax.device_get(news))
            iteration, done = iteration + count, done + heard[-1].steps
            advance(int(heard[-1].steps.sum()))
            if not (fine := np.asarray(many.fine)).all():
                raise NotFiniteError(_wrong(part, fine, int(done.max())))
        seconds += time.perf_counter() - began
        curves += _points(heard)
        final = jax.device_get(many.state)
        agents += [
            lambda i=i, row=row, n=iteration, s=int(done[i]), final=final: Agent.trained(
                row.algorithm, place, row.seed, jax.tree.map(lambda x: jnp.asarray(x[i]), final), steps=s, iteration=n
            )
            for i, row in enumerate(part)
        ]
    return Trained(curves, agents, seconds, compiling)


def _points(heard: list[Heard]) -> list[tuple[np.ndarray, np.ndarray]]:
    total, count, steps = (np.stack(x) for x in zip(*heard, strict=True))  # [K, R]
    returns = np.where(count > 0, total / np.maximum(count, 1), np.nan)
    at = np.cumsum(steps, axis=0, dtype=np.int64)
    return [(at[:, i], returns[:, i]) for i in range(at.shape[1])]


def _slice(together: Together, rows: list[Row], steps: int) -> int:
    """How many rows fit in memory: state, its gradients and moments on the way, and a rollout, counted four times."""
    seed = jax.ShapeDtypeStruct((1,), np.uint32)
    values = {name: jax.ShapeDtypeStruct((1,), np.float32) for name in rows[0].values}
    many = jax.eval_shape(together.start, seed, values, jax.ShapeDtypeStruct((), np.int32))
    state = sum(x.size * x.dtype.itemsize for x in jax.tree.leaves(many.state))
    obs = sum(x.size * x.dtype.itemsize for x in jax.tree.leaves(many.scene.obs)) // together.envs.num_envs
    return max(1, MEMORY // (4 * (state + (obs + 64) * together.rollout)))


def _wrong(rows: list[Row], fine: np.ndarray, steps: int) -> str:
    bad = [f"{row.label} with seed {row.seed}" for row, ok in zip(rows, fine, strict=True) if not ok]
    more = f" and {len(bad) - 3} more" if len(bad) > 3 else ""
    return (
        f"NaN or infinity in observations, rewards, actions or losses of {', '.join(bad[:3])}{more} after {steps} "
        "steps. Often a lower learning_rate, norm_obs=True or norm_reward=True helps; leave that value out of the grid"
    )


@contextmanager
def _bar(total: int | None) -> Iterator[Callable[[int], None]]:
    """A progress bar over the steps of all agents together."""
    if total is None:
        yield lambda steps: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn("{task.completed:>13,.0f}/{task.total:,.0f} steps"), TimeRemainingColumn())
    with Progress(BarColumn(bar_width=30), *columns, console=Console(stderr=True)) as bar:
        task = bar.add_task("", total=total)
        yield lambda steps: bar.update(task, advance=steps)
