"""Sarsa (Rummery & Niranjan 1994; Sutton & Barto 2018, equation 6.7)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import jax.numpy as jnp

from renshu.algorithms.tabular.tabular import State, TableSteps, TabularAlgorithm, TabularLearner
from renshu.types import Array, EnvSpec, Key, PyTree, Rollout


@dataclass(frozen=True, kw_only=True)
class SARSA(TabularAlgorithm):
    """A table of action values, each moved towards the reward and the value of the action that was taken next."""

    def build(self, spec: EnvSpec) -> SARSALearner:
        """Bind Sarsa to an environment. Raises SpaceError where its observations do not fit into a table."""
        return SARSALearner(self, spec)


class PendingStep(NamedTuple):
    """The last step of a rollout, `[N]`: it waits for the action after it, the first of the next rollout."""

    state: Array  # int32
    action: Array  # int32
    reward: Array  # float32
    terminated: Array  # bool
    real: Array  # bool: there is one, and it is no reset


class SARSALearner(TabularLearner[SARSA]):
    """The target of Sarsa, one step late."""

    max_lag = 0

    def init_aux(self) -> PendingStep:
        n = self.spec.num_envs
        return PendingStep(
            *(jnp.zeros(n, dtype) for dtype in (jnp.int32, jnp.int32, jnp.float32, jnp.bool_, jnp.bool_))
        )

    def resize(self, state: State) -> State:
        """Forget the step that waits where the number of environments differs; the rest stays."""
        if state.aux.real.shape == (self.spec.num_envs,):
            return state
        return state._replace(aux=self.init_aux())

    def transitions(self, aux: PendingStep, rollout: Rollout, key: Key) -> tuple[TableSteps, PyTree]:
        """Return the step that waited and all but the last, with the action after each.

        After a truncated episode that is the action of the reset step: the policy chose it for the last observation.
        """
        states, _ = self.states(rollout)
        rows = PendingStep(states[:-1], rollout.action, rollout.reward, rollout.terminated, rollout.valid)
        # Where a rollout begins with an episode although a step waits, environments were made again in between: the
        # action after it was never chosen, and without one only an end for good can be learned from.
        waited = aux._replace(real=aux.real & (aux.terminated | ~rollout.first[0]))
        late = PendingStep(*(jnp.concatenate([w[None], x[:-1]]) for w, x in zip(waited, rows, strict=True)))
        steps = TableSteps(
            state=late.state,
            action=late.action,
            reward=late.reward,
            next_state=states[:-1],
            terminated=late.terminated,
            real=late.real,
            next_action=rollout.action,
        )
        return steps, PendingStep(*(x[-1] for x in rows))

    def next_value(self, values: Array, row: TableSteps, epsilon: Array) -> Array:
        return jnp.take_along_axis(values, row.next_action[:, None], axis=1)[:, 0]  # type: ignore[index]
