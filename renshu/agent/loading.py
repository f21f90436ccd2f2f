"""Trainers from files: load one, or resume the one of a run folder."""

from __future__ import annotations

import dataclasses
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

import jax

from renshu.agent.backends import LOOPS, CompiledBackend
from renshu.agent.cluster import backend_again
from renshu.agent.offline import OfflineBackend
from renshu.agent.opponents import seated_again
from renshu.agent.trainer import TIMEOUT, Backend, Trainer
from renshu.envs.again import named_again
from renshu.errors import CheckpointError, HyperparameterError, RenshuError
from renshu.files.agents import LARGE, AgentFile, AgentRecord
from renshu.files.datasets import Dataset
from renshu.loops.cluster_settings import Cluster
from renshu.runtime import check_memory
from renshu.tracking.run import DELETE, Run
from renshu.types import PyTree

if TYPE_CHECKING:
    from renshu.algorithms.base import Algorithm


def save_trainer(trainer: Trainer, path: Path, *, memory: bool, several: bool = False) -> None:
    """Write a trainer to a file. memory: with its replay memory. several: others beside it have one in common.

    Raises CheckpointError where that is not possible.
    """
    with trainer.acting.held():
        held = jax.tree.leaves(getattr(trainer.held, "memory", ()))
        place = "inside" if (memory and held) or not hasattr(trainer.held, "memory") else "none"
        if several and place == "inside" and sum(x.nbytes for x in held) >= LARGE:
            place = "beside"
        record_of(trainer, place).write(path, trainer.held, trainer.loop_snapshot())


def save_checkpoint(trainer: Trainer, keep: int) -> Path:
    """Save the whole training state in the run folder of a trainer, where the newest `keep` stay."""
    if trainer.run is None:
        raise HyperparameterError("there is no run folder to keep a checkpoint in: agent.learn(..., run='runs/a')")
    trainer.run.check()
    path = trainer.run.checkpoint_path(trainer.steps)
    save_trainer(trainer, path, memory=True, several=True)
    trainer.run.keep_checkpoints(keep)
    return path


def record_of(trainer: Trainer, memory: str = "inside") -> AgentRecord:
    """Describe a trainer for the header of its file."""
    # A memory of a data set has the size that the data have; without it the user's own settings count.
    own = trainer.dataset is not None and memory == "none"
    config = trainer.algorithm if own else trainer.learner.config
    return AgentRecord(
        algorithm=type(trainer.algorithm).__name__,
        hyperparameters=config.to_json(),
        spec=trainer.spec,
        environment=trainer.name,
        seed=trainer.seed,
        steps=trainer.steps,
        iteration=trainer.iteration,
        processes=bool(trainer.processes),
        loop=trainer.requested_loop,
        spaces=trainer.space_config,
        memory=memory,
        cluster=_without_address(trainer.cluster),
    )


def load_trainer(
    path: str | Path, env: Any, algorithm: type[Algorithm] | None, overrides: dict[str, Any], *, goes_on: bool = False
) -> Trainer:
    """Make the trainer that a file describes. Arguments and errors as for `Agent.load`.

    goes_on: its training does, so that another time limit is worth a warning.
    """
    file, overrides = AgentFile.read(path, LOOPS), dict(overrides)
    cluster = _cluster(file, overrides.pop("address", None))
    record, spec = file.record, file.record.spec
    made = record.make_algorithm(file.path, algorithm, overrides)
    if not overrides:
        file.check_depth(made)
    how: dict[str, Any] = {"loop": record.loop, "processes": record.processes}
    if env is None and made.accepts.model and spec.id is not None and ":" not in spec.id:
        env = spec.id  # it plans in its environment: not without one
    backend: Backend | None = None
    if isinstance(env, Dataset):
        backend = OfflineBackend(env, **how, timeout=TIMEOUT)
        backend.use_masks(record.spaces.masks)
        spec = backend.probe_spec()
    elif env is not None:
        source = seated_again(named_again(env, spec, record.environment), made, spec).with_masks(record.spaces.masks)
        backend = backend_again(source, spec, timeout=TIMEOUT, **how, cluster=cluster)
        spec = backend.probe_spec()
        if goes_on:
            _tell_of_another_limit(record.spec.max_episode_steps, spec.max_episode_steps)
    try:
        trainer = Trainer(made, spec, record.seed, record.spaces, backend, **how, cluster=cluster)
        learner, spec = trainer.learner, trainer.spec
        if spec.num_envs != record.spec.num_envs and not isinstance(backend, OfflineBackend):
            # The arrays are of the learner as it was; another number of environments is fitted to afterwards.
            learner = made.build(dataclasses.replace(trainer.fitted.spec, num_envs=record.spec.num_envs))
        shapes = jax.eval_shape(learner.init, jax.ShapeDtypeStruct((), trainer.keys[0].dtype))
        check_memory(file.shapes_of(shapes))
    except Exception as error:
        # The user's own code and arguments speak for themselves; a stranger's numbers can make nearly anything fail.
        if algorithm is not None or overrides or (env is not None and isinstance(error, RenshuError)):
            raise
        raise CheckpointError(
            f"{file.path}: no agent of {record.algorithm} can be made as the file says ({type(error).__name__}: "
            f"{error}). Use another copy or save it again"
        ) from error
    trainer.recorded_name = record.environment
    passed = [*overrides, *(["env"] if env is not None else [])]
    state = file.state(shapes, passed)
    state = state if learner is trainer.learner else trainer.learner.resize(state)
    snapshot = _usable(file, trainer, backend)
    trainer.restore(state, steps=record.steps, iteration=record.iteration, snapshot=snapshot)
    return trainer


