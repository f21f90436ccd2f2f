"""The cluster loop: actors elsewhere collect, one learner here learns, and every rollout is accounted for."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from time import perf_counter
from typing import Any, NamedTuple, Protocol

import jax
import jax.numpy as jnp
import numpy as np

from renshu.loops.account import Account, ClusterClock, Group
from renshu.loops.actors import Sent
from renshu.loops.cluster_settings import Cluster
from renshu.loops.host import learned
from renshu.loops.programs import Programs, compiler_options
from renshu.loops.report import Episodes, Finished, Report, StepCount, merged
from renshu.ops.rollouts import begun_anew, side_by_side
from renshu.types import Array, Key, PyTree, Rollout

FAULTS_IN_A_ROW = 5
"""Rollouts of one actor that fail one after the other, after which training stops."""


class Answer(NamedTuple):
    """Outcome of one request: a rollout, or the fault that came in its place. transfer: seconds to bring it here."""

    group: int
    sent: Sent | None
    fault: Exception | None = None
    transfer: float = 0.0


class Actors(Protocol):
    """The loop's view of its actors: each collects in one group of environments."""

    def start(self, group: int) -> None:
        """Add an actor."""

    def stop(self, group: int) -> None:
        """Remove an actor, of which nothing is awaited."""

    def publish(self, version: int, actor_state: PyTree) -> None:
        """Keep a copy of an actor state, by which all later requests are answered."""

    def request(self, group: int, iteration: int) -> None:
        """Ask for a rollout. iteration: names its random numbers."""

    def answers(self, timeout: float | None = None) -> list[Answer]:
        """Return the answers that are there; wait for one, at most `timeout` seconds, where there is none."""
        ...


