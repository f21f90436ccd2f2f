"""Arrays with a row for each environment, [N, ...]."""

from __future__ import annotations

import jax.numpy as jnp

from renshu.types import Array


def choose(mask: Array, new: Array, old: Array) -> Array:
    """Choose between two arrays [N, ...] by a mask [N]."""
    return jnp.where(mask.reshape(mask.shape + (1,) * (new.ndim - 1)), new, old)
