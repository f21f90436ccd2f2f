"""Hindsight experience replay: goals that were reached later in an episode, in place of those that were pursued."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from renshu.errors import HyperparameterError
from renshu.replay import ring
from renshu.replay.buffer import ReplayBuffer, ReplayState
from renshu.replay.ring import Index, Transitions
from renshu.types import Array, Key, PyTree

ACHIEVED, DESIRED = "achieved_goal", "desired_goal"
"""Keys of goals in an observation, as in Gymnasium-Robotics."""


class GoalBuffer(ReplayBuffer):
    """A ReplayBuffer whose transitions pursue other goals (Andrychowicz et al. 2017, strategy "future").

    Of the transitions drawn, n_sampled_goal in n_sampled_goal + 1 get a goal that was achieved after a later step of
    their episode, uniformly, and the rewards of that goal. goal_reward: from goals achieved after steps and desired
    ones, both `[..., G]`, to rewards `[...]`. Whether an episode terminated stays as it was. Other arguments are those
    of ReplayBuffer. Raises HyperparameterError where observations have no goals.
    """

    keeps_ends = True

    def __init__(
        self,
        capacity: int,
        obs: PyTree,
        action: PyTree,
        *,
        goal_reward: Callable[[Array, Array], Array],
        n_sampled_goal: int = 4,
        **options: Any,
    ) -> None:
        if not isinstance(obs, dict) or not {ACHIEVED, DESIRED} <= set(obs):
            raise HyperparameterError(
                f"goals are relabelled in observations that are a Dict with {ACHIEVED!r} and {DESIRED!r}, as those of "
                "Gymnasium-Robotics"
            )
        super().__init__(capacity, obs, action, **options)
        self.goal_reward, self.share = goal_reward, n_sampled_goal / (n_sampled_goal + 1)

    def draw(self, memory: ReplayState, key: Key, count: int, beta: float | Array = 1.0) -> tuple[Index, Array]:
        """Draw indices with the rows of their goals, and weights `[B]`."""
        key_draw, key_which, key_goal = jax.random.split(key, 3)
        index, weight = super().draw(memory, key_draw, count, beta)
        total, (number, end) = self.rows + 1, memory.ring.episodes
        # The step after which the goal was achieved is this one at the earliest.
        left = (end[number[index.row, index.env], index.env] - index.row) % total
        later = 1 + jnp.floor(jax.random.uniform(key_goal, (count,)) * left).astype(jnp.int32)
        goal = (index.row + jnp.minimum(later, left)) % total
        relabelled = (jax.random.uniform(key_which, (count,)) < self.share) & (left > 0)
        return index._replace(goal=jnp.where(relabelled, goal, -1)), weight

    def gather(self, memory: ReplayState, index: Index, weight: Array, gamma: float | Array) -> Transitions:
        """Gather the transitions that begin at indices, with their goals in place."""
        steps, total = memory.ring, self.rows + 1
        relabelled = index.goal >= 0
        goal = steps.obs[ACHIEVED][index.goal, index.env]

        def reward(rows: Array, env: Array) -> Array:
            achieved = steps.obs[ACHIEVED][(rows + 1) % total, env]
            desired = jnp.broadcast_to(goal[:, None], achieved.shape)
            return jnp.where(relabelled[:, None], self.goal_reward(achieved, desired), steps.reward[rows, env])

        batch = ring.gather(
            steps,
            index,
            weight,
            n_steps=self.n_steps,
            gamma=gamma,
            frame_stack=self.frame_stack,
            reward=reward,
        )

        def pursuing(obs: PyTree) -> PyTree:
            before = obs[DESIRED]
            shape = (-1, *(1,) * (before.ndim - 1))
            other = jnp.broadcast_to(
                goal.reshape(len(goal), *(1,) * (before.ndim - goal.ndim), *goal.shape[1:]), before.shape
            )
            return {**obs, DESIRED: jnp.where(relabelled.reshape(shape), other.astype(before.dtype), before)}

        return batch._replace(obs=pursuing(batch.obs), next_obs=pursuing(batch.next_obs))
