"""Observations of any nesting, walked together with the space that describes them."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, cast

import jax
import jax.numpy as jnp
import numpy as np
from gymnasium import spaces

from renshu.errors import SpaceError
from renshu.types import Array, PyTree


def map_space(fn: Callable[..., Any], space: spaces.Space, *trees: PyTree) -> PyTree:
    """Apply `fn(leaf_space, *leaves)` to every leaf of a Dict or Tuple space, to any depth; keep the nesting."""
    if isinstance(space, spaces.Dict):
        return {key: map_space(fn, part, *(tree[key] for tree in trees)) for key, part in space.spaces.items()}
    if isinstance(space, spaces.Tuple):
        return tuple(map_space(fn, part, *(tree[i] for tree in trees)) for i, part in enumerate(space.spaces))
    return fn(space, *trees)


def leaf_spaces(space: spaces.Space) -> list[spaces.Space]:
    """Return the spaces at the leaves, in the order of `map_space`."""
    if isinstance(space, spaces.Dict):
        return [leaf for part in space.spaces.values() for leaf in leaf_spaces(part)]
    if isinstance(space, spaces.Tuple):
        return [leaf for part in space.spaces for leaf in leaf_spaces(part)]
    return [space]


def flatten(space: spaces.Space, tree: PyTree) -> list[Any]:
    """Return the leaves of an observation, in the order of `leaf_spaces`."""
    leaves: list[Any] = []
    map_space(lambda _, x: leaves.append(x), space, tree)
    return leaves


def unflatten(space: spaces.Space, leaves: list[Any]) -> PyTree:
    """Put the leaves of an observation together again; undoes `flatten`."""
    remaining = iter(leaves)
    return map_space(lambda _: next(remaining), space)


def same_structure(a: spaces.Space, b: spaces.Space) -> bool:
    """Tell whether networks made for one space fit the other: same kinds, shapes and numbers of choices."""
    leaves_a, leaves_b = leaf_spaces(a), leaf_spaces(b)
    if type(a) is not type(b) or len(leaves_a) != len(leaves_b):
        return False
    if isinstance(a, spaces.Dict) and set(a.spaces) != set(cast(spaces.Dict, b).spaces):
        return False
    return all(_signature(x) == _signature(y) for x, y in zip(leaves_a, leaves_b, strict=True))


def _signature(leaf: spaces.Space) -> tuple:
    choices = getattr(leaf, "n", None) if isinstance(leaf, spaces.Discrete) else None
    nvec = leaf.nvec.tolist() if isinstance(leaf, spaces.MultiDiscrete) else None
    return type(leaf), leaf.shape, choices, nvec


def is_continuous(space: spaces.Space) -> bool:
    """Tell whether a leaf holds real numbers, which running normalisation is for."""
    return isinstance(space, spaces.Box) and np.issubdtype(space.dtype, np.floating)


def encode(space: spaces.Space, obs: PyTree) -> Array:
    """Make one vector of an observation: `[B, ...]` leaves to `[B, F]` float32.

    Box leaves are flattened, Discrete and MultiDiscrete become one-hot, MultiBinary 0 and 1; all are concatenated.
    """
    parts: list[Array] = []
    map_space(lambda leaf, x: parts.append(encode_leaf(leaf, x)), space, obs)
    return joined(parts)


def joined(parts: list[Array]) -> Array:
    """Concatenate the vectors of an observation's leaves."""
    return jnp.concatenate(parts, axis=-1) if len(parts) > 1 else parts[0]


def encode_leaf(space: spaces.Space, x: Array) -> Array:
    """Make a vector of one leaf, as `encode` does."""
    batch = x.shape[0]
    if isinstance(space, spaces.Discrete):
        return jax.nn.one_hot(x - int(space.start), int(space.n))
    if isinstance(space, spaces.MultiDiscrete):
        index = (x - space.start).reshape(batch, -1)
        sizes = space.nvec.reshape(-1)
        return jnp.concatenate([jax.nn.one_hot(index[:, i], int(n)) for i, n in enumerate(sizes)], axis=-1)
    return jnp.reshape(x, (batch, math.prod(space.shape or ()))).astype(jnp.float32)


def storage_dtype(dtype: Any) -> np.dtype:
    """Return the dtype in which a leaf is stored and given to the network: 64-bit numbers become 32-bit ones."""
    return {np.dtype(np.float64): np.dtype(np.float32), np.dtype(np.int64): np.dtype(np.int32)}.get(
        np.dtype(dtype), np.dtype(dtype)
    )


def stored(space: spaces.Space, obs: PyTree) -> PyTree:
    """Convert observations to arrays of the dtypes in which they are stored."""
    return map_space(lambda leaf, x: np.asarray(x, storage_dtype(leaf.dtype)), space, obs)


def batched(space: spaces.Space, observation: PyTree) -> tuple[PyTree, int, bool]:
    """Make a batch of a single observation or of a batch: the batch, its size, and whether it was a single one.

    Raises SpaceError where it is neither an observation of `space` nor a batch of them.
    """
    kinds = leaf_spaces(space)
    try:
        leaves = [np.asarray(leaf) for leaf in flatten(space, observation)]
    except (KeyError, IndexError, TypeError, ValueError) as error:
        raise SpaceError(f"the observation is not of {space}: {type(error).__name__}: {error}") from error
    single = leaves[0].shape == kinds[0].shape
    batch = [leaf[None] if single else leaf for leaf in leaves]
    for leaf, kind in zip(batch, kinds, strict=True):
        if leaf.ndim == 0 or leaf.shape != (len(batch[0]), *(kind.shape or ())) or leaf.dtype.kind not in "fiub":
            wanted = kind.shape or ()
            raise SpaceError(
                f"an observation of {kind} has the shape {wanted}, a batch of B of them {('B', *wanted)}; this is "
                f"{leaf.dtype} of shape {leaf.shape[1:] if single else leaf.shape}"
            )
    return stored(space, unflatten(space, batch)), len(batch[0]), single


def dummy(space: spaces.Space, batch: int) -> PyTree:
    """Make zeros in the shape of `batch` observations, to initialise a network with."""
    return map_space(lambda leaf: np.zeros((batch, *leaf.shape), storage_dtype(leaf.dtype)), space)
