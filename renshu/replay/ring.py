"""A ring of the last steps of N environments; transitions with n-step returns and frame stacks are drawn from it.

Row t holds `obs`, whether it is the `first` of an episode, and the action there. The next observation is that of row
t + 1, so each is stored once. The row at `head` has an observation only: the next rollout begins with it.

All environments share one head, unless rollouts are of some of them at a time: then each has a head of its own.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import chex
import jax
import jax.numpy as jnp
import numpy as np

from renshu.replay.sum_tree import NOWHERE
from renshu.types import Array, Key, PyTree, Rollout

TRIES = 4
"""Draws for each transition, of which the first that is no reset counts."""


class Episodes(NamedTuple):
    """The episode of each row, and the ends of episodes: found in one look, whatever their length."""

    number: Array  # [R, N] int32  of the row's episode, modulo R
    end: Array  # [R, N] int32  by number: the row of its last observation so far


class Ring(NamedTuple):
    """R rows of N environments: R - 1 whole ones, and the one at `head`. An optional field is () where not asked for.

    One entry of `carry` is kept for each of the last K rollouts, in turn.
    """

    obs: PyTree  # [R, N, ...]
    first: Array  # [R, N] bool   obs is the first of an episode
    action: PyTree  # [R, N, ...]
    reward: Array  # [R, N] float32
    terminated: Array  # [R, N] bool
    head: Array  # [] or [N] int32   the row where the next rollout begins
    size: Array  # [] or [N] int32   whole rows, those before `head`: at most R - 1
    extras: PyTree = ()  # [R, N, ...]   of the actor
    carry: PyTree = ()  # [K, N, ...]   of the actor, where rollouts began
    begun: Array = ()  # [] or [N] int32   the entry of `carry` for the next rollout
    seam: Array = ()  # [R, N] bool   obs does not follow on the row before
    episodes: PyTree = ()  # Episodes


class Transitions(NamedTuple):
    """B transitions over up to n steps, `[B, ...]`."""

    obs: PyTree
    action: PyTree
    reward: Array  # float32  discounted sum of the rewards on the way
    discount: Array  # float32  of the value of `next_obs`: gamma^m after m steps, 0 where the episode terminated
    next_obs: PyTree
    weight: Array  # float32  of the sample in the loss: 0 where only resets were drawn
    indices: Index  # of the rows they came from
    extras: PyTree = ()  # of the actor, at obs


class Index(NamedTuple):
    """Rows and environments, `[B]` int32."""

    row: Array
    env: Array
    goal: Array = ()  # the row of the goal to put in place of the one that was pursued; -1: none


def empty(
    rows: int,
    obs: PyTree,
    action: PyTree,
    *,
    extras: PyTree = (),
    carry: PyTree = (),
    rollout_length: int = 1,
    own_heads: bool = False,
    episodes: bool = False,
) -> Ring:
    """Return a ring for `rows` whole rows.

    obs, action, extras, carry: of N environments, `[N, ...]`, for shapes and dtypes. rollout_length: steps of each
    rollout, where carries are kept. own_heads: rollouts are of some environments at a time, named by `env_id`, and may
    not follow on the one before. episodes: ends of episodes are kept too.
    """
    n = jax.tree.leaves(obs)[0].shape[0]
    places = (n,) if own_heads else ()
    has_carry = bool(jax.tree.leaves(carry))

    def zeros(x: Any, count: int = rows + 1) -> Array:
        return jnp.zeros((count, *x.shape), x.dtype)

    # No array twice: a state that holds one twice cannot be donated.
    return Ring(
        obs=jax.tree.map(zeros, obs),
        first=jnp.zeros((rows + 1, n), jnp.bool_),
        action=jax.tree.map(zeros, action),
        reward=jnp.zeros((rows + 1, n), jnp.float32),
        terminated=jnp.zeros((rows + 1, n), jnp.bool_),
        head=jnp.zeros(places, jnp.int32),
        size=jnp.zeros(places, jnp.int32),
        extras=jax.tree.map(zeros, extras),
        carry=jax.tree.map(lambda x: zeros(x, rows // rollout_length), carry),
        begun=jnp.zeros(places, jnp.int32) if has_carry else (),
        seam=jnp.zeros((rows + 1, n), jnp.bool_) if own_heads else (),
        episodes=Episodes(*(jnp.zeros((rows + 1, n), jnp.int32) for _ in range(2))) if episodes else (),
    )


def of_env(number: Array, env: Array) -> Array:
    """Return a number that all environments share, or that of each."""
    return number if number.ndim == 0 else number[env]


def places_of(ring: Ring, rollout: Rollout) -> tuple[Array, Array]:
    """Return the rows `[T+1]` or `[T+1, n]` that a rollout will fill, and its environments `[n]`.

    Raises AssertionError, when traced, for a rollout of some environments where all share one head.
    """
    total, n = ring.first.shape
    steps = jnp.arange(rollout.reward.shape[0] + 1)
    if ring.head.ndim == 0:
        chex.assert_axis_dimension(rollout.reward, 1, n)
        assert isinstance(rollout.continues, tuple), "a ring with one head takes rollouts that follow on each other"
        return (ring.head + steps) % total, jnp.arange(n)
    env = jnp.arange(n) if isinstance(rollout.env_id, tuple) else rollout.env_id
    return (ring.head[env] + steps[:, None]) % total, env


def add(ring: Ring, rollout: Rollout) -> Ring:
    """Put T steps behind the newest, over the oldest where there is no room.

    A rollout that goes on where the last one ended begins with the observation that is there. One that begins with a
    reset has `first[0]`, and one that does not follow on has `continues` False: the step before it is then none.
    Raises AssertionError, when traced, unless T is below R.
    """
    total = ring.first.shape[0]
    steps = rollout.reward.shape[0]
    chex.assert_axis_dimension_lt(rollout.reward, 0, total)
    rows, env = places_of(ring, rollout)
    shared = ring.head.ndim == 0

    def put(old: PyTree, new: PyTree, where: Array) -> PyTree:
        place = where if shared else (where, env)
        return jax.tree.map(lambda x, y: x.at[place].set(y.astype(x.dtype), unique_indices=True), old, new)

    def advanced(number: Array, after: Callable[[Array], Array]) -> Array:
        return after(number) if shared else number.at[env].set(after(number[env]))

    ring = ring._replace(
        obs=put(ring.obs, rollout.obs, rows),
        first=put(ring.first, rollout.first, rows),
        action=put(ring.action, rollout.action, rows[:-1]),
        reward=put(ring.reward, rollout.reward, rows[:-1]),
        terminated=put(ring.terminated, rollout.terminated, rows[:-1]),
        head=rows[-1] if shared else ring.head.at[env].set(rows[-1]),
        size=advanced(ring.size, lambda size: jnp.minimum(size + steps, total - 1)),
        episodes=_with_ends(ring, rollout, rows, env),
    )
    if jax.tree.leaves(ring.extras):
        ring = ring._replace(extras=put(ring.extras, rollout.extras, rows[:-1]))
    if not isinstance(ring.begun, tuple):
        entries = jax.tree.leaves(ring.carry)[0].shape[0]
        ring = ring._replace(
            carry=put(ring.carry, rollout.carry, ring.begun if shared else ring.begun[env]),
            begun=advanced(ring.begun, lambda begun: (begun + 1) % entries),
        )
    if not isinstance(ring.seam, tuple):
        marks = jnp.zeros_like(rollout.first).at[0].set(_jumps(rollout))
        ring = ring._replace(seam=put(ring.seam, marks, rows))
    return ring


def _jumps(rollout: Rollout) -> Array:
    """[n] bool: the rollout does not follow on its environment's previous one."""
    return jnp.zeros_like(rollout.first[0]) if isinstance(rollout.continues, tuple) else ~rollout.continues


