"""Ape-X (Horgan et al. 2018, arXiv:1803.00933): many actors, each exploring in its own way, fill one memory.

A step enters the memory with the error that its actor found, instead of waiting for a first gradient step with the
highest priority of all, as steps of one actor can afford to.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

import jax.numpy as jnp

from renshu.algorithms.continuous.ddpg import DDPG
from renshu.algorithms.continuous.td3 import TD3Learner
from renshu.algorithms.exploration import EpsilonOfEach
from renshu.algorithms.hyperparameters import ScheduleLike, boolean, choice, integer, number, schedule
from renshu.algorithms.replay_learner import ActorState
from renshu.algorithms.value_based.dqn import DQN, DQNLearner
from renshu.errors import HyperparameterError
from renshu.ops.returns import n_step_returns
from renshu.types import Array, EnvSpec, PyTree, Rollout, TimeStep


class Judged(NamedTuple):
    """Values by which an actor finds the errors of its steps, `[N]` each."""

    taken: Array  # of the action
    best: Array  # of the best action there


def first_errors(self: Any, rollout: Rollout) -> Array:
    """Return the errors of steps by the values that the actor saw, `[T, N]`: the method of a learner.

    NaN for the last steps of a rollout, whose targets lie beyond it.
    """
    taken, best = rollout.extras
    value = jnp.concatenate([best, jnp.full_like(best[:1], jnp.nan)])
    ends = rollout.terminated, rollout.valid
    return n_step_returns(rollout.reward, value, *ends, self.config.gamma, self.config.n_steps) - taken


def check(config: Any) -> None:
    """Raise HyperparameterError for what does not go with priorities of actors."""
    name = type(config).__name__
    if not config.prioritized or config.elite_episodes:
        raise HyperparameterError(f"{name}: its actors make priorities: prioritized=True, and no elite_episodes")


@dataclass(frozen=True, kw_only=True)
class ApeX(EpsilonOfEach, DQN):
    """DQN, double, dueling and prioritized, in which each environment has an epsilon of its own."""

    buffer_size: int = integer(2_000_000, "steps that the memory holds, of all environments together", least=1)
    learning_starts: int = integer(50_000, "steps before the first gradient step; their actions are random", least=0)
    batch_size: int = integer(512, "steps drawn for one gradient step", least=1)
    train_freq: int = integer(50, "steps collected of each environment between two trainings", least=1)
    gradient_steps: int = integer(1, "gradient steps in a training; -1: as many as steps were collected", least=-1)
    n_steps: int = integer(3, "rewards summed up before the value of what comes after", least=1)
    target_update_interval: int = integer(2_500, "environment steps between updates of the target network", least=1)
    max_grad_norm: float | None = number(
        40.0, "gradients are scaled down to this norm; None: never", above=0, optional=True
    )
    exploration_initial_eps: float = number(
        0.0, "at the start all environments explore at least so much", least=0, most=1, traceable=True
    )
    exploration_final_eps: float = number(
        0.0, "at the end all environments explore at least so much", least=0, most=1, traceable=True
    )
    double: bool = boolean(True, "choose the next action by the network itself, value it by the target")
    dueling: bool = boolean(True, "value of the state and advantages of the actions apart")
    prioritized: bool = boolean(True, "draw steps in proportion to their last error")
    prioritized_replay_beta: ScheduleLike = schedule(
        0.4, "importance-sampling exponent: how much weights correct the bias of priorities", least=0, traceable=True
    )

    def build(self, spec: EnvSpec) -> ApeXLearner:
        """Bind Ape-X to an environment. Raises HyperparameterError for options that do not go together."""
        return ApeXLearner(self, spec)


class ApeXLearner(DQNLearner):
    """DQN's network and gradient step; the actors' part of Ape-X."""

    judges_at_once = True
    first_errors = first_errors

    def __init__(self, config: ApeX, spec: EnvSpec) -> None:
        check(config)
        super().__init__(config, spec)

    def epsilon(self, acting: ActorState, timestep: TimeStep) -> Array:
        config: Any = self.config
        return jnp.maximum(config.epsilons(timestep, self.spec.num_envs), acting.exploration)

    def judged(self, values: Array, action: Array) -> Judged:
        return Judged(jnp.take_along_axis(values, action[:, None], axis=1)[:, 0], values.max(axis=1))


@dataclass(frozen=True, kw_only=True)
class ApeXDDPG(EpsilonOfEach, DDPG):
    """DDPG, prioritized, in which each environment has noise of its own size: action_noise_std times its share."""

    buffer_size: int = integer(1_000_000, "steps that the memory holds, of all environments together", least=1)
    learning_starts: int = integer(10_000, "steps before the first gradient step; their actions are random", least=0)
    train_freq: int = integer(50, "steps collected of each environment between two trainings", least=1)
    gradient_steps: int = integer(1, "gradient steps in a training; -1: as many as steps were collected", least=-1)
    n_steps: int = integer(5, "rewards summed up before the value of what comes after", least=1)
    prioritized: bool = boolean(True, "draw steps in proportion to their last error")
    exploration_base: float = number(
        1.0, "environment i of N has action_noise_std times base^(1 + exponent i / (N - 1))", least=0, most=1
    )
    exploration_exponent: float = number(0.0, "see exploration_base; 0: all alike, as in the paper", least=0)
    action_noise: str | None = choice(
        "normal",
        'explore by noise on actions, "normal" or "ou" (Ornstein-Uhlenbeck); None: not at all',
        ("normal", "ou", None),
    )
    action_noise_std: float = number(0.3, "its deviation, where actions go from -1 to 1", least=0, traceable=True)

    def build(self, spec: EnvSpec) -> ApeXDDPGLearner:
        """Bind Ape-X DDPG to an environment."""
        return ApeXDDPGLearner(self, spec)


class ApeXDDPGLearner(TD3Learner):
    """DDPG's networks and gradient step; the actors' part of Ape-X."""

    judges_at_once = True
    first_errors = first_errors

    def __init__(self, config: ApeXDDPG, spec: EnvSpec) -> None:
        check(config)
        super().__init__(config, spec)

    def noise_std(self, timestep: TimeStep) -> Array:
        config: Any = self.config
        return config.action_noise_std * config.epsilons(timestep, self.spec.num_envs)[:, None]

    def judged(self, acting: ActorState, obs: PyTree, greedy: Array, action: Array) -> Judged:
        critics = acting.params["critics"]
        taken, best = (self.q(critics, obs, x).mean(axis=2).min(axis=0) for x in (action, greedy))
        return Judged(taken, best)
