"""Running statistics for normalisation, and means over the valid part of a batch."""

from __future__ import annotations

from typing import NamedTuple

import chex
import jax
import jax.numpy as jnp

from renshu.types import Array


class RunningStats(NamedTuple):
    """Mean and variance of all that was seen so far, element by element.

    mean, var: [*shape] float32; var is that of the population (ddof 0). count: [] float32, rows seen.
    Above 2**24 rows float32 rounds the count: updates then weigh a little more than they should, and nothing breaks.
    """

    mean: jax.Array
    var: jax.Array
    count: jax.Array  # pyright: ignore[reportIncompatibleMethodOverride]  the tuple's own count is of no use here


def init_stats(shape: tuple[int, ...]) -> RunningStats:
    """Make statistics before any data: mean 0, variance 1, of no rows."""
    return RunningStats(jnp.zeros(shape), jnp.ones(shape), jnp.asarray(0.0))


def update_stats(stats: RunningStats, batch: Array, mask: Array | None = None) -> RunningStats:
    """Take a batch into the statistics (Chan, Golub & LeVeque 1979, the parallel algorithm).

    batch: [B, *shape], any real dtype. mask: [B] bool, the rows that count; None for all. Values in the other rows do
    not matter, NaN included; no row at all leaves the statistics as they are. So does, for itself alone, an element
    whose mean or variance would not be finite: it was NaN, or its square is more than float32 holds.
    Raises AssertionError, when traced, if the shapes do not agree.
    """
    batch = jnp.asarray(batch, jnp.float32)
    keep = jnp.ones(batch.shape[0], bool) if mask is None else jnp.asarray(mask)
    chex.assert_shape(batch, (None, *stats.mean.shape))
    chex.assert_shape(keep, batch.shape[:1])
    mean, squares = _moments(batch, keep.reshape(-1, *[1] * (batch.ndim - 1)), axis=0)
    rows = keep.sum(dtype=jnp.float32)
    total = stats.count + rows
    new = rows / jnp.maximum(total, 1.0)
    old = 1.0 - new
    delta = mean - stats.mean
    # In shares of the total, not in sums of squares: those grow until float32 no longer notices a batch.
    var = old * stats.var + squares / jnp.maximum(total, 1.0) + old * new * delta**2
    mean = stats.mean + new * delta
    finite = jnp.isfinite(mean) & jnp.isfinite(var)
    count = jnp.where(finite.any(), total, stats.count)
    return RunningStats(jnp.where(finite, mean, stats.mean), jnp.where(finite, var, stats.var), count)


def normalize(stats: RunningStats, x: Array, clip: float = 10.0, epsilon: float = 1e-8) -> jax.Array:
    """Shift and scale x, [..., *shape], to mean 0 and variance 1, cut at -clip and clip standard deviations."""
    return jnp.clip((x - stats.mean) * jax.lax.rsqrt(stats.var + epsilon), -clip, clip)


def running_returns(start: Array, reward: Array, first: Array, gamma: float | Array) -> tuple[jax.Array, jax.Array]:
    """Sum the discounted rewards of each episode so far; the deviation scales rewards (VecNormalize's accumulator).

    R_t = gamma * R_{t-1} + r_t, from 0 in each episode. start: [N] float32, R before the rollout, 0 at the very start.
    reward: [T, N] float32. first: [T+1, N] bool, `Rollout.first`. gamma: discount a step.
    Returns R after the rollout, [N], which is the next `start`, and R of each step, [T, N]. On reset steps R is 0: keep
    them out of the statistics with `Rollout.valid`. Raises AssertionError, when traced, if the shapes do not agree.
    """
    chex.assert_rank(reward, 2)
    steps, num_envs = reward.shape
    chex.assert_shape(first, (steps + 1, num_envs))
    chex.assert_shape(start, (num_envs,))

    def step(before: jax.Array, row: tuple[Array, Array, Array]) -> tuple[jax.Array, jax.Array]:
        reward_t, first_t, first_tp1 = row
        total = gamma * jnp.where(first_t, 0.0, before) + reward_t
        total = jnp.where(first_tp1, 0.0, total)
        return total, total

    return jax.lax.scan(step, jnp.asarray(start), (reward, first[:-1], first[1:]))


def masked_mean(x: Array, mask: Array) -> jax.Array:
    """Compute the mean of x where mask, a scalar; 0 if mask is empty. x and mask have the same shape.

    Values outside the mask do not matter, NaN included.
    """
    chex.assert_equal_shape([x, mask])
    return jnp.where(mask, x, 0.0).sum() / jnp.maximum(mask.sum(), 1)


def masked_normalize(x: Array, mask: Array, epsilon: float = 1e-8) -> jax.Array:
    """Shift and scale x to mean 0 and standard deviation 1 over mask; 0 outside the mask. x and mask have one shape.

    The deviation is unbiased (ddof 1), as that of PyTorch with which most advantages are normalised. Where all of x is
    equal the result is 0; where there is one element only it stays as it is, since a single 0 would teach nothing.
    """
    chex.assert_equal_shape([x, mask])
    mean, squares = _moments(x, mask, axis=None)
    count = mask.sum()
    std = jnp.sqrt(squares / jnp.maximum(count - 1, 1))
    # Chosen among numbers, not among arrays, which would cost every minibatch a pass.
    mean, divisor = (jnp.where(count > 1, a, b) for a, b in ((mean, 0.0), (std + epsilon, 1.0)))
    return jnp.where(mask, x - mean, 0.0) / divisor


def _moments(x: Array, mask: Array, axis: int | None) -> tuple[jax.Array, jax.Array]:
    """Compute the mean of x over `axis` where mask, and the squares about it; 0 if empty. mask broadcasts against x."""
    count = jnp.maximum(mask.sum(axis), 1)
    rough = jnp.where(mask, x, 0.0).sum(axis) / count
    # A second pass takes out the rounding of the first: with equal, large x it would else pass for a deviation.
    mean = rough + jnp.where(mask, x - rough, 0.0).sum(axis) / count
    return mean, (jnp.where(mask, x - mean, 0.0) ** 2).sum(axis)
