"""Running statistics of observations of any space: only their continuous parts have some."""

from __future__ import annotations

from typing import Any

from gymnasium import spaces

from renshu.ops.spaces import is_continuous, map_space
from renshu.ops.statistics import init_stats, normalize, update_stats
from renshu.types import Array, PyTree


def init_observation_stats(space: spaces.Space) -> PyTree:
    """Make statistics before any observation: RunningStats at each continuous leaf of the space, () at the others."""
    return map_space(lambda leaf: init_stats(leaf.shape) if is_continuous(leaf) else (), space)


def update_observation_stats(space: spaces.Space, stats: PyTree, obs: PyTree, mask: Array | None = None) -> PyTree:
    """Take observations `[B, ...]` into the statistics. mask: [B] bool, the rows that count; None for all."""

    def update(leaf: Any, stats: PyTree, x: Array) -> PyTree:
        return update_stats(stats, x, mask) if is_continuous(leaf) else stats

    return map_space(update, space, stats, obs)


def normalize_observations(space: spaces.Space, stats: PyTree, obs: PyTree, clip: float | Array) -> PyTree:
    """Normalise observations `[..., *shape]` by their running mean and deviation, cut at -clip and clip deviations."""
    return map_space(lambda leaf, stats, x: normalize(stats, x, clip) if is_continuous(leaf) else x, space, stats, obs)
