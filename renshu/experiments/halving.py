"""Successive halving: trials train together in compiled programs, and the worse half of them is given up at each rung.

Trials that differ in traceable numbers alone share a program. It trains a fixed number of rows at once (a row is a
trial with a seed), into which those that are left are packed after each rung. Schedules run to the full number of steps
throughout, so that whoever gets there was trained as if alone.

Source: Jamieson & Talwalkar 2016, "Non-stochastic best arm identification and hyperparameter optimization".
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import Executor, ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import jax
import numpy as np

from renshu.agent.backends import CompiledBackend
from renshu.algorithms.base import Algorithm
from renshu.envs.source import EnvSource
from renshu.errors import HyperparameterError
from renshu.experiments.plan import EVALUATION, Plan
from renshu.experiments.ranges import peak
from renshu.experiments.study import Score
from renshu.experiments.vmapped import PopulationTrainer, Row, agent_of, cores, fitted_backend, rows_per_program
from renshu.loops.compiled import TrainIteration
from renshu.runtime import check_memory
from renshu.types import Array

RUNGS = (1 / 8, 1 / 4, 1 / 2)
"""Shares of the steps after which half of the trials go on."""
CALLS = 20
"""Calls of a program in a whole training, about."""


@dataclass
class Outcome:
    """Fate of a trial. state: complete, pruned, failed or refused. reports: mean return of training after each rung."""

    state: str = "running"
    score: Score | None = None
    reason: str = ""
    reports: list[float] = field(default_factory=list)


class TrialsTrainer(PopulationTrainer):
    """Rows whose values may stand for the highest number of a schedule."""

    def train_iteration(self, values: Mapping[str, Array]) -> TrainIteration:
        """Make the iteration with these values; a schedule of the algorithm keeps its form."""
        return super().train_iteration(
            {name: _following(getattr(self.algorithm, name), x) for name, x in values.items()}
        )


def _following(value: Any, height: Array) -> Any:
    if not callable(value):
        return height
    highest = peak(value)
    return lambda progress_remaining: value(progress_remaining) * (height / highest)


class Group:
    """Trials that share a program, and what they have come to."""

    def __init__(
        self, plan: Plan, backend: CompiledBackend, space_config: Any, trials: Mapping[int, Algorithm]
    ) -> None:
        self.plan, names = plan, plan.traceable
        shared = {name: getattr(plan.start, name) for name in names}  # their schedules, which values scale
        self.trainer = TrialsTrainer(backend, dataclasses.replace(next(iter(trials.values())), **shared), space_config)
        self.trainer.learner.check_steps(0, plan.steps)
        self.rows = [
            Row(
                f"trial {number}",
                one,
                {name: float(peak(getattr(one, name)) or 0.0) for name in names},
                seed,
                tuple(names),
            )
            for number, one in trials.items()
            for seed in plan.seeds
        ]
        self.numbers = np.repeat(list(trials), len(plan.seeds))
        most = rows_per_program(self.trainer, self.rows, plan.steps)
        self.size = min(most, -(-len(self.rows) // cores()))
        self.alive = np.arange(len(self.rows))  # rows in training, in the order of their states
        self.iteration, self.done = 0, np.zeros(len(self.rows), np.int64)
        self.scores = np.full(len(self.rows), np.nan)
        self.state: Any = None

    def begin(self) -> None:
        """Compile, and start all rows."""
        parts = [self._packed(part) for part in self._parts()]
        first = [self.rows[i] for i in parts[0]]
        shape = jax.eval_shape(self.trainer.start, *self.trainer.inputs(first), np.int32(self.plan.steps))
        check_memory(jax.tree.map(lambda x: jax.ShapeDtypeStruct((len(self.rows), *x.shape[1:]), x.dtype), shape))
        self.program = self.trainer.compile(first, self.plan.steps)
        states = []
        for part in parts:
            inputs = self.trainer.inputs([self.rows[i] for i in part])
            states.append(self.trainer.start(*inputs, np.int32(self.plan.steps)))
        self._keep(states)

    def _parts(self) -> list[np.ndarray]:
        """Places of those alive in their state, as many at once as the program trains."""
        return np.split(np.arange(len(self.alive)), range(self.size, len(self.alive), self.size))

    def _packed(self, part: np.ndarray) -> np.ndarray:
        """Fill a part up to the size of the program, by its last one."""
        return np.concatenate([part, np.full(self.size - len(part), part[-1])])

    def _keep(self, states: list[Any]) -> None:
        """Put the rows of all programs into one state again."""
        whole = [
            jax.tree.map(lambda x, part=part: x[: len(part)], one)
            for part, one in zip(self._parts(), states, strict=True)
        ]
        self.state = jax.tree.map(lambda *x: jax.numpy.concatenate(x), *whole)

    def advance(self, goal: int, pool: Executor) -> None:
        """Train all that are alive until each has made `goal` steps."""
        total, count = np.zeros(len(self.alive)), np.zeros(len(self.alive), np.int64)
        while len(self.alive) and (self.done[self.alive] < goal).any():
            missing = goal - int(self.done[self.alive].min())
            # Not all in one call, which nothing could interrupt.
            most = max(1, self.plan.steps // (CALLS * self.trainer.rollout))
            iterations = min(most, -(-missing // self.trainer.rollout))

            def train(part: np.ndarray, iterations: int = iterations) -> Any:
                packed = self._packed(part)
                rows = jax.tree.map(lambda x: x[packed], self.state)
                return self.program(rows, np.int32(self.iteration), np.int32(iterations))

            found = list(pool.map(train, self._parts()))
            news = [jax.device_get(stats) for _, stats in found]
            self._keep([state for state, _ in found])
            sizes = [len(part) for part in self._parts()]
            steps, totals, counts = (
                np.concatenate([getattr(one, name)[:size] for one, size in zip(news, sizes, strict=True)])
                for name in ("steps", "total", "count")
            )
            self.iteration += iterations
            self.done[self.alive] += steps
            total, count = total + totals, count + counts
        ended = count > 0
        self.scores[self.alive[ended]] = total[ended] / count[ended]

    @property
    def lost(self) -> set[int]:
        """Trials of which a seed met NaN."""
        return set(self.numbers[self.alive[~np.asarray(self.state.finite)]].tolist()) if len(self.alive) else set()

    def score(self, number: int) -> float:
        """Mean return of training of a trial, over its seeds; NaN before an episode ended in each."""
        return float(np.mean(self.scores[self.numbers == number]))

    def keep(self, numbers: Iterable[int]) -> None:
        """Go on with these trials alone."""
        stay = np.isin(self.numbers[self.alive], list(numbers))
        self.alive = self.alive[stay]
        self.state = jax.tree.map(lambda x: x[stay], self.state)

    def evaluate(self) -> dict[int, Score]:
        """Play greedy episodes with the agents that are left. Returns scores by trial."""
        found: dict[int, list[float]] = {}
        final = jax.device_get(self.state.state)
        for place, i in enumerate(self.alive):
            row = self.rows[i]
            with agent_of(self.trainer, row, final, place, int(self.done[i]), self.iteration) as agent:
                mean = agent.evaluate(self.plan.eval_episodes, seed=EVALUATION + row.seed).mean
            found.setdefault(int(self.numbers[i]), []).append(mean)
        return {number: Score(tuple(means)) for number, means in found.items()}


def train_batch(
    plan: Plan, algorithms: Mapping[int, Algorithm], kept: Iterable[int] = (), say: Callable[[str], None] | None = None
) -> dict[int, Outcome]:
    """Train trials together, and evaluate those that are left at the end.

    algorithms: of each trial, by its number. kept: trials that are given up by no comparison. say: gets a line after
    each rung. Raises HyperparameterError where the environment cannot be compiled.
    """
    outcomes = {number: Outcome() for number in algorithms}
    groups = _groups(plan, algorithms, outcomes)
    with ThreadPoolExecutor(cores(), "renshu-tune") as pool:
        begun = pool.map(lambda group: _done(group, outcomes, group.begin), groups)
        groups = [group for group, well in zip(groups, begun, strict=True) if well]
        for share in (*RUNGS, 1.0):
            goal = max(1, round(share * plan.steps))
            groups = [one for one in groups if _done(one, outcomes, partial(one.advance, goal, pool))]
            for group in groups:
                for number in group.lost:
                    outcomes[number].state, outcomes[number].reason = "failed", "NaN or infinity while it trained"
                    group.scores[group.numbers == number] = np.nan
            scores = {n: group.score(n) for group in groups for n in _alive(group) if outcomes[n].state == "running"}
            for number, score in scores.items():
                outcomes[number].reports.append(score)
            stay = _best(scores, kept) if share < 1 else set(scores)
            for number in scores.keys() - stay:
                outcomes[number].state = "pruned"
            for group in groups:
                group.keep(stay)
            if say is not None and share < 1 and stay:
                best = max((scores[n] for n in stay if np.isfinite(scores[n])), default=np.nan)
                say(f"after {goal:,} steps {len(stay)} of {len(algorithms)} trials go on, the best at {best:,.1f}")
    for group in groups:
        _done(group, outcomes, partial(_judge, group, outcomes))
    return outcomes


def _judge(group: Group, outcomes: Mapping[int, Outcome]) -> None:
    for number, score in group.evaluate().items():
        outcomes[number].state, outcomes[number].score = "complete", score


def _done(group: Group, outcomes: Mapping[int, Outcome], what: Callable[[], None]) -> bool:
    """Do something with a group. What goes wrong is the fate of its trials, and the others go on."""
    try:
        what()
    except Exception as error:
        refused = isinstance(error, HyperparameterError)
        for number in _alive(group):
            if outcomes[number].state == "running":
                outcomes[number].state = "refused" if refused else "failed"
                outcomes[number].reason = str(error) if refused else f"{type(error).__name__}: {error}"
        return False
    return True


def _alive(group: Group) -> list[int]:
    return list(dict.fromkeys(group.numbers[group.alive].tolist()))


def _best(scores: Mapping[int, float], kept: Iterable[int]) -> set[int]:
    """Return the better half; trials in which no episode has ended yet are judged later."""
    unknown = {number for number, score in scores.items() if not np.isfinite(score)}
    ranked = sorted(scores.keys() - unknown, key=lambda number: (-scores[number], number))
    return unknown | set(ranked[: -(-len(ranked) // 2)]) | (set(kept) & scores.keys())


def _groups(plan: Plan, algorithms: Mapping[int, Algorithm], outcomes: Mapping[int, Outcome]) -> list[Group]:
    """Put trials that can share a program together; those whose values do not go together are refused."""
    names, shared = plan.traceable, {}
    for number, algorithm in algorithms.items():
        plain = {name: value for name, value in algorithm.to_json().items() if name not in names}
        shared.setdefault(json.dumps(plain, sort_keys=True), {})[number] = algorithm
    groups = []
    for trials in shared.values():
        try:
            source = EnvSource.of(plan.env, plan.env_kwargs)
            how: dict[str, Any] = {"bins": None, "frame_stack": None, "masks": None, **plan.options}
            first = next(iter(trials.values()))
            backend, fits = fitted_backend(first, source, num_envs=plan.num_envs, loop=None, **how)
            if not isinstance(backend, CompiledBackend):
                backend.close_own()
                raise HyperparameterError(f"{source.name} steps in Python")  # begun() refused it
            groups.append(Group(plan, backend, fits, trials))
        except HyperparameterError as error:
            for number in trials:
                outcomes[number].state, outcomes[number].reason = "refused", str(error)
    return groups
