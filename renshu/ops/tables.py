"""Tables over observations: every observation space as integers from 0, by bins where it is continuous."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
from gymnasium import spaces

from renshu.errors import HyperparameterError, SpaceError
from renshu.ops.spaces import flatten, leaf_spaces
from renshu.types import Array, PyTree

MOST_ENTRIES = 10_000_000
"""Largest number of entries of a table, states times actions."""

NO_BOUND = 1e18
"""Bounds beyond this mean that there is none: some environments give the largest number of the dtype."""


class TableIndex(NamedTuple):
    """States of a table. size: their number, S. of: from observations `[B, ...]` to states `[B]` int32 in [0, S)."""

    size: int
    of: Callable[[PyTree], Array]


def table_index(
    space: spaces.Space,
    obs_bins: int | tuple[int, ...] = 10,
    obs_low: float | tuple[float, ...] | None = None,
    obs_high: float | tuple[float, ...] | None = None,
    *,
    actions: int = 1,
) -> TableIndex:
    """Index the observations of a space: integers as they are, real numbers by bins; row-major, in leaf order.

    space: Discrete, MultiDiscrete, MultiBinary, Box, or a Dict or Tuple of them.
    obs_bins: bins of equal width, in every dimension of the Boxes, or a tuple with a number for each. A bin holds its
    lower edge. Values beyond the limits fall into the outermost bins. Integers get no more bins than there are values.
    obs_low, obs_high: the limits in the units of the observation. One number is for the dimensions without a bound of
    their own; a tuple has a number for each dimension and replaces their bounds.
    actions: entries of the table for each state.

    `of` works inside jit and on NumPy arrays, in the dtypes in which rollouts hold observations.
    Raises SpaceError where a dimension has no limit, where the table would have more than MOST_ENTRIES entries, and for
    other spaces; HyperparameterError for tuples of another length and limits in the wrong order.
    """
    leaves = leaf_spaces(space)
    low, high, whole = _limits(space, obs_low, obs_high)
    wanted = _for_each("obs_bins", obs_bins, len(low), space)
    span = np.where(whole, high - low + 1, np.inf)
    counts = np.where(low == high, 1, np.minimum(wanted, span)).astype(np.int64)
    boxes = iter(zip(counts.tolist(), low.tolist(), (high + whole).tolist(), strict=True))
    kinds = [_leaf(leaf, boxes) for leaf in leaves]
    sizes = [n for each, _ in kinds for n in each]
    _check_size(space, sizes, len(counts), actions)
    strides = [math.prod(sizes[i + 1 :]) for i in range(len(sizes))]
    ends, steps = np.array(sizes, np.int32) - 1, np.array(strides, np.int32)
    digits = [make() for _, make in kinds]

    def of(obs: PyTree) -> Array:
        found = [digit(x) for digit, x in zip(digits, flatten(space, obs), strict=True)]
        return (jnp.concatenate(found, axis=1).clip(0, ends) * steps).sum(axis=1, dtype=jnp.int32)

    return TableIndex(math.prod(sizes), of)


def _limits(space: spaces.Space, obs_low: Any, obs_high: Any) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return lower and upper limit of each dimension of the Boxes, float64, and whether it holds integers."""
    boxes = [leaf for leaf in leaf_spaces(space) if isinstance(leaf, spaces.Box)]
    whole = np.array([leaf.dtype.kind in "iub" for leaf in boxes for _ in range(leaf.low.size)], bool)  # type: ignore[union-attr]
    own_low, own_high = (
        np.concatenate([np.zeros(0), *(_own(leaf, side).reshape(-1) for leaf in boxes)]) for side in ("low", "high")
    )
    low, high = _chosen("obs_low", obs_low, own_low, space), _chosen("obs_high", obs_high, own_high, space)
    missing = np.flatnonzero(np.isnan(low) | np.isnan(high)).tolist()
    if missing:
        raise SpaceError(
            f"a table needs limits for its bins, and of {len(low)} dimensions of {space} these have none: {missing}. "
            "Give obs_low and obs_high: one number for all of these, as in obs_low=-3.0, obs_high=3.0, or a tuple with "
            "one for each dimension. What lies beyond falls into the outermost bins"
        )
    wrong = np.flatnonzero((low >= high) & ~((low == own_low) & (high == own_high))).tolist()
    if wrong:
        i = wrong[0]
        raise HyperparameterError(
            f"dimension {i} of {space} would have bins from {low[i]:g} to {high[i]:g}: obs_low must be below obs_high"
        )
    return low, high, whole


