"""The command `renshu tune`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from renshu.cli.agents import environment_named, whole_from_1
from renshu.cli.train import BINS, FRAME_STACK, MASKS, environment_arguments, fitting, settings, split


def tune(
    algorithm: Annotated[str | None, typer.Argument(help="ppo, a2c, ... (see `renshu list`)")] = None,
    environment: Annotated[
        str | None, typer.Argument(help="a Gymnasium id, as CartPole-v1; or your own, as mymodule:MyEnv")
    ] = None,
    trials: Annotated[int | None, typer.Option(help="settings to try, by default 100", min=1)] = None,
    steps: Annotated[
        int | None,
        typer.Option(help="of each training, as 1e5; by default the preset's, or 100,000", parser=whole_from_1),
    ] = None,
    timeout: Annotated[float | None, typer.Option(help="seconds after which no further trial begins")] = None,
    seeds: Annotated[int | None, typer.Option(help="trainings of each trial, by default 3", min=1)] = None,
    range_: Annotated[
        list[str] | None,
        typer.Option(
            "--range",
            help="search this, as learning_rate=1e-5..1e-2 or n_steps=32,64; by default what the algorithm declares",
        ),
    ] = None,
    set_: Annotated[list[str] | None, typer.Option("--set", help="hyperparameter name=value, not searched")] = None,
    sampler: Annotated[str | None, typer.Option(help="tpe (by default), random, qmc, cmaes or gp")] = None,
    pruner: Annotated[str | None, typer.Option(help="median (by default), halving, hyperband or none")] = None,
    batch: Annotated[
        int | None,
        typer.Option(
            help="trials that train together, where the environment can be compiled; halved on the way", min=2
        ),
    ] = None,
    eval_episodes: Annotated[
        int | None, typer.Option(help="episodes that judge a training, by default 20", min=1)
    ] = None,
    envs: Annotated[int | None, typer.Option(help="environments at once; by default the preset's, or 1", min=1)] = None,
    env_set: Annotated[
        list[str] | None, typer.Option("--env-set", help="argument of the environment, name=value")
    ] = None,
    bins: Annotated[str | None, typer.Option(help=BINS)] = None,
    frame_stack: Annotated[int | None, typer.Option(help=FRAME_STACK, min=1)] = None,
    masks: Annotated[bool | None, typer.Option("--masks/--no-masks", help=MASKS)] = None,
    preset: Annotated[bool, typer.Option(help="start from the tuned hyperparameters for this environment")] = True,
    run: Annotated[Path | None, typer.Option(help="folder; by default runs/tune-1, -2, ...")] = None,
    resume: Annotated[
        Path | None, typer.Option(help="go on with the search in this folder, alone or beside other processes")
    ] = None,
    progress: Annotated[bool, typer.Option(help="print a line for each trial")] = True,
) -> None:
    """Search for hyperparameters: the best of many trials, trained again on fresh seeds, as a preset file."""
    from rich.console import Console

    from renshu.experiments.tune import tune as search

    if resume is None and (algorithm is None or environment is None):
        raise typer.BadParameter("an algorithm and an environment, as in: renshu tune ppo CartPole-v1")
    start: Any = None
    if algorithm is not None and environment is not None:
        start = settings(algorithm, environment, set_ or [], preset)
    elif algorithm is not None or set_:
        raise typer.BadParameter("name algorithm and environment, or neither of them where a search is resumed")
    result = search(
        start,
        environment_named(environment),
        ranges=_ranges(start, range_ or [], set_ or []),
        trials=trials,
        steps=steps,
        timeout=timeout,
        seeds=seeds,
        num_envs=envs,
        env_kwargs=environment_arguments(env_set) if env_set else None,
        sampler=sampler,
        pruner=pruner,
        batch=batch,
        eval_episodes=eval_episodes,
        run=run,
        resume=resume,
        progress=progress,
        **fitting(bins, frame_stack, masks),
    )
    Console().print(result.table())
    print(f"fresh seeds  {result.score} ({result.start_score or 'not trained'} before the search)")
    print(f"preset       {result.preset}")
    print(f"watch it     renshu watch {result.folder}")


def _ranges(start: Any, given: list[str], fixed: list[str]) -> dict[str, Any] | None:
    """Return the ranges given; else the declared ones without what is set; None where neither says anything."""
    from renshu.experiments.ranges import declared

    ranges, kept = split(given), split(fixed)
    if both := sorted(ranges.keys() & kept.keys()):
        raise typer.BadParameter(f"{', '.join(both)}: it is either searched (--range) or fixed (--set)")
    if ranges or not kept:
        return ranges or None
    return {name: one for name, one in declared(start.algorithm).items() if name not in kept}
