"""Noise that is a function of the state: features times a random matrix that lasts for some steps (Raffin et al. 2021).

"Smooth exploration for robotic reinforcement learning", arXiv:2005.05719.
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp

from renshu.networks.layers import product
from renshu.types import Array, Key


class StateDependentNoise(NamedTuple):
    """Memory of an actor that explores by it."""

    matrix: Array  # [N, F, A] float32  standard normal
    age: Array  # [N] int32  steps since the episode began


def initial_noise(num_envs: int, shape: tuple[int, ...]) -> StateDependentNoise:
    """Make the noise before the first step, which draws its own. shape: (F, A)."""
    return StateDependentNoise(jnp.zeros((num_envs, *shape)), jnp.zeros(num_envs, jnp.int32))


def resample(noise: StateDependentNoise, first: Array, key: Key, every: int) -> StateDependentNoise:
    """Draw new matrices where an episode begins or the old ones have lasted for `every` steps."""
    age = jnp.where(first, 0, noise.age)
    due = age % every == 0

    def draw() -> Array:
        return jnp.where(due[:, None, None], jax.random.normal(key, noise.matrix.shape), noise.matrix)

    return StateDependentNoise(jax.lax.cond(due.any(), draw, lambda: noise.matrix), age + 1)


def log_deviation(features: Array, log_std: Array) -> Array:
    """Compute the log deviation of actions, `[B, A]`, over all matrices (equation 7). log_std: `[F, A]`."""
    return 0.5 * jnp.log(product(features**2, jnp.exp(2 * log_std)) + 1e-6)


def offset(features: Array, log_std: Array, matrix: Array) -> Array:
    """Compute what matrices `[B, F, A]` of standard normal numbers add to the means `[B, A]`."""
    return jnp.einsum("bf,bfa->ba", features, jnp.exp(log_std) * matrix)
