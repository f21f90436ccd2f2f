"""Episodes until CartPole-v0 is solved by the rule of a known tutorial: DQN and three ideas, 20 seeds each.

    python -m bench.tutorial [--seeds 20]

Rewards are the tutorial's: 0 a step, -1 for a fall before step 195, +1 for an end after it; 200 steps at the most.
Solved: 10 episodes in a row of at least 195 steps; what counts is the last of them. The tutorial trained one seed each.
"""

from __future__ import annotations

import argparse
import os
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from bench.report import publish, table
from renshu import DQN, Step
from renshu.envs.builtin.classic import CartPole
from renshu.envs.device import DeviceEnvs
from renshu.loops.compiled import TrainIteration
from renshu.loops.programs import compiler_options, single_threaded

LIMIT, SOLVED_STEPS, IN_A_ROW = 200, 195, 10
MOST_STEPS, VISIT, SEEDS_AT_ONCE = 40_000, 1_000, 5
SHARED: dict[str, Any] = {
    "buffer_size": 10_000,
    "learning_starts": 32,
    "train_freq": 1,
    "gamma": 0.99,
    "exploration_by": "episodes",
    "exploration_initial_eps": 0.5,
    "exploration_final_eps": 0.0,
}
THEIRS = {"learning_rate": 1e-4, "batch_size": 32, "net_arch": [32, 32], "target_update_interval": 100}
OURS = {
    "learning_rate": 2e-3,
    "batch_size": 64,
    "net_arch": [64, 64],
    "target_update_interval": 1,
    "tau": 0.02,
    "n_steps": 5,
}
VARIANTS: dict[str, tuple[dict[str, Any], int]] = {
    "DQN": ({}, 85),
    "Double": ({"double": True}, 46),
    "Dueling (and double)": ({"double": True, "dueling": True}, 164),
    "Prioritized (and double)": ({"double": True, "prioritized": True}, 175),
}


class TutorialCartPole(CartPole):
    """CartPole with the tutorial's rewards and its limit of 200 steps."""

    max_episode_steps = None

    def reset(self, key: Any) -> tuple[Any, Any]:
        """Begin at step 0."""
        state, obs = super().reset(key)
        return (state, jnp.int32(0)), obs

    def step(self, state: Any, action: Any, key: Any) -> Step:
        """Advance by one action; the reward comes at the end."""
        inner, steps = state
        out = super().step(inner, action, key)
        steps = steps + 1
        truncated = (steps >= LIMIT) & ~out.terminated
        reward = jnp.where(steps >= SOLVED_STEPS, 1.0, -1.0)
        reward = jnp.where(out.terminated | truncated, reward, 0.0)
        return Step((out.state, steps), out.obs, reward, out.terminated, truncated)


def episodes_until_solved(algorithm: DQN, seeds: list[int]) -> list[int | None]:
    """Train seeds at once; return for each the episode that completed ten in a row, None where there was none."""
    env = TutorialCartPole()
    iterate = TrainIteration(algorithm.build(env.spec(1)), DeviceEnvs(env, 1), lambda action: action, refuse=False)

    def start(seed: Any) -> tuple:
        key = jax.random.key(seed)
        return iterate.learner.init(key), iterate.start(jax.random.fold_in(key, 1)), jax.random.fold_in(key, 2)

    def visit(carry: tuple, begin: Any) -> tuple:
        def one(state: Any, scene: Any, key: Any, iteration: Any) -> tuple:
            state, scene, told = iterate(state, scene, key, iteration)
            return (state, scene, key), (told.ended[0, 0], told.lengths[0, 0])

        return jax.lax.scan(
            lambda carry, i: jax.vmap(one, (0, 0, 0, None))(*carry, i), carry, begin + jnp.arange(VISIT)
        )

    carry = jax.lax.map(start, jnp.asarray(seeds, jnp.uint32))
    program = jax.jit(visit, donate_argnums=0, compiler_options=compiler_options() | single_threaded())
    lengths: list[list[int]] = [[] for _ in seeds]
    for begin in range(0, MOST_STEPS, VISIT):
        carry, (ended, length) = program(carry, np.int32(begin))
        for found, ends, steps in zip(lengths, np.asarray(ended).T, np.asarray(length).T, strict=True):
            found += steps[ends].tolist()
        if all(solved(found) for found in lengths):
            break
    return [solved(found) for found in lengths]


def solved(lengths: list[int]) -> int | None:
    """Return the number of the episode that completed ten in a row, or None."""
    row = 0
    for number, steps in enumerate(lengths, 1):
        row = row + 1 if steps >= SOLVED_STEPS else 0
        if row == IN_A_ROW:
            return number
    return None


def measure(settings: dict[str, Any], seeds: int) -> list[float]:
    """Train all seeds, some at once, on all cores; return episodes until solved, infinity where it never was."""
    algorithm = DQN(**SHARED, **settings)
    parts = [list(range(first, min(first + SEEDS_AT_ONCE, seeds))) for first in range(0, seeds, SEEDS_AT_ONCE)]
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        found = [n for part in pool.map(lambda part: episodes_until_solved(algorithm, part), parts) for n in part]
    return [np.inf if n is None else float(n) for n in found]


def main() -> None:
    """Train all variants and publish the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=20)
    options = parser.parse_args()
    began, parts = time.perf_counter(), []
    for title, settings in (("The tutorial's settings", THEIRS), ("Our own settings", OURS)):
        rows = []
        for name, (ideas, article) in VARIANTS.items():
            chosen = {**settings, **ideas}
            if settings is THEIRS and not ideas:
                chosen["target_update_interval"] = 1  # the tutorial's plain DQN had no target network
            found = measure(chosen, options.seeds)
            quarter, median, three = np.percentile(found, [25, 50, 75], method="nearest")
            unsolved = sum(np.isinf(found))
            verdict = "yes" if median <= article else "no"
            rows.append([name, f"{median:g}", f"{quarter:g} to {three:g}", unsolved, article, verdict])
            print(title, *rows[-1], f"{time.perf_counter() - began:.0f} s", flush=True)
        header = ["", "median", "quartiles", "not solved", "the tutorial, one seed", "median at or below"]
        words = ", ".join(f"{name} {value}" for name, value in {**SHARED, **settings}.items())
        parts.append(f"## {title}\n\n{table(header, rows)}\n\n{words}.")
    text = "\n\n".join(parts)
    total = (
        f"{options.seeds} seeds each, {MOST_STEPS:,} steps at the most; {time.perf_counter() - began:.0f} s in all. "
        "Our own settings were chosen by what they did for Double on 20 other seeds."
    )
    publish(
        "tutorial", "Episodes until CartPole-v0 is solved", "python -m bench.tutorial", f"{ABOUT}\n\n{total}\n\n{text}"
    )


ABOUT = (__doc__ or "").split("\n\n", 2)[2].strip()

if __name__ == "__main__":
    main()
