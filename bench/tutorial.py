"""Episodes until CartPole-v0 is solved by the rule of a known tutorial: DQN and three ideas, 20 seeds each.

    python -m bench.tutorial [--seeds 20] [--processes 2]

Rewards are the tutorial's: 0 a step, -1 for a fall before step 195, +1 for an end after it. Solved: 10 episodes in a
row of at least 195 steps; what counts is the last of them. Its settings: networks 4-32-32-2, memory 10,000, batch 32,
Adam 1e-4, epsilon 0.5/(episode+1), gamma 0.99, a gradient step after each step. It gave one seed of each.
"""

from __future__ import annotations

import argparse
import time
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from typing import Any

import gymnasium
import numpy as np

from bench.report import publish, table

MOST_EPISODES = 1000
SOLVED_STEPS, IN_A_ROW = 195, 10
SETTINGS: dict[str, Any] = {
    "learning_rate": 1e-4,
    "buffer_size": 10_000,
    "batch_size": 32,
    "learning_starts": 32,
    "train_freq": 1,
    "gamma": 0.99,
    "exploration_by": "episodes",
    "exploration_initial_eps": 0.5,
    "exploration_final_eps": 0.0,
    "net_arch": [32, 32],
}
VARIANTS: dict[str, tuple[dict[str, Any], int]] = {
    "DQN": ({"target_update_interval": 1}, 85),
    "Double": ({"double": True, "target_update_interval": 100}, 46),
    "Dueling (and double)": ({"double": True, "dueling": True, "target_update_interval": 100}, 164),
    "Prioritized (and double)": ({"double": True, "prioritized": True, "target_update_interval": 100}, 175),
}


class TutorialRewards(gymnasium.Wrapper):
    """0 a step, -1 for a fall before step 195, +1 for an end after it."""

    def reset(self, **options: Any) -> tuple[Any, dict]:
        """Begin an episode."""
        self.steps = 0
        return self.env.reset(**options)

    def step(self, action: Any) -> tuple:
        """Go on."""
        obs, _, terminated, truncated, info = self.env.step(action)
        self.steps += 1
        ended = terminated or truncated
        reward = (1.0 if self.steps >= SOLVED_STEPS else -1.0) if ended else 0.0
        return obs, reward, terminated, truncated, info


def environment() -> gymnasium.Env:
    """The tutorial's CartPole."""
    return TutorialRewards(gymnasium.make("CartPole-v0", disable_env_checker=True))


def episodes_until_solved(job: tuple[dict[str, Any], int]) -> int:
    """Train with one seed until it is solved; MOST_EPISODES where it is not."""
    from renshu import DQN

    options, seed = job
    agent = DQN(**SETTINGS, **options).on(environment, seed=seed)
    lengths: list[int] = []

    def watch(agent: Any, metrics: dict[str, float]) -> bool:
        count = int(agent.state.episodes)
        if count > len(lengths):
            lengths.append(agent.recent_lengths[-1])
        return streak(lengths) < IN_A_ROW and count < MOST_EPISODES

    agent.learn(200 * MOST_EPISODES, callbacks=watch, progress=False)
    return len(lengths) if streak(lengths) >= IN_A_ROW else MOST_EPISODES


def streak(lengths: list[int]) -> int:
    """How many of the last episodes stood."""
    short = [i for i, length in enumerate(lengths) if length < SOLVED_STEPS]
    return len(lengths) - (short[-1] + 1 if short else 0)


def main() -> None:
    """Train all, publish the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=20)
    parser.add_argument("--processes", type=int, default=2)
    options = parser.parse_args()
    began, rows = time.perf_counter(), []
    with ProcessPoolExecutor(options.processes, get_context("spawn")) as pool:
        for name, (settings, article) in VARIANTS.items():
            found = list(pool.map(episodes_until_solved, [(settings, seed) for seed in range(options.seeds)]))
            quarter, median, three = np.percentile(found, [25, 50, 75])
            unsolved = sum(n >= MOST_EPISODES for n in found)
            verdict = "yes" if median <= article else "no"
            print(name, sorted(found), f"{time.perf_counter() - began:.0f} s", flush=True)
            rows.append([name, f"{median:g}", f"{quarter:g} to {three:g}", str(unsolved), str(article), verdict])
    header = ["", "median", "quartiles", "not solved", "the tutorial, one seed", "median at or below"]
    body = f"{table(header, rows)}\n\n{options.seeds} seeds each; {time.perf_counter() - began:.0f} s in all."
    publish("tutorial", "Episodes until CartPole-v0 is solved", "python -m bench.tutorial", f"{EXPLAINED}\n\n{body}")


EXPLAINED = (__doc__ or "").split("\n\n", 2)[2].strip()

if __name__ == "__main__":
    main()
