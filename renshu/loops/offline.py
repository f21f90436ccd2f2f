"""The offline loop: gradient steps on a data set, without an environment."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from time import perf_counter
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from renshu.errors import CheckpointError, NotFiniteError
from renshu.loops.programs import Programs, compiler_options
from renshu.loops.report import NONE_FINISHED, Clock, Report, StepCount
from renshu.ops.rollouts import blocks
from renshu.types import Array, Key, PyTree, Rollout

BLOCK = 256
"""Gradient steps in a row; between two blocks a part of a data set that is larger than the memory is read."""
ROWS = 1024
"""Steps of each environment that enter the memory at a time."""


class OfflineLoop:
    """Gradient steps of a learner from replay on what a data set put into its memory. A gradient step counts as a step.

    The whole data set enters first. Where it has more rows than the memory, as many enter as there is room for, and the
    rest comes in over the course of each training, in pieces that are shuffled: those that were recorded one after the
    other are alike, and a memory of them alone would not know the others.

    state: the learner's; read it back from `.state`. chunks: reads the data from their beginning: rollouts that follow
    on each other. shuffled: reads all of them in pieces, in an order that the generator draws. rows: steps of each
    environment in them. room: those that the memory holds. encode_action: from the environment's actions to the
    learner's, `[B, ...]`. key: the root of the randomness. seed: not used. steps: so far.
    snapshot: of an earlier loop, whose state has the memory already. uninterrupted: as for a HostLoop.
    """

    def __init__(
        self,
        programs: Programs,
        state: Any,
        chunks: Callable[[], Iterator[Rollout]],
        shuffled: Callable[[np.random.Generator], Iterator[Rollout]],
        rows: int,
        room: int,
        encode_action: Callable[[np.ndarray], np.ndarray],
        *,
        key: Key,
        seed: int = 0,
        iteration: int = 0,
        steps: int = 0,
        snapshot: PyTree = None,
        uninterrupted: Callable[[], AbstractContextManager[Any]] = nullcontext,
    ) -> None:
        self.learner: Any = programs.learner
        self.state, self.key, self.iteration = state, key, iteration
        self.chunks, self.shuffled, self.rows, self.room, self.encode_action = (
            chunks,
            shuffled,
            rows,
            room,
            encode_action,
        )
        self.uninterrupted = uninterrupted
        self.clock, self.episodes = Clock(), StepCount(steps)
        self.metric_names: list[str] = []
        self._remember = jax.jit(
            self.learner.remember, donate_argnums=0, compiler_options=compiler_options(self.learner)
        )
        self._descend = jax.jit(self._steps, donate_argnums=0, compiler_options=compiler_options(self.learner))
        # What is owed is read with the first step: the state is the trainer's until then.
        self._stream, self.read, self.owed = self._endless(), 0, min(room, rows)
        if snapshot is not None:
            self._go_on(snapshot)

    def snapshot(self) -> PyTree:
        """Return what it takes to go on from here, besides the state, as arrays."""
        return {"read": np.int64(self.read), "owed": np.int64(self.owed)}

    def advance(self, most_steps: int) -> Report:
        """Take as many gradient steps as there are to the end of the block, at most `most_steps`.

        Raises NotFiniteError where one went wrong: the state is that from before it.
        """
        began, done = perf_counter(), self.episodes.steps
        self._read(0)
        if self.rows > self.room and done % BLOCK == 0:
            start, target = (int(x) for x in (self.state.counters.start, self.state.counters.target))
            if done > start:
                # Between blocks, so much that a training sees all that did not fit in at once.
                self._read(-(-(self.rows - self.room) * BLOCK // max(BLOCK, target - start - BLOCK)))
        count = min(max(1, most_steps), BLOCK - done % BLOCK)
        with self.uninterrupted():
            self.state, taken, totals = self._descend(self.state, self.key, np.int32(done), np.int32(count))
            taken = int(taken)
            self.iteration, self.episodes.steps = self.iteration + 1, done + taken
        means = (np.asarray(totals) / taken).tolist()
        metrics = dict(zip(self.metric_names, means, strict=True))
        self.clock.learn += perf_counter() - began
        self.clock.total += perf_counter() - began
        wrong = ", ".join(f"{name} is {value}" for name, value in metrics.items() if not np.isfinite(value))
        if wrong:
            raise NotFiniteError(
                f"gradient step {self.episodes.steps} went wrong: {wrong}. Its result was thrown away and the "
                "parameters are those from before. Often a lower learning_rate helps"
            )
        return Report(1, taken, metrics, NONE_FINISHED)

    def _steps(self, state: Any, key: Key, start: Array, count: Array) -> tuple[Any, Array, Array]:
        """Take gradient steps until there are `count` or one goes wrong: state, their number, sums of their metrics."""

        def one(state: Any, i: Array) -> tuple[Any, Array]:
            state, metrics = self.learner.relearn(state, jax.random.fold_in(key, start + i))
            self.metric_names = sorted(metrics)
            return state, jnp.array([metrics[name] for name in self.metric_names], jnp.float32)

        def going(carry: tuple[Any, Array, Array]) -> Array:
            return (carry[1] < count) & jnp.isfinite(carry[2]).all()

        def body(carry: tuple[Any, Array, Array]) -> tuple[Any, Array, Array]:
            state, i, total = carry
            state, metrics = one(state, i)
            return state, i + 1, total + metrics

        nothing = jnp.zeros(jax.eval_shape(one, state, jnp.int32(0))[1].shape, jnp.float32)
        return jax.lax.while_loop(going, body, (state, jnp.int32(0), nothing))

    # --- the data ---------------------------------------------------------------------------------------------------

    def _endless(self) -> Iterator[Rollout]:
        rows = min(ROWS, self.room)
        if self.rows <= self.room:
            yield from blocks(self.chunks(), rows)
        rng = np.random.default_rng(np.asarray(jax.random.key_data(self.key)))
        passes = (piece for _ in itertools.count() for piece in self.shuffled(rng))
        yield from blocks(passes, rows)

    def _read(self, rows: int) -> None:
        """Put that many rows more into the memory, whole blocks of them, and those that are owed."""
        self.owed += rows
        while self.owed > 0:
            rollout = next(self._stream)
            # A key apart from those of gradient steps, which fold in one number.
            key = jax.random.fold_in(jax.random.fold_in(self.key, 0), self.read)
            with self.uninterrupted():
                self.state = self._remember(self.state, self._encoded(rollout), key)
                self.read += len(rollout.reward)
                self.owed -= len(rollout.reward)

    def _go_on(self, snapshot: PyTree) -> None:
        """Go on where an earlier loop stood. Raises CheckpointError for numbers that no loop has."""
        numbers = [np.asarray(snapshot[name]) for name in ("read", "owed")]
        if (
            any(x.shape or x.dtype.kind != "i" for x in numbers)
            or numbers[0] < 0
            or not -ROWS < numbers[1] <= self.rows
        ):
            raise CheckpointError(
                "the file does not say where in its data set the agent stood. To read the data from their beginning "
                "name them, as in agent.on(Dataset.open(...))"
            )
        read, self.owed = (int(x) for x in numbers)
        self.read = read - read % self.rows  # the data are read whole, again and again
        while self.read < read:
            self.read += len(next(self._stream).reward)

    def _encoded(self, rollout: Rollout) -> Rollout:
        action = np.asarray(rollout.action)
        T, N = rollout.reward.shape
        encoded = self.encode_action(action.reshape(T * N, *action.shape[2:]))
        return rollout._replace(action=encoded.reshape(T, N, *encoded.shape[1:]))
