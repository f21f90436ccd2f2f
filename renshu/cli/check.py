"""The command `renshu check`."""

from __future__ import annotations

from typing import Annotated

import typer


def check(
    environment: Annotated[str, typer.Argument(help="a Gymnasium id, as CartPole-v1; or your own, as mymodule:MyEnv")],
    steps: Annotated[int, typer.Option(help="random steps to look at")] = 1000,
    seed: Annotated[int, typer.Option(help="of the environment")] = 0,
) -> None:
    """Examine an environment before training: faults, bounds, scales, ends of episodes, chance, speed."""
    from renshu.cli.agents import environment_named
    from renshu.envs.examination import check_env

    found = check_env(environment_named(environment), steps=steps, seed=seed)
    print(found)
    if not found.ok:
        raise typer.Exit(1)
