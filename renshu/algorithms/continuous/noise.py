"""Exploration noise of deterministic policies: on actions, correlated or not, and on parameters."""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp

from renshu.types import Array, Key, PyTree

THETA, TIME_STEP = 0.15, 1e-2
"""Of the Ornstein-Uhlenbeck process: how strongly it is drawn back to 0 (Lillicrap et al. 2016), and its time step."""
ADAPT_EVERY, ADAPT_BY = 50, 1.01
"""Of parameter noise: environment steps between changes of its deviation, and their factor (Plappert et al. 2018)."""


def normal_noise(action: Array, std: Array | float, key: Key) -> Array:
    """Add normal noise to actions `[N, A]`, which stay within +-1."""
    return jnp.clip(action + std * jax.random.normal(key, action.shape), -1.0, 1.0)


def ornstein_uhlenbeck(action: Array, before: Array, first: Array, std: Array | float, key: Key) -> tuple[Array, Array]:
    """Add correlated noise to actions `[N, A]`, which stay within +-1. Returns the noise, too.

    before: `[N, A]`, the noise of the step before; it begins at 0 where `first` `[N]`.
    """
    before = jnp.where(first[:, None], 0.0, before)
    drawn = std * jax.random.normal(key, action.shape)
    noise = before - THETA * before * TIME_STEP + TIME_STEP**0.5 * drawn
    return jnp.clip(action + noise, -1.0, 1.0), noise


class ParameterNoise(NamedTuple):
    """Noise on a policy's parameters, which explores."""

    delta: PyTree  # added to the parameters
    std: Array  # [] float32  of the noise


def perturbation(actor: PyTree, std: Array, key: Key) -> PyTree:
    """Draw normal noise for a policy's parameters, for all but those of the normalisation."""
    leaves, structure = jax.tree_util.tree_flatten_with_path(actor)
    keys = jax.random.split(key, len(leaves))
    noisy = [
        jnp.zeros_like(x) if "LayerNorm" in jax.tree_util.keystr(path) else std * jax.random.normal(k, x.shape)
        for (path, x), k in zip(leaves, keys, strict=True)
    ]
    return jax.tree.unflatten(structure, noisy)


def perturbed(actor: PyTree, delta: PyTree) -> PyTree:
    """Add noise to a policy's parameters."""
    return jax.tree.map(jnp.add, actor, delta)


def adapted_std(std: Array, distance: Array, wanted: Array | float) -> Array:
    """Adapt the deviation of parameter noise: it grows while actions differ by too little (Plappert 2018, equation 4).

    distance: [], the root of the mean squared difference of actions. wanted: that which it should be.
    """
    return jnp.where(distance < wanted, std * ADAPT_BY, std / ADAPT_BY)
