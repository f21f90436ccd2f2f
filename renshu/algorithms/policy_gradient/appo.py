"""Asynchronous PPO: clipped epochs on rollouts of older policies, which V-trace corrects.

The clip holds the new policy near the one that begins to learn, not near the one that acted, whose part the ratios of
V-trace take (Hilton et al. 2021, "Batch size-invariance for policy optimization", the decoupled objective).
"""

from __future__ import annotations

from dataclasses import dataclass

from renshu.algorithms.hyperparameters import integer
from renshu.algorithms.policy_gradient import vtrace
from renshu.algorithms.policy_gradient.ppo import PPO, PPOLearner
from renshu.types import EnvSpec


@dataclass(frozen=True, kw_only=True)
class APPO(vtrace.VTrace, PPO):
    """PPO's epochs on what older policies did, corrected by V-trace. Without a lag it is PPO."""

    n_steps: int = integer(128, "steps collected of each environment for one update", least=1)
    n_epochs: int = integer(2, "times that each rollout is learned from", least=1)

    def build(self, spec: EnvSpec) -> APPOLearner:
        """Bind APPO to an environment. Raises HyperparameterError where the minibatches do not divide the rollout."""
        return APPOLearner(self, spec)


class APPOLearner(PPOLearner):
    """PPO's loss with the estimates of V-trace."""

    records_log_prob = True
    estimates = vtrace.estimates
