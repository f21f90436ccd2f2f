"""DDPG (Lillicrap et al. 2016, "Continuous control with deep reinforcement learning"): TD3 without its three ideas."""

from __future__ import annotations

from dataclasses import dataclass

from renshu.algorithms.hyperparameters import real, whole
from renshu.algorithms.td3 import TD3


@dataclass(frozen=True, kw_only=True)
class DDPG(TD3):
    """A deterministic policy and one critic, both updated at each step."""

    n_critics: int = whole(1, "critics: networks that each say the value of an action", least=1)
    policy_delay: int = whole(1, "updates of the critics for one of the policy and of the late copies", least=1)
    target_policy_noise: float = real(0.0, "deviation of the noise on the target's actions", least=0)
