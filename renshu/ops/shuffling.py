"""Random orders, drawn faster than `jax.random.permutation` does on a CPU."""

from __future__ import annotations

import jax
import jax.numpy as jnp

from renshu.types import Key


def permutation(key: Key, n: int) -> jax.Array:
    """A random order of n rows: int32 [n], a permutation of 0..n-1.

    Random bits and the row share one number, which is sorted: a third of the time of sorting pairs, as JAX does. Up to
    2**16 rows; beyond, JAX's own. Where the random bits of two rows are equal (two rows in three of 2**16;
    1 in 16,000 for 512) they keep their order beside each other.
    """
    width = max(1, (n - 1).bit_length())
    if width > 16:
        return jax.random.permutation(key, n).astype(jnp.int32)
    row = jnp.uint32(2**width - 1)
    bits = jax.random.bits(key, (n,), jnp.uint32)
    mixed = jax.lax.sort((bits & ~row) | jnp.arange(n, dtype=jnp.uint32), is_stable=False)
    return (mixed & row).astype(jnp.int32)
