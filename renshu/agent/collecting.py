"""Collection of experience without learning from it: into the memory, or into a data set."""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import jax
import numpy as np

from renshu.agent.backends import CompiledBackend, HostBackend
from renshu.agent.cluster import ClusterBackend
from renshu.agent.offline import OfflineBackend
from renshu.agent.trainer import Trainer
from renshu.errors import HyperparameterError
from renshu.files.datasets import Dataset, DatasetWriter, in_memory
from renshu.loops.interruption import Interruptions
from renshu.loops.programs import Programs
from renshu.types import KEEP, Key, Metrics, Rollout

if TYPE_CHECKING:
    from renshu.algorithms.replay_learner import ReplayLearner


def collect(trainer: Trainer, steps: int, to: str | Path | None) -> Dataset | None:
    """Write a data set to a folder, or fill the memory without one; see `Agent.collect`."""
    return fill(trainer, steps) if to is None else write(trainer, steps, to)


def fill(trainer: Trainer, steps: int) -> None:
    """Put `steps` more environment steps, or a few more, into the memory of a learner from replay.

    Environments begin new episodes. The share of random actions stays as it is. Raises HyperparameterError for a
    learner that has no memory, or no environments.
    """
    learner = _with_memory(trainer)
    if learner is None:
        raise HyperparameterError(
            f"{type(trainer.algorithm).__name__} keeps no memory that could be filled: write a data set, as in "
            "agent.collect(10_000, to='data')"
        )
    if isinstance(trainer.backend, ClusterBackend):
        raise HyperparameterError(
            "the memory of a cluster is filled by its workers alone: collect with loop='host', or write a data set, as "
            "in agent.collect(10_000, to='data')"
        )
    trainer.pause()
    interruptions = Interruptions()
    loop = backend_of(trainer).make_loop(
        Programs(only_observing(learner)),
        trainer.state,
        trainer.fitted.decode_action,
        key=trainer.keys[1],
        seed=trainer.env_seed(0, trainer.restarts, trainer.steps),
        iteration=trainer.iteration,
        steps=trainer.steps,
        uninterrupted=interruptions.deferred,
    )
    goal = trainer.steps + steps
    with interruptions, trainer.acting.changing():
        try:
            while loop.episodes.steps < goal:
                loop.advance(goal - loop.episodes.steps)
        except BaseException:
            trainer.reset_environments()
            raise
        finally:  # the state that the loop began with is gone
            trainer.restore(loop.state, steps=loop.episodes.steps, iteration=loop.iteration)


def write(trainer: Trainer, steps: int, path: str | Path) -> Dataset:
    """Act for `steps` environment steps, or a few more, in environments of their own, and write them to a folder."""
    if trainer.spec.players > 1:
        raise HyperparameterError(
            f"a data set has one reward a step, and {trainer.name} pays {trainer.spec.players} players: let them play "
            "by renshu.arena, whose records make demonstrations"
        )
    learner = copy.copy(trainer.learner)
    learner.needs = dataclasses.replace(learner.needs, keep=KEEP)
    programs = trainer.programs if learner.needs == trainer.learner.needs else Programs(learner)
    writer = DatasetWriter(path, trainer.spec)
    rollouts = backend_of(trainer).rollouts(
        programs, trainer.state, trainer.fitted.decode_action, key=trainer.keys[3], seed=trainer.env_seed(3)
    )
    done = 0
    for rollout in rollouts:
        writer.append(with_own_actions(rollout, trainer.fitted.decode_action))
        done += int(rollout.valid.sum())
        if done >= steps:
            break
    rollouts.close()
    writer.close()
    by_itself = trainer.spec.id is not None and ":" not in trainer.spec.id
    return Dataset.open(path, env=None if by_itself else trainer.backend.source.given)


def memory_of(trainer: Trainer) -> Dataset:
    """Return what the memory of a learner from replay holds, as a data set. Raises HyperparameterError without one."""
    learner = _with_memory(trainer)
    if learner is None or learner.replay.own_heads:
        raise HyperparameterError(f"{type(trainer.algorithm).__name__} keeps no memory that makes a data set")
    from renshu.replay.ring import history

    rollout = with_own_actions(history(trainer.state.memory.ring), trainer.fitted.decode_action)
    env = None if trainer.dataset is None else trainer.dataset.env
    return in_memory(rollout, trainer.spec, f"memory of {trainer.name}", env)


def _with_memory(trainer: Trainer) -> ReplayLearner | None:
    # Imported here, as Optax with it: to load an agent that has no memory takes a third less without.
    from renshu.algorithms.replay_learner import ReplayLearner

    return trainer.learner if isinstance(trainer.learner, ReplayLearner) else None


def only_observing(learner: ReplayLearner) -> ReplayLearner:
    """Return a shallow copy of a learner whose `learn` takes no gradient step, and owes none."""

    def learn(state: Any, rollout: Rollout, key: Key) -> tuple[Any, Metrics]:
        after = learner.observe(state, rollout, key)
        counters = after.counters._replace(owed=state.counters.owed)
        return after._replace(counters=counters, exploration=state.exploration), {}

    other = copy.copy(learner)
    other.learn = learn  # type: ignore[method-assign]
    return other


def with_own_actions(rollout: Rollout, decode_action: Callable[[Any], Any]) -> Rollout:
    """Return a rollout of NumPy arrays whose actions are the environment's."""
    rollout = jax.tree.map(np.asarray, rollout)
    T, N = rollout.reward.shape
    action = np.asarray(decode_action(rollout.action.reshape(T * N, *rollout.action.shape[2:])))
    return rollout._replace(action=action.reshape(T, N, *action.shape[1:]))


def backend_of(trainer: Trainer) -> HostBackend | CompiledBackend:
    """Return the environments of a trainer. Raises HyperparameterError where it has a data set."""
    if isinstance(trainer.backend, ClusterBackend):
        return trainer.backend.local
    if isinstance(trainer.backend, OfflineBackend):
        raise HyperparameterError(
            f"{trainer.name} is a data set, in which nothing can be collected: put the agent into an environment, as "
            "in agent.on('Pendulum-v1')"
        )
    return trainer.backend
