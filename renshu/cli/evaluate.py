"""The command `renshu evaluate`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def evaluate(
    path: Annotated[Path, typer.Argument(help="an agent's file, or a run folder (its best agent)")],
    episodes: Annotated[int, typer.Option(help="how many whole episodes", min=1)] = 100,
    sampled: Annotated[bool, typer.Option("--sampled", help="draw actions instead of taking the greedy ones")] = False,
    seed: Annotated[int | None, typer.Option(help="of the environments", min=0)] = None,
    env: Annotated[str | None, typer.Option(help="another environment than the agent's own")] = None,
    env_set: Annotated[
        list[str] | None, typer.Option("--env-set", help="argument of the environment, name=value, for all it has had")
    ] = None,
) -> None:
    """Evaluate a trained agent over whole episodes.

    Of a run folder the score is kept: the board's leaderboard ranks runs by those of 100 greedy episodes or more.
    """
    from renshu.cli.agents import environment_named, find
    from renshu.cli.train import environment_arguments
    from renshu.tracking.scores import note_score

    agent = find(path, env)
    if env_set:
        own = agent.spec.id or agent.name
        agent = agent.on(environment_named(env) if env else own, env_kwargs=environment_arguments(env_set))
    result = agent.evaluate(episodes, deterministic=not sampled, seed=seed)
    print(f"return       {result} (min {min(result.returns):.1f}, max {max(result.returns):.1f})")
    print(f"length       {sum(result.lengths) / len(result.lengths):.1f}")
    print(f"episodes     {result.episodes}, {'sampled' if sampled else 'greedy'} actions")
    if path.is_dir() and env is None and not env_set and not sampled:
        print(f"kept in      {note_score(path, agent.steps, result.returns, result.lengths)}")
