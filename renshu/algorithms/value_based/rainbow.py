"""Rainbow (Hessel et al. 2018): DQN with six ideas at once."""

from __future__ import annotations

from dataclasses import dataclass

from renshu.algorithms.hyperparameters import ScheduleLike, boolean, choice, integer, number, schedule
from renshu.algorithms.value_based.dqn import DQN
from renshu.ops.schedules import Linear


@dataclass(frozen=True, kw_only=True)
class Rainbow(DQN):
    """Double, dueling, prioritized, three steps, noisy, c51.

    Defaults are those of table 1 there, for Atari, in environment steps of four frames. A small problem wants smaller
    learning_starts and target_update_interval, a larger learning_rate, and v_min and v_max of its own.
    """

    learning_rate: ScheduleLike = schedule(6.25e-5, "step size of Adam", least=0, traceable=True, tune=(1e-5, 1e-2))
    adam_eps: float = number(1.5e-4, "added to the deviation by which Adam divides", above=0)
    learning_starts: int = integer(20_000, "steps before the first gradient step; their actions are random", least=0)
    target_update_interval: int = integer(8_000, "environment steps between updates of the target network", least=1)
    double: bool = boolean(True, "choose the next action by the network itself, value it by the target")
    dueling: bool = boolean(True, "value of the state and advantages of the actions apart")
    prioritized: bool = boolean(True, "draw steps in proportion to their last error")
    prioritized_replay_alpha: float = number(0.5, "how much priorities matter: 0 not at all", least=0)
    prioritized_replay_beta: ScheduleLike = schedule(
        Linear(0.4, 1.0),
        "importance-sampling exponent: how much weights correct the bias of priorities",
        least=0,
        traceable=True,
    )
    n_steps: int = integer(3, "rewards summed up before the value of what comes after", least=1)
    noisy: bool = boolean(True, "explore by noise on the weights")
    distributional: str | None = choice("c51", "probabilities of returns", (None, "c51", "qr", "iqn"))
