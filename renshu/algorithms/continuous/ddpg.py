"""DDPG (Lillicrap et al. 2016, "Continuous control with deep reinforcement learning"): TD3 without its three ideas."""

from __future__ import annotations

from dataclasses import dataclass

from renshu.algorithms.continuous.td3 import TD3
from renshu.algorithms.hyperparameters import integer, number


@dataclass(frozen=True, kw_only=True)
class DDPG(TD3):
    """A deterministic policy and one critic, both updated at each step."""

    n_critics: int = integer(1, "critics: networks that each estimate the value of an action", least=1)
    policy_delay: int = integer(1, "updates of the critics for one of the policy", least=1)
    target_policy_noise: float = number(0.0, "deviation of the noise on the target's actions", least=0, traceable=True)
