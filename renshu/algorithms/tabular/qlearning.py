"""Q-learning (Watkins 1989, "Learning from delayed rewards"; Sutton & Barto 2018, equation 6.8)."""

from __future__ import annotations

from dataclasses import dataclass

from renshu.algorithms.tabular.tabular import Config, TableSteps, TabularAlgorithm, TabularLearner
from renshu.types import Array, EnvSpec


@dataclass(frozen=True, kw_only=True)
class QLearning(TabularAlgorithm):
    """A table of action values, each moved towards the reward and the value of the best next action."""

    def build(self, spec: EnvSpec) -> QLearner:
        """Bind Q-learning to an environment. Raises SpaceError where its observations do not fit into a table."""
        return QLearner(self, spec)


class QLearner(TabularLearner[Config]):
    """The target of Q-learning."""

    def next_value(self, values: Array, row: TableSteps, epsilon: Array) -> Array:
        return values.max(axis=1)
