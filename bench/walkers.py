"""Trainings by evolution that take long: walkers, in run folders, where they go on after an interruption."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
from gymnasium.wrappers import TransformReward

import renshu
from bench.report import DOCS, revision
from renshu.tracking.curves import read_episodes, read_evaluations

CUT: dict[tuple[str, str], int | None] = {
    ("ars", "Hopper-v5"): None,
    ("ars", "HalfCheetah-v5"): None,
    ("es", "BipedalWalker-v3"): 1000,
}
"""The trainings, with the steps after which episodes are cut, so that members that stand still cost less."""
LEAST_REWARD: dict[tuple[str, str], float] = {("es", "BipedalWalker-v3"): -10.0}
"""Least reward of a step in training: where a fall costs 100, populations learn to stand still, and nothing else."""
LOOKS, EPISODES = 25, 100
"""Evaluations on the way, and episodes of the last one, which are never cut."""


def score(algorithm: str, environment: str, seed: int) -> dict[str, Any]:
    """Train one seed by the preset, or go on with it, and evaluate what it plays."""
    preset, run = renshu.preset(algorithm, environment), Path(f"runs/{algorithm}-{environment}-{seed}")
    total, env = preset.total_steps, trained_on(algorithm, environment)
    ways: dict[str, Any] = {"progress": False, "eval_every": total // LOOKS, "checkpoint_every": total // LOOKS}
    if run.exists():
        agent = renshu.Agent.resume(run, env=env)
        if agent.algorithm != preset.algorithm:
            raise SystemExit(f"{run} was trained with other settings than the preset's: remove it, or give it a name")
        agent = agent if agent.steps >= total else agent.learn(**ways)
    else:
        new = preset.algorithm.on(env, num_envs=preset.num_envs, seed=seed, **preset.options)
        agent = new.learn(total, run=run, **ways)
    with agent:
        found, looks = agent.evaluate(EPISODES, env=environment), read_evaluations(run)
        points = [[int(step), float(mean)] for step, mean in zip(looks["step"], looks["mean"], strict=True)]
        return row(algorithm, environment, seed, agent.steps, found, seconds_of(run)) | {"points": points}


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


def trained_on(algorithm: str, environment: str) -> Any:
    """Return the environment of a training: its id, or a function that makes it with shorter episodes and bounds."""
    cut, least = CUT[algorithm, environment], LEAST_REWARD.get((algorithm, environment), -np.inf)
    return environment if cut is None and least == -np.inf else partial(bounded, environment, cut, least)


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
