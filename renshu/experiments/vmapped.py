"""Training of many agents of one algorithm at once: a vmapped program over rows, and a thread for each core."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from renshu.agent.agent import Agent
from renshu.agent.backends import CompiledBackend, make_backend
from renshu.agent.opponents import seated
from renshu.agent.trainer import FIRST, TIMEOUT, Trainer, derived_seed, fit_spaces_for, root_keys
from renshu.algorithms.base import Algorithm
from renshu.envs.adapt import DEFAULT_SPACES, SpaceConfig
from renshu.envs.device import DeviceEnvs, episodes_of
from renshu.envs.masks import has_mask
from renshu.envs.source import EnvSource
from renshu.errors import NotFiniteError
from renshu.loops.compiled import LoopState, TrainIteration
from renshu.loops.programs import compiler_options, single_threaded
from renshu.types import Array, Key

MEMORY = 2**31
"""Bytes that rows trained at once may take by estimate, before they are sliced."""
CACHE = 2**23
"""The same for one program on a CPU: 256 agents with 64-64 networks are 1.5 times as fast a few at a time."""


@dataclass(frozen=True)
class Row:
    """One agent of an experiment.

    algorithm: with the values of the grid. values: those alone. traced: names of those that may be traced numbers.
    name: of the label the part before the values.
    """

    label: str
    algorithm: Algorithm
    values: Mapping[str, float]
    seed: int
    traced: tuple[str, ...] = ()
    name: str = ""


class Trained(NamedTuple):
    """Curves and agents of some rows, after training."""

    curves: list[tuple[np.ndarray, np.ndarray]]  # for each row steps [K] and returns [K]
    agents: list[Callable[[], Agent]]
    seconds: float
    compile_seconds: float


class PopulationState(NamedTuple):
    """Rows in the middle of training, [R, ...]."""

    state: Any
    loop_state: LoopState
    key: Key
    values: dict[str, Array]
    finite: Array  # [R] bool  no NaN so far


class TrainingStats(NamedTuple):
    """Statistics of some rollouts of each row, [R]."""

    total: Array  # float32  sum of the returns of the episodes that ended
    count: Array  # int32    how many
    steps: Array  # int32    valid steps


class PopulationTrainer:
    """Programs that start and train rows of one algorithm at once, with the grid's values as traced numbers."""

    def __init__(self, backend: CompiledBackend, algorithm: Algorithm, space_config: SpaceConfig) -> None:
        self.backend, self.algorithm, self.space_config = backend, algorithm, space_config
        self.fitted = fit_spaces_for(algorithm, backend.spec(), space_config)
        self.learner = algorithm.build(self.fitted.spec)
        self.envs = DeviceEnvs(
            backend.env, backend.num_envs, episodes_of(self.learner.needs.common_seeds, backend.num_envs)
        )
        self.rollout = self.learner.needs.steps * backend.num_envs
        options = compiler_options(self.learner) | single_threaded()
        self.start = jax.jit(self._start, compiler_options=options)
        self.chunk = jax.jit(self._chunk, donate_argnums=0, compiler_options=options)

    def inputs(self, rows: list[Row]) -> tuple[Array, dict[str, Array]]:
        """Seeds [R, 2] of agents and of their environments, and values of the grid, each [R], of some rows."""
        values = {name: np.array([row.values[name] for row in rows], np.float32) for name in rows[0].traced}
        return np.array([(row.seed, derived_seed(row.seed, *FIRST)) for row in rows], np.uint32), values

    def compile(
        self, rows: list[Row], steps: int
    ) -> Callable[[PopulationState, Array, Array], tuple[PopulationState, TrainingStats]]:
        """Compile the program for as many rows as these: (population, iteration, count) -> population, stats."""
        population = jax.eval_shape(self.start, *self.inputs(rows), np.int32(steps))
        jax.block_until_ready(self.start(*self.inputs(rows), np.int32(steps)))  # so that it is compiled, too
        return self.chunk.lower(population, np.int32(0), np.int32(1)).compile()

    def train_iteration(self, values: Mapping[str, Array]) -> TrainIteration:
        """Make the iteration (a rollout and an update) of the algorithm with these values, which may be traced."""
        learner = self.learner.with_values(values)
        return TrainIteration(learner, self.envs, self.fitted.decode_action, refuse=False)

    def _start(self, seeds: Array, values: dict[str, Array], steps: Array) -> PopulationState:
        def start(row: tuple[Array, dict[str, Array]]) -> PopulationState:
            seed, values = row
            train_iteration, keys = self.train_iteration(values), root_keys(seed[0], 4)
            state = train_iteration.learner.init(keys[0])
            state = state._replace(counters=state.counters._replace(target=steps))
            envs = train_iteration.start(jax.random.key(seed[1]))
            return PopulationState(state, envs, keys[1], values, jnp.bool_(True))

        # No vmap: orthogonal initialisers take a QR, and on a CPU jax waits within its threads for batches of them,
        # which two at once (actor and critic, or two programs) never end.
        return jax.lax.map(start, (seeds, values))

    def _chunk(
        self, population: PopulationState, iteration: Array, count: Array
    ) -> tuple[PopulationState, TrainingStats]:
        def body(i: Array, carry: tuple[PopulationState, TrainingStats]) -> tuple[PopulationState, TrainingStats]:
            return jax.vmap(self._iterate_one, (0, 0, None))(*carry, iteration + i)

        rows = population.finite.shape
        nothing = TrainingStats(jnp.zeros(rows), jnp.zeros(rows, jnp.int32), jnp.zeros(rows, jnp.int32))
        return jax.lax.fori_loop(0, count, body, (population, nothing))

    def _iterate_one(
        self, population: PopulationState, stats: TrainingStats, iteration: Array
    ) -> tuple[PopulationState, TrainingStats]:
        state, loop_state, rollout = self.train_iteration(population.values)(
            population.state, population.loop_state, population.key, iteration
        )
        finite = population.finite & jnp.isfinite(rollout.metrics).all() & ~rollout.faults.any()
        ended = rollout.ended & jnp.isfinite(rollout.returns)
        stats = TrainingStats(
            stats.total + jnp.where(ended, rollout.returns, 0.0).sum(),
            stats.count + ended.sum(dtype=jnp.int32),
            stats.steps + rollout.steps.sum(),
        )
        return population._replace(state=state, loop_state=loop_state, finite=finite), stats


