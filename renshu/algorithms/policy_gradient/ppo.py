"""Proximal policy optimisation (Schulman et al. 2017, arXiv:1707.06347)."""

from __future__ import annotations

from dataclasses import dataclass

import jax.numpy as jnp
import optax

from renshu.algorithms.hyperparameters import GAE_LAMBDAS, ScheduleLike, boolean, integer, number, schedule
from renshu.algorithms.policy_gradient.actor_critic import (
    ActorCriticAlgorithm,
    ActorCriticLearner,
    Batch,
    State,
    explained_variance,
)
from renshu.algorithms.sde import StateDependentExploration
from renshu.ops.schedules import value_of
from renshu.ops.statistics import masked_mean, masked_normalize
from renshu.optim.minibatches import check_minibatches, minibatch, minibatches
from renshu.types import Array, EnvSpec, Key, Metrics, PyTree, Rollout


@dataclass(frozen=True, kw_only=True)
class PPO(StateDependentExploration, ActorCriticAlgorithm):
    """Several epochs of minibatch steps on each rollout, kept close to the policy that acted by clipping."""

    learning_rate: ScheduleLike = schedule(3e-4, "step size of Adam", least=0, traceable=True, tune=(1e-5, 1e-2))
    n_steps: int = integer(
        2048, "steps collected of each environment for one update", least=1, tune=[32, 64, 128, 256, 512, 1024, 2048]
    )
    batch_size: int = integer(
        64, "steps in a minibatch; divides n_steps * num_envs", least=1, tune=[32, 64, 128, 256, 512]
    )
    n_epochs: int = integer(10, "passes over each rollout", least=1, tune=(1, 20))
    gae_lambda: float = number(
        0.95, "bias against variance of the advantage estimate", least=0, most=1, traceable=True, tune=GAE_LAMBDAS
    )
    clip_range: ScheduleLike = schedule(
        0.2, "how far the probability ratio may move from 1", above=0, traceable=True, tune=(0.1, 0.4)
    )
    clip_range_vf: ScheduleLike | None = schedule(
        None, "how far the value may move from the old one; None: no limit", above=0, optional=True
    )
    normalize_advantage: bool = boolean(True, "give advantages zero mean and unit deviation within a minibatch")
    target_kl: float | None = number(
        None, "stop the epochs of a rollout when the KL divergence passes 1.5 times this", above=0, optional=True
    )

    def build(self, spec: EnvSpec) -> PPOLearner:
        """Bind PPO to an environment. Raises HyperparameterError where the minibatches do not divide the rollout."""
        return PPOLearner(self, spec)


class PPOLearner(ActorCriticLearner[PPO]):
    """The epochs and the loss of PPO."""

    def __init__(self, algorithm: PPO, spec: EnvSpec) -> None:
        whole = algorithm.recurrent is not None
        num_envs = spec.rollout_envs or spec.num_envs
        check_minibatches(type(algorithm).__name__, algorithm.n_steps, num_envs, algorithm.batch_size, whole)
        super().__init__(algorithm, spec)

    def optimizer(self) -> optax.GradientTransformation:
        return optax.scale_by_adam(eps=1e-5)

    def learn(self, state: State, rollout: Rollout, key: Key) -> tuple[State, Metrics]:
        a = self.config
        state, batch = self.make_batch(state, rollout)
        progress_remaining = state.counters.progress_remaining
        clip_range = value_of(a.clip_range, progress_remaining)
        clip_range_vf = None if a.clip_range_vf is None else value_of(a.clip_range_vf, progress_remaining)
        orders = self.orders(batch.valid.shape[0], key)

        def loss(params: PyTree, order: Array) -> tuple[Array, Metrics]:
            return self.loss(params, minibatch(batch, order), clip_range, clip_range_vf)

        target_kl = a.target_kl
        stop = None if target_kl is None else lambda metrics: metrics["approx_kl"] > 1.5 * target_kl
        state, metrics = self.improve(state, loss, orders, stop)
        return state, {**metrics, "clip_range": clip_range, "explained_variance": explained_variance(batch)}

    def orders(self, rows: int, key: Key) -> Array:
        """Draw the rows of each minibatch, or its environments where the policy is recurrent: see `minibatches`."""
        size = self.config.batch_size // (self.config.n_steps if self.recurrent else 1)
        return minibatches(key, rows, size, self.config.n_epochs)

    def loss(
        self, params: PyTree, batch: Batch, clip_range: Array, clip_range_vf: Array | None
    ) -> tuple[Array, Metrics]:
        """Compute clipped surrogate, squared error of the value, and entropy (Schulman 2017, equations 7 and 9)."""
        a = self.config
        policy, value, batch = self.evaluate(params, batch)
        log_ratio = policy.log_prob(batch.action) - batch.log_prob
        ratio = jnp.exp(log_ratio)
        advantage = masked_normalize(batch.advantage, batch.valid) if a.normalize_advantage else batch.advantage
        clipped = jnp.clip(ratio, 1 - clip_range, 1 + clip_range)
        policy_loss = -masked_mean(jnp.minimum(ratio * advantage, clipped * advantage), batch.valid)
        if clip_range_vf is not None:
            value = batch.value + jnp.clip(value - batch.value, -clip_range_vf, clip_range_vf)
        value_loss = masked_mean((value - batch.target) ** 2, batch.valid)
        entropy = masked_mean(policy.entropy(), batch.valid)
        loss = policy_loss + a.vf_coef * value_loss - a.ent_coef * entropy
        return loss, {
            "policy_loss": policy_loss,
            "value_loss": value_loss,
            "entropy": entropy,
            "approx_kl": masked_mean(ratio - 1 - log_ratio, batch.valid),
            "clip_fraction": masked_mean((jnp.abs(ratio - 1) > clip_range).astype(jnp.float32), batch.valid),
        }
