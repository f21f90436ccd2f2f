"""Breakout of MinAtar in the compiled loop, by the presets of PPO and PQN: the score of several seeds, and the minutes.

    python -m bench.minatar [--seeds 5] [--steps 2000000] [--algorithm ppo]

With other seeds or steps than the page has, or one algorithm alone, nothing is written.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path

import numpy as np

from bench.report import DOCS, publish, table
from renshu import preset
from renshu.tracking.curves import plot_runs

ALGORITHMS = ("ppo", "pqn")
GAME = "gymnax/Breakout-MinAtar"
SEEDS = 5
STEPS = 2_000_000
GOAL = 20.0
EPISODES = 100


def trained(algorithm: str, seed: int, steps: int, run: Path) -> tuple[list[object], float]:
    """Train one seed by the preset, recorded in `run`; return its row of the table and the mean of greedy episodes."""
    chosen = preset(algorithm, GAME)
    agent = chosen.algorithm.on(GAME, num_envs=chosen.num_envs, seed=seed)
    began = time.perf_counter()
    agent.learn(steps, progress=False, run=run)
    minutes = (time.perf_counter() - began) / 60
    score = agent.evaluate(EPISODES)
    row = [type(chosen.algorithm).__name__, seed, f"{agent.steps:,}", f"{minutes:.1f}", f"{score.mean:.1f}"]
    print(*row, flush=True)
    return row, score.mean


def main() -> None:
    """Train, evaluate and write the page."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=SEEDS)
    parser.add_argument("--steps", type=int, default=STEPS, help="of each seed")
    parser.add_argument("--algorithm", choices=ALGORITHMS, action="append", help="one of them alone")
    asked = parser.parse_args()
    steps, rows, means = asked.steps, [], []
    whole = not asked.algorithm and asked.seeds == SEEDS and steps == STEPS
    with tempfile.TemporaryDirectory() as folder:
        runs: list[Path] = []
        for algorithm in asked.algorithm or ALGORITHMS:
            of_seeds = [Path(folder) / f"{algorithm} {seed}" for seed in range(asked.seeds)]
            found = [trained(algorithm, seed, steps, run) for seed, run in enumerate(of_seeds)]
            runs += of_seeds
            rows += [row for row, _ in found]
            scores = [score for _, score in found]
            reached = "yes" if np.mean(scores) >= GOAL else "no"
            spread = f"{np.mean(scores):.1f} ± {np.std(scores):.1f}"
            means.append([algorithm.upper(), len(scores), f"{steps:,}", spread, f">= {GOAL:g}: {reached}"])
        if whole:
            plot_runs(runs, DOCS / "minatar.png", title="Breakout of MinAtar, training episodes")
    body = f"""{table(["algorithm", "seeds", "steps", "mean return", "goal"], means)}

{table(["algorithm", "seed", "steps", "minutes", f"mean of {EPISODES} greedy episodes"], rows)}

gymnax's Breakout of MinAtar: a point for each brick, 1,000 steps at most. Presets `ppo` and `pqn` for `{GAME}`; minutes
are of training, its compilation included, one seed after the other. ±: standard deviation over seeds. PPO's `ent_coef`
was chosen on seeds 11 and 12, after seed 0 had stayed at 19 with PureJaxRL's.

![learning curves](minatar.png)"""
    if whole:
        publish("minatar", "MinAtar", "python -m bench.minatar", body)
    else:
        print(f"\n{body}\n\nnothing written: this was not the whole of it")


if __name__ == "__main__":
    main()
