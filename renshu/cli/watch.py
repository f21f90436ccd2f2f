"""`renshu watch`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def watch(
    path: Annotated[Path, typer.Argument(help="an agent's file, or a run folder (its best agent)")],
    record: Annotated[Path | None, typer.Option(help="save a video, .mp4 or .gif, instead of opening a window")] = None,
    episodes: Annotated[int, typer.Option(help="how many episodes")] = 1,
    sampled: Annotated[bool, typer.Option("--sampled", help="draw actions instead of taking the greedy ones")] = False,
    seed: Annotated[int | None, typer.Option(help="of the environment")] = None,
    env: Annotated[str | None, typer.Option(help="another environment than the agent's own")] = None,
) -> None:
    """Watch a trained agent play, in a window or as a video."""
    from renshu.cli.agents import find

    agent = find(path, env)
    if record is not None:
        print(f"video        {agent.record(record, episodes=episodes, deterministic=not sampled, seed=seed)}")
        return
    for number, (total, length) in enumerate(agent.watch(episodes, deterministic=not sampled, seed=seed), 1):
        print(f"episode {number}    return {total:.1f}, {length} steps")
