"""Expected Sarsa (van Seijen et al. 2009; Sutton & Barto 2018, equation 6.9)."""

from __future__ import annotations

from dataclasses import dataclass

from renshu.algorithms.tabular.tabular import TableSteps, TabularAlgorithm, TabularLearner, epsilon_greedy
from renshu.types import Array, EnvSpec


@dataclass(frozen=True, kw_only=True)
class ExpectedSARSA(TabularAlgorithm):
    """A table of action values, each moved towards the reward and the mean value of the next action.

    The mean is over the policy that acts, random actions included: so it learns how good that policy is.
    """

    def build(self, spec: EnvSpec) -> ExpectedSARSALearner:
        """Bind Expected Sarsa to an environment. Raises SpaceError where its observations do not fit into a table."""
        return ExpectedSARSALearner(self, spec)


class ExpectedSARSALearner(TabularLearner[ExpectedSARSA]):
    """The target of Expected Sarsa."""

    def next_value(self, values: Array, row: TableSteps, epsilon: Array) -> Array:
        return (epsilon_greedy(values, epsilon, row.next_mask) * values).sum(axis=1)
