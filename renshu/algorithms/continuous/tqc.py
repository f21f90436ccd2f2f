"""TQC (Kuznetsov et al. 2020, "Controlling overestimation bias with truncated mixture of continuous distributional
quantile critics"): SAC with critics that predict quantiles of the return, and targets without the highest.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import jax

from renshu.algorithms.continuous.actor_critic import TargetNetworks
from renshu.algorithms.continuous.soft import (
    RegularisedCritics,
    SoftActorCriticAlgorithm,
    SoftActorCriticLearner,
    SoftStateDependentExploration,
)
from renshu.algorithms.continuous.temperature import temperature
from renshu.algorithms.hyperparameters import integer
from renshu.errors import HyperparameterError
from renshu.ops.losses import quantile_td_loss
from renshu.ops.targets import soft_value, td_target, truncated_mixture
from renshu.ops.value_heads import Quantiles
from renshu.optim.train_state import TrainState, apply_every, polyak
from renshu.replay.ring import Transitions
from renshu.types import Array, EnvSpec, Key, Metrics, PyTree


@dataclass(frozen=True, kw_only=True)
class TQC(TargetNetworks, SoftStateDependentExploration, RegularisedCritics, SoftActorCriticAlgorithm):
    """SAC on quantiles of the return; its defaults are those of sb3-contrib."""

    n_quantiles: int = integer(25, "quantiles that each critic predicts", least=1)
    top_quantiles_to_drop_per_net: int = integer(
        2, "highest quantiles that targets leave out, for each critic", least=0
    )

    def build(self, spec: EnvSpec) -> TQCLearner:
        """Bind TQC to an environment. Raises HyperparameterError where no quantile would be left."""
        if self.top_quantiles_to_drop_per_net >= self.n_quantiles:
            raise HyperparameterError(
                f"TQC: top_quantiles_to_drop_per_net={self.top_quantiles_to_drop_per_net} leaves none of n_quantiles="
                f"{self.n_quantiles}: drop fewer"
            )
        return TQCLearner(self, spec, outputs=self.n_quantiles)


class TQCLearner(SoftActorCriticLearner[TQC]):
    """The gradient step of TQC."""

    def gradient_step(
        self, train_state: TrainState, batch: Transitions, key: Key, learning_rate: Array
    ) -> tuple[TrainState, Metrics, Array]:
        """Update the critics; at their intervals policy and temperature, and the target networks (algorithm 1)."""
        key_critics, key_actor = jax.random.split(key)
        key_target, key_q = jax.random.split(key_critics)
        target = self.target(train_state, batch, key_target)
        taus = Quantiles(self.config.n_quantiles).midpoints

        def critic_loss(critics: tuple[PyTree, ...]) -> tuple[Array, Any]:
            quantiles = self.q({**train_state.params, "critics": critics}, batch.obs, batch.action, key_q)
            loss, error = quantile_td_loss(quantiles, target, taus, batch.weight)
            return loss, ({"critic_loss": loss, "value": quantiles.mean()}, error)

        def improve(train_state: TrainState) -> TrainState:
            mean = lambda quantiles: quantiles.mean(axis=(0, 2))[:, None]  # noqa: E731  section 3, the policy
            return self.policy_step(train_state, batch.obs, key_actor, learning_rate, mean)

        train_state, (metrics, error) = self.optim.step(train_state, "critics", critic_loss, learning_rate)
        train_state = train_state._replace(updates=train_state.updates + 1)
        train_state = apply_every(self.config.policy_delay, improve, train_state)
        tau = self.config.tau
        train_state = apply_every(self.config.target_update_interval, lambda state: polyak(state, tau), train_state)
        return train_state, {**metrics, **train_state.aux.metrics}, error

    def target(self, train_state: TrainState, batch: Transitions, key: Key) -> Array:
        """Compute the critics' target: the lower quantiles of the next action, soft, `[B, K']` (section 3)."""
        key_value, _ = jax.random.split(key)
        key_action, key_q = jax.random.split(key_value)
        late = {**train_state.params, **train_state.target}
        action, log_prob = self.policy(late, batch.next_obs).sample_and_log_prob(key_action)
        quantiles = self.q(late, batch.next_obs, action, key_q)
        kept = truncated_mixture(quantiles, self.config.top_quantiles_to_drop_per_net)
        return td_target(batch.reward, batch.discount, soft_value(kept, log_prob, temperature(self.config, late)))
