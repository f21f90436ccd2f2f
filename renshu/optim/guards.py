"""Guards against bad numbers: keep the state from before an update that went NaN."""

from __future__ import annotations

import jax
import jax.numpy as jnp

from renshu.types import Array, Metrics, PyTree


def keep_if_finite(new: PyTree, old: PyTree, metrics: Metrics) -> PyTree:
    """Return `new`, or `old` where any metric or any leaf of `new` is NaN or infinite: a bad update changes nothing."""
    leaves = [x for x in jax.tree.leaves((new, metrics)) if jnp.issubdtype(x.dtype, jnp.floating)]
    return keep_if(jnp.array([jnp.isfinite(x).all() for x in leaves], jnp.bool_).all(), new, old)


def keep_if(good: Array, new: PyTree, old: PyTree) -> PyTree:
    """Return `new` where `good` is true, `old` where not."""
    return jax.tree.map(lambda n, o: jnp.where(good, n, o), new, old)