def _own(leaf: spaces.Box, side: str) -> np.ndarray:
    """Return the bounds of a Box, NaN where it has none."""
    bounded = leaf.bounded_below if side == "low" else leaf.bounded_above
    bound = getattr(leaf, side).astype(np.float64)
    return np.where(bounded & (np.abs(bound) < NO_BOUND), bound, np.nan)


def _chosen(name: str, given: Any, own: np.ndarray, space: spaces.Space) -> np.ndarray:
    if isinstance(given, list | tuple):
        return _for_each(name, given, len(own), space)
    return np.where(np.isnan(own), np.nan if given is None else given, own)


def _for_each(name: str, given: Any, dimensions: int, space: spaces.Space) -> np.ndarray:
    """Return one number per dimension, float64."""
    if isinstance(given, list | tuple) and len(given) != dimensions:
        raise HyperparameterError(
            f"{name}={given!r} has {len(given)} numbers, but {space} has {dimensions} dimensions that need bins: give "
            "that many, or one number for all"
        )
    return np.broadcast_to(np.asarray(given, np.float64), (dimensions,))


def _leaf(
    leaf: spaces.Space, boxes: Iterator[tuple[int, float, float]]
) -> tuple[list[int], Callable[[], Callable[[Array], Array]]]:
    """Return the sizes of the dimensions of a leaf, and a maker of the function to their values, `[B, ...] -> [B, D]`.

    boxes: (bins, low, high) of each dimension of the Boxes; those of this one are taken.
    """
    if isinstance(leaf, spaces.Box):
        mine = [next(boxes) for _ in range(leaf.low.size)]
        return [count for count, _, _ in mine], lambda: _binned(mine)
    if isinstance(leaf, spaces.Discrete):
        sizes, start = [int(leaf.n)], int(leaf.start)
    elif isinstance(leaf, spaces.MultiDiscrete):
        sizes, start = leaf.nvec.reshape(-1).tolist(), leaf.start.astype(np.int32)
    elif isinstance(leaf, spaces.MultiBinary):
        sizes, start = [2] * math.prod(leaf.shape), 0
    else:
        raise SpaceError(
            f"a table has no states for {leaf}. It takes Discrete, MultiDiscrete, MultiBinary, Box, and Dict and "
            "Tuple of them"
        )
    return sizes, lambda: lambda x: jnp.reshape(x - start, (x.shape[0], len(sizes))).astype(jnp.int32)


def _binned(dimensions: list[tuple[int, float, float]]) -> Callable[[Array], Array]:
    edges = np.full((len(dimensions), max(count for count, _, _ in dimensions) - 1), np.inf, np.float32)
    for row, (count, low, high) in zip(edges, dimensions, strict=True):
        row[: count - 1] = np.linspace(low, high, count + 1)[1:-1]

    def digits(x: Array) -> Array:
        # Comparisons and no division: where a bin begins does not depend on rounding.
        x = jnp.reshape(x, (x.shape[0], len(dimensions), 1)).astype(jnp.float32)
        return (x >= edges).sum(axis=2, dtype=jnp.int32)

    return digits


def _check_size(space: spaces.Space, sizes: list[int], dimensions: int, actions: int) -> None:
    states = math.prod(sizes)
    if states * actions <= MOST_ENTRIES:
        return
    told = f"{states * actions:,}" if states < 10**15 else f"about 10^{int(math.log10(states * actions))}"
    fewer = int((MOST_ENTRIES / actions) ** (1 / dimensions) + 1e-9) if dimensions == len(sizes) else 0
    advice = f"fewer bins, as in obs_bins={fewer}, or " if fewer > 1 else ""
    raise SpaceError(
        f"a table for {space} would have {told} entries ({' x '.join(map(str, sizes[:8]))}"
        f"{' x ...' if len(sizes) > 8 else ''} states, {actions} actions), more than {MOST_ENTRIES:,}. "
        f"Take {advice}an algorithm with a network, as DQN"
    )
