"""Dyna-Q (Sutton 1990, "Integrated architectures for learning, planning, and reacting"; Sutton & Barto 2018, 8.2)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import jax
import jax.numpy as jnp

from renshu.algorithms.hyperparameters import integer
from renshu.algorithms.tabular.qlearning import QLearner
from renshu.algorithms.tabular.tabular import TableSteps, TabularAlgorithm, same_pair
from renshu.types import Array, EnvSpec, Key, PyTree, Rollout


@dataclass(frozen=True, kw_only=True)
class DynaQ(TabularAlgorithm):
    """Q-learning that also learns from remembered steps: the last outcome of a state and action.

    The model holds one outcome per pair, and the last mask of each state. Where outcomes vary, few planning steps
    and a small learning rate keep the last one from outweighing those before it.
    """

    planning_steps: int = integer(10, "remembered steps learned from after each real one", least=0)

    def build(self, spec: EnvSpec) -> DynaQLearner:
        """Bind Dyna-Q to an environment. Raises SpaceError where its observations do not fit into a table."""
        return DynaQLearner(self, spec)


class Model(NamedTuple):
    """Model: the last outcome of each pair, state * A + action."""

    reward: Array  # [S * A] float32
    next_state: Array  # [S * A] int32
    terminated: Array  # [S * A] bool
    seen: Array  # [S * A] bool
    order: Array  # [S * A] int32  the pairs, in the order in which they were first seen
    count: Array  # [] int32  how many of them
    mask: Array | None = None  # [S, A] bool  actions last allowed in each state; None for all


class DynaQLearner(QLearner[DynaQ]):
    """The model, and planning after every step."""

    def init_aux(self) -> Model:
        pairs = self.index.size * self.actions
        dtypes = (jnp.float32, jnp.int32, jnp.bool_, jnp.bool_, jnp.int32)
        mask = jnp.ones((self.index.size, self.actions), jnp.bool_) if self.spec.masks else None
        return Model(*(jnp.zeros(pairs, dtype) for dtype in dtypes), count=jnp.int32(0), mask=mask)

    def transitions(self, aux: Model, rollout: Rollout, key: Key) -> tuple[TableSteps, PyTree]:
        """Return the steps of the rollout, after each one `planning_steps` that the model remembers by then."""
        steps, _ = super().transitions((), rollout, key)

        def plan(model: Model, row: tuple[TableSteps, Key]) -> tuple[Model, TableSteps]:
            real, key = row
            model = self.remember(model, real)
            planned = self.recall(model, key, len(real.state))
            return model, jax.tree.map(lambda x, y: jnp.concatenate([x[None], y]), real, planned)

        keys = jax.random.split(key, self.needs.steps)
        model, steps = jax.lax.scan(plan, aux, (steps, keys))
        return jax.tree.map(lambda x: x.reshape(-1, *x.shape[2:]), steps), model

    def remember(self, model: Model, row: TableSteps) -> Model:
        """Update the model with N steps. Of those with the same state and action the last environment's is kept."""
        later = jnp.triu(same_pair(row, self.actions) & row.real, 1).any(axis=1)
        kept, nowhere = row.real & ~later, model.order.shape[0]
        pair = row.state * self.actions + row.action
        known = model.seen[pair]
        new = kept & ~known
        where, index = jnp.where(kept, pair, nowhere), jnp.where(new, model.count + jnp.cumsum(new) - 1, nowhere)
        return Model(
            reward=model.reward.at[where].set(row.reward, mode="drop"),
            next_state=model.next_state.at[where].set(row.next_state, mode="drop"),
            terminated=model.terminated.at[where].set(row.terminated, mode="drop"),
            seen=model.seen.at[where].set(known | kept, mode="drop"),  # made of what was read, or XLA copies the array
            order=model.order.at[index].set(pair, mode="drop"),
            count=model.count + new.sum(dtype=jnp.int32),
            mask=self.learned_mask(model, row),
        )

    def learned_mask(self, model: Model, row: TableSteps) -> Array | None:
        """Update the masks of the model after N steps. Of those to the same state the last one's is kept."""
        if model.mask is None:
            return None
        # Nothing can be done after the end, so its mask says nothing of states that look like it.
        known = row.real & ~row.terminated
        later = jnp.triu((row.next_state[:, None] == row.next_state) & known, 1).any(axis=1)
        where = jnp.where(known & ~later, row.next_state, model.mask.shape[0])
        return model.mask.at[where].set(row.next_mask, mode="drop")

    def recall(self, model: Model, key: Key, count: int) -> TableSteps:
        """Draw steps `[planning_steps, count]` uniformly from the pairs that were seen."""
        shape = (self.config.planning_steps, count)
        pair = model.order[jax.random.randint(key, shape, 0, jnp.maximum(model.count, 1))]
        return TableSteps(
            state=pair // self.actions,
            action=pair % self.actions,
            reward=model.reward[pair],
            next_state=model.next_state[pair],
            terminated=model.terminated[pair],
            real=jnp.broadcast_to(model.count > 0, shape),
            next_mask=None if model.mask is None else model.mask[model.next_state[pair]],
        )
