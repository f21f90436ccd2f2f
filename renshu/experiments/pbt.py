"""Population-based training (Jaderberg et al. 2017): hyperparameters that change while their agents train."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from renshu.agent.agent import Agent
from renshu.agent.backends import CompiledBackend
from renshu.agent.options import COUNT, SEED, refuse_unknown
from renshu.algorithms.base import Algorithm
from renshu.algorithms.hyperparameters import kind_of
from renshu.envs.source import EnvSource
from renshu.errors import HyperparameterError, NotFiniteError, did_you_mean
from renshu.experiments.experiment import Agents, bar_of
from renshu.experiments.vmapped import (
    PopulationState,
    PopulationTrainer,
    Row,
    TrainingStats,
    agent_of,
    cores,
    fitted_backend,
    not_finite_message,
)
from renshu.tracking.provenance import write_atomically
from renshu.viewing.notebook import Shown, html_of

_OPTIONS = ("ranges", "steps", "population_size", "interval", "quantile", "resample_probability", "perturbations")
_OPTIONS += ("seed", "num_envs", "bins", "frame_stack", "masks", "env_kwargs")
INTERVALS = 20


@dataclass(frozen=True, eq=False, repr=False)
class PBT:
    """Result of `pbt`: K intervals of R members.

    steps: [K, R], made by each member, or by those whose state it took over. scores: [K, R], mean return of the
    episodes that ended in an interval; NaN before the first. values: [K, R] of each hyperparameter, as they were in the
    interval. parents: [K, R], the member that each goes on from afterwards: itself, or one of the best. `agents[i]` is
    member i at the end, made when it is asked for; `best` the one of the highest score.
    """

    steps: np.ndarray
    scores: np.ndarray
    values: dict[str, np.ndarray]
    parents: np.ndarray
    agents: Sequence[Agent]
    seconds: float
    compile_seconds: float
    title: str

    def __repr__(self) -> str:
        return f"<PBT: {self.title}, {len(self.scores)} intervals, {self.seconds:.1f} s>"

    def _repr_html_(self) -> str:
        return html_of(self.table(), self.plot)

    @property
    def best(self) -> Agent:
        """The member of the highest score in the last interval."""
        return self.agents[self.order[0]]

    @property
    def order(self) -> np.ndarray:
        """Members from the best to the worst, by their scores in the last interval, [R]."""
        return np.argsort(-np.nan_to_num(self.scores[-1], nan=-np.inf), kind="stable")

    def table(self) -> Any:
        """Make a table of the members at the end, for `rich.print`."""
        from rich.table import Table

        shown = Table(title=self.title, title_justify="left")
        for name in ("member", "return", *self.values):
            shown.add_column(name, justify="right", no_wrap=True)
        for i in self.order:
            shown.add_row(str(i), f"{self.scores[-1, i]:,.1f}", *(f"{x[-1, i]:.3g}" for x in self.values.values()))
        return shown

    def plot(self, path: str | Path) -> Path:
        """Draw returns and hyperparameters of all members against steps, the best at the end and its past in colour."""
        from renshu.experiments.pbt_picture import draw

        return Shown(draw(self, Path(path)))

    def save(self, path: str | Path) -> Path:
        """Write a csv file: interval, member, steps, return, parent, and each hyperparameter."""
        lines = [",".join(("interval", "member", "steps", "return", "parent", *self.values))]
        for k, i in np.ndindex(*self.scores.shape):
            numbers = (k, i, self.steps[k, i], self.scores[k, i], self.parents[k, i])
            lines.append(",".join(f"{x:.9g}" for x in (*numbers, *(x[k, i] for x in self.values.values()))))
        write_atomically(Path(path), ["\n".join([*lines, ""]).encode()])
        return Path(path)

    def lineage(self) -> np.ndarray:
        """Return the member that the best at the end descends from, in each interval, [K]."""
        line = [int(self.parents[-1, self.order[0]])]  # itself, unless it had met NaN
        for parents in self.parents[-2::-1]:
            line.append(int(parents[line[-1]]))
        return np.array(line[::-1])


def pbt(
    algorithm: Algorithm,
    env: Any,
    *,
    ranges: Mapping[str, tuple[float, float]],
    steps: int,
    population_size: int = 16,
    interval: int | None = None,
    quantile: float = 0.25,
    resample_probability: float = 0.25,
    perturbations: tuple[float, float] = (0.8, 1.25),
    seed: int = 0,
    num_envs: int | None = None,
    bins: int | Sequence[int] | None = None,
    frame_stack: int | None = None,
    masks: bool | None = None,
    env_kwargs: dict[str, Any] | None = None,
    progress: bool = True,
    **unknown: Any,
) -> PBT:
    """Train a population whose hyperparameters are chosen while it trains, by one compiled program on a DeviceEnv.

    After each interval the worst members go on from copies of the best (exploit), weights, memory and environments, and
    with other hyperparameters (explore): each is multiplied by one of two factors, or drawn anew.

    ranges: least and greatest value of each hyperparameter, as {"learning_rate": (1e-4, 1e-2)}; first values are drawn
    from there, evenly on a logarithmic scale where both are above 0. steps: of each member, at least. interval:
    environment steps of a member between two exchanges; None: a twentieth of all. quantile: share of the members that
    are replaced, and share of those that are copied. resample_probability: of drawing a value anew. perturbations: the
    two factors. Other arguments: as for Agent.

    Source: Jaderberg et al. 2017, "Population based training of neural networks", with truncation selection.

    Raises HyperparameterError for what cannot vary in one program, or an environment that cannot be compiled;
    NotFiniteError when no member is left without NaN.
    """
    refuse_unknown("pbt(...)", unknown, _OPTIONS, {})
    count, steps = COUNT.check("population_size", population_size), COUNT.check("steps", steps)
    every = max(1, steps // INTERVALS) if interval is None else COUNT.check("interval", interval)
    if count < 2 or not 0 < quantile <= 0.5 or not 0 <= resample_probability <= 1 or min(perturbations) <= 0:
        raise HyperparameterError(
            f"pbt: population_size={population_size}, quantile={quantile}, resample_probability={resample_probability},"
            f" perturbations={perturbations}: expected at least 2 members, 0 < quantile <= 0.5, a probability, and "
            "factors above 0"
        )
    check_ranges(algorithm, ranges)
    rng = np.random.default_rng(SEED.check("seed", seed))
    source = EnvSource.of(env, env_kwargs)
    how: Any = {"num_envs": num_envs, "loop": None, "bins": bins, "frame_stack": frame_stack, "masks": masks}
    backend, fits = fitted_backend(algorithm, source, **how)
    if not isinstance(backend, CompiledBackend):
        backend.close_own()
        raise HyperparameterError(
            f"pbt trains all members in one program, and {source.name} steps in Python: take a DeviceEnv, as "
            "renshu/CartPole-v1 (see `renshu list environments`)"
        )
    trainer = PopulationTrainer(backend, algorithm, fits)
    trainer.learner.check_steps(0, steps)
    exchange = Exchange(dict(ranges), rng, quantile, resample_probability, tuple(perturbations))
    first = {name: exchange.drawn(name, count) for name in ranges}
    rows = [
        Row(f"member {i}", algorithm, {name: float(x[i]) for name, x in first.items()}, seed + i, tuple(ranges))
        for i in range(count)
    ]
    title = f"{type(algorithm).__name__} on {source.name}, {count} members"
    with bar_of(count * steps if progress else None) as advance:
        return Training(trainer, rows, exchange, steps, every).run(advance, title)


def check_ranges(algorithm: Algorithm, ranges: Mapping[str, tuple[float, float]]) -> None:
    """Raise HyperparameterError for a range of what one program cannot vary, or of values that are not possible."""
    kinds = {field.name: kind_of(field) for field in dataclasses.fields(algorithm)}
    can = [name for name, kind in kinds.items() if getattr(kind, "traceable", False)]
    name = type(algorithm).__name__
    if not ranges:
        raise HyperparameterError(f"pbt: no ranges. {name} can vary {', '.join(can) or 'nothing'} in one program")
    for field, bounds in ranges.items():
        if field not in can:
            raise HyperparameterError(
                f"pbt: {name} cannot vary {field!r} in one program.{did_you_mean(field, can)} It can vary: "
                f"{', '.join(can) or 'nothing'}"
            )
        if len(bounds) != 2 or not bounds[0] < bounds[1]:
            raise HyperparameterError(f"pbt: {field}={bounds!r}: expected the least and the greatest value")
        for value in bounds:
            dataclasses.replace(algorithm, **{field: value})


@dataclass(frozen=True)
class Exchange:
    """Choice of the members that go on, and of their hyperparameters."""

    ranges: dict[str, tuple[float, float]]
    rng: np.random.Generator
    quantile: float
    resample_probability: float
    perturbations: tuple[float, ...]

    def drawn(self, name: str, count: int) -> np.ndarray:
        """Draw values from a range, [count]: evenly by logarithm where the range is above 0."""
        low, high = self.ranges[name]
        if low > 0:
            return np.exp(self.rng.uniform(np.log(low), np.log(high), count)).clip(low, high)
        return self.rng.uniform(low, high, count)

    def parents(self, scores: np.ndarray, finite: np.ndarray, *, last: bool = False) -> np.ndarray:
        """Return the member that each goes on from, [R]. last: only members with NaN are replaced.

        Members without a score are left alone, unless they are not finite.
        """
        parents, known = np.arange(len(scores)), np.flatnonzero(finite & np.isfinite(scores))
        ranked = known[np.argsort(scores[known], kind="stable")]
        replaced = max(1, int(self.quantile * len(scores)))
        replaced = min(replaced, len(ranked) // 2)
        worst = [] if last else list(ranked[:replaced])
        best = ranked[len(ranked) - max(replaced, 1) :] if len(ranked) else np.flatnonzero(finite)
        for i in [*np.flatnonzero(~finite), *worst]:
            parents[i] = self.rng.choice(best)
        return parents

    def values(self, values: dict[str, np.ndarray], parents: np.ndarray, *, last: bool) -> dict[str, np.ndarray]:
        """Return hyperparameters, [R] each, with which members go on from their parents. last: nothing is explored."""
        taken = {name: found[parents] for name, found in values.items()}
        if not last:
            changed = parents != np.arange(len(parents))
            taken = {name: self.explored(name, found, changed) for name, found in taken.items()}
        return {name: found.astype(np.float32) for name, found in taken.items()}

    def explored(self, name: str, values: np.ndarray, changed: np.ndarray) -> np.ndarray:
        """Return values [R] of a hyperparameter, of which those that `changed` [R] are perturbed or drawn anew."""
        anew = self.rng.random(len(values)) < self.resample_probability
        near = values * self.rng.choice(np.array(self.perturbations), len(values))
        found = np.where(anew, self.drawn(name, len(values)), near).clip(*self.ranges[name])
        return np.where(changed, found, values)


class Training:
    """Intervals of training, with exchanges between them. On a CPU the members are dealt to a program for each core."""

    def __init__(
        self, trainer: PopulationTrainer, rows: list[Row], exchange: Exchange, steps: int, interval: int
    ) -> None:
        self.trainer, self.rows, self.exchange, self.steps = trainer, rows, exchange, steps
        self.names = list(rows[0].traced)
        self.chunk = max(1, round(interval / trainer.rollout))
        size = -(-len(rows) // cores())
        self.cuts = list(range(0, len(rows), size))[1:]

    def run(self, advance: Any, title: str) -> PBT:
        """Train until every member has its steps."""
        count, began = len(self.rows), time.perf_counter()
        parts = [[self.rows[i] for i in part] for part in np.split(np.arange(count), self.cuts)]
        programs = {len(part): self.trainer.compile(part, self.steps) for part in (parts[0], parts[-1])}
        dealt = jax.jit(self._dealt)
        states = [self.trainer.start(*self.trainer.inputs(part), np.int32(self.steps)) for part in parts]
        jax.block_until_ready(dealt(states, np.arange(count), self._values(states)))
        compiling, began = time.perf_counter() - began, time.perf_counter()
        done, scores = np.zeros(count, np.int64), np.full(count, np.nan)
        kept: dict[str, list[np.ndarray]] = {name: [] for name in ("steps", "scores", "parents", *self.names)}
        iteration, over = 0, False
        with ThreadPoolExecutor(len(parts), "renshu-pbt") as pool:
            while not over:
                iterations = min(self.chunk, max(1, -(-(self.steps - int(done.min())) // self.trainer.rollout)))
                states, news = self._interval(pool, programs, states, iteration, iterations)
                iteration, done = iteration + iterations, done + news.steps
                advance(int(news.steps.sum()))
                scores = np.where(news.count > 0, news.total / np.maximum(news.count, 1), scores)
                finite = np.concatenate([np.asarray(state.finite) for state in states])
                if not finite.any():
                    raise NotFiniteError(not_finite_message(self.rows, finite, int(done.max())))
                over = bool((done >= self.steps).all())
                values, parents = self._values(states), self.exchange.parents(scores, finite, last=over)
                for name, found in {"steps": done, "scores": scores, "parents": parents, **values}.items():
                    kept[name].append(found)
                if (parents != np.arange(count)).any():
                    states = dealt(states, parents, self.exchange.values(values, parents, last=over))
                    done, scores = done[parents], scores[parents]
        kept["scores"][-1] = scores  # a member with NaN is another's copy now
        seconds = time.perf_counter() - began
        found = {name: np.stack(rows) for name, rows in kept.items()}
        history = {name: found[name] for name in self.names}
        agents = self._agents(states, done, iteration)
        return PBT(found["steps"], found["scores"], history, found["parents"], agents, seconds, compiling, title)

    def _interval(
        self, pool: Executor, programs: dict[int, Any], states: list[PopulationState], iteration: int, count: int
    ) -> tuple[list[PopulationState], TrainingStats]:
        """Train all members for `count` iterations, and return what happened to each of them, [R]."""

        def train(state: PopulationState) -> tuple[PopulationState, TrainingStats]:
            return programs[len(state.finite)](state, np.int32(iteration), np.int32(count))

        after, news = zip(*pool.map(train, states), strict=True)
        return list(after), TrainingStats(*(np.concatenate(x) for x in zip(*jax.device_get(news), strict=True)))

    def _values(self, states: Sequence[PopulationState]) -> dict[str, np.ndarray]:
        return {name: np.concatenate([np.asarray(one.values[name]) for one in states]) for name in self.names}

    def _dealt(
        self, states: list[PopulationState], parents: jax.Array, values: dict[str, jax.Array]
    ) -> list[PopulationState]:
        """Let each member go on from its parent, with its own keys: what it does from now on is its own."""
        whole = jax.tree.map(lambda *x: jnp.concatenate(x), *states)
        taken = jax.tree.map(lambda x: x[parents], whole)._replace(key=whole.key, values=values)
        envs = taken.loop_state.envs._replace(key=whole.loop_state.envs.key)
        taken = taken._replace(loop_state=taken.loop_state._replace(envs=envs))
        if "seed" in taken.state._fields:  # of all that a population of evolution draws
            taken = taken._replace(state=taken.state._replace(seed=whole.state.seed))
        parts = [np.arange(len(self.rows))[part] for part in np.split(np.arange(len(self.rows)), self.cuts)]
        return [jax.tree.map(lambda x, part=part: x[part], taken) for part in parts]

    def _agents(self, states: list[PopulationState], done: np.ndarray, iteration: int) -> Agents:
        values = self._values(states)
        final = jax.tree.map(lambda *x: np.concatenate(x), *[jax.device_get(one.state) for one in states])
        makers = []
        for i, row in enumerate(self.rows):
            own = {name: float(found[i]) for name, found in values.items()}
            now = dataclasses.replace(row, algorithm=dataclasses.replace(row.algorithm, **own), values=own)
            makers.append(partial(agent_of, self.trainer, now, final, i, int(done[i]), iteration))
        return Agents(makers)
