"""Scalars as categorical distributions: squashed, then shared between the two nearest whole numbers.

As in Schrittwieser et al. 2020, "Mastering Atari, Go, chess and shogi by planning with a learned model", appendix F.
The support is the whole numbers from -reach to reach, 2 reach + 1 of them: a reach of 30 is for scalars up to 905.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp

from renshu.ops.value_heads import rescale
from renshu.types import Array


def support(reach: int) -> Array:
    """Return the squashed scalars that the categories stand for: [2 reach + 1] float32."""
    return jnp.arange(-reach, reach + 1, dtype=jnp.float32)


def unscale(x: Array, eps: float = 1e-3) -> Array:
    """Undo `rescale` to the last digits: the formula of the paper subtracts near equals, and is wrong by 3e-5 at 0."""
    size = jnp.abs(x) + 1 + eps
    root = 2 * size / (jnp.sqrt(1 + 4 * eps * size) + 1)
    return jnp.sign(x) * (root**2 - 1)


def two_hot(x: Array, reach: int) -> Array:
    """Turn scalars `[...]` into probabilities `[..., 2 reach + 1]` float32 of at most two neighbours.

    Their mean is the squashed scalar, or the nearest end of the support where that is beyond it.
    """
    squashed = rescale(x).clip(-reach, reach)
    return jnp.maximum(0.0, 1.0 - jnp.abs(squashed[..., None] - support(reach)))


def scalar(logits: Array, reach: int) -> Array:
    """Turn logits `[..., 2 reach + 1]` into the scalars `[...]` float32 that they stand for: unsquashed means."""
    return unscale((jax.nn.softmax(logits) * support(reach)).sum(axis=-1))


def cross_entropy(logits: Array, target: Array) -> Array:
    """Compute the cross-entropy `[...]`, in nats, of logits and target probabilities, both `[..., K]`."""
    return -(target * jax.nn.log_softmax(logits)).sum(axis=-1)
