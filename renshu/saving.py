"""Agents in files: what is written beside the arrays, and how an agent is made from it again."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp

from renshu.agent import Agent
from renshu.algorithms import algorithm as algorithm_by_name
from renshu.checkpoint import load_tree, restore, save_tree
from renshu.envs.source import EnvSource
from renshu.envs.spec import spec_from_json, spec_to_json
from renshu.errors import CheckpointError, HyperparameterError, UnknownNameError
from renshu.tracking.run import Run

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
    }
    save_tree(path, agent.state, header)
    return path


def load(path: str | Path, *, env: Any = None, algorithm: type[Algorithm] | None = None, **overrides: Any) -> Agent:
    """Load an agent from a file that `agent.save` wrote.

    Nothing in the file is run, and nothing is imported because the file names it. What is the user's own is passed
    again: `env=MyEnv`, `algorithm=MyAlgorithm`, `network=MyNet` or any other hyperparameter.

    Raises CheckpointError for a file that is missing, cut short, changed, not Renshu's, or from a newer version.
    """
    path = Path(path)
    header, leaves = load_tree(path)
    try:
        name, hyperparameters, spec = header["algorithm"], header["hyperparameters"], spec_from_json(header["spec"])
        seed, steps, iteration = int(header["seed"]), int(header["steps"]), int(header["iteration"])
    except (KeyError, TypeError, ValueError) as error:
        raise CheckpointError(f"{path} is no agent: {type(error).__name__}: {error}") from error
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
        made = algorithm.from_json(hyperparameters, **overrides)
    except HyperparameterError as error:
        raise CheckpointError(f"{path}: {error}") from error
    agent = Agent.__new__(Agent)
    agent.source = EnvSource.of(env) if env is not None else None
    agent.processes, agent.timeout, agent._envs = bool(header.get("processes", False)), 120.0, None
    agent._bind(made, spec, seed)
    shapes = jax.eval_shape(agent.learner.init, jax.ShapeDtypeStruct((), agent.keys[0].dtype))
    agent._state = jax.tree.map(jnp.asarray, restore(shapes, leaves))
    agent._steps, agent._iteration = steps, iteration
    agent._target = int(agent._state.counters.target)
    agent._restarts = 1
    return agent


def resume(run: Run | str | Path, *, env: Any = None, **overrides: Any) -> Agent:
    """Load the newest checkpoint of a run that can be read, and take the run's folder up again from that step."""
    run = run if isinstance(run, Run) else Run.open(run)
    paths = list(reversed(run.checkpoints))
    if not paths:
        raise CheckpointError(f"{run.path} has no checkpoint to go on from")
    failures = []
    for path in paths:
        try:
            agent = load(path, env=env, **overrides)
        except CheckpointError as error:
            failures.append(str(error))
            continue
        run.truncate(agent.steps)
        agent.run = run
        return agent
    raise CheckpointError("; ".join(failures))
