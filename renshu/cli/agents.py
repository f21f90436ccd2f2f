"""Agents named on the command line: a file, or a run folder."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from renshu.agent.agent import Agent


def find(path: Path, environment: str | None) -> Agent:
    """Load an agent from a file, or from a run folder its best agent, else its last, else its newest checkpoint."""
    from renshu.agent.agent import load
    from renshu.errors import CheckpointError
    from renshu.tracking.run import Run

    if path.is_dir():
        run = Run.open(path)
        candidates = [run.best_path, run.agent_path, *reversed(run.checkpoints)]
        existing = [candidate for candidate in candidates if candidate.exists()]
        if not existing:
            raise CheckpointError(f"{path} holds no agent yet")
        path = existing[0]
        print(f"agent        {path}")
    agent = load(path, env=environment)
    check_environment(agent, environment, f"--env MODULE:NAME, as in: --env {agent.spec.id}")
    return agent


def check_environment(agent: Agent, given: str | None, instead: str) -> None:
    """Raise CheckpointError, saying what to type, where the agent's file alone cannot say how to make its environment.

    A file must not decide what is imported, so a module that is part of an id has to be named again.
    """
    from renshu.errors import CheckpointError

    if given is not None:
        return
    if agent.spec.id is None:
        raise CheckpointError(
            f"this agent was trained in {agent.name}, an environment made in Python: use it from there, "
            "as in renshu.load(path, env=MyEnv) or renshu.Agent.resume(run, env=MyEnv)"
        )
    if ":" in agent.spec.id:
        raise CheckpointError(f"no file may decide which module is imported: name the environment again with {instead}")
