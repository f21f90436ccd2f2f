"""Learning results: train with the presets over several seeds, evaluate 100 greedy episodes each.

python -m bench.learning [--case ppo:CartPole-v1] [--seeds 5]
"""

from __future__ import annotations

import argparse
import time

import renshu
from bench.report import publish, table

CASES = {  # algorithm, environment: seeds, goal for the mean of 100 greedy episodes
    ("ppo", "CartPole-v1"): (5, 475.0),
    ("a2c", "CartPole-v1"): (5, 475.0),
    ("ppo", "Pendulum-v1"): (3, -200.0),
    ("ppo", "LunarLander-v3"): (1, 200.0),
}


def train(algorithm: str, environment: str, seed: int) -> tuple[float, float, int, float]:
    """Train one seed; return mean and deviation of 100 greedy episodes, steps trained, and seconds."""
    preset = renshu.preset(algorithm, environment)
    began = time.perf_counter()
    with preset.algorithm.on(environment, num_envs=preset.num_envs, seed=seed) as agent:
        agent.learn(preset.total_steps, progress=False)
        seconds = time.perf_counter() - began
        result = agent.evaluate(100)
        return result.mean, result.std, agent.steps, seconds


def main() -> None:
    """Train, evaluate and publish."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--case", action="append", help="algorithm:environment, any that has a preset; default all")
    parser.add_argument("--seeds", type=int)
    options = parser.parse_args()
    chosen = [tuple(case.split(":")) for case in options.case] if options.case else list(CASES)
    rows = []
    for algorithm, environment in chosen:
        seeds, goal = CASES.get((algorithm, environment), (1, None))
        for seed in range(options.seeds or seeds):
            mean, std, steps, seconds = train(algorithm, environment, seed)
            verdict = "" if goal is None else "yes" if mean >= goal else "no"
            goal_text = "" if goal is None else f">= {goal:g}"
            rows.append(
                [
                    algorithm,
                    environment,
                    f"{steps:,}",
                    seed,
                    f"{mean:.1f} ± {std:.1f}",
                    goal_text,
                    verdict,
                    f"{seconds:.0f} s",
                ]
            )
            print(" ".join(str(cell) for cell in rows[-1]), flush=True)
    header = [
        "algorithm",
        "environment",
        "steps",
        "seed",
        "mean ± std of 100 greedy episodes",
        "goal",
        "reached",
        "time",
    ]
    if not options.case:
        publish("learning", "Learning results", "python -m bench.learning", table(header, rows))


if __name__ == "__main__":
    main()