def _with_ends(ring: Ring, rollout: Rollout, rows: Array, env: Array) -> PyTree:
    """Give the episodes of a rollout their numbers, and move their ends to its rows."""
    if not isinstance(ring.episodes, Episodes):
        return ()
    total, (number, end) = ring.first.shape[0], ring.episodes
    rows = jnp.broadcast_to(rows.reshape(len(rows), -1), rollout.first.shape)
    # The row at head has its number already, which holds unless something else begins there now.
    anew = (rollout.first[0] & ~ring.first[rows[0], env]) | _jumps(rollout)
    begins = jnp.concatenate([anew[None], rollout.first[1:]])
    numbers = (number[rows[0], env] + jnp.cumsum(begins, axis=0, dtype=jnp.int32)) % total
    # What ran there has lost the observation at head.
    end = end.at[jnp.where(anew, number[rows[0], env], NOWHERE), env].set((rows[0] - 1) % total, mode="drop")
    last = jnp.concatenate([rollout.first[1:], jnp.ones_like(anew)[None]])
    place = jnp.where(last, numbers, NOWHERE)
    return Episodes(number.at[rows, env].set(numbers), end.at[place, env].set(rows, mode="drop"))


def begins(ring: Ring, rows: Array, env: Array) -> Array:
    """Tell whether rows follow on nothing: an episode begins there, or a rollout that does not continue."""
    first = ring.first[rows, env]
    return first if isinstance(ring.seam, tuple) else first | ring.seam[rows, env]


