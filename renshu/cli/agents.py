"""Agents and environments named on the command line: a file or a run folder, an id or a class of one's own."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from renshu.agent.agent import Agent


def file_of(path: Path) -> Path:
    """Find the agent's file in a run folder: of its best agent, else its last, else its newest checkpoint.

    Any other path is returned as it is. Raises CheckpointError where the folder has no agent yet.
    """
    from renshu.errors import CheckpointError
    from renshu.tracking.run import Run

    if not path.is_dir():
        return path
    run = Run.open(path)
    candidates = [run.best_path, run.agent_path, *reversed(run.checkpoints)]
    existing = [candidate for candidate in candidates if candidate.exists()]
    if not existing:
        raise CheckpointError(f"{path} holds no agent yet")
    return existing[0]


def find(path: Path, environment: str | None) -> Agent:
    """Load an agent from a file, or from a run folder; see `file_of`."""
    from renshu.agent.agent import load

    if (file := file_of(path)) != path:
        print(f"agent        {file}")
    agent = load(file, env=environment_named(environment))
    check_environment(agent, environment, f"--env {agent.spec.id or f'MODULE:{agent.name}'}")
    return agent


def whole(text: str) -> int:
    """Parse a number of steps, 0 or more: 100000, 100_000 or 1e5."""
    import typer

    try:
        number = float(text)
    except ValueError:
        number = -1.0
    if number < 0 or not number.is_integer():
        raise typer.BadParameter(f"expected a whole number, as 100000, 100_000 or 1e5, not {text!r}")
    return int(number)


def whole_from_1(text: str) -> int:
    """Parse a number of steps, 1 or more."""
    import typer

    if not (number := whole(text)):
        raise typer.BadParameter("expected at least 1")
    return number


def environment_named(text: str | None) -> Any:
    """Return what is named: an id as it is; for "module:MyEnv" the class, function or object of that module.

    Modules of the current folder are found, as by `python -m`. Raises UnknownNameError where the module cannot be
    imported, or has no such name and registers none.
    """
    from renshu.errors import UnknownNameError, did_you_mean

    module, _, name = (text or "").rpartition(":")
    if not module:
        return text
    if str(Path.cwd()) not in sys.path:
        sys.path.insert(0, str(Path.cwd()))
    try:
        found = __import__(module, fromlist=[name])
    except Exception as error:
        raise UnknownNameError(
            f"cannot import {module!r}, which {text!r} asks for ({type(error).__name__}: {error}). Before the colon "
            f"stands a module of this folder ({Path.cwd()}) or an installed one, after it the class or registered id"
        ) from error
    if hasattr(found, name):
        return getattr(found, name)
    from renshu.envs.gymnasium.lookup import find

    try:
        find(name)
    except UnknownNameError:
        own = [known for known in vars(found) if getattr(vars(found)[known], "__module__", None) == found.__name__]
        hint = did_you_mean(name, own) if own else ""
        raise UnknownNameError(f"{module} has no {name!r}, and registers no environment as that.{hint}") from None
    return text


def check_environment(agent: Agent, given: str | None, instead: str) -> None:
    """Raise CheckpointError, saying what to type, where the agent's file alone cannot say how to make its environment.

    A file must not decide what is imported, so a module that is part of an id has to be named again.
    """
    from renshu.errors import CheckpointError

    if given is not None:
        return
    if agent.spec.id is None and agent.spec.unsaved:
        told = ", ".join(f"{name}=..." for name in agent.spec.unsaved)
        raise CheckpointError(
            f"this agent was trained in {agent.name} with {told}, which no file holds, and no command line either: "
            f"from Python, renshu.load(path, env=...) or renshu.Agent.resume(run, env=...), with all of its arguments"
        )
    if agent.spec.id is None:
        raise CheckpointError(
            f"this agent was trained in {agent.name}, an environment made in Python: name it, with the module that has "
            f"it, by {instead}; or from Python: renshu.load(path, env={agent.name}), "
            f"renshu.Agent.resume(run, env={agent.name})"
        )
    if ":" in agent.spec.id:
        raise CheckpointError(f"no file may decide which module is imported: name the environment again with {instead}")
