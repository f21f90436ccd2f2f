"""Agents named on the command line: a file, or a run folder."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from renshu.agent import Agent


def find(path: Path, environment: str | None) -> Agent:
    """Load a file; or from a run folder its best agent, else its last, else its newest checkpoint."""
    from renshu.errors import CheckpointError
    from renshu.saving import load
    from renshu.tracking.run import Run

    if path.is_dir():
        run = Run.open(path)
        candidates = [run.best_path, run.agent_path, *reversed(run.checkpoints)]
        existing = [candidate for candidate in candidates if candidate.exists()]
        if not existing:
            raise CheckpointError(f"{path} holds no agent yet")
        path = existing[0]
        print(f"agent        {path}")
    return load(path, env=environment)