def draw(ring: Ring, key: Key, count: int) -> tuple[Index, Array]:
    """Draw indices of real steps uniformly: `count` of them, and for each `[B]` bool whether it is one.

    False where resets came up in all of `TRIES` draws, and always where the ring is empty.
    """
    total, n = ring.first.shape
    if ring.head.ndim == 0:
        some = ring.size > 0
        index = jax.random.randint(key, (count, TRIES), 0, jnp.maximum(ring.size, 1) * n)
        row, env = (ring.head - 1 - index // n) % total, index % n
    else:
        back, env, some = among(ring.size, key, (count, TRIES))
        row = (ring.head[env] - 1 - back) % total
    real = ~begins(ring, (row + 1) % total, env) & some
    return first_of(Index(row, env), real)


def among(sizes: Array, key: Key, shape: tuple[int, ...]) -> tuple[Array, Array, Array]:
    """Draw uniformly from lists of `sizes` [N]: places in a list, lists, and whether there is anything to draw."""
    ends = jnp.cumsum(sizes)
    index = jax.random.randint(key, shape, 0, jnp.maximum(ends[-1], 1))
    which = jnp.minimum(jnp.searchsorted(ends, index, side="right"), len(sizes) - 1).astype(jnp.int32)
    return index - (ends - sizes)[which], which, ends[-1] > 0


def first_of(index: Index, good: Array) -> tuple[Index, Array]:
    """Choose of several draws `[B, TRIES]` the first good one; returns `[B]`, and whether there was one."""
    pick = jnp.argmax(good, axis=1)[:, None]
    row, env, found = (jnp.take_along_axis(x, pick, 1)[:, 0] for x in (index.row, index.env, good))
    return Index(row, env), found


def gather(
    ring: Ring,
    index: Index,
    weight: Array,
    *,
    n_steps: int,
    gamma: float | Array,
    frame_stack: int = 1,
    reward: Callable[[Array, Array], Array] | None = None,
) -> Transitions:
    """Gather the transitions that begin at indices.

    Returns are over `n_steps` rewards (Sutton & Barto 2018, equation 7.1), fewer where the episode or the ring ends: a
    truncated episode bootstraps from its true last observation. gamma: discount a step, in [0, 1]. frame_stack:
    with more than 1, observations are the last ones, `[B, frame_stack, ...]`, oldest first; before the episode's first
    (or the oldest in the ring) stands that one itself. weight: `[B]`, as in the transitions, where a reset gets 0.
    reward: other rewards than those that were stored, of rows `[B, n]` and environments `[B, 1]`.
    n_steps and frame_stack must be below R.
    """
    total = ring.first.shape[0]
    row, env = index.row[:, None], index.env[:, None]
    rows = (row + jnp.arange(n_steps)) % total
    age = (of_env(ring.head, index.env) - index.row - 1) % total  # how many whole rows come after
    real = ~begins(ring, (rows + 1) % total, env) & (jnp.arange(n_steps) <= age[:, None])
    terminated = ring.terminated[rows, env] & real
    goes_on = jnp.cumprod((real & ~terminated)[:, :-1], axis=1)
    used = jnp.concatenate([jnp.ones_like(real[:, :1]), goes_on.astype(bool)], axis=1) & real
    powers = jnp.asarray(gamma, jnp.float32) ** jnp.arange(n_steps + 1)
    steps = jnp.maximum(used.sum(axis=1), 1)
    ends = (terminated & used).any(axis=1)
    after = Index((index.row + steps) % total, index.env)
    rewards = ring.reward[rows, env] if reward is None else reward(rows, env)
    return Transitions(
        obs=observations_at(ring, index, frame_stack),
        action=jax.tree.map(lambda x: x[index.row, index.env], ring.action),
        reward=jnp.where(used, rewards * powers[:-1], 0.0).sum(axis=1),
        discount=jnp.where(ends, 0.0, powers[steps]),
        next_obs=observations_at(ring, after, frame_stack),
        weight=jnp.where(real[:, 0], weight, 0.0).astype(jnp.float32),
        indices=index,
        extras=jax.tree.map(lambda x: x[index.row, index.env], ring.extras),
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
    age = (of_env(ring.head, env) - rows) % total
    may = ~begins(ring, rows, env) & (age < of_env(ring.size, env))
    reach = jnp.concatenate([jnp.ones_like(may[:, :1]), jnp.cumprod(may[:, :-1], axis=1).astype(bool)], axis=1)
    steps = jnp.minimum(back, reach.sum(axis=1)[:, None] - 1)[:, ::-1]
    rows = (index.row[:, None] - steps) % total
    return jax.tree.map(lambda x: x[rows, env], ring.obs)


def history(ring: Ring) -> Rollout:
    """Return all whole rows, oldest first, as one rollout of NumPy arrays; extras too.

    Raises AssertionError where environments have heads of their own: their rows are not of the same times.
    """
    chex.assert_rank(ring.head, 0)
    ring = jax.device_get(ring)
    total, size = ring.first.shape[0], int(ring.size)
    rows = (int(ring.head) - size + np.arange(size + 1)) % total

    def taken(tree: PyTree, rows: Array) -> PyTree:
        return jax.tree.map(lambda x: x[rows], tree)

    return Rollout(
        taken(ring.obs, rows),
        taken(ring.first, rows),
        *(taken(part, rows[:-1]) for part in (ring.action, ring.reward, ring.terminated)),
        extras=taken(ring.extras, rows[:-1]),
    )