class ClusterLoop:
    """Rollouts of actors, and updates by them, in one of three modes.

    state: the learner's; read it back from `.state`. actors: they collect in groups of `num_envs` environments each.
    settings: of the cluster; mode: the one that the learner got. key: the root of the randomness. steps: so far.
    uninterrupted: a context in which Ctrl-C waits, so that the state is never lost between two updates.
    """

    def __init__(
        self,
        programs: Programs,
        state: Any,
        actors: Actors,
        settings: Cluster,
        *,
        mode: str,
        num_envs: int,
        key: Key,
        iteration: int = 0,
        steps: int = 0,
        uninterrupted: Callable[[], AbstractContextManager[Any]] = nullcontext,
    ) -> None:
        self.programs, self.state, self.actors, self.settings, self.mode = programs, state, actors, settings, mode
        self.num_envs, self.key, self.iteration, self.uninterrupted = num_envs, key, iteration, uninterrupted
        self.workers, self.version, self.lags = settings.workers, -1, Counter()
        self.clock, self.account, self.episodes = ClusterClock(), Account(), StepCount(steps)
        self.groups: dict[int, Group] = {}
        self.ready: list[tuple[int, Sent]] = []
        self._first, self._changed = iteration, True
        self._broken: Exception | None = None
        learner: Any = programs.learner
        self.size = learner.needs.steps * num_envs
        self.max_lag = math.inf if learner.needs.max_lag is None else learner.needs.max_lag
        self.replays = mode == "asynchronous" and hasattr(learner, "observe")
        if self.replays:
            options: dict[str, Any] = {"donate_argnums": 0, "compiler_options": compiler_options(learner)}
            self._observe, self._update = jax.jit(learner.observe, **options), jax.jit(self._updated, **options)

    def snapshot(self) -> None:
        """Return None: environments elsewhere cannot be saved."""

    def advance(self, most_steps: int = 0) -> Report:
        """Learn from the next rollouts, whatever `most_steps` asks for.

        Raises NotFiniteError for a bad update, and the fault of an actor that fails again and again.
        """
        began = perf_counter()
        self._follow()
        with self.clock.timed("env"):
            rollouts = self._next()
        with self.clock.timed("learn"), self.uninterrupted():
            vector = self._observe_and_update(rollouts[0]) if self.replays else self._learn(rollouts)
            self.iteration, self._changed = self.iteration + 1, True
            counted = [self._counted(group, sent, True) for group, sent in rollouts]
        metrics = {} if vector is None else learned(self.programs, vector, self.episodes.steps, self.iteration)
        if self.mode == "asynchronous":
            self._publish()
        self.clock.total += perf_counter() - began
        steps, lag = sum(steps for steps, _ in counted), np.mean([self.groups[group].lag for group, _ in rollouts])
        about = {**self.account.metrics(), "cluster/workers": float(len(self.groups)), "cluster/lag": float(lag)}
        return Report(1, steps, {**metrics, **about}, merged([finished for _, finished in counted]))

    def finish(self) -> dict[str, float]:
        """Await what was asked for and will not be learned from any more: then nothing is in flight.

        Returns the account then.
        """
        while any(group.waiting for group in self.groups.values()):
            self._await()
        for late in self.ready:
            self._refuse(*late)
        self.ready = []
        return self.account.metrics()

    def workers_table(self) -> list[dict[str, Any]]:
        """Describe the workers, a row each."""
        return [group.row(number) for number, group in sorted(self.groups.items())]

    # --- which rollouts come next -----------------------------------------------------------------------------------

    def _next(self) -> list[tuple[int, Sent]]:
        if self.mode == "asynchronous":
            return self._whoever_is_ready()
        if self.mode == "synchronous":
            self._publish()
        if not self.account.in_flight:
            self._ask_everyone()
        rollouts = self._everyones()
        if self.mode == "lockstep" and self._missing() > sum(int(x.collected.rollout.valid.sum()) for _, x in rollouts):
            self._publish()
            self._ask_everyone()
        return rollouts

    def _ask_everyone(self) -> None:
        for group in self.groups:
            self._ask(group)

    def _everyones(self) -> list[tuple[int, Sent]]:
        """Return one rollout of each group, in order; one that was lost is asked for again."""
        while len(self.ready) < len(self.groups):
            for group in self._await():
                self._ask(group)
        rollouts, self.ready = sorted(self.ready, key=lambda x: x[0]), []
        return rollouts

    def _whoever_is_ready(self) -> list[tuple[int, Sent]]:
        """Return the first rollouts that are not too old, as many as an update takes."""
        count = 1 if self.replays else self.settings.batch
        while True:
            for late in [x for x in self.ready if self.version - x[1].version > self.max_lag]:
                self.ready.remove(late)
                self._refuse(*late)
            self._keep_asking(count)
            if len(self.ready) >= count:
                rollouts, self.ready = self.ready[:count], self.ready[count:]
                return rollouts
            self._await()

    def _keep_asking(self, count: int) -> None:
        """Ask all groups for as many rollouts as may be under way, but for no more than training still needs."""
        needed = count * math.ceil(self._missing() / self.size / count) - len(self.ready)
        waiting = sum(group.waiting for group in self.groups.values())
        for number, group in self.groups.items():
            while not group.leaving and group.waiting < self.settings.in_flight and waiting < needed:
                self._ask(number)
                waiting += 1

    def _missing(self) -> int:
        """Count the steps from here to the end of training."""
        return int(self.state.counters.target) - self.episodes.steps

    def _ask(self, number: int) -> None:
        group = self.groups[number]
        self.actors.request(number, self._first + group.asked)
        group.asked += 1
        group.waiting += 1
        self.account.requested += 1

    def _await(self) -> list[int]:
        """Wait for answers; see `_take`. Raises the fault of a group that had nothing else for some time."""
        failed = self._take(self.actors.answers())
        if self._broken is not None:
            raise self._broken
        return failed

    def _take(self, answers: list[Answer]) -> list[int]:
        """Keep the rollouts among answers, and return the groups whose rollout was lost."""
        failed = []
        for number, sent, fault, transfer in answers:
            group = self.groups[number]
            group.waiting -= 1
            self.clock.add("transfer", transfer)
            if sent is not None:
                group.faults, group.place = 0, sent.place
                group.collecting += sent.seconds[2]
                self.ready.append((number, sent))
                continue
            assert fault is not None
            self.account.lost += 1
            group.lost, group.faults, group.last_fault = group.lost + 1, group.faults + 1, str(fault).splitlines()[0]
            failed.append(number)
            if group.faults >= FAULTS_IN_A_ROW:
                fault.add_note(f"That was fault number {group.faults} in a row of worker {number}")
                self._broken = fault  # not raised here: an update may be under way
        return failed

    def _refuse(self, number: int, sent: Sent) -> None:
        self.account.stale += 1
        self.account.steps_stale += self._counted(number, sent, False)[0]
        self.groups[number].follows = -1

    def _counted(self, number: int, sent: Sent, accepted: bool) -> tuple[int, Finished]:
        """Count a rollout's episodes, and its steps where it was learned from."""
        group, before = self.groups[number], self.episodes.steps
        if sent.number == 0:
            group.episodes.drop()
        group.episodes.steps = before
        steps, finished = group.episodes.add(*sent.collected.of_episodes)
        group.steps += steps
        if accepted:
            self.episodes.steps += steps
            self.account.learned += 1
            self.account.steps_learned += steps
        return steps, finished._replace(envs=finished.envs + number * self.num_envs)

    # --- learning ---------------------------------------------------------------------------------------------------

    def _learn(self, rollouts: list[tuple[int, Sent]]) -> Array:
        rollout = side_by_side([self._marked(*x) for x in rollouts])
        self.state, vector = self.programs.learn(self.state, rollout, self._keys())
        return np.asarray(vector)

    def _observe_and_update(self, newest: tuple[int, Sent]) -> Array | None:
        """Put a rollout into the memory; take the gradient steps that are owed, while no other one waits.

        With more owed than the rollouts under way entitle to, they are taken first: the ratio of both is kept.
        """
        learner: Any = self.programs.learner
        key_observe, key_update = jax.random.split(self._keys()[-1])
        self.state, vector, done = self._observe(self.state, self._marked(*newest), key_observe), None, 0
        while (owed := int(float(self.state.counters.owed) + 1e-4)) >= 1:
            if self._more_is_ready() and owed <= learner.gradient_steps * len(self.groups):
                break
            count = np.int32(min(owed, learner.gradient_steps))
            self.state, vector = self._update(self.state, jax.random.fold_in(key_update, done), count)
            done += 1
        return None if vector is None else np.asarray(vector)

    def _more_is_ready(self) -> bool:
        """Tell whether another rollout is there."""
        self._take(self.actors.answers(0.0))
        self._keep_asking(1)
        return bool(self.ready)

    def _updated(self, state: Any, key: Key, count: Array) -> tuple[Any, Array]:
        learner: Any = self.programs.learner
        before = state.counters.updates
        state, metrics = learner.update(state, key, count, most=learner.gradient_steps)
        self.programs.metric_names = sorted(metrics)
        numbers = [metrics[name] for name in self.programs.metric_names]
        return state, jnp.array([*numbers, state.counters.updates - before], jnp.float32)

    def _marked(self, number: int, sent: Sent) -> Rollout:
        """Return a rollout that says whether it follows on the last one of its environments."""
        group, rollout = self.groups[number], sent.collected.rollout
        group.lag = self.version - sent.version
        self.lags[group.lag] += 1
        continues, group.follows = sent.number == group.follows, sent.number + 1
        if self.mode == "asynchronous":
            return rollout._replace(continues=np.full(self.num_envs, continues))
        # All, in order, as in the host loop, whose rollouts follow on each other where no episode begins.
        return (rollout if continues else begun_anew(rollout))._replace(env_id=())

    def _keys(self) -> Key:
        return self.programs.keys(self.key, self.iteration)

    def _publish(self) -> None:
        """Give the actors the newest state, if they do not have it."""
        if not self._changed:
            return
        self.version, self._changed = self.version + 1, False
        with self.clock.timed("publish"):
            self.actors.publish(self.version, jax.device_get(self.programs.learner.actor_state(self.state)))

    # --- workers come and go ----------------------------------------------------------------------------------------

    def _follow(self) -> None:
        """Add and remove actors until there are as many as `workers`."""
        if self.version < 0:
            self._publish()
        staying = [number for number, group in self.groups.items() if not group.leaving]
        for number in staying[self.workers :]:
            self.groups[number].leaving = True
        # Who was about to leave stays, rather than that a new one comes in its place.
        going = [number for number, group in self.groups.items() if group.leaving]
        for number in going[: max(0, self.workers - len(staying))]:
            self.groups[number].leaving = False
            staying.append(number)
        free = [number for number in range(self.settings.room) if number not in self.groups]
        for number in free[: max(0, self.workers - len(staying))]:
            self.groups[number] = Group(Episodes(self.num_envs))
            self.actors.start(number)
        held = {number for number, _ in self.ready}
        for number in [n for n, group in self.groups.items() if group.leaving and not group.waiting and n not in held]:
            self.actors.stop(number)
            del self.groups[number]