def fitted_backend(
    algorithm: Algorithm,
    source: EnvSource,
    *,
    num_envs: int | None,
    loop: str | None,
    bins: int | Sequence[int] | None,
    frame_stack: int | None,
    masks: bool | None,
    **_: Any,
) -> tuple[Any, SpaceConfig]:
    """Make the backend in which an algorithm would train, and how spaces are fitted there if it is a compiled one."""
    accepts = algorithm.accepts
    takes = accepts.masks and masks is not False
    source = seated(source, algorithm)
    how: Any = {"default_num_envs": algorithm.default_num_envs, "processes": False, "timeout": TIMEOUT}
    backend = make_backend(source.with_masks(None if takes else False), num_envs, loop=loop, **how)
    if not isinstance(backend, CompiledBackend):
        return backend, DEFAULT_SPACES
    spec = backend.spec()
    if masks is None:
        masks = takes and has_mask(spec.observation_space, spec.action_space)
    if frame_stack is None and accepts.frame_stack:
        frame_stack = source.frame_stack
    fits = DEFAULT_SPACES.override(bins, frame_stack, masks)
    backend.use_masks(fits.masks)
    return backend, fits


def train_vmapped(
    backend: CompiledBackend,
    rows: list[Row],
    space_config: SpaceConfig,
    steps: int,
    points: int,
    at_once: int | None,
    advance: Callable[[int], None],
) -> Trained:
    """Train rows of one algorithm until each has its steps. On a CPU the rows are dealt to a thread for each core.

    at_once: rows of one program at most; None chooses by memory. points: of each curve, about. advance: called with
    the number of steps made, from any thread. Raises NotFiniteError, naming the rows.
    """
    trainer, threads = PopulationTrainer(backend, rows[0].algorithm, space_config), cores()
    trainer.learner.check_steps(0, steps)
    limit = at_once or rows_per_program(trainer, rows, steps)
    rounds = -(-len(rows) // (limit * threads))
    size = -(-len(rows) // (rounds * threads))  # equal, so that no thread waits for another
    parts = [rows[first : first + size] for first in range(0, len(rows), size)]
    began = time.perf_counter()
    programs = {len(part): trainer.compile(part, steps) for part in (parts[0], parts[-1])}
    compiling, began = time.perf_counter() - began, time.perf_counter()
    stop = threading.Event()

    def train(part: list[Row]) -> Trained:
        try:
            return _train_part(trainer, programs[len(part)], part, steps, points, advance, stop)
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


def cores() -> int:
    """Count the programs that may run at once: one for each core that this process may use; one for a GPU."""
    if jax.default_backend() != "cpu":
        return 1
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _train_part(
    trainer: PopulationTrainer,
    program: Any,
    part: list[Row],
    steps: int,
    points: int,
    advance: Callable[[int], None],
    stop: threading.Event,
) -> Trained:
    """Train the rows of one program. It ends early, with what it has, when another thread says stop."""
    iterations = -(-steps // trainer.rollout)
    chunk = max(1, iterations // points)
    population = trainer.start(*trainer.inputs(part), np.int32(steps))
    stats: list[TrainingStats] = []
    iteration, done = 0, np.zeros(len(part), np.int64)
    while (done < steps).any() and not stop.is_set():
        # Resets are no steps: what is missing at the end is made up for, and belongs to the last point of the curves.
        extra = iteration >= iterations
        count = -(-(steps - int(done.min())) // trainer.rollout) if extra else min(chunk, iterations - iteration)
        population, news = program(population, np.int32(iteration), np.int32(count))
        news = jax.device_get(news)
        stats.append(TrainingStats(*map(np.add, stats.pop(), news)) if extra else news)
        iteration, done = iteration + count, done + news.steps
        advance(int(news.steps.sum()))
        if not (finite := np.asarray(population.finite)).all():
            raise NotFiniteError(not_finite_message(part, finite, int(done.max())))
    final = jax.device_get(population.state)
    agents = [partial(agent_of, trainer, row, final, i, int(done[i]), iteration) for i, row in enumerate(part)]
    return Trained(_points(stats), agents, 0.0, 0.0)


def agent_of(trainer: PopulationTrainer, row: Row, states: Any, i: int, steps: int, iteration: int) -> Agent:
    """Make the agent of a row. states: of a whole program, [R, ...], of which it has the one with index `i`."""
    state = jax.tree.map(lambda x: jnp.asarray(x[i]), states)
    backend = trainer.backend
    one = Trainer(row.algorithm, backend.spec(), row.seed, trainer.space_config, backend, loop=backend.loop_name)
    one.restore(state, steps=steps, iteration=iteration)
    return Agent.of_trainer(one)


def _points(stats: list[TrainingStats]) -> list[tuple[np.ndarray, np.ndarray]]:
    total, count, steps = (np.stack(x) for x in zip(*stats, strict=True))  # [K, R]
    returns = np.where(count > 0, total / np.maximum(count, 1), np.nan)
    at = np.cumsum(steps, axis=0, dtype=np.int64)
    return [(at[:, i], returns[:, i]) for i in range(at.shape[1])]


def rows_per_program(trainer: PopulationTrainer, rows: list[Row], steps: int) -> int:
    """Estimate how many rows fit in memory: state, gradients, moments and a rollout, counted four times."""
    seed = jax.ShapeDtypeStruct((1, 2), np.uint32)
    values = {name: jax.ShapeDtypeStruct((1,), np.float32) for name in rows[0].traced}
    population = jax.eval_shape(trainer.start, seed, values, jax.ShapeDtypeStruct((), np.int32))
    state = sum(x.size * x.dtype.itemsize for x in jax.tree.leaves(population.state))
    obs = sum(x.size * x.dtype.itemsize for x in jax.tree.leaves(population.loop_state.obs)) // trainer.envs.num_envs
    room = CACHE if jax.default_backend() == "cpu" else MEMORY
    return max(1, room // (4 * (state + (obs + 64) * trainer.rollout)))


def not_finite_message(rows: list[Row], finite: np.ndarray, steps: int) -> str:
    """Message that names the rows that met NaN. finite: [R] bool. steps: made so far."""
    bad = [f"{row.label} with seed {row.seed}" for row, ok in zip(rows, finite, strict=True) if not ok]
    more = f" and {len(bad) - 3} more" if len(bad) > 3 else ""
    return (
        f"NaN or infinity in observations, rewards, actions or losses of {', '.join(bad[:3])}{more} after {steps} "
        "steps. Often a lower learning_rate, norm_obs=True or norm_reward=True helps; leave that value out of the grid"
    )
