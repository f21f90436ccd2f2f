"""CrossQ (Bhatt et al. 2024, "Batch normalization in deep reinforcement learning for greater sample efficiency and
simplicity"): SAC with batch normalisation in place of target networks.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import optax

from renshu.algorithms.continuous.soft import SoftActorCriticAlgorithm, SoftActorCriticLearner
from renshu.algorithms.continuous.temperature import PART, temperature, temperature_step
from renshu.algorithms.hyperparameters import NetArch, ScheduleLike, integer, layer_sizes, schedule
from renshu.errors import HyperparameterError
from renshu.networks.critics import map_ensemble, unstack
from renshu.networks.layers import STATISTICS
from renshu.ops.losses import soft_actor_loss, td_loss
from renshu.ops.targets import soft_value, td_target
from renshu.optim.train_state import TrainState, apply_every
from renshu.replay.ring import Transitions
from renshu.types import Array, EnvSpec, Key, Metrics, PyTree


@dataclass(frozen=True, kw_only=True)
class CrossQ(SoftActorCriticAlgorithm):
    """SAC without target networks: critics see present and next steps in one batch, normalised together."""

    learning_rate: ScheduleLike = schedule(1e-3, "step size of Adam", least=0, traceable=True, tune=(1e-5, 1e-2))
    policy_delay: int = integer(3, "updates of the critics for one of the policy", least=1)
    net_arch: NetArch = layer_sizes(
        NetArch((256, 256), (1024, 1024)), 'widths of the hidden layers: a list, or {"pi": [...], "qf": [...]}', qf=True
    )

    def build(self, spec: EnvSpec) -> CrossQLearner:
        """Bind CrossQ to an environment. Raises HyperparameterError for a network of one's own."""
        if self.network is not None:
            raise HyperparameterError(
                "CrossQ rests on the batch normalisation of its own hidden layers, which a network= has not: set "
                "net_arch, or take SAC or TQC with your network"
            )
        return CrossQLearner(self, spec, batch_norm=True)


class CrossQLearner(SoftActorCriticLearner[CrossQ]):
    """The joint pass of the critics, and running statistics, which acting goes by: the part "stats" of parameters."""

    targets = ()

    def optimizer(self, part: str) -> optax.GradientTransformation:
        # The paper's b1 of 0.5 is for networks.
        return optax.scale_by_adam() if part == PART else optax.scale_by_adam(b1=0.5)

    def policy(self, params: dict[str, Any], obs: PyTree) -> Any:
        return self.actor.apply({"params": params["actor"], STATISTICS: params["stats"]["actor"]}, obs)

    def q(self, params: dict[str, Any], obs: PyTree, action: Array, key: Key | None = None) -> Array:
        def one(critic: PyTree, stats: PyTree) -> Any:
            return self.critic.apply({"params": critic, STATISTICS: stats}, obs, action)

        return map_ensemble(one, params["critics"], params["stats"]["critics"])

    def gradient_step(
        self, train_state: TrainState, batch: Transitions, key: Key, learning_rate: Array
    ) -> tuple[TrainState, Metrics, Array]:
        """Update the critics on present and next steps together, and at its interval the policy (section 3.2)."""
        key_critics, key_actor = jax.random.split(key)
        params, stats = train_state.params, train_state.params["stats"]
        alpha = temperature(self.config, params)
        next_action, log_prob = self.policy(params, batch.next_obs).sample_and_log_prob(key_critics)
        obs = jax.tree.map(lambda *x: jnp.concatenate(x), batch.obs, batch.next_obs)
        action = jnp.concatenate([batch.action, next_action])

        def joint(critic: PyTree, stats: PyTree) -> Any:
            variables = {"params": critic, STATISTICS: stats}
            return self.critic.apply(variables, obs, action, train=True, mutable=[STATISTICS])

        def critic_loss(critics: tuple[PyTree, ...]) -> tuple[Array, Any]:
            both, moved = map_ensemble(joint, critics, stats["critics"])
            q, next_q = jnp.split(both, 2, axis=1)
            target = td_target(batch.reward, batch.discount, soft_value(next_q.min(axis=0), log_prob, alpha))
            loss, error = td_loss(q, target, batch.weight, scale=0.5)
            return loss, ({"critic_loss": loss, "value": q.mean()}, error, moved[STATISTICS])

        train_state, (metrics, error, moved) = self.optim.step(train_state, "critics", critic_loss, learning_rate)
        train_state = _with_stats(train_state, "critics", unstack(moved, len(stats["critics"])))
        train_state = train_state._replace(updates=train_state.updates + 1)

        def improve(train_state: TrainState) -> TrainState:
            return self.normalised_policy_step(train_state, batch.obs, key_actor, learning_rate)

        train_state = apply_every(self.config.policy_delay, improve, train_state)
        return train_state, {**metrics, **train_state.aux.metrics}, error

    def normalised_policy_step(self, train_state: TrainState, obs: PyTree, key: Key, rate: Array) -> TrainState:
        """Move the policy, its running statistics and the temperature."""
        key_action, _ = jax.random.split(key)
        params, alpha = train_state.params, temperature(self.config, train_state.params)

        def loss(actor: PyTree) -> tuple[Array, Any]:
            variables = {"params": actor, STATISTICS: params["stats"]["actor"]}
            policy, moved = self.actor.apply(variables, obs, train=True, mutable=[STATISTICS])
            action, log_prob = policy.sample_and_log_prob(key_action)
            mean = soft_actor_loss(self.q(params, obs, action).min(axis=0), log_prob, alpha)
            return mean, (mean, -log_prob.mean(), moved[STATISTICS])

        train_state, (mean, entropy, moved) = self.optim.step(train_state, "actor", loss, rate)
        train_state = _with_stats(train_state, "actor", moved)
        return temperature_step(self.config, self.optim, train_state, mean, entropy, self.target_entropy, rate)


def _with_stats(train_state: TrainState, part: str, stats: PyTree) -> TrainState:
    old = train_state.params["stats"]
    kept = jax.tree.map(lambda new, old: jnp.where(train_state.finite, new, old), stats, old[part])
    return train_state._replace(params={**train_state.params, "stats": {**old, part: kept}})
