"""Soft actor-critic (Haarnoja et al. 2018, "Soft actor-critic algorithms and applications", arXiv:1812.05905)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import jax
from gymnasium import spaces

from renshu.algorithms.base import OBSERVATIONS, Learner
from renshu.algorithms.continuous.actor_critic import TargetNetworks
from renshu.algorithms.continuous.discrete_sac import DiscreteSACLearner
from renshu.algorithms.continuous.soft import (
    RegularisedCritics,
    SoftActorCriticAlgorithm,
    SoftActorCriticLearner,
    SoftStateDependentExploration,
)
from renshu.algorithms.continuous.temperature import temperature
from renshu.algorithms.hyperparameters import integer
from renshu.errors import HyperparameterError
from renshu.networks.critics import random_subset
from renshu.ops.losses import td_loss
from renshu.ops.targets import soft_value, td_target
from renshu.optim.train_state import TrainState, apply_every, polyak
from renshu.replay.ring import Transitions
from renshu.types import Accepts, Array, EnvSpec, Key, Metrics, PyTree


@dataclass(frozen=True, kw_only=True)
class SAC(TargetNetworks, SoftStateDependentExploration, RegularisedCritics, SoftActorCriticAlgorithm):
    """A policy that seeks reward and entropy, with a learned temperature; discrete actions as in Christodoulou 2019.

    REDQ (Chen 2021): n_critics=10, n_target_critics=2, gradient_steps=20, policy_delay=20.
    DroQ (Hiraoka 2022): dropout=0.01, layer_norm=True, gradient_steps=20, policy_delay=20, and n_target_critics=2, so
    that the policy maximises the mean of both critics.
    """

    accepts: ClassVar[Accepts] = Accepts(
        observations=OBSERVATIONS, actions=frozenset({"box", "discrete"}), frame_stack=True, masks=True, squashed=True
    )

    n_target_critics: int | None = integer(
        None, "critics drawn for each target, of all; the policy then maximises the mean of all", least=1, optional=True
    )

    def build(self, spec: EnvSpec) -> Learner:
        """Bind SAC to an environment. Raises HyperparameterError for options that do not go together."""
        if self.n_target_critics is not None and self.n_target_critics > self.n_critics:
            raise HyperparameterError(
                f"SAC: n_target_critics={self.n_target_critics} is more than n_critics={self.n_critics}: give fewer of "
                "them, or more critics"
            )
        return (DiscreteSACLearner if isinstance(spec.action_space, spaces.Discrete) else SACLearner)(self, spec)


class SACLearner(SoftActorCriticLearner[SAC]):
    """The gradient step of SAC on continuous actions."""

    def gradient_step(
        self, train_state: TrainState, batch: Transitions, key: Key, learning_rate: Array
    ) -> tuple[TrainState, Metrics, Array]:
        """Update the critics; at their intervals policy and temperature, and the target networks (algorithm 1)."""
        key_critics, key_actor = jax.random.split(key)
        key_target, key_q = jax.random.split(key_critics)
        target = self.target(train_state, batch, key_target)

        def critic_loss(critics: tuple[PyTree, ...]) -> tuple[Array, Any]:
            q = self.q({**train_state.params, "critics": critics}, batch.obs, batch.action, key_q)
            loss, error = td_loss(q, target, batch.weight, scale=0.5)
            return loss, ({"critic_loss": loss, "value": q.mean()}, error)

        def improve(train_state: TrainState) -> TrainState:
            return self.policy_step(train_state, batch.obs, key_actor, learning_rate, self.policy_value)

        train_state, (metrics, error) = self.optim.step(train_state, "critics", critic_loss, learning_rate)
        train_state = train_state._replace(updates=train_state.updates + 1)
        train_state = apply_every(self.config.policy_delay, improve, train_state)
        tau = self.config.tau
        train_state = apply_every(self.config.target_update_interval, lambda state: polyak(state, tau), train_state)
        return train_state, {**metrics, **train_state.aux.metrics}, error

    def target(self, train_state: TrainState, batch: Transitions, key: Key) -> Array:
        """Compute the critics' target: the lowest soft value of the next action, `[B, 1]` (equations 2 and 3)."""
        key_value, key_subset = jax.random.split(key)
        key_action, key_q = jax.random.split(key_value)
        late = {**train_state.params, **train_state.target}
        if self.config.n_target_critics is not None:
            late["critics"] = random_subset(late["critics"], self.config.n_target_critics, key_subset)
        action, log_prob = self.policy(late, batch.next_obs).sample_and_log_prob(key_action)
        q = self.q(late, batch.next_obs, action, key_q).min(axis=0)
        value = soft_value(q, log_prob, temperature(self.config, late))
        return td_target(batch.reward, batch.discount, value)

    def policy_value(self, q: Array) -> Array:
        """Reduce the critics' values `[n, B, 1]` to those that the policy maximises, `[B, 1]`."""
        return q.min(axis=0) if self.config.n_target_critics is None else q.mean(axis=0)
