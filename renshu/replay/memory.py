"""The replay memory of a learner: a ring of steps, drawn from uniformly or by priority."""

from __future__ import annotations

from typing import NamedTuple

import jax.numpy as jnp

from renshu.errors import HyperparameterError
from renshu.replay import ring, sum_tree
from renshu.replay.ring import Place, Ring, Samples
from renshu.types import Array, Key, PyTree, Rollout

PRIORITY_EPS = 1e-6
"""Added to priorities, so that every step may be drawn again."""


class Priorities(NamedTuple):
    """How likely each step is drawn."""

    tree: sum_tree.Tree  # leaf row * N + env: priority ** alpha; 0 for what cannot be drawn
    highest: Array  # [] float32  priority ** alpha that new steps get


class Memory(NamedTuple):
    """The state: steps, their priorities where there are any, and what waits to enter where anything does."""

    ring: Ring
    priorities: Priorities | tuple[()]
    staging: PyTree = ()


class Replay:
    """Pure functions of a Memory.

    capacity: steps of all environments together. num_envs: N. obs, action: of N environments, for shapes and dtypes.
    n_step, gamma, history: see `ring.gather`. alpha: how much priorities matter (Schaul et al. 2016, equation 1); None
    draws uniformly. Raises HyperparameterError where a rollout of `rollout_length` steps does not fit.
    """

    def __init__(
        self,
        capacity: int,
        obs: PyTree,
        action: PyTree,
        *,
        num_envs: int,
        rollout_length: int,
        n_step: int = 1,
        gamma: float | Array = 0.99,
        history: int = 1,
        alpha: float | None = None,
    ) -> None:
        self.rows, self.num_envs = capacity // num_envs, num_envs
        least = max(rollout_length, n_step, history)
        if self.rows < least:
            raise HyperparameterError(
                f"buffer_size={capacity} is {self.rows} steps of each of {num_envs} environments, fewer than one "
                f"rollout with its n-step returns and history needs: give buffer_size >= {least * num_envs}"
            )
        self.obs, self.action = obs, action
        self.n_step, self.gamma, self.history, self.alpha = n_step, gamma, history, alpha

    def init(self) -> Memory:
        """Return an empty memory."""
        steps = ring.empty(self.rows, self.obs, self.action)
        if self.alpha is None:
            return Memory(steps, ())
        return Memory(steps, Priorities(sum_tree.zeros(steps.first.size), jnp.float32(1.0)))

    def add(self, memory: Memory, rollout: Rollout, key: Key) -> Memory:
        """Add a rollout; its steps get the highest priority so far. key: not used here, for memories that choose."""
        steps = ring.add(memory.ring, rollout)
        if not isinstance(memory.priorities, Priorities):
            return Memory(steps, ())
        tree, highest = memory.priorities
        count = rollout.reward.shape[0]
        rows = (memory.ring.head + jnp.arange(count + 1)) % (self.rows + 1)
        leaves = rows[:, None] * self.num_envs + jnp.arange(self.num_envs)
        # The row after the last has no action yet; what stood there before is gone.
        drawable = jnp.concatenate([rollout.valid, jnp.zeros((1, self.num_envs), jnp.bool_)])
        tree = sum_tree.put(tree, leaves.reshape(-1), jnp.where(drawable, highest, 0.0).reshape(-1))
        return Memory(steps, Priorities(tree, highest))

    def sample(self, memory: Memory, key: Key, count: int, beta: float | Array = 1.0) -> Samples:
        """Draw `count` transitions. From a memory without any their weights are 0.

        beta: how much of the bias of drawing by priority their weights take back (Schaul 2016, section 3.4); the
        highest weight of the batch is 1.
        """
        return self.gather(memory, *self.draw(memory, key, count, beta))

    def draw(self, memory: Memory, key: Key, count: int, beta: float | Array = 1.0) -> tuple[Place, Array]:
        """The first half of `sample`: places and weights `[B]`. Only priorities change what comes out of a ring."""
        if not isinstance(memory.priorities, Priorities):
            return ring.draw(memory.ring, key, count)
        leaf, chance = sum_tree.draw(memory.priorities.tree, key, count)
        smallest = jnp.where(chance > 0, chance, jnp.inf).min()
        weight = jnp.where(chance > 0, (smallest / jnp.maximum(chance, 1e-30)) ** beta, 0.0)
        return Place(leaf // self.num_envs, leaf % self.num_envs), weight

    def gather(self, memory: Memory, place: Place, weight: Array) -> Samples:
        """The second half: the transitions that begin there."""
        return ring.gather(memory.ring, place, weight, n_step=self.n_step, gamma=self.gamma, history=self.history)

    def reprioritize(self, memory: Memory, place: Place, error: Array) -> Memory:
        """Set priorities by the absolute errors `[B]` that learning found; nothing where all are alike.

        place: as in the samples. An error that is not finite changes nothing.
        """
        if self.alpha is None or not isinstance(memory.priorities, Priorities):
            return memory
        tree, highest = memory.priorities
        leaf = place.row * self.num_envs + place.env
        before = sum_tree.at(tree, leaf)
        value = (jnp.abs(error) + PRIORITY_EPS) ** self.alpha
        value = jnp.where((before > 0) & jnp.isfinite(value), value, before)
        priorities = Priorities(sum_tree.put(tree, leaf, value), jnp.maximum(highest, value.max()))
        return memory._replace(priorities=priorities)
