"""Trainings by evolution that take long: walkers, in run folders, where they go on after an interruption."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import gymnasium
import numpy as np
from gymnasium.wrappers import TransformReward

import renshu
from bench.report import DOCS, revision
from renshu.tracking.curves import read_episodes, read_evaluations


class Stage(NamedTuple):
    """A part of a training, up to so many steps: episodes are cut after `cut`, and no reward is less than `least`."""

    steps: int | None = None  # of the preset, if None
    cut: int | None = None
    least: float = -np.inf


STAGES: dict[tuple[str, str], tuple[Stage, ...]] = {
    ("ars", "Hopper-v5"): (Stage(),),
    ("ars", "HalfCheetah-v5"): (Stage(),),
    ("es", "BipedalWalker-v3"): (Stage(cut=1000, least=-10.0), Stage(22_000_000)),
}
"""The trainings. Where a fall costs 100 from the start, populations learn to stand still, and nothing else."""
LOOKS, EPISODES = 25, 100
"""Evaluations on the way, and episodes of the last one, which are never cut."""


def score(algorithm: str, environment: str, seed: int) -> dict[str, Any]:
    """Train one seed by the preset, or go on with it, and evaluate what it plays."""
    preset, run = renshu.preset(algorithm, environment), Path(f"runs/{algorithm}-{environment}-{seed}")
    *early, last = STAGES[algorithm, environment]
    for stage in early:
        trained(run, preset, seed, stage, environment).close()
    with trained(run, preset, seed, last, environment) as agent:
        found, looks = agent.evaluate(EPISODES, env=environment), read_evaluations(run)
        points = [[int(step), float(mean)] for step, mean in zip(looks["step"], looks["mean"], strict=True)]
        return row(algorithm, environment, seed, agent.steps, found, seconds_of(run)) | {"points": points}


def trained(run: Path, preset: renshu.Preset, seed: int, stage: Stage, environment: str) -> renshu.Agent:
    """Train to the end of a stage, from the run's newest checkpoint or from the start."""
    total, env = stage.steps or preset.total_steps, trained_on(environment, stage)
    ways: dict[str, Any] = {"progress": False}
    ways |= dict.fromkeys(("eval_every", "checkpoint_every"), preset.total_steps // LOOKS)
    if not run.exists():
        new = preset.algorithm.on(env, num_envs=preset.num_envs, seed=seed, **preset.options)
        return new.learn(total, run=run, **ways)
    agent = renshu.Agent.resume(run, env=env)
    if agent.algorithm != preset.algorithm:
        raise SystemExit(f"{run} was trained with other settings than the preset's: remove it, or give it a name")
    if agent.steps >= total:
        return agent
    interrupted = agent.steps < (agent.trainer.target or 0)
    return agent.learn(None if interrupted else total - agent.steps, **ways)


def row(
    algorithm: str, environment: str, seed: int, steps: int, found: renshu.Evaluation, seconds: float
) -> dict[str, Any]:
    """Return what is kept of one training: its case, its length and what its agent scored."""
    return {
        "algorithm": algorithm,
        "environment": environment,
        "seed": seed,
        "steps": steps,
        "mean": found.mean,
        "std": found.std,
        "seconds": seconds,
        "code": revision(),
    }


def trained_on(environment: str, stage: Stage) -> Any:
    """Return the environment of a stage: its id, or a function that makes it with shorter episodes and bounds."""
    whole = stage.cut is None and stage.least == -np.inf
    return environment if whole else partial(bounded, environment, stage.cut, stage.least)


def bounded(environment: str, cut: int | None, least: float, **options: Any) -> gymnasium.Env:
    """Make an environment whose episodes end after `cut` steps, and whose rewards are `least` where they are less."""
    env = gymnasium.make(environment, max_episode_steps=cut, **options)
    return TransformReward(env, lambda reward: max(float(reward), least))


def seconds_of(run: Path) -> float:
    """Return the time that a training took, all its parts together: in each the clock begins at 0."""
    seconds = read_episodes(run)["seconds"]
    since = np.diff(seconds, prepend=0.0)
    return float(np.where(since < 0, seconds, since).sum())


def picture(runs: list[dict[str, Any]], goals: dict[tuple[str, str], float]) -> None:
    """Draw the returns on the way, an environment beside the other, with the goals as dotted lines."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(4 * len(runs), 3.4), layout="constrained")
    for axes, run in zip(figure.subplots(1, len(runs), squeeze=False)[0], runs, strict=True):
        steps, means = np.array(run["points"]).T
        axes.plot(steps / 1e6, means, marker=".")
        axes.axhline(goals[run["algorithm"], run["environment"]], linestyle=":", color="0.5")
        axes.set(title=f"{run['algorithm']}, {run['environment']}", xlabel="million steps", ylabel="greedy return")
    figure.savefig(DOCS / "evolution_walkers.png", dpi=110)
