"""The command `renshu watch`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def watch(
    path: Annotated[Path, typer.Argument(help="an agent's file, or a run folder (its best agent)")],
    record: Annotated[Path | None, typer.Option(help="save a video, .mp4 or .gif, instead of opening a window")] = None,
    terminal: Annotated[bool, typer.Option("--terminal", help="step through it here, by the arrow keys")] = False,
    episodes: Annotated[int, typer.Option(help="how many episodes", min=1)] = 1,
    sampled: Annotated[bool, typer.Option("--sampled", help="draw actions instead of taking the greedy ones")] = False,
    seed: Annotated[int | None, typer.Option(help="of the environment", min=0)] = None,
    env: Annotated[str | None, typer.Option(help="another environment than the agent's own")] = None,
) -> None:
    """Watch a trained agent play: in a window, as a video, or step by step in the terminal."""
    from renshu.cli.agents import find
    from renshu.viewing.play import check_screen

    if record is not None and terminal:
        raise typer.BadParameter("--record makes a video and --terminal shows text: choose one of them")
    if record is None and not terminal:
        check_screen(
            f"Make a video: renshu watch {path} --record agent.mp4, or step through an episode in the terminal: "
            f"renshu watch {path} --terminal"
        )
    agent = find(path, env)
    if record is not None:
        print(f"video        {agent.record(record, episodes=episodes, deterministic=not sampled, seed=seed)}")
        return
    played = agent.watch(episodes, deterministic=not sampled, seed=seed, terminal=terminal)
    for number, (total, length) in enumerate(played, 1):
        print(f"episode {number}    return {total:.1f}, {length} steps")
