"""Scores of presets: seeds trained in processes, greedy episodes of each, and a page of them.

Rows are kept in docs/benchmarks/NAME.csv: a case that is not selected stays on the page as it was measured.
"""

from __future__ import annotations

import argparse
import csv
import tempfile
import time
from collections.abc import Mapping
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path

import numpy as np

from bench.report import DOCS, publish, revision, table
from renshu.tracking.curves import plot_runs


@dataclass(frozen=True)
class Case:
    """A preset to train: number of seeds, the goal for the mean of their means, and steps where fewer than its own.

    episodes: greedy ones of each seed. above_random: the goal is what random actions score, measured beside it. Of a
    single seed the best agent of `evaluations` on the way, 10 episodes each, is evaluated too where there are any, and
    the curve is drawn. sampled: actions are drawn from the policy in the end, as in training.
    """

    seeds: int
    goal: float
    steps: int | None = None
    episodes: int = 20
    above_random: bool = False
    evaluations: int = 30
    sampled: bool = False


FIELDS = ["algorithm", "environment", "seed", "agent", "steps", "mean", "std", "seconds", "code"]
RANDOM = "random"
"""Name of the agent that acts at random."""


def measure(job: tuple[str, str, int, Case]) -> list[dict[str, str]]:
    """Train one seed and evaluate it: the last agent and, where it is the only seed, the best along the way."""
    import renshu

    algorithm, environment, seed, case = job
    preset = renshu.preset(algorithm, environment)
    steps, long = case.steps or preset.total_steps, case.seeds == 1
    rows: list[dict[str, str]] = []

    def add(which: str, taken: int, scores: tuple[float, float], seconds: float) -> None:
        told = f"{scores[0]:.4g}", f"{scores[1]:.3g}", round(seconds)
        rows.append(
            dict(zip(FIELDS, map(str, [algorithm, environment, seed, which, taken, *told, revision()]), strict=True))
        )
        print(" ".join(rows[-1].values()), flush=True)

    if case.above_random and seed == 0:
        add(RANDOM, 0, random_score(environment, case.episodes), 0.0)
    began = time.perf_counter()
    with (
        preset.algorithm.on(environment, num_envs=preset.asked_envs, seed=seed, **preset.options) as agent,
        tempfile.TemporaryDirectory() as folder,
    ):
        run, looks = Path(folder) / "run" if long else None, case.evaluations if long else 0
        agent.learn(steps, progress=False, run=run, eval_every=steps // looks if looks else None)
        seconds = time.perf_counter() - began
        found = agent.evaluate(case.episodes, deterministic=not case.sampled)
        add("last", agent.steps, (found.mean, found.std), seconds)
        if run is not None and seed == 0:
            plot_runs([run], curve_of(algorithm, environment), title=f"{algorithm} on {environment}, seed {seed}")
        if run is not None and looks:
            with renshu.load(run / "best.safetensors", env=environment) as best:
                found = best.evaluate(case.episodes)
                add("best", best.steps, (found.mean, found.std), seconds)
    return rows


def random_score(environment: str, episodes: int) -> tuple[float, float]:
    """Return mean and standard deviation of the returns of random actions."""
    from renshu.envs.source import EnvSource

    env = EnvSource.of(environment).single()
    env.action_space.seed(0)
    returns = []
    for episode in range(episodes):
        env.reset(seed=episode)
        returns.append(0.0)
        over = False
        while not over:
            _, reward, terminated, truncated, _ = env.step(env.action_space.sample())
            returns[-1] += float(reward)
            over = terminated or truncated
    env.close()
    return float(np.mean(returns)), float(np.std(returns))


def curve_of(algorithm: str, environment: str) -> Path:
    """Return the path of the learning curve of a long training."""
    return DOCS / f"{algorithm}_{environment.split('/')[-1].split('-')[0]}.png"


def main(name: str, title: str, cases: Mapping[tuple[str, str], Case], note: str, doc: str | None) -> None:
    """Train the cases that the command line asks for, evaluate, and publish the page NAME with all of them."""
    parser = argparse.ArgumentParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--case", action="append", help="algorithm:environment; default all")
    parser.add_argument("--seeds", type=int)
    parser.add_argument("--first", type=int, default=0, help="the first seed; another than 0 writes nothing")
    parser.add_argument("--processes", type=int, default=2)
    options = parser.parse_args()
    chosen = [tuple(case.split(":", 1)) for case in options.case] if options.case else list(cases)
    jobs = [
        (*case, options.first + seed, cases[case])
        for case in chosen
        for seed in range(options.seeds or cases[case].seeds)
    ]
    with ProcessPoolExecutor(options.processes, get_context("spawn"), max_tasks_per_child=1) as pool:
        new = [row for rows in pool.map(measure, jobs) for row in rows]
    if options.first:
        return
    kept_in = DOCS / f"{name}.csv"
    rows = [row for row in kept(kept_in) if (row["algorithm"], row["environment"]) not in chosen] + new
    rows.sort(key=lambda row: (row["algorithm"], row["environment"], int(row["seed"]), row["agent"]))
    with kept_in.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, FIELDS)
        writer.writeheader()
        writer.writerows(rows)
    publish(name, title, f"python -m bench.{name}", page(rows, cases, note))


def kept(path: Path) -> list[dict[str, str]]:
    """Return the rows that were measured before."""
    if not path.exists():
        return []
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def page(rows: list[dict[str, str]], cases: Mapping[tuple[str, str], Case], note: str) -> str:
    """Format the page: a table with a line for each case, and the learning curves."""
    lines = [
        line(key, case, of_case)
        for key, case in cases.items()
        if (of_case := [row for row in rows if (row["algorithm"], row["environment"]) == key])
    ]
    curves = "".join(f"\n\n![{' on '.join(key)}]({curve_of(*key).name})" for key in cases if curve_of(*key).exists())
    header = ["", "environment", "steps", "greedy episodes, seed by seed", "mean", "goal", "time", "code"]
    return f"{table(header, lines)}\n\n{note}{curves}"


def line(key: tuple[str, str], case: Case, rows: list[dict[str, str]]) -> list[str]:
    """Format the line of one case from its rows."""
    by_chance = [row for row in rows if row["agent"] == RANDOM]
    last = [row for row in rows if row["agent"] == "last"]
    found = [row for row in rows if row["agent"] == "best"] or last
    means = [float(row["mean"]) for row in found]
    scores = ", ".join(f"{row['mean']} ± {row['std']}" for row in found)
    if found is not last:
        scores += ", the last: " + ", ".join(f"{row['mean']} ± {row['std']}" for row in last)
    goal, told = case.goal, f"{case.goal:g}"
    if case.sampled:
        scores += ", sampled"
    if by_chance:
        goal, told = float(by_chance[0]["mean"]), f"random: {by_chance[0]['mean']} ± {by_chance[0]['std']}"
    mean = float(np.mean(means))
    reached = mean > goal if by_chance else mean >= goal
    seconds = max(int(row["seconds"]) for row in found)
    codes = ", ".join(sorted({row["code"] for row in found}))
    steps = f"{int(found[0]['steps']):,}"
    return [*key, steps, scores, f"{mean:.4g}", f"{told}: {'yes' if reached else 'no'}", f"{seconds} s", codes]
