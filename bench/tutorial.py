"""Episodes until CartPole-v0 is solved by the rules of a known tutorial: DQN and three ideas, and A2C, 20 seeds each.

    python -m bench.tutorial [--seeds 20]

Rewards are the tutorial's: 0 a step, -1 for a fall before step 195, +1 for an end after it; 200 steps at the most.
Solved: 10 episodes in a row of at least 195 steps; what counts is the last of them. A2C, in 32 environments at once:
the last episode of each has stood all 200 steps; what counts is the number of episodes of environment 0 until then.
The tutorial trained one seed each.
"""

from __future__ import annotations

import argparse
import os
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np

from bench.report import publish, table
from renshu import A2C, DQN, Step
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
ACTORS = 32
STANDING: dict[str, Any] = {
    "n_steps": 5,
    "learning_rate": 0.01,
    "use_rms_prop": False,
    "rms_prop_eps": 1e-8,
    "vf_coef": 0.5,
    "ent_coef": 0.01,
    "max_grad_norm": 0.5,
    "net_arch": [32, 32],
    "activation_fn": "relu",
    "share_features_extractor": True,
    "ortho_init": False,
}
"""The tutorial's settings of A2C."""
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


Rule: TypeAlias = Callable[[np.ndarray, np.ndarray], int | None]
"""From the steps that ended an episode `[T, N]` and the lengths of episodes there to episodes until solved, or None."""


def episodes_until_solved(algorithm: Any, num_envs: int, rule: Rule, seeds: list[int]) -> list[int | None]:
    """Train seeds at once; return for each what the rule says, None where it was not solved."""
    env = TutorialCartPole()
    learner, envs = algorithm.build(env.spec(num_envs)), DeviceEnvs(env, num_envs)
    iterate = TrainIteration(learner, envs, lambda action: action, refuse=False)

    def start(seed: Any) -> tuple:
        key = jax.random.key(seed)
        return iterate.learner.init(key), iterate.start(jax.random.fold_in(key, 1)), jax.random.fold_in(key, 2)

    def visit(carry: tuple, begin: Any) -> tuple:
        def one(state: Any, scene: Any, key: Any, iteration: Any) -> tuple:
            state, scene, told = iterate(state, scene, key, iteration)
            return (state, scene, key), (told.ended, told.lengths)

        return jax.lax.scan(
            lambda carry, i: jax.vmap(one, (0, 0, 0, None))(*carry, i), carry, begin + jnp.arange(VISIT)
        )

    carry = jax.lax.map(start, jnp.asarray(seeds, jnp.uint32))
    program = jax.jit(visit, donate_argnums=0, compiler_options=compiler_options() | single_threaded())
    parts: list[list[np.ndarray]] = [[], []]
    for begin in range(0, MOST_STEPS, VISIT):
        carry, told = program(carry, np.int32(begin))
        for part, numbers in zip(parts, told, strict=True):
            part.append(np.asarray(numbers))
        # [visits, seeds, T, N], one after the other in time for each seed
        ended, lengths = (np.swapaxes(np.concatenate(part), 0, 1) for part in parts)
        found = [rule(*(x[i].reshape(-1, num_envs) for x in (ended, lengths))) for i in range(len(seeds))]
        if all(found):
            break
    return found


def all_stand(ended: np.ndarray, lengths: np.ndarray) -> int | None:
    """Return the episodes of environment 0 until the last episode of each environment had all steps, or None."""
    last, count = np.zeros(ended.shape[1], int), 0
    for ends, steps in zip(ended, lengths, strict=True):
        last = np.where(ends, steps, last)
        count += int(ends[0])
        if (last >= LIMIT).all():
            return max(count, 1)
    return None


def ten_in_a_row(ended: np.ndarray, lengths: np.ndarray) -> int | None:
    """Return the number of the episode that completed ten in a row, or None."""
    row = 0
    for number, steps in enumerate(lengths[ended].tolist(), 1):
        row = row + 1 if steps >= SOLVED_STEPS else 0
        if row == IN_A_ROW:
            return number
    return None


def measure(algorithm: Any, num_envs: int, rule: Rule, seeds: int) -> list[float]:
    """Train all seeds, some at once, on all cores; return episodes until solved, infinity where it never was."""
    parts = [list(range(first, min(first + SEEDS_AT_ONCE, seeds))) for first in range(0, seeds, SEEDS_AT_ONCE)]
    until = partial(episodes_until_solved, algorithm, num_envs, rule)
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        found = [n for part in pool.map(until, parts) for n in part]
    return [np.inf if n is None else float(n) for n in found]


def row(name: str, found: list[float], article: int) -> list[Any]:
    """Format a line of the table."""
    quarter, median, three = np.percentile(found, [25, 50, 75], method="nearest")
    verdict = "yes" if median <= article else "no"
    return [name, f"{median:g}", f"{quarter:g} to {three:g}", sum(np.isinf(found)), article, verdict]


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
            rows.append(row(name, measure(DQN(**SHARED, **chosen), 1, ten_in_a_row, options.seeds), article))
            print(title, *rows[-1], f"{time.perf_counter() - began:.0f} s", flush=True)
        header = ["", "median", "quartiles", "not solved", "the tutorial, one seed", "median at or below"]
        words = ", ".join(f"{name} {value}" for name, value in {**SHARED, **settings}.items())
        parts.append(f"## {title}\n\n{table(header, rows)}\n\n{words}.")
    standing = row("A2C", measure(A2C(**STANDING), ACTORS, all_stand, options.seeds), 25)
    print(*standing, f"{time.perf_counter() - began:.0f} s", flush=True)
    words = ", ".join(f"{name} {value}" for name, value in STANDING.items())
    parts.append(
        f"## A2C, {ACTORS} environments at once, the tutorial's settings\n\n{table(header, [standing])}\n\n{words}."
    )
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
