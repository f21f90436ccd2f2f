"""The command `renshu experiment`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from renshu.cli.agents import environment_named, whole_from_1
from renshu.cli.train import BINS, FRAME_STACK, MASKS, environment_arguments, fitting, renamed, settings, split


def experiment(
    algorithms: Annotated[str, typer.Argument(help="one or several, as ppo,a2c (see `renshu list`)")],
    environment: Annotated[str, typer.Argument(help="an id; renshu/... ones train all seeds in one program")],
    steps: Annotated[
        int | None, typer.Option(help="steps of each agent, as 1e5; by default the preset's", parser=whole_from_1)
    ] = None,
    seeds: Annotated[int | None, typer.Option(help="how many seeds: 0, 1, ...; by default 8", min=1)] = None,
    envs: Annotated[int | None, typer.Option(help="environments of each agent at once", min=1)] = None,
    set_: Annotated[
        list[str] | None, typer.Option("--set", help="hyperparameter name=value, of all the algorithms")
    ] = None,
    grid: Annotated[
        list[str] | None, typer.Option("--grid", help="values to compare, as learning_rate=1e-3,3e-4")
    ] = None,
    pbt: Annotated[
        list[str] | None,
        typer.Option("--pbt", help="range of a hyperparameter to vary while training, as learning_rate=1e-5..1e-2"),
    ] = None,
    members: Annotated[int | None, typer.Option(help="of the population of --pbt, by default 16", min=2)] = None,
    env_set: Annotated[
        list[str] | None, typer.Option("--env-set", help="argument of the environment, name=value")
    ] = None,
    bins: Annotated[str | None, typer.Option(help=BINS)] = None,
    frame_stack: Annotated[int | None, typer.Option(help=FRAME_STACK, min=1)] = None,
    masks: Annotated[bool | None, typer.Option("--masks/--no-masks", help=MASKS)] = None,
    history: Annotated[int | None, typer.Option(hidden=True, callback=renamed)] = None,
    preset: Annotated[bool, typer.Option(help="start from the tuned hyperparameters for this environment")] = True,
    statistic: Annotated[str, typer.Option(help="over the seeds: iqm (interquartile mean) or mean")] = "iqm",
    out: Annotated[Path, typer.Option(help="folder for curves.png and curves.csv")] = Path("experiments"),
    processes: Annotated[
        int | None, typer.Option(help="that train at a time, where environments are stepped in Python", min=1)
    ] = None,
    run: Annotated[Path | None, typer.Option(help="a folder, for a run folder of each seed")] = None,
    workers: Annotated[
        int | None, typer.Option(help="processes of a Ray cluster that seeds and values are dealt to", min=1)
    ] = None,
    address: Annotated[str | None, typer.Option(help="of a Ray cluster that runs, or auto")] = None,
    progress: Annotated[bool, typer.Option(help="show a progress bar")] = True,
) -> None:
    """Compare algorithms, or values of hyperparameters, over many seeds: a table, a picture, a csv file.

    With --pbt hyperparameters change while a population trains: its worst members go on from copies of its best.
    """
    from rich.console import Console

    from renshu.experiments.experiment import experiment as compare

    names = [name.strip() for name in algorithms.split(",") if name.strip()]
    chosen = {name.upper(): settings(name, environment, set_ or [], preset) for name in names}
    if not chosen:
        raise typer.BadParameter("name one algorithm at least, as in: renshu experiment ppo,a2c renshu/CartPole-v1")
    if statistic not in ("iqm", "mean"):
        raise typer.BadParameter(f"statistic is iqm or mean, not {statistic!r}")
    options: dict[str, Any] = {}
    for one in chosen.values():
        options |= one.options
    options |= fitting(bins, frame_stack, masks)
    if members and not pbt:
        raise typer.BadParameter("--members is for --pbt: name what varies, as --pbt learning_rate=1e-5..1e-2")
    if pbt:
        if len(chosen) > 1 or grid or workers or address or seeds or processes or run:
            raise typer.BadParameter(
                "--pbt varies one algorithm in one program: leave out others, --grid, --seeds, --processes, "
                "--run, --workers and --address; --members says how many train"
            )
        (one,) = chosen.values()
        options |= {"env_kwargs": environment_arguments(env_set or []), "num_envs": envs or one.asked_envs}
        options |= {"steps": steps or one.total_steps, "population_size": members or 16, "progress": progress}
        return _population(one.algorithm, environment_named(environment), _ranges(pbt), out, options)
    result = compare(
        {label: preset.algorithm for label, preset in chosen.items()},
        environment_named(environment),
        seeds=seeds or 8,
        steps=steps or max(preset.total_steps for preset in chosen.values()),
        num_envs=envs or max(preset.asked_envs or 0 for preset in chosen.values()) or None,
        grid=_grid(grid or []),
        env_kwargs=environment_arguments(env_set or []),
        processes=processes,
        run=run,
        workers=workers,
        address=address,
        progress=progress,
        **options,
    )
    Console().print(result.table(statistic))  # type: ignore[arg-type]
    out.mkdir(parents=True, exist_ok=True)
    print(f"time         {result.seconds:.1f} s, and {result.compile_seconds:.1f} s of compilation")
    print(f"curves       {result.plot(out / 'curves.png', statistic)}")  # type: ignore[arg-type]
    print(f"numbers      {result.save(out / 'curves.csv')}")


def _population(
    algorithm: Any, environment: Any, ranges: dict[str, tuple[float, float]], out: Path, options: Any
) -> None:
    """Train a population, and print and write what came out."""
    from rich.console import Console

    from renshu.experiments.pbt import pbt

    result = pbt(algorithm, environment, ranges=ranges, **options)
    Console().print(result.table())
    out.mkdir(parents=True, exist_ok=True)
    print(f"time         {result.seconds:.1f} s, and {result.compile_seconds:.1f} s of compilation")
    print(f"population   {result.plot(out / 'pbt.png')}")
    print(f"numbers      {result.save(out / 'pbt.csv')}")
    print(f"best         {result.best.save(out / 'best.safetensors')}")


def _ranges(assignments: list[str]) -> dict[str, tuple[float, float]]:
    from renshu.experiments.ranges import bounds

    return {name: bounds(f"--pbt {name}", text) for name, text in split(assignments).items()}


def _grid(assignments: list[str]) -> dict[str, list[float]]:
    grid = {}
    for name, text in split(assignments).items():
        try:
            grid[name] = [float(value) for value in text.split(",")]
        except ValueError:
            raise typer.BadParameter(f"--grid {name} wants numbers with commas between them, not {text!r}") from None
    return grid