def _without_address(cluster: Cluster | None) -> dict[str, Any] | None:
    """Return the settings that a file may hold: what a stranger's cluster answers is code, so none names one."""
    return None if cluster is None else dataclasses.asdict(dataclasses.replace(cluster, address=None))


def _cluster(file: AgentFile, address: str | None) -> Cluster | None:
    """Make the settings of the cluster loop that a file names, but for the address, which is the caller's alone.

    Raises CheckpointError where there can be none, HyperparameterError for an address where no cluster trains.
    """
    if file.record.cluster is None:
        if address is not None:
            raise HyperparameterError(f"address={address!r}: no cluster trained the agent of {file.path}")
        return None
    try:
        return Cluster(**{**file.record.cluster, "address": address})
    except (TypeError, HyperparameterError) as error:
        raise CheckpointError(f"{file.path}: no settings of a cluster ({error}). Use another copy") from error


def _usable(file: AgentFile, trainer: Trainer, backend: Backend | None) -> PyTree:
    """State of the file's environments; None, with a warning, where those that were passed are others."""
    snapshot = file.snapshot
    offline = set(snapshot or ()) == {"read", "owed"}
    if offline or isinstance(backend, OfflineBackend):
        # Where it stood in the data means nothing without the memory that they had filled.
        whole = file.record.memory != "none"
        return snapshot if offline and whole and isinstance(backend, OfflineBackend) else None
    if snapshot is None or not isinstance(backend, CompiledBackend):
        return snapshot
    differing = backend.mismatches(trainer.learner, snapshot)
    if not differing:
        return snapshot
    warnings.warn(
        f"the environments that {file.path} holds in the middle of things are not like {backend.source.name} "
        f"({', '.join(differing[:3])}): training begins in new ones",
        stacklevel=4,
    )
    return None


def _keep_aside(run: Run, steps: int) -> None:
    """Rename the best agent where it is from beyond the checkpoint.

    Its evaluation is forgotten with all else from there, and a worse agent would take its place.
    """
    try:
        best = AgentFile.read(run.best_path, LOOPS).record.steps if run.best_path.exists() else 0
    except CheckpointError:
        return
    if best > steps:
        aside = run.path / f"best_step_{best:09d}.safetensors"
        run.best_path.replace(aside)
        warnings.warn(
            f"the best agent of {run.path} is of step {best:,}, and training goes on from {steps:,}: it is kept as "
            f"{aside.name}",
            stacklevel=4,
        )


def _tell_of_another_limit(before: int | None, now: int | None) -> None:
    """Warn where episodes will be cut off elsewhere than before: an object or a partial brings its own time limit."""
    if before != now:
        told = ["none" if limit is None else f"one of {limit} steps" for limit in (before, now)]
        warnings.warn(
            f"the time limit of this run was {told[0]}, and that of the environment that was passed is {told[1]}: give "
            "it the old one where you make it, or training goes on with other episodes",
            stacklevel=5,
        )


def resume_trainer(
    run: Run | str | Path, env: Any, algorithm: type[Algorithm] | None, overrides: dict[str, Any]
) -> Trainer:
    """Load the newest checkpoint of a run that can be read, and take the run's folder up again from that step.

    Raises UnknownNameError where there is no run, CheckpointError where it has no checkpoint that can be read.
    """
    run = run if isinstance(run, Run) else Run.open(run)
    paths = list(reversed(run.checkpoints))
    if not paths:
        command = run.settings.get("command")
        began = f". It was begun by: {command}" if isinstance(command, str) and command else ""
        raise CheckpointError(f"{run.path} has no checkpoint to go on from. {DELETE.format(path=run.path)}{began}")
    failures: list[CheckpointError] = []
    for path in paths:
        try:
            trainer = load_trainer(path, env, algorithm, overrides, goes_on=True)
        except CheckpointError as error:
            failures.append(error)
            continue
        if failures:
            warnings.warn(f"{failures[0]}. Training goes on from {path.name}, the one before it", stacklevel=3)
        run.truncate(trainer.steps)
        _keep_aside(run, trainer.steps)
        trainer.run = run
        return trainer
    older = f" (nor can any of the {len(failures) - 1} older ones be loaded)" if len(failures) > 1 else ""
    raise CheckpointError(f"{failures[0]}{older}") from failures[0]
