"""`renshu watch`."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Annotated

import typer


def watch(
    path: Annotated[Path, typer.Argument(help="an agent's file, or a run folder (its best agent)")],
    record: Annotated[Path | None, typer.Option(help="save a video, .mp4 or .gif, instead of opening a window")] = None,
    episodes: Annotated[int, typer.Option(help="how many episodes", min=1)] = 1,
    sampled: Annotated[bool, typer.Option("--sampled", help="draw actions instead of taking the greedy ones")] = False,
    seed: Annotated[int | None, typer.Option(help="of the environment", min=0)] = None,
    env: Annotated[str | None, typer.Option(help="another environment than the agent's own")] = None,
) -> None:
    """Watch a trained agent play, in a window or as a video."""
    from renshu.cli.agents import find

    if (
        record is None
        and sys.platform == "linux"
        and not {"DISPLAY", "WAYLAND_DISPLAY", "SDL_VIDEODRIVER"} & os.environ.keys()
    ):
        raise typer.BadParameter(f"there is no screen here. Make a video: renshu watch {path} --record agent.mp4")
    agent = find(path, env)
    if record is not None:
        print(f"video        {agent.record(record, episodes=episodes, deterministic=not sampled, seed=seed)}")
        return
    for number, (total, length) in enumerate(agent.watch(episodes, deterministic=not sampled, seed=seed), 1):
        print(f"episode {number}    return {total:.1f}, {length} steps")
