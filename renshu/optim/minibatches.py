"""Minibatches in random orders, drawn faster than `jax.random.permutation` does on a CPU."""

from __future__ import annotations

import jax
import jax.numpy as jnp

from renshu.errors import HyperparameterError
from renshu.types import Array, Key, PyTree


def permutation(key: Key, n: int) -> jax.Array:
    """Draw a random order of n rows: int32 [n], a permutation of 0..n-1.

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


def minibatches(key: Key, rows: int, batch_size: int, n_epochs: int) -> jax.Array:
    """Draw the rows of each minibatch, reshuffled for each epoch: `[n_epochs * rows / batch_size, batch_size]` int32.

    One minibatch needs no order, since a mean over everything does not depend on it: `[n_epochs]` then. Each entry is
    for `minibatch`.
    """
    if rows == batch_size:
        return jnp.arange(n_epochs)
    orders = jax.vmap(lambda k: permutation(k, rows))(jax.random.split(key, n_epochs))
    return orders.reshape(-1, batch_size)


def minibatch(batch: PyTree, order: Array) -> PyTree:
    """Select the rows of `batch` [B, ...] that an entry of `minibatches` names; all of them where it is a scalar."""
    return jax.tree.map(lambda x: x[order], batch) if order.ndim else batch


def check_minibatches(name: str, n_steps: int, num_envs: int, batch_size: int, whole: bool = False) -> None:
    """Raise HyperparameterError of algorithm `name` where batch_size does not divide a rollout.

    whole: a minibatch is of whole environments, as a recurrent policy needs them.
    """
    if whole and (batch_size % n_steps or num_envs % (batch_size // n_steps)):
        fits = [n_steps * count for count in range(1, num_envs + 1) if num_envs % count == 0]
        near = min(fits, key=lambda size: abs(size - batch_size))
        raise HyperparameterError(
            f"{name}: batch_size={batch_size} is not n_steps={n_steps} times a divisor of num_envs={num_envs}: a "
            f"recurrent policy learns from whole environments at a time. The nearest that is: batch_size={near}"
        )
    rows = n_steps * num_envs
    if rows % batch_size:
        # 1 divides all, so that none beyond twice the size is nearer; a file may claim any numbers.
        most = min(rows, 2 * batch_size, 10**6)
        near = min((b for b in range(1, most + 1) if rows % b == 0), key=lambda b: abs(b - batch_size))
        raise HyperparameterError(
            f"{name}: batch_size={batch_size} does not divide n_steps * num_envs = {n_steps} * {num_envs} = {rows} "
            f"into whole minibatches. The nearest that does: batch_size={near}"
        )
