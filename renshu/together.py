"""Many agents of one algorithm trained at once on the device: a program over rows, and a thread for each core."""

from __future__ import annotations

import copy
import os
import threading
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from renshu.agent import Agent
from renshu.algorithms.base import Algorithm
from renshu.envs.adapt import Fitting
from renshu.envs.device import DeviceEnvs
from renshu.errors import NotFiniteError
from renshu.grounds import CompiledGround
from renshu.loops.compiled import Iterate, Scene
from renshu.loops.programs import compiler_options, in_sequence
from renshu.trainee import fitted_to, streams
from renshu.types import Array, Key

MEMORY = 2**31
"""Bytes that rows trained at once may take by estimate, before they are sliced."""
CACHE = 2**23
"""The same for one program on a CPU: 256 agents with 64-64 networks are 1.5 times as fast a few at a time."""


@dataclass(frozen=True)
class Row:
    """One agent of an experiment: its label, the algorithm with the grid's values, the values alone, its seed."""

    label: str
    algorithm: Algorithm
    values: Mapping[str, float]
    seed: int


class Trained(NamedTuple):
    """What training some rows gave."""

    curves: list[tuple[np.ndarray, np.ndarray]]  # for each row steps [K] and returns [K]
    agents: list[Callable[[], Agent]]
    seconds: float
    compile_seconds: float


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

    def __init__(self, place: CompiledGround, algorithm: Algorithm, fitting: Fitting) -> None:
        self.place, self.algorithm, self.fitting = place, algorithm, fitting
        self.fitted = fitted_to(algorithm, place.spec(), fitting)
        self.envs = DeviceEnvs(place.env, place.num_envs)
        self.learner = algorithm.build(self.fitted.spec)
        self.rollout = self.learner.rollout_length * place.num_envs
        options = compiler_options() | in_sequence()
        self.start = jax.jit(self._start, compiler_options=options)
        self.visit = jax.jit(self._visit, donate_argnums=0, compiler_options=options)

    def inputs(self, rows: list[Row]) -> tuple[Array, dict[str, Array]]:
        """Seeds [R] and values of the grid, each [R], of some rows."""
        values = {name: np.array([row.values[name] for row in rows], np.float32) for name in rows[0].values}
        return np.array([row.seed for row in rows], np.uint32), values

    def compile(self, rows: list[Row], steps: int) -> Callable[[Many, Array, Array], tuple[Many, Heard]]:
        """Compile what trains as many rows as these: (many, iteration, count) -> many, heard."""
        many = jax.eval_shape(self.start, *self.inputs(rows), np.int32(steps))
        jax.block_until_ready(self.start(*self.inputs(rows), np.int32(steps)))  # so that it is compiled, too
        return self.visit.lower(many, np.int32(0), np.int32(1)).compile()

    def iterate(self, values: Mapping[str, Array]) -> Iterate:
        """A rollout and an update of the algorithm with these values, which may be traced."""
        algorithm = copy.copy(self.algorithm)
        for name, value in values.items():
            object.__setattr__(algorithm, name, value)  # past the checks, which a traced number cannot answer
        return Iterate(algorithm.build(self.fitted.spec), self.envs, self.fitted.decode_action, refuse=False)

    def _start(self, seeds: Array, values: dict[str, Array], steps: Array) -> Many:
        def start(row: tuple[Array, dict[str, Array]]) -> Many:
            seed, values = row
            iterate, keys = self.iterate(values), streams(seed, 4)
            state = iterate.learner.init(keys[0])
            state = state._replace(counters=state.counters._replace(target=steps))
            return Many(state, iterate.start(jax.random.key(seed)), keys[1], values, jnp.bool_(True))

        # No vmap: orthogonal initialisers take a QR, and on a CPU jax waits within its threads for batches of them,
        # which two at once (actor and critic, or two programs) never end.
        return jax.lax.map(start, (seeds, values))

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


