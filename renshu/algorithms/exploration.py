"""Epsilon-greedy exploration, with epsilon falling by steps or by episodes."""

from __future__ import annotations

from dataclasses import dataclass

import jax
import jax.numpy as jnp

from renshu.algorithms.hyperparameters import choice, number
from renshu.ops.masks import uniform_actions
from renshu.types import Array, Counters, Key, TimeStep


@dataclass(frozen=True, kw_only=True)
class EpsilonGreedy:
    """Hyperparameters of epsilon-greedy exploration, as in Stable-Baselines3; and by episodes."""

    exploration_fraction: float = number(
        0.1, "share of training in which epsilon falls", above=0, most=1, traceable=True, tune=(0.02, 0.5)
    )
    exploration_initial_eps: float = number(1.0, "epsilon at the start", least=0, most=1, traceable=True)
    exploration_final_eps: float = number(0.05, "epsilon at the end", least=0, most=1, traceable=True, tune=(0.01, 0.2))
    exploration_by: str = choice(
        "steps",
        '"steps": in a straight line; "episodes": exploration_initial_eps / (episodes + 1), not below the final one',
        ("steps", "episodes"),
    )

    def epsilon(self, counters: Counters, before: Array | float = 1.0) -> Array:
        """Compute the share of random actions, [] float32, no more than that of `before`: it never rises again."""
        start, end = self.exploration_initial_eps, self.exploration_final_eps
        if self.exploration_by == "episodes":
            return jnp.minimum(before, jnp.maximum(start / (counters.episodes + 1.0), end))
        passed = jnp.minimum((1 - counters.progress_remaining) / self.exploration_fraction, 1.0)
        return jnp.minimum(before, start + passed * (end - start))


@dataclass(frozen=True, kw_only=True)
class EpsilonOfEach:
    """Hyperparameters of exploration to which each environment has its own share (Horgan et al. 2018, section 4.1)."""

    exploration_base: float = number(
        0.4, "environment i of N explores with base^(1 + exponent i / (N - 1))", least=0, most=1
    )
    exploration_exponent: float = number(7.0, "see exploration_base", least=0)

    def epsilons(self, timestep: TimeStep, num_envs: int) -> Array:
        """Compute the share of each environment, `[N]` float32. num_envs: of all environments that there are."""
        count = timestep.first.shape[0]
        env = jnp.arange(count) if isinstance(timestep.env_id, tuple) else timestep.env_id
        of_all = max(num_envs, count)
        place = env / (of_all - 1) if of_all > 1 else jnp.full(count, 0.5)
        return jnp.asarray(self.exploration_base, jnp.float32) ** (1 + self.exploration_exponent * place)


def epsilon_greedy_action(values: Array, epsilon: Array, key: Key, mask: Array | None = None) -> Array:
    """Choose the action of the highest value, or with probability `epsilon` a uniformly random one: int32 `[N]`.

    values: `[N, A]`. epsilon: [] in [0, 1]. mask: `[N, A]` bool, which actions are allowed; the values of the others
    must be lower. None for all.
    """
    key_action, key_random = jax.random.split(key)
    greedy = jnp.argmax(values, axis=1).astype(jnp.int32)
    anything = uniform_actions(key_action, len(greedy), values.shape[1], mask)
    return jnp.where(jax.random.uniform(key_random, greedy.shape) < epsilon, anything, greedy)
