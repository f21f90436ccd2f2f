"""Backups of search trees in place.

mctx writes its own for one tree and maps it over B of them, by which XLA has to choose between two versions of all
trees at every level: each simulation costs as much as the trees are large, at 4,000 nodes four times what it does here.
"""

from __future__ import annotations

import importlib
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import jax
import jax.numpy as jnp

from renshu.types import Array

ROOT = 0
_tracing = threading.RLock()


@contextmanager
def backing_up_in_place() -> Iterator[None]:
    """Let mctx's searches that are traced here back their values up by `backward`."""
    module: Any = importlib.import_module("mctx._src.search")
    with _tracing:
        own = module.backward
        module.backward = backward
        try:
            yield
        finally:
            module.backward = own


def backward(tree: Any, leaf: Array) -> Any:
    """Take the values of leaves up to their roots: the same numbers as mctx's `backward`, to the bit.

    tree: an mctx.Tree of B trees. leaf: [B] int32, a node of each.
    """
    rows, one_each = jnp.arange(len(leaf)), {"unique_indices": True, "indices_are_sorted": True}

    def below(at: tuple[Array, ...]) -> Array:
        return (at[-1] != ROOT).any()

    def up(at: tuple[Array, ...]) -> tuple[Array, ...]:
        values, visits, child_values, child_visits, value, node = at
        on = node != ROOT  # those that have arrived wait for the others, and write what is there
        parent = jnp.where(on, tree.parents[rows, node], ROOT)
        action = jnp.where(on, tree.action_from_parent[rows, node], 0)
        edge = rows, parent, action
        value = jnp.where(on, tree.children_rewards[edge] + tree.children_discounts[edge] * value, value)
        count, before = visits[rows, parent], values[rows, parent]
        mean = jnp.where(on, (before * count + value) / (count + 1.0), before)
        child = jnp.where(on, values[rows, node], child_values[edge])
        return (
            values.at[rows, parent].set(mean, **one_each),
            visits.at[rows, parent].add(on.astype(visits.dtype), **one_each),
            child_values.at[edge].set(child, **one_each),
            child_visits.at[edge].add(on.astype(child_visits.dtype), **one_each),
            value,
            jnp.where(on, parent, ROOT),
        )

    leaf = jnp.asarray(leaf, jnp.int32)
    counted = tree.node_values, tree.node_visits, tree.children_values, tree.children_visits
    values, visits, child_values, child_visits, _, _ = jax.lax.while_loop(
        below, up, (*counted, tree.node_values[rows, leaf], leaf)
    )
    return tree.replace(
        node_values=values, node_visits=visits, children_values=child_values, children_visits=child_visits
    )
