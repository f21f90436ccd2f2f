"""QR-DQN (Dabney et al. 2018, "Distributional reinforcement learning with quantile regression"): DQN with quantiles."""

from __future__ import annotations

from dataclasses import dataclass

from renshu.algorithms.hyperparameters import ScheduleLike, choice, number, schedule
from renshu.algorithms.value_based.dqn import DQN


@dataclass(frozen=True, kw_only=True)
class QRDQN(DQN):
    """DQN that learns quantiles of the return; its defaults are those of sb3-contrib."""

    learning_rate: ScheduleLike = schedule(5e-5, "step size of Adam", least=0, traceable=True, tune=(1e-5, 1e-2))
    exploration_fraction: float = number(
        0.005, "share of training in which epsilon falls", above=0, most=1, traceable=True
    )
    exploration_final_eps: float = number(0.01, "epsilon at the end", least=0, most=1, traceable=True)
    max_grad_norm: float | None = number(
        None, "gradients are scaled down to this norm; None: never", above=0, optional=True
    )
    adam_eps: float = number(3.125e-4, "added to the deviation by which Adam divides: 0.01 / batch_size", above=0)
    distributional: str | None = choice("qr", "quantiles at fixed fractions", (None, "c51", "qr", "iqn"))
