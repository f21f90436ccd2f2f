"""Agents in files: what is written beside the arrays, and how an agent is made from it again."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

import gymnasium
import jax
import jax.numpy as jnp

from renshu.agent import Agent
from renshu.algorithms import algorithm as algorithm_by_name
from renshu.checkpoint import load_tree, nested, restore, save_tree
from renshu.envs.adapt import Fitting
from renshu.envs.source import EnvSource
from renshu.envs.spec import spec_from_json, spec_to_json
from renshu.errors import CheckpointError, HyperparameterError, UnknownNameError
from renshu.grounds import LOOPS, CompiledGround, ground
from renshu.tracking.run import Run
from renshu.trainee import TIMEOUT
from renshu.types import PyTree

if TYPE_CHECKING:
    from renshu.algorithms.base import Algorithm


def save(agent: Agent, path: Path) -> Path:
    """Write the agent's whole state to `path`, all or nothing. Raises CheckpointError where that is not possible."""
    header = {
        "algorithm": type(agent.algorithm).__name__,
        "hyperparameters": agent.algorithm.to_json(),
        "spec": spec_to_json(agent.spec),
        "environment": agent.name,
        "seed": agent.seed,
        "steps": agent.steps,
        "iteration": agent.iteration,
        "processes": agent.processes,
        "loop": agent.loop_wanted,
        "fitting": agent.fitting.to_json(),
    }
    save_tree(path, {"learner": agent.state, "loop": agent.snapshot()}, header)
    return path


def load(path: str | Path, *, env: Any = None, algorithm: type[Algorithm] | None = None, **overrides: Any) -> Agent:
    """Load an agent from a file that `agent.save` wrote.

    Nothing in the file is run, and nothing is imported because the file names it. What is the user's own is passed
    again: `env=MyEnv`, `algorithm=MyAlgorithm`, `network=MyNet` or any other hyperparameter.

    An environment that was passed goes on where the one of training stood if it can, and from its start otherwise.

    Raises CheckpointError for a file that is missing, cut short, changed, not Renshu's, or from a newer version, and
    for an `env` or hyperparameters that its networks do not fit.
    """
    path = Path(path)
    header, leaves = load_tree(path)
    try:
        name, hyperparameters, spec = str(header["algorithm"]), dict(header["hyperparameters"]), header["spec"]
        spec, fitting = spec_from_json(spec), Fitting.from_json(header.get("fitting", {}))
        how = {"loop": header.get("loop"), "processes": bool(header["processes"])}
        if how["loop"] not in (None, *LOOPS):
            raise ValueError(f"a loop named {how['loop']!r}")
        seed, steps, iteration = int(header["seed"]), int(header["steps"]), int(header["iteration"])
    except (KeyError, TypeError, ValueError) as error:
        raise CheckpointError(f"{path} holds no agent: {type(error).__name__}: {error}") from error
    made = _algorithm(path, name, algorithm, hyperparameters, overrides)
    place = None
    if env is not None:
        # Who names the environment of the file means it with the arguments of the file.
        source = EnvSource.of(env, spec.kwargs if env == spec.id else None).with_masks(fitting.masks)
        many = isinstance(source.given, gymnasium.vector.VectorEnv)
        place = ground(source, None if many else spec.num_envs, timeout=TIMEOUT, **how)
        spec = place.look()
    agent = Agent.stateless(made, spec, seed, fitting, place, **how)
    shapes = jax.eval_shape(agent.learner.init, jax.ShapeDtypeStruct((), agent.keys[0].dtype))
    learned = {name: leaf for name, leaf in leaves.items() if not name.startswith("loop/")}
    try:
        state = jax.tree.map(jnp.asarray, restore({"learner": shapes}, learned)["learner"])
    except CheckpointError as error:
        what = " or ".join([*overrides, *(["env"] if env is not None else [])])
        hint = f". The {what} passed to load may not be what the agent was made with" if what else ""
        raise CheckpointError(f"{path}, made for {header.get('environment')}: {error}{hint}") from error
    snapshot = _usable(path, nested(leaves).get("loop"), agent, place)
    agent.take_up(state, steps=steps, iteration=iteration, snapshot=snapshot)
    return agent


def _usable(path: Path, snapshot: PyTree, agent: Agent, place: Any) -> PyTree:
    """Where the environments of the file stood; None, with a warning, where those that were passed are others."""
    if snapshot is None or not isinstance(place, CompiledGround):
        return snapshot
    differing = place.unlike(agent.learner, snapshot)
    if not differing:
        return snapshot
    warnings.warn(
        f"the environments that {path} holds in the middle of things are not like {place.source.name} "
        f"({', '.join(differing[:3])}): training begins in new ones",
        stacklevel=3,
    )
    return None


def _algorithm(
    path: Path, name: str, algorithm: type[Algorithm] | None, hyperparameters: dict[str, Any], overrides: dict[str, Any]
) -> Algorithm:
    """The algorithm that a file names, or the class that was passed, with the file's hyperparameters."""
    if algorithm is None:
        try:
            algorithm = algorithm_by_name(name)
        except UnknownNameError as error:
            raise CheckpointError(
                f"{path} holds an agent of {name}, which Renshu does not know: pass its class, as in "
                f"load(path, algorithm={name})"
            ) from error
    elif algorithm.__name__ != name:
        raise CheckpointError(f"{path} holds an agent of {name}, not of {algorithm.__name__}")
    try:
        return algorithm.from_json(hyperparameters, **overrides)
    except HyperparameterError as error:
        raise CheckpointError(f"{path}: {error}") from error


def resume(run: Run | str | Path, *, env: Any = None, **overrides: Any) -> Agent:
    """Load the newest checkpoint of a run that can be read, and take the run's folder up again from that step.

    Raises UnknownNameError where there is no run, CheckpointError where it has no checkpoint that can be read.
    """
    run = run if isinstance(run, Run) else Run.open(run)
    paths = list(reversed(run.checkpoints))
    if not paths:
        raise CheckpointError(f"{run.path} has no checkpoint to go on from")
    failures: list[CheckpointError] = []
    for path in paths:
        try:
            agent = load(path, env=env, **overrides)
        except CheckpointError as error:
            failures.append(error)
            continue
        run.truncate(agent.steps)
        agent.run = run
        return agent
    older = f" (nor can any of the {len(failures) - 1} older ones be loaded)" if len(failures) > 1 else ""
    raise CheckpointError(f"{failures[0]}{older}") from failures[0]
