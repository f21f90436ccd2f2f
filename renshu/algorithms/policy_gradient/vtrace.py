"""The correction for experience of an older policy, which IMPALA and APPO share."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from renshu.algorithms.hyperparameters import integer, number
from renshu.ops.returns import vtrace
from renshu.types import Array, Rollout


@dataclass(frozen=True, kw_only=True)
class VTrace:
    """Hyperparameters of learning from what older policies did."""

    max_lag: int = integer(10, "updates that the policy which acted may be behind; older rollouts are refused", least=0)
    rho_bar: float = number(1.0, "bound of the ratios of policies in the errors", above=0, traceable=True)
    c_bar: float = number(1.0, "bound of the ratios of policies in the trace", above=0, traceable=True)


def estimates(self: Any, rollout: Rollout, reward: Array, value: Array, log_prob: Array) -> tuple[Array, Array]:
    """Estimate advantages and targets of the value by V-trace: the method of a learner, in place of its own."""
    a = self.config
    log_ratio = log_prob.reshape(reward.shape) - rollout.extras
    ends = rollout.terminated, rollout.valid
    return vtrace(reward, value, *ends, log_ratio, a.gamma, a.gae_lambda, a.rho_bar, a.c_bar)
