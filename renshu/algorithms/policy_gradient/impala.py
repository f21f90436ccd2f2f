"""IMPALA (Espeholt et al. 2018, arXiv:1802.01561): actors that need not wait for the learner."""

from __future__ import annotations

from dataclasses import dataclass

from renshu.algorithms.hyperparameters import integer
from renshu.algorithms.policy_gradient import vtrace
from renshu.algorithms.policy_gradient.a2c import A2C, A2CLearner
from renshu.types import EnvSpec


@dataclass(frozen=True, kw_only=True)
class IMPALA(vtrace.VTrace, A2C):
    """A2C's gradient steps on what older policies did, corrected by V-trace. Without a lag it is A2C."""

    n_steps: int = integer(20, "steps collected of each environment for one update", least=1)

    def build(self, spec: EnvSpec) -> IMPALALearner:
        """Bind IMPALA to an environment."""
        return IMPALALearner(self, spec)


class IMPALALearner(A2CLearner):
    """A2C's loss with the estimates of V-trace."""

    records_log_prob = True
    estimates = vtrace.estimates
