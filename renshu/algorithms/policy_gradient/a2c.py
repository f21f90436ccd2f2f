"""Advantage actor-critic (Mnih et al. 2016, "Asynchronous Methods for Deep RL", in its synchronous form)."""

from __future__ import annotations

from dataclasses import dataclass

import jax
import jax.numpy as jnp
import optax

from renshu.algorithms.hyperparameters import boolean, number
from renshu.algorithms.policy_gradient.actor_critic import (
    ActorCriticAlgorithm,
    ActorCriticLearner,
    Batch,
    State,
    explained_variance,
    flat,
)
from renshu.algorithms.sde import StateDependentExploration
from renshu.networks.heads import Distribution
from renshu.ops.statistics import masked_mean, masked_normalize
from renshu.types import Array, EnvSpec, Key, Metrics, PyTree, Rollout


@dataclass(frozen=True, kw_only=True)
class A2C(StateDependentExploration, ActorCriticAlgorithm):
    """One gradient step on each short rollout of many environments."""

    use_rms_prop: bool = boolean(True, "RMSprop as in the paper; otherwise Adam")
    rms_prop_eps: float = number(1e-5, "epsilon of the optimiser", above=0)

    def build(self, spec: EnvSpec) -> A2CLearner:
        """Bind A2C to an environment."""
        return A2CLearner(self, spec)


class A2CLearner(ActorCriticLearner[A2C]):
    """The loss of A2C."""

    def optimizer(self) -> optax.GradientTransformation:
        a = self.config
        if a.use_rms_prop:
            return optax.scale_by_rms(decay=0.99, eps=a.rms_prop_eps, eps_in_sqrt=False)
        return optax.scale_by_adam(eps=a.rms_prop_eps)

    def learn(self, state: State, rollout: Rollout, key: Key) -> tuple[State, Metrics]:
        state, _, inputs, reward = self.look(state, rollout)
        rows = reward.size
        early = inputs._replace(obs=jax.tree.map(lambda x: x[:rows], inputs.obs), first=inputs.first[:-1])
        last = inputs._replace(obs=jax.tree.map(lambda x: x[rows:], inputs.obs), first=inputs.first[-1:])

        def loss(params: PyTree, _: Array) -> tuple[Array, Metrics]:
            # The parameters are still those that acted: one pass gives the loss and what advantages are made of.
            policy, value, carry = self.network.both(params, early)
            beyond = self.network.value(params, last._replace(carry=carry))
            values = jax.lax.stop_gradient(jnp.concatenate([value, beyond]))
            log_prob = jax.lax.stop_gradient(policy.log_prob(flat(rollout.action))) if self.records_log_prob else ()
            batch = self.advantages(rollout, reward, values, inputs.obs, log_prob)
            total, metrics = self.loss(policy, value, batch)
            return total, {**metrics, "explained_variance": explained_variance(batch)}

        return self.improve(state, loss, jnp.zeros(1))

    def loss(self, policy: Distribution, value: Array, batch: Batch) -> tuple[Array, Metrics]:
        """Compute -log pi(a|s) A, the squared error of the value, and the entropy (Mnih 2016, section 4)."""
        a = self.config
        advantage = masked_normalize(batch.advantage, batch.valid) if a.normalize_advantage else batch.advantage
        policy_loss = -masked_mean(policy.log_prob(batch.action) * advantage, batch.valid)
        value_loss = masked_mean((value - batch.target) ** 2, batch.valid)
        entropy = masked_mean(policy.entropy(), batch.valid)
        loss = policy_loss + a.vf_coef * value_loss - a.ent_coef * entropy
        return loss, {"policy_loss": policy_loss, "value_loss": value_loss, "entropy": entropy}
