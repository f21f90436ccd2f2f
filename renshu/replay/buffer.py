"""Replay buffer of a learner: a ring of steps, drawn from uniformly or by priority."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from renshu.errors import HyperparameterError
from renshu.replay import ring, sum_tree
from renshu.replay.ring import Index, Ring, Transitions
from renshu.types import Array, Key, PyTree, Rollout

PRIORITY_EPS = 1e-6
"""Added to priorities, so that every step may be drawn again."""
LEAST_PRIORITY = 1e-30
"""Bound of priority ** alpha from below: a smaller one would be 0 in float32, and its step never be drawn."""
FORGETTING = 0.999
"""Factor by which the priority of new steps falls in a gradient step, where none draws it up again."""


class Priorities(NamedTuple):
    """Priorities of the steps."""

    tree: sum_tree.Tree  # leaf row * N + env: priority ** alpha; 0 for what cannot be drawn
    highest: Array  # [] float32  priority ** alpha that new steps get


class ReplayState(NamedTuple):
    """State of a replay buffer: steps, priorities if any, and episodes that wait to enter if any."""

    ring: Ring
    priorities: Priorities | tuple[()]
    pending: PyTree = ()


class ReplayBuffer:
    """Pure functions of a ReplayState.

    capacity: steps of all environments together. num_envs: N. obs, action: of N environments, for shapes and dtypes.
    n_steps, frame_stack: see `ring.gather`. alpha: weight of priorities (Schaul et al. 2016, equation 1); None
    draws uniformly. own_heads: see `ring.empty`. judged: the extras of rollouts are the errors of their steps, [T, N],
    NaN where they are not known. Raises HyperparameterError where a rollout of `rollout_length` steps
    does not fit.
    """

    keeps_ends = False
    """True where drawing asks for the ends of episodes."""
    clips_rewards = False
    """True where learning sees the sign of rewards; kept are the rewards themselves."""

    def __init__(
        self,
        capacity: int,
        obs: PyTree,
        action: PyTree,
        *,
        num_envs: int,
        rollout_length: int,
        n_steps: int = 1,
        frame_stack: int = 1,
        alpha: float | None = None,
        own_heads: bool = False,
        judged: bool = False,
    ) -> None:
        self.rows, self.num_envs = capacity // num_envs, num_envs
        least = max(rollout_length, n_steps, frame_stack)
        if self.rows < least:
            raise HyperparameterError(
                f"buffer_size={capacity} is {self.rows} steps of each of {num_envs} environments, fewer than one "
                f"rollout with its n-step returns and frame stack needs: give buffer_size >= {least * num_envs}"
            )
        self.obs, self.action, self.rollout_length, self.own_heads = obs, action, rollout_length, own_heads
        self.n_steps, self.frame_stack, self.alpha, self.judged = n_steps, frame_stack, alpha, judged

    def init(self, extras: PyTree = (), carry: PyTree = ()) -> ReplayState:
        """Return an empty memory.

        extras: those of N environments that the actor gives at each step. carry: its memory, kept once a rollout.
        """
        steps = ring.empty(
            self.rows,
            self.obs,
            self.action,
            extras=extras,
            carry=carry,
            rollout_length=self.rollout_length,
            own_heads=self.own_heads,
            episodes=self.keeps_ends,
        )
        if self.alpha is None:
            return ReplayState(steps, ())
        return ReplayState(steps, Priorities(sum_tree.zeros(steps.first.size), jnp.float32(1.0)))

    def add(self, memory: ReplayState, rollout: Rollout, key: Key) -> ReplayState:
        """Add a rollout; its steps get the highest priority so far, or that of their errors, where these are known.

        key: for buffers that draw; not used here.
        """
        error = rollout.extras if self.judged and jax.tree.leaves(rollout.extras) else None
        steps = ring.add(memory.ring, rollout._replace(extras=()) if self.judged else rollout)
        if not isinstance(memory.priorities, Priorities):
            return ReplayState(steps, ())
        tree, highest = memory.priorities
        rows, env = ring.places_of(memory.ring, rollout)
        # The row after the last has no action yet; what stood there before is gone.
        drawable = jnp.concatenate([rollout.valid, jnp.zeros_like(rollout.first[:1])])
        begin = highest
        if error is not None:
            known = jnp.where(jnp.isfinite(error), self._priority(error), highest)
            begin = jnp.concatenate([known, jnp.zeros_like(known[:1])])
        tree = sum_tree.put(tree, self._leaves(rows, env), jnp.where(drawable, begin, 0.0).reshape(-1))
        if not isinstance(steps.seam, tuple):
            tree = self._without(tree, rows[0] - 1, env, ring.begins(steps, rows[0], env))
        return ReplayState(steps, Priorities(tree, highest))

    def room(self, memory: ReplayState) -> Array:
        """Count the rows that there is room for, of the environments that have given any: [] int32."""
        size = memory.ring.size
        return jnp.int32(self.rows) * (self.num_envs if size.ndim == 0 else (size > 0).sum(dtype=jnp.int32))

    def held(self, memory: ReplayState) -> Array:
        """Count the rows that the memory holds, of all environments together: [] int32."""
        size = memory.ring.size
        return size * self.num_envs if size.ndim == 0 else size.sum()

    def _without(self, tree: sum_tree.Tree, rows: Array, env: Array, broken: Array) -> sum_tree.Tree:
        """Take the priorities `[n]` of rows away where what followed on them is gone."""
        leaves = self._leaves(rows[None] % (self.rows + 1), env)
        return sum_tree.put(tree, leaves, jnp.where(broken, 0.0, sum_tree.at(tree, leaves)))

    def _leaves(self, rows: Array, env: Array) -> Array:
        """Return leaves of the tree of priorities, flat: of rows `[T]` or `[T, n]` in environments `[n]`."""
        return (rows.reshape(len(rows), -1) * self.num_envs + env).reshape(-1)

    def _priority(self, error: Array) -> Array:
        """Return priority ** alpha of errors (Schaul 2016, section 3.3)."""
        assert self.alpha is not None
        return jnp.maximum((jnp.abs(error) + PRIORITY_EPS) ** self.alpha, LEAST_PRIORITY)

    def sample(
        self, memory: ReplayState, key: Key, count: int, beta: float | Array = 1.0, *, gamma: float | Array
    ) -> Transitions:
        """Draw `count` transitions. From a memory without any their weights are 0.

        gamma: discount a step. beta: how much of the bias of drawing by priority their weights take back (Schaul 2016,
        section 3.4); the highest weight of the batch is 1.
        """
        index, weight = self.draw(memory, key, count, beta)
        return self.gather(memory, index, weight, gamma)

    def draw(self, memory: ReplayState, key: Key, count: int, beta: float | Array = 1.0) -> tuple[Index, Array]:
        """Draw indices and weights `[B]`, the first half of `sample`; it depends on priorities, `gather` does not."""
        if not isinstance(memory.priorities, Priorities):
            return ring.draw(memory.ring, key, count)
        leaf, probability = sum_tree.draw(memory.priorities.tree, key, count)
        smallest = jnp.where(probability > 0, probability, jnp.inf).min()
        weight = jnp.where(probability > 0, (smallest / jnp.maximum(probability, 1e-30)) ** beta, 0.0)
        return Index(leaf // self.num_envs, leaf % self.num_envs), weight

    def gather(self, memory: ReplayState, index: Index, weight: Array, gamma: float | Array) -> Transitions:
        """Gather the transitions that begin at indices, the second half of `sample`."""
        steps = memory.ring

        def clipped(rows: Array, env: Array) -> Array:
            return jnp.sign(steps.reward[rows, env])

        how: dict[str, Any] = {"n_steps": self.n_steps, "gamma": gamma, "frame_stack": self.frame_stack}
        return ring.gather(steps, index, weight, **how, reward=clipped if self.clips_rewards else None)

    def reprioritize(self, memory: ReplayState, index: Index, error: Array) -> ReplayState:
        """Set priorities by the absolute errors `[B]` that learning found. Does nothing in a uniform buffer.

        index: as in the transitions. An error that is not finite changes nothing.
        """
        if self.alpha is None or not isinstance(memory.priorities, Priorities):
            return memory
        tree, highest = memory.priorities
        leaf = index.row * self.num_envs + index.env
        before = sum_tree.at(tree, leaf)
        value = self._priority(error)
        good = (before > 0) & jnp.isfinite(value)
        value = jnp.where(good, value, before)
        # The highest so far, as in the paper, would be that of one outlier for ever.
        highest = jnp.where(good.any(), jnp.maximum(FORGETTING * highest, value.max()), highest)
        priorities = Priorities(sum_tree.put(tree, leaf, value), highest)
        return memory._replace(priorities=priorities)
