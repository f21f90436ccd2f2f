"""Scores of replay and tabular learners after the steps of RL Zoo: presets, several seeds, 20 greedy episodes each.

    python -m bench.zoo [--case dqn:CartPole-v1] [--seeds 3] [--processes 2]

Rows are kept in docs/benchmarks/zoo.csv: a case that is not selected stays on the page as it was measured.
"""

from __future__ import annotations

import argparse
import csv
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

from bench.report import DOCS, publish, revision, table
from renshu.tracking.curves import plot_runs

CASES = {  # algorithm, environment: seeds, goal for the mean of the seeds' means
    ("dqn", "CartPole-v1"): (3, 500.0),
    ("qrdqn", "CartPole-v1"): (3, 500.0),
    ("dqn", "MountainCar-v0"): (3, -110.0),
    ("dqn", "Acrobot-v1"): (3, -85.0),
    ("dqn", "LunarLander-v3"): (3, 150.0),
    ("sac", "Pendulum-v1"): (3, -165.0),
    ("td3", "Pendulum-v1"): (3, -165.0),
    ("ddpg", "Pendulum-v1"): (3, -165.0),
    ("sac", "MountainCarContinuous-v0"): (3, 90.0),
    ("sac", "LunarLanderContinuous-v3"): (1, 230.0),
    ("tqc", "BipedalWalker-v3"): (1, 290.0),
    ("qlearning", "renshu/Grid-v0"): (3, 0.65),
    ("qlearning", "FrozenLake-v1"): (3, 0.7),
    ("qlearning", "Taxi-v4"): (3, 7.0),
    ("qlearning", "CliffWalking-v1"): (3, -13.0),
    ("sarsa", "FrozenLake-v1"): (3, 0.7),
    ("expectedsarsa", "FrozenLake-v1"): (3, 0.7),
    ("dynaq", "FrozenLake-v1"): (3, 0.7),
    ("pqn", "CartPole-v1"): (5, 500.0),
    ("pqn", "Acrobot-v1"): (3, -85.0),
}
EPISODES = 20
MANY = {"FrozenLake-v1": 1000, "renshu/Grid-v0": 1000, "Taxi-v4": 300}
"""Numbers of episodes for environments in which chance decides much."""
EVALUATIONS = 30
"""Evaluations of 10 episodes each during the training of a single seed; the best agent in them is evaluated again."""
FIELDS = ["algorithm", "environment", "seed", "agent", "steps", "mean", "std", "seconds", "code"]
ROWS = DOCS / "zoo.csv"


def measure(job: tuple[str, str, int]) -> list[dict[str, str]]:
    """Train one seed and evaluate it: the last agent and, where it is the only seed, the best along the way."""
    import renshu

    algorithm, environment, seed = job
    preset = renshu.preset(algorithm, environment)
    long = CASES[algorithm, environment][0] == 1
    rows = []

    def add(which: str, agent: renshu.Agent, seconds: float) -> None:
        found = agent.evaluate(MANY.get(environment, EPISODES))
        scores = f"{found.mean:.4g}", f"{found.std:.3g}", round(seconds)
        values = [algorithm, environment, seed, which, agent.steps, *scores, revision()]
        rows.append(dict(zip(FIELDS, map(str, values), strict=True)))
        print(" ".join(rows[-1].values()), flush=True)

    began = time.perf_counter()
    with (
        preset.algorithm.on(environment, num_envs=preset.num_envs, seed=seed) as agent,
        tempfile.TemporaryDirectory() as folder,
    ):
        run = Path(folder) / "run" if long else None
        every = preset.total_steps // EVALUATIONS if long else None
        agent.learn(preset.total_steps, progress=False, run=run, eval_every=every)
        seconds = time.perf_counter() - began
        add("last", agent, seconds)
        if run is not None:
            if seed == 0:
                plot_runs([run], curve_of(algorithm, environment), title=f"{algorithm} on {environment}, seed {seed}")
            with renshu.load(run / "best.safetensors", env=environment) as best:
                add("best", best, seconds)
    return rows


def curve_of(algorithm: str, environment: str) -> Path:
    """Return the path of the learning curve of a long training."""
    return DOCS / f"{algorithm}_{environment.split('-')[0]}.png"


def kept() -> list[dict[str, str]]:
    """Return the rows that were measured before."""
    if not ROWS.exists():
        return []
    with ROWS.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def main() -> None:
    """Train, evaluate and publish."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--case", action="append", help="algorithm:environment; default all")
    parser.add_argument("--seeds", type=int)
    parser.add_argument("--processes", type=int, default=2)
    options = parser.parse_args()
    chosen = [tuple(case.split(":")) for case in options.case] if options.case else list(CASES)
    jobs = [(*case, seed) for case in chosen for seed in range(options.seeds or CASES[case][0])]
    with ProcessPoolExecutor(options.processes, get_context("spawn")) as pool:
        new = [row for rows in pool.map(measure, jobs) for row in rows]
    rows = [row for row in kept() if (row["algorithm"], row["environment"]) not in chosen] + new
    rows.sort(key=lambda row: (row["algorithm"], row["environment"], int(row["seed"]), row["agent"]))
    with ROWS.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, FIELDS)
        writer.writeheader()
        writer.writerows(rows)
    publish("zoo", "Learning from replay, and tables", "python -m bench.zoo", page(rows))


def page(rows: list[dict[str, str]]) -> str:
    """Format the page: a table with a line for each case, and the learning curves."""
    lines = []
    for case, (_, goal) in CASES.items():
        of_case = [row for row in rows if (row["algorithm"], row["environment"]) == case]
        found = [row for row in of_case if row["agent"] == "best"] or of_case
        if not found:
            continue
        means = [float(row["mean"]) for row in found]
        scores = ", ".join(f"{row['mean']} ± {row['std']}" for row in found)
        if found is not of_case:
            last = (f"{row['mean']} ± {row['std']}" for row in of_case if row["agent"] == "last")
            scores += f", the last: {', '.join(last)}"
        seconds = max(int(row["seconds"]) for row in found)
        mean = sum(means) / len(means)
        verdict = f"{goal:g}: {'yes' if mean >= goal else 'no'}"
        codes = ", ".join(sorted({row["code"] for row in found}))
        lines.append([*case, f"{int(found[0]['steps']):,}", scores, f"{mean:.4g}", verdict, f"{seconds} s", codes])
    curves = "".join(
        f"\n\n![{' on '.join(case)}]({curve_of(*case).name})" for case in CASES if curve_of(*case).exists()
    )
    header = ["", "environment", "steps", "greedy episodes, seed by seed", "mean", "goal", "time", "code"]
    return (
        f"{table(header, lines)}\n\nSettings: the presets, which say where they differ from RL Zoo's. Goal: for the "
        "mean over the seeds. Episodes: 20 of each seed; 1,000 of FrozenLake and Grid, 300 of Taxi. Time: of the "
        f"slowest seed, two at once on the machine, with compilation. What names a last agent too: the best of "
        f"{EVALUATIONS} evaluations of 10 episodes on the way, evaluated again.{curves}"
    )


if __name__ == "__main__":
    main()
