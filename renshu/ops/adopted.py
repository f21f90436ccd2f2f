"""Weights that one network takes over from another of the same names."""

from __future__ import annotations

import jax
import jax.numpy as jnp

from renshu.errors import HyperparameterError
from renshu.types import PyTree


def adopted(own: PyTree, other: PyTree) -> PyTree:
    """Return a network's weights with another's in place of those that have the same name; the rest stay.

    Raises HyperparameterError, naming it, where one of the same name has another shape, or where no name is the same.
    """
    known = {jax.tree_util.keystr(path): leaf for path, leaf in jax.tree_util.tree_leaves_with_path(other)}
    leaves = jax.tree_util.tree_leaves_with_path(own)
    names = [jax.tree_util.keystr(path) for path, _ in leaves]
    if not known.keys() & set(names):
        raise HyperparameterError(f"the networks have no part in common: {_few(names)} here, {_few(list(known))} there")
    for name, (_, leaf) in zip(names, leaves, strict=True):
        if name in known and jnp.shape(known[name]) != jnp.shape(leaf):
            raise HyperparameterError(
                f"{name} has the shape {jnp.shape(leaf)} here and {jnp.shape(known[name])} there: give both the same "
                "spaces, net_arch and activation_fn"
            )
    taken = [jnp.asarray(known.get(name, leaf)) for name, (_, leaf) in zip(names, leaves, strict=True)]
    return jax.tree.unflatten(jax.tree.structure(own), jax.tree.map(jnp.copy, taken))


def _few(names: list[str]) -> str:
    return ", ".join(names[:3]) + (", ..." if len(names) > 3 else "")