def train_together(
    place: CompiledGround,
    rows: list[Row],
    fitting: Fitting,
    steps: int,
    points: int,
    at_once: int | None,
    advance: Callable[[int], None],
) -> Trained:
    """Train rows of one algorithm until each has its steps. On a CPU the rows are dealt to a thread for each core.

    at_once: how many rows one program takes at most; None asks the memory. points: of each curve, about. advance: is
    told how many steps were made, from any thread. Raises NotFiniteError, naming the rows.
    """
    together, threads = Together(place, rows[0].algorithm, fitting), _cores()
    together.learner.check_steps(0, steps)
    limit = at_once or _fitting(together, rows, steps)
    rounds = -(-len(rows) // (limit * threads))
    size = -(-len(rows) // (rounds * threads))  # alike, so that no thread waits for another
    parts = [rows[first : first + size] for first in range(0, len(rows), size)]
    began = time.perf_counter()
    visits = {len(part): together.compile(part, steps) for part in (parts[0], parts[-1])}
    compiling, began = time.perf_counter() - began, time.perf_counter()
    stop = threading.Event()

    def train(part: list[Row]) -> Trained:
        try:
            return _train_part(together, visits[len(part)], part, steps, points, advance, stop)
        except BaseException:
            stop.set()
            raise

    with ThreadPoolExecutor(threads, "renshu-experiment") as pool:
        try:
            found = list(pool.map(train, parts))
        finally:
            stop.set()  # or Ctrl-C would wait for the others to end
    curves = [curve for one in found for curve in one.curves]
    agents = [agent for one in found for agent in one.agents]
    return Trained(curves, agents, time.perf_counter() - began, compiling)


def _cores() -> int:
    """How many programs may run at once: a thread for each core that this process may use; one for a GPU."""
    if jax.default_backend() != "cpu":
        return 1
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _train_part(
    together: Together,
    visit_program: Any,
    part: list[Row],
    steps: int,
    points: int,
    advance: Callable[[int], None],
    stop: threading.Event,
) -> Trained:
    """Train the rows of one program. It ends early, with what it has, when another thread says stop."""
    iterations = -(-steps // together.rollout)
    visit = max(1, iterations // points)
    many = together.start(*together.inputs(part), np.int32(steps))
    heard: list[Heard] = []
    iteration, done = 0, np.zeros(len(part), np.int64)
    while (done < steps).any() and not stop.is_set():
        # Resets are no steps: what is missing at the end is made up for, and belongs to the last point of the curves.
        extra = iteration >= iterations
        count = -(-(steps - int(done.min())) // together.rollout) if extra else min(visit, iterations - iteration)
        many, news = visit_program(many, np.int32(iteration), np.int32(count))
        news = jax.device_get(news)
        heard.append(Heard(*map(np.add, heard.pop(), news)) if extra else news)
        iteration, done = iteration + count, done + news.steps
        advance(int(news.steps.sum()))
        if not (fine := np.asarray(many.fine)).all():
            raise NotFiniteError(wrong(part, fine, int(done.max())))
    final = jax.device_get(many.state)

    def agent(i: int) -> Agent:
        state = jax.tree.map(lambda x: jnp.asarray(x[i]), final)
        row, place = part[i], together.place
        agent = Agent.stateless(row.algorithm, place.spec(), row.seed, together.fitting, place, loop=place.loop_name)
        agent.take_up(state, steps=int(done[i]), iteration=iteration)
        return agent

    return Trained(_points(heard), [partial(agent, i) for i in range(len(part))], 0.0, 0.0)


def _points(heard: list[Heard]) -> list[tuple[np.ndarray, np.ndarray]]:
    total, count, steps = (np.stack(x) for x in zip(*heard, strict=True))  # [K, R]
    returns = np.where(count > 0, total / np.maximum(count, 1), np.nan)
    at = np.cumsum(steps, axis=0, dtype=np.int64)
    return [(at[:, i], returns[:, i]) for i in range(at.shape[1])]


def _fitting(together: Together, rows: list[Row], steps: int) -> int:
    """How many rows fit in memory: state, its gradients and moments on the way, and a rollout, counted four times."""
    seed = jax.ShapeDtypeStruct((1,), np.uint32)
    values = {name: jax.ShapeDtypeStruct((1,), np.float32) for name in rows[0].values}
    many = jax.eval_shape(together.start, seed, values, jax.ShapeDtypeStruct((), np.int32))
    state = sum(x.size * x.dtype.itemsize for x in jax.tree.leaves(many.state))
    obs = sum(x.size * x.dtype.itemsize for x in jax.tree.leaves(many.scene.obs)) // together.envs.num_envs
    room = CACHE if jax.default_backend() == "cpu" else MEMORY
    return max(1, room // (4 * (state + (obs + 64) * together.rollout)))


def wrong(rows: list[Row], fine: np.ndarray, steps: int) -> str:
    """What to say of rows that met NaN."""
    bad = [f"{row.label} with seed {row.seed}" for row, ok in zip(rows, fine, strict=True) if not ok]
    more = f" and {len(bad) - 3} more" if len(bad) > 3 else ""
    return (
        f"NaN or infinity in observations, rewards, actions or losses of {', '.join(bad[:3])}{more} after {steps} "
        "steps. Often a lower learning_rate, norm_obs=True or norm_reward=True helps; leave that value out of the grid"
    )
