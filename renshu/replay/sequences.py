"""Sequences for learners with a memory of their own: recurrent networks and world models."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from renshu.errors import HyperparameterError
from renshu.replay import ring as rings
from renshu.replay import sum_tree
from renshu.replay.buffer import Priorities, ReplayBuffer, ReplayState
from renshu.replay.ring import TRIES, Index, Ring, among, first_of, of_env
from renshu.types import Array, Key, PyTree, Rollout


class Sequences(NamedTuple):
    """B sequences of T steps."""

    rollout: Rollout  # [T(+1), B, ...], with the carry at its first step where carries are kept, and extras
    weight: Array  # [B] float32  of the sequence in the loss: 0 where none could be drawn
    indices: Index  # [B]  of their first rows


class SequenceBuffer(ReplayBuffer):
    """A ReplayBuffer that gives sequences of `sequence_length` steps; the same functions of the same state.

    They may cross the borders of episodes, where `first` says so, but never a seam. Where carries are kept they begin
    where rollouts began (R2D2, Kapturowski et al. 2019, section 3), elsewhere anywhere. A priority is that of the
    sequence that begins at the step. Arguments are those of ReplayBuffer. Raises HyperparameterError where a sequence
    does not fit.
    """

    def __init__(
        self,
        capacity: int,
        obs: PyTree,
        action: PyTree,
        *,
        num_envs: int,
        rollout_length: int,
        sequence_length: int,
        **options: Any,
    ) -> None:
        super().__init__(capacity, obs, action, num_envs=num_envs, rollout_length=rollout_length, **options)
        if not 1 <= sequence_length <= self.rows:
            raise HyperparameterError(
                f"sequences of {sequence_length} steps cannot be drawn from a memory of {self.rows} steps of each of "
                f"{num_envs} environments: give 1 to {self.rows}, or a larger buffer_size"
            )
        self.sequence_length = sequence_length

    def add(self, memory: ReplayState, rollout: Rollout, key: Key) -> ReplayState:
        """Add a rollout; the sequences that it completes get the highest priority so far."""
        steps = rings.add(memory.ring, rollout)
        if not isinstance(memory.priorities, Priorities):
            return ReplayState(steps, ())
        tree, highest = memory.priorities
        total, count = self.rows + 1, rollout.reward.shape[0]
        rows, env = rings.places_of(memory.ring, rollout)
        leaves = self._leaves(rows, env)
        tree = sum_tree.put(tree, leaves, jnp.zeros(len(leaves), jnp.float32))
        if not isinstance(steps.seam, tuple):
            tree = self._without(tree, rows[0] - self.sequence_length, env, steps.seam[rows[0], env])
        back = self.sequence_length + jnp.arange(count)
        whole = back[:, None] <= jnp.broadcast_to(of_env(steps.size, env), env.shape)
        if not isinstance(steps.begun, tuple):
            whole &= (back % count == 0)[:, None]
        starts = (of_env(steps.head, env) - back.reshape(-1, *(1,) * steps.head.ndim)) % total
        index = Index(jnp.broadcast_to(starts.reshape(count, -1), whole.shape), jnp.broadcast_to(env, whole.shape))
        leaves = jnp.where(whole, index.row * self.num_envs + index.env, sum_tree.NOWHERE)
        value = jnp.where(_unbroken(steps, index, self.sequence_length), highest, 0.0)
        return ReplayState(steps, Priorities(sum_tree.put(tree, leaves.reshape(-1), value.reshape(-1)), highest))

    def draw(self, memory: ReplayState, key: Key, count: int, beta: float | Array = 1.0) -> tuple[Index, Array]:
        """Draw where `count` sequences begin, and their weights `[B]`."""
        if isinstance(memory.priorities, Priorities):
            return super().draw(memory, key, count, beta)
        steps, length = memory.ring, self.sequence_length
        total, n = steps.first.shape
        every = 1 if isinstance(steps.begun, tuple) else self.rollout_length
        # Of the newest steps none begins a sequence that is whole.
        least = -(-length // every)
        starts = jnp.broadcast_to(jnp.maximum(steps.size // every - least + 1, 0), (n,))
        back, env, some = among(starts, key, (count, TRIES))
        index = Index((of_env(steps.head, env) - (back + least) * every) % total, env)
        index, found = first_of(index, _unbroken(steps, index, length) & some)
        return index, found.astype(jnp.float32)

    def gather(self, memory: ReplayState, index: Index, weight: Array, gamma: float | Array) -> Sequences:  # type: ignore[override]
        """Gather the sequences that begin at indices. gamma: not used, since rewards are as they came."""
        steps, env = memory.ring, index.env
        total = steps.first.shape[0]
        rows = (index.row + jnp.arange(self.sequence_length + 1)[:, None]) % total

        def taken(tree: PyTree, rows: Array) -> PyTree:
            return jax.tree.map(lambda x: x[rows, env], tree)

        carry, reward = (), taken(steps.reward, rows[:-1])
        if not isinstance(steps.begun, tuple):
            entries = jax.tree.leaves(steps.carry)[0].shape[0]
            rollouts = (of_env(steps.head, env) - index.row) % total // self.rollout_length
            carry = taken(steps.carry, (of_env(steps.begun, env) - rollouts) % entries)
        rollout = Rollout(
            obs=taken(steps.obs, rows),
            # A sequence that is none has no valid step.
            first=steps.first[rows, env] | (weight == 0),
            action=taken(steps.action, rows[:-1]),
            reward=jnp.sign(reward) if self.clips_rewards else reward,
            terminated=taken(steps.terminated, rows[:-1]),
            carry=carry,
            extras=taken(steps.extras, rows[:-1]),
        )
        return Sequences(rollout, weight.astype(jnp.float32), index)


def write_extras(ring: Ring, index: Index, weight: Array, extras: PyTree) -> PyTree:
    """Return the ring's extras with those of sequences put in their place: `[T, B, ...]`, from their first rows on.

    Left out are sequences of weight 0, which are none, and rows that are not finite.
    """
    total = ring.first.shape[0]
    leaves = jax.tree.leaves(extras)
    rows = (index.row + jnp.arange(len(leaves[0]))[:, None]) % total
    good = jnp.broadcast_to(weight > 0, rows.shape)
    for x in leaves:
        good &= jnp.isfinite(x).reshape(*rows.shape, -1).all(axis=-1)
    place = jnp.where(good, rows, sum_tree.NOWHERE)
    return jax.tree.map(
        lambda old, new: old.at[place, index.env].set(new.astype(old.dtype), mode="drop"), ring.extras, extras
    )


def _unbroken(ring: Ring, index: Index, length: int) -> Array:
    """Tell whether sequences, of any number of axes, cross no seam."""
    if isinstance(ring.seam, tuple):
        return jnp.ones(index.row.shape, jnp.bool_)
    rows = (index.row[..., None] + jnp.arange(1, length + 1)) % ring.first.shape[0]
    return ~ring.seam[rows, index.env[..., None]].any(axis=-1)
