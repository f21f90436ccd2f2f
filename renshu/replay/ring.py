"""A ring of the last steps of N environments; transitions with n-step returns and frame stacks are drawn from it.

Row t holds `obs`, whether it is the `first` of an episode, and the action there. The next observation is that of row
t + 1, so each is stored once. The row at `head` has an observation only: the next rollout begins with it.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import chex
import jax
import jax.numpy as jnp

from renshu.types import Array, Key, PyTree, Rollout

TRIES = 4
"""Draws for each transition, of which the first that is no reset counts."""


class Ring(NamedTuple):
    """R rows of N environments: R - 1 whole ones, and the one at `head`."""

    obs: PyTree  # [R, N, ...]
    first: Array  # [R, N] bool   obs is the first of an episode
    action: PyTree  # [R, N, ...]
    reward: Array  # [R, N] float32
    terminated: Array  # [R, N] bool
    head: Array  # [] int32   the row where the next rollout begins
    size: Array  # [] int32   whole rows, those before `head`: at most R - 1


class Transitions(NamedTuple):
    """B transitions over up to n steps, `[B, ...]`."""

    obs: PyTree
    action: PyTree
    reward: Array  # float32  discounted sum of the rewards on the way
    discount: Array  # float32  of the value of `next_obs`: gamma^m after m steps, 0 where the episode terminated
    next_obs: PyTree
    weight: Array  # float32  of the sample in the loss: 0 where only resets were drawn
    indices: Index  # of the rows they came from


class Index(NamedTuple):
    """Rows and environments, `[B]` int32."""

    row: Array
    env: Array


def empty(rows: int, obs: PyTree, action: PyTree) -> Ring:
    """Return a ring for `rows` whole rows. obs, action: of N environments, `[N, ...]`, for shapes and dtypes."""
    n = jax.tree.leaves(obs)[0].shape[0]

    def zeros(x: Any) -> Array:
        return jnp.zeros((rows + 1, *x.shape), x.dtype)

    # No array twice: a state that holds one twice cannot be donated.
    return Ring(
        obs=jax.tree.map(zeros, obs),
        first=jnp.zeros((rows + 1, n), jnp.bool_),
        action=jax.tree.map(zeros, action),
        reward=jnp.zeros((rows + 1, n), jnp.float32),
        terminated=jnp.zeros((rows + 1, n), jnp.bool_),
        head=jnp.int32(0),
        size=jnp.int32(0),
    )


def add(ring: Ring, rollout: Rollout) -> Ring:
    """Put T steps behind the newest, over the oldest where there is no room.

    A rollout that goes on where the last one ended begins with the observation that is there; one that begins with a
    reset has `first[0]`, which makes the step before it none. Raises AssertionError, when traced, unless T is below R.
    """
    total, n = ring.first.shape
    steps = rollout.reward.shape[0]
    chex.assert_shape(rollout.reward, (steps, n))
    chex.assert_axis_dimension_lt(rollout.reward, 0, total)
    rows = (ring.head + jnp.arange(steps + 1)) % total

    def put(old: PyTree, new: PyTree, where: Array) -> PyTree:
        return jax.tree.map(lambda x, y: x.at[where].set(y.astype(x.dtype), unique_indices=True), old, new)

    return Ring(
        obs=put(ring.obs, rollout.obs, rows),
        first=put(ring.first, rollout.first, rows),
        action=put(ring.action, rollout.action, rows[:-1]),
        reward=put(ring.reward, rollout.reward, rows[:-1]),
        terminated=put(ring.terminated, rollout.terminated, rows[:-1]),
        head=rows[-1],
        size=jnp.minimum(ring.size + steps, total - 1),
    )


def draw(ring: Ring, key: Key, count: int) -> tuple[Index, Array]:
    """Draw indices of real steps uniformly: `count` of them, and for each `[B]` bool whether it is one.

    False where resets came up in all of `TRIES` draws, and always where the ring is empty.
    """
    total, n = ring.first.shape
    index = jax.random.randint(key, (count, TRIES), 0, jnp.maximum(ring.size, 1) * n)
    row, env = (ring.head - 1 - index // n) % total, index % n
    real = ~ring.first[(row + 1) % total, env] & (ring.size > 0)
    pick = jnp.argmax(real, axis=1)[:, None]
    row, env, real = (jnp.take_along_axis(x, pick, 1)[:, 0] for x in (row, env, real))
    return Index(row, env), real


def gather(
    ring: Ring, index: Index, weight: Array, *, n_steps: int, gamma: float | Array, frame_stack: int = 1
) -> Transitions:
    """Gather the transitions that begin at indices.

    Returns are over `n_steps` rewards (Sutton & Barto 2018, equation 7.1), fewer where the episode or the ring ends: a
    truncated episode bootstraps from its true last observation. gamma: discount a step, in [0, 1]. frame_stack:
    with more than 1, observations are the last ones, `[B, frame_stack, ...]`, oldest first; before the episode's first
    (or the oldest in the ring) stands that one itself. weight: `[B]`, as in the transitions, where a reset gets 0.
    n_steps and frame_stack must be below R.
    """
    total = ring.first.shape[0]
    row, env = index.row[:, None], index.env[:, None]
    rows = (row + jnp.arange(n_steps)) % total
    age = (ring.head - index.row - 1) % total  # how many whole rows come after
    real = ~ring.first[(rows + 1) % total, env] & (jnp.arange(n_steps) <= age[:, None])
    terminated = ring.terminated[rows, env] & real
    goes_on = jnp.cumprod((real & ~terminated)[:, :-1], axis=1)
    used = jnp.concatenate([jnp.ones_like(real[:, :1]), goes_on.astype(bool)], axis=1) & real
    powers = jnp.asarray(gamma, jnp.float32) ** jnp.arange(n_steps + 1)
    steps = jnp.maximum(used.sum(axis=1), 1)
    ends = (terminated & used).any(axis=1)
    after = Index((index.row + steps) % total, index.env)
    return Transitions(
        obs=observations_at(ring, index, frame_stack),
        action=jax.tree.map(lambda x: x[index.row, index.env], ring.action),
        reward=jnp.where(used, ring.reward[rows, env] * powers[:-1], 0.0).sum(axis=1),
        discount=jnp.where(ends, 0.0, powers[steps]),
        next_obs=observations_at(ring, after, frame_stack),
        weight=jnp.where(real[:, 0], weight, 0.0).astype(jnp.float32),
        indices=index,
    )


def observations_at(ring: Ring, index: Index, frame_stack: int = 1) -> PyTree:
    """Read observations `[B, ...]` at indices, or stacks of the episode's last ones `[B, frame_stack, ...]`."""
    if frame_stack == 1:
        return jax.tree.map(lambda x: x[index.row, index.env], ring.obs)
    total = ring.first.shape[0]
    back = jnp.arange(frame_stack)
    rows = (index.row[:, None] - back) % total
    env = index.env[:, None]
    # Going back ends at an episode's first observation, and at the oldest row.
    age = (ring.head - rows) % total
    may = ~ring.first[rows, env] & (age < ring.size)
    reach = jnp.concatenate([jnp.ones_like(may[:, :1]), jnp.cumprod(may[:, :-1], axis=1).astype(bool)], axis=1)
    steps = jnp.minimum(back, reach.sum(axis=1)[:, None] - 1)[:, ::-1]
    rows = (index.row[:, None] - steps) % total
    return jax.tree.map(lambda x: x[rows, env], ring.obs)
