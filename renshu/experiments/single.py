"""Training of one seed at a time, in any environment: here one after the other, or as tasks of a Ray cluster."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from renshu.agent.agent import Agent
from renshu.envs.sending import pickled
from renshu.experiments.vmapped import Row, Trained
from renshu.loops import ray_actors

CHECKPOINTS = 20
"""Checkpoints of a training that runs as a task."""


@dataclass(frozen=True)
class Setup:
    """Everything that the trainings of an experiment have in common. options: of an Agent, but for the seed."""

    env: Any
    options: dict[str, Any]
    steps: int
    points: int


@dataclass
class Tally:
    """Returns of the episodes that ended in each of the points of a curve: sums, and how many. steps: so far."""

    total: np.ndarray
    count: np.ndarray
    steps: int = 0

    @classmethod
    def empty(cls, points: int) -> Tally:
        """Make a tally of nothing."""
        return cls(np.zeros(points), np.zeros(points))

    def curve(self, steps: int) -> tuple[np.ndarray, np.ndarray]:
        """Return steps, and the mean return of the episodes that ended up to there since the point before."""
        mean = np.where(self.count > 0, self.total / np.maximum(self.count, 1), np.nan)
        return edges(steps, len(self.count)), mean


def edges(steps: int, points: int) -> np.ndarray:
    """Return the steps of the points of a curve."""
    return np.linspace(0, steps, points + 1)[1:]


def train(agent: Agent, setup: Setup, tally: Tally, note: Callable[[int], None]) -> None:
    """Train to the end. note: called after each advance, with its steps."""
    if agent.steps == 0:
        agent.trainer.set_target(setup.steps)
    loop, places = agent.trainer.start_loop(nullcontext), edges(setup.steps, len(tally.count))
    while agent.steps < setup.steps:
        report = loop.advance(max(1, setup.steps // 100))
        where = np.minimum(np.searchsorted(places, report.finished.steps), len(places) - 1)
        np.add.at(tally.total, where, report.finished.returns)
        np.add.at(tally.count, where, 1)
        tally.steps = agent.steps
        note(report.steps)


def train_in_turn(setup: Setup, rows: list[Row], advance: Callable[[int], None]) -> Trained:
    """Train the rows one after the other."""
    began, curves, agents = time.perf_counter(), [], []
    for row in rows:
        tally = Tally.empty(setup.points)
        with Agent(row.algorithm, setup.env, seed=row.seed, **setup.options) as agent:
            train(agent, setup, tally, advance)
        curves.append(tally.curve(setup.steps))
        agents.append(lambda agent=agent: agent)
    return Trained(curves, agents, time.perf_counter() - began, 0.0)


# --- tasks of a cluster -----------------------------------------------------------------------------------------------


class Keeper:
    """The newest checkpoint of each training, as an actor: a task that is lost goes on from there."""

    def __init__(self) -> None:
        self._kept: dict[int, tuple[bytes, Tally]] = {}

    def keep(self, row: int, content: bytes, tally: Tally) -> None:
        """Keep a checkpoint."""
        self._kept[row] = content, tally

    def newest(self, row: int) -> tuple[bytes, Tally] | None:
        """Return the newest checkpoint of a training; None before the first."""
        return self._kept.get(row)

    def steps(self) -> int:
        """Return the steps of all trainings together, as of their checkpoints."""
        return sum(tally.steps for _, tally in self._kept.values())


def train_as_task(row: int, content: bytes, keeper: Any) -> tuple[bytes, Tally]:
    """Train one row in a process of Ray's, from its newest checkpoint on. content: pickled, the Setup and the Row."""
    import cloudpickle

    ray_actors.on_cpu_without_gpu()
    setup, one = cloudpickle.loads(content)
    begun = ray_actors.fetch(keeper.newest.remote(row), "the keeper of checkpoints")
    tally = Tally.empty(setup.points) if begun is None else begun[1]
    agent = (
        Agent(one.algorithm, setup.env, seed=one.seed, **setup.options)
        if begun is None
        else opened(begun[0], setup, one)
    )
    with agent:
        due = tally.steps

        def keep(steps: int) -> None:
            nonlocal due
            if agent.steps >= due:
                due = agent.steps + max(1, setup.steps // CHECKPOINTS)
                ray_actors.fetch(keeper.keep.remote(row, saved(agent), replace(tally)), "the keeper of checkpoints")

        train(agent, setup, tally, keep)
        return saved(agent), tally


def saved(agent: Agent) -> bytes:
    """Return an agent's file, memory included."""
    with tempfile.TemporaryDirectory() as folder:
        return agent.save(Path(folder) / "agent.safetensors", memory=True).read_bytes()


def opened(content: bytes, setup: Setup, row: Row) -> Agent:
    """Make the agent of a file."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "agent.safetensors"
        path.write_bytes(content)
        return Agent.load(path, env=setup.env, algorithm=type(row.algorithm), **row.algorithm.unsaved())


def train_on_cluster(
    setup: Setup, rows: list[Row], advance: Callable[[int], None], *, workers: int, address: str | None
) -> Trained:
    """Train the rows as tasks of a Ray cluster, `workers` at a time.

    A task whose process or machine is gone goes on elsewhere from its newest checkpoint. Raises what a training raised.
    """
    began, found, known = time.perf_counter(), {}, 0
    left = [(i, row, pickled((setup, row), setup.env, "the environment")) for i, row in enumerate(rows)]
    with ray_actors.session(address, workers) as ray:
        keeper = ray.remote(num_cpus=0)(Keeper).remote()
        task = ray.remote(num_cpus=1, max_retries=-1)(train_as_task)
        running: dict[Any, tuple[int, Row]] = {}
        while left or running:
            while left and len(running) < workers:
                i, row, content = left.pop(0)
                running[task.remote(i, content, keeper)] = i, row
            for done in ray.wait(list(running), timeout=1.0)[0]:
                i, row = running.pop(done)
                found[i] = ray_actors.fetch(done, f"the training of {row.label}, seed {row.seed}")
            steps = ray_actors.fetch(keeper.steps.remote(), "the keeper of checkpoints")
            advance(steps - known)
            known = steps
    curves = [found[i][1].curve(setup.steps) for i in range(len(rows))]
    agents = [lambda i=i, row=row: opened(found[i][0], setup, row) for i, row in enumerate(rows)]
    return Trained(curves, agents, time.perf_counter() - began, 0.0)
