"""Targets of values: what comes after a transition, as functions of arrays."""

from __future__ import annotations

import jax.numpy as jnp

from renshu.types import Array


def td_target(reward: Array, discount: Array, value: Array) -> Array:
    """Compute r + discount V(s'), `[B, K]`. reward, discount: `[B]`, discount 0 at the end. value: `[B, K]`."""
    return reward[:, None] + discount[:, None] * value


def soft_value(q: Array, log_prob: Array, temperature: Array | float) -> Array:
    """Compute Q(s', a') - alpha log pi(a'|s'), `[B, K]` (Haarnoja 2018, equation 3). q: `[B, K]`. log_prob: `[B]`."""
    return q - temperature * log_prob[:, None]


def truncated_mixture(quantiles: Array, drop: int) -> Array:
    """Sort the quantiles of all critics and leave out the highest (Kuznetsov et al. 2020, section 3).

    quantiles: `[n, B, K]`. drop: for each critic. Returns `[B, n (K - drop)]`.
    """
    n, batch, count = quantiles.shape
    return jnp.sort(jnp.swapaxes(quantiles, 0, 1).reshape(batch, -1), axis=1)[:, : n * (count - drop)]
