"""The command `renshu train`."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from renshu.cli.agents import environment_named, whole, whole_from_1

if TYPE_CHECKING:
    from renshu.agent.agent import Agent
    from renshu.presets import Preset


BINS = "points of each dimension of continuous actions, for an algorithm of discrete ones: 5, or one for each as 3,5"


def renamed(value: int | None) -> None:
    """Reject the earlier name of an option, naming the one that it has now."""
    if value is not None:
        raise typer.BadParameter(f"it is called --frame-stack now: --frame-stack {value}")


MASKS = "leave out actions that the environment's mask forbids; by default where it gives masks"
FRAME_STACK = "how many of the last observations the agent sees at once, where the algorithm can"


def train(
    algorithm: Annotated[str | None, typer.Argument(help="ppo, a2c, ... (see `renshu list`)")] = None,
    environment: Annotated[
        str | None, typer.Argument(help="a Gymnasium id, as CartPole-v1; or your own, as mymodule:MyEnv")
    ] = None,
    steps: Annotated[
        int | None,
        typer.Option(help="environment steps, as 1e5; by default the preset's, or 100,000", parser=whole_from_1),
    ] = None,
    seed: Annotated[int | None, typer.Option(help="of everything; drawn if not given", min=0)] = None,
    envs: Annotated[int | None, typer.Option(help="environments at once; by default the preset's, or 1", min=1)] = None,
    processes: Annotated[bool, typer.Option("--processes", help="each environment in a worker process")] = False,
    workers: Annotated[
        int | None, typer.Option(help="actors in processes of a Ray cluster, each with --envs environments", min=1)
    ] = None,
    mode: Annotated[
        str | None, typer.Option(help="of a cluster: synchronous, lockstep or asynchronous; see the guide")
    ] = None,
    address: Annotated[
        str | None, typer.Option(help="of a Ray cluster that runs, or auto; by default one here")
    ] = None,
    set_: Annotated[
        list[str] | None, typer.Option("--set", help="hyperparameter name=value, as learning_rate=linear:1e-3")
    ] = None,
    env_set: Annotated[
        list[str] | None, typer.Option("--env-set", help="argument of the environment, name=value")
    ] = None,
    bins: Annotated[str | None, typer.Option(help=BINS)] = None,
    frame_stack: Annotated[int | None, typer.Option(help=FRAME_STACK, min=1)] = None,
    masks: Annotated[bool | None, typer.Option("--masks/--no-masks", help=MASKS)] = None,
    history: Annotated[int | None, typer.Option(hidden=True, callback=renamed)] = None,
    preset: Annotated[bool, typer.Option(help="start from the tuned hyperparameters for this environment")] = True,
    stop_at: Annotated[
        str | None,
        typer.Option(help='stop at this mean return of the recent episodes; "threshold" for the registered one'),
    ] = None,
    run: Annotated[Path | None, typer.Option(help="run folder; by default runs/NAME-1, -2, ...")] = None,
    eval_every: Annotated[
        int | None, typer.Option(help="steps between evaluations; by default a tenth of all, 0 for none", parser=whole)
    ] = None,
    eval_episodes: Annotated[int | None, typer.Option(help="episodes of each evaluation; by default 10", min=1)] = None,
    checkpoint_every: Annotated[
        int | None, typer.Option(help="steps between checkpoints; by default a tenth of all, 0 for none", parser=whole)
    ] = None,
    resume: Annotated[
        Path | None, typer.Option(help="go on with this run folder, to its end or for --steps more")
    ] = None,
    progress: Annotated[bool, typer.Option(help="show a progress bar")] = True,
) -> None:
    """Train an agent, in a run folder that keeps everything about it."""
    if resume is not None:
        given = [envs, bins, frame_stack, stop_at, run, eval_every, eval_episodes, checkpoint_every, workers, mode]
        given += [seed, masks, set_ or None, env_set or None, processes or None]
        if any(option is not None for option in given):
            raise typer.BadParameter("a run that is resumed keeps its settings: give --steps and --address at most")
        _resume(resume, algorithm, environment, steps, progress, address)
        return
    if algorithm is None or environment is None:
        raise typer.BadParameter("an algorithm and an environment, as in: renshu train ppo CartPole-v1")
    from renshu.loops.cluster_settings import Cluster

    chosen = settings(algorithm, environment, set_ or [], preset)
    total = steps or chosen.total_steps
    agent = chosen.algorithm.on(
        environment_named(environment),
        num_envs=envs or chosen.asked_envs,
        seed=seed,
        processes=processes,
        env_kwargs=environment_arguments(env_set or []),
        workers=workers,
        cluster=Cluster(mode=mode, address=address) if mode or address else None,
        **(chosen.options | fitting(bins, frame_stack, masks)),
    )
    agent.summary()
    agent.learn(
        total,
        progress=progress,
        run=run or True,
        stop_at=stop_at if stop_at in (None, "threshold") else _number(stop_at),
        eval_every=(max(1, total // 10) if eval_every is None else eval_every) or None,
        eval_episodes=eval_episodes or 10,
        checkpoint_every=(max(1, total // 10) if checkpoint_every is None else checkpoint_every) or None,
    )
    _tell_results(agent)


def settings(algorithm: str, environment: str, assignments: list[str], use_preset: bool) -> Preset:
    """Return the preset, or defaults where there is none, with the hyperparameters set on the command line."""
    from renshu.algorithms.registry import algorithm as by_name
    from renshu.envs.source import EnvSource
    from renshu.presets import Preset, preset, preset_name

    kind = by_name(algorithm)
    overrides = kind.parse(split(assignments))
    known = EnvSource.of(environment_named(environment)).gym_spec
    name = known.id if known is not None else environment
    found = preset_name(algorithm, name) if use_preset else None
    if found is not None:
        print(f"preset {algorithm.lower()} {found} (see `renshu list presets`; --no-preset for the defaults)")
        return replace(preset(algorithm, found, **overrides), environment=environment)
    made = kind(**overrides)
    return Preset(made, environment, made.default_num_envs, 100_000)


def split(assignments: list[str]) -> dict[str, str]:
    """Split ["a=1", "b=2"] into {"a": "1", "b": "2"}."""
    for assignment in assignments:
        if "=" not in assignment:
            raise typer.BadParameter(f"name=value, not {assignment!r}")
    return dict(assignment.split("=", 1) for assignment in assignments)  # type: ignore[misc]


def environment_arguments(assignments: list[str]) -> dict:
    """Parse the arguments of an environment, as typed."""
    from renshu.algorithms.hyperparameters import Kind

    return {name: Kind("").parse(name, text) for name, text in split(assignments).items()}


def fitting(bins: str | None, frame_stack: int | None, masks: bool | None) -> dict[str, Any]:
    """Return the options of fitting that were given, as `on(...)` takes them."""
    given = {"bins": numbers_of_bins(bins), "frame_stack": frame_stack, "masks": masks}
    return {name: value for name, value in given.items() if value is not None}


def numbers_of_bins(text: str | None) -> int | tuple[int, ...] | None:
    """Parse "3" as 3 and "3,5" as (3, 5)."""
    if text is None:
        return None
    try:
        found = [int(part) for part in text.split(",")]
    except ValueError:
        raise typer.BadParameter(f"--bins wants whole numbers with commas between them, not {text!r}") from None
    return tuple(found) if len(found) > 1 else found[0]


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise typer.BadParameter(f'stop-at takes a number or "threshold", not {text!r}') from None


def _resume(
    path: Path, algorithm: str | None, environment: str | None, steps: int | None, progress: bool, address: str | None
) -> None:
    from renshu.agent.agent import Agent
    from renshu.algorithms.registry import algorithm as by_name
    from renshu.cli.agents import check_environment
    from renshu.tracking.run import Run

    run = Run.open(path)
    settings = run.settings
    where: dict[str, Any] = {} if address is None else {"address": address}
    agent = Agent.resume(run, env=environment_named(environment), **where)
    name = type(agent.algorithm).__name__.lower()
    if algorithm is not None and type(agent.algorithm) is not by_name(algorithm):
        raise typer.BadParameter(f"{path} is a training of {name}, not of {algorithm}")
    check_environment(
        agent, environment, f"renshu train {name} {agent.spec.id or f'MODULE:{agent.name}'} --resume {path}"
    )
    if steps is None and (agent.trainer.target is None or agent.steps >= agent.trainer.target):
        print(f"{path} is complete: {agent.steps:,} steps. For more: renshu train --resume {path} --steps 10000")
        return
    print(f"{agent.title} goes on in {path} from step {agent.steps:,}")
    agent.learn(
        steps,
        progress=progress,
        stop_at=settings.get("stop_at"),
        eval_every=settings.get("eval_every"),
        eval_episodes=settings.get("eval_episodes") or 10,
        checkpoint_every=settings.get("checkpoint_every"),
    )
    _tell_results(agent)


def _tell_results(agent: Agent) -> None:
    run = agent.last_run
    assert run is not None
    print(f"evaluation   {agent.evaluate(20)} over 20 episodes after {agent.steps:,} steps")
    print(f"run folder   {run.path}")
    print(f"curve        {run.curve_path}")
    print(f"agent        {run.agent_path}")
    print(f"watch it     renshu watch {run.path}")
