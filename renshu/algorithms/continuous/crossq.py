"""CrossQ (Bhatt et al. 2024, "Batch normalization in deep reinforcement learning for greater sample efficiency and
simplicity"): SAC with batch normalisation in place of target networks.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import optax

from renshu.algorithms.continuous.actor_critic import ReplayActorCritic
from renshu.algorithms.continuous.sac import SAC, SACLearner
from renshu.algorithms.hyperparameters import NetArch, ScheduleLike, integer, layer_sizes, schedule
from renshu.algorithms.off_policy import TrainState
from renshu.errors import HyperparameterError
from renshu.networks.critics import map_ensemble, unstack
from renshu.networks.layers import STATISTICS
from renshu.replay.ring import Transitions
from renshu.types import Accepts, Array, EnvSpec, Key, Metrics, PyTree

UNUSED = {
    "tau": 0.005,
    "target_update_interval": 1,
    "n_target_critics": None,
    "layer_norm": False,
    "dropout": 0.0,
    "use_sde": False,
}


@dataclass(frozen=True, kw_only=True)
class CrossQ(SAC):
    """SAC without target networks: critics see present and next steps in one batch, normalised together.

    tau, target_update_interval, n_target_critics, layer_norm, dropout and use_sde have no meaning here.
    """

    accepts: ClassVar[Accepts] = ReplayActorCritic.accepts

    learning_rate: ScheduleLike = schedule(1e-3, "step size of Adam", least=0)
    policy_delay: int = integer(3, "updates of the critics for one of the policy", least=1)
    net_arch: NetArch = layer_sizes(
        NetArch((256, 256), (1024, 1024)), 'widths of the hidden layers: a list, or {"pi": [...], "qf": [...]}', qf=True
    )

    def build(self, spec: EnvSpec) -> CrossQLearner:
        """Bind CrossQ to an environment. Raises HyperparameterError for options of SAC that it does not have."""
        return CrossQLearner(self, spec)


class CrossQLearner(SACLearner):
    """The joint pass of the critics, and running statistics, which acting goes by: the part "stats" of parameters."""

    targets = ()
    batch_norm = True

    def __init__(self, algorithm: CrossQ, spec: EnvSpec) -> None:
        for name, default in UNUSED.items():
            if getattr(algorithm, name) != default:
                raise HyperparameterError(
                    f"CrossQ: {name}={getattr(algorithm, name)!r} has no meaning: there are no target networks, and "
                    "batch normalisation is all there is; leave it out, or take SAC"
                )
        super().__init__(algorithm, spec)
        self.optimizer = optax.scale_by_adam(b1=0.5)

    def policy(self, params: dict[str, Any], obs: PyTree) -> Any:
        return self.actor.apply({"params": params["actor"], STATISTICS: params["stats"]["actor"]}, obs)

    def q(self, params: dict[str, Any], obs: PyTree, action: Array | None, key: Key | None = None) -> Array:
        def one(critic: PyTree, stats: PyTree) -> Any:
            return self.critic.apply({"params": critic, STATISTICS: stats}, obs, action)

        return map_ensemble(one, params["critics"], params["stats"]["critics"])

    def critic_step(
        self, train_state: TrainState, batch: Transitions, key: Key, rate: Array
    ) -> tuple[TrainState, Metrics, Array]:
        """Get values, targets and statistics from one pass over present and next steps together (section 3.1)."""
        params, stats = train_state.params, train_state.params["stats"]
        next_action, log_prob = self.policy(params, batch.next_obs).sample_and_log_prob(key)
        obs = jax.tree.map(lambda *x: jnp.concatenate(x), batch.obs, batch.next_obs)
        action = jnp.concatenate([batch.action, next_action])

        def one(critic: PyTree, stats: PyTree) -> Any:
            variables = {"params": critic, STATISTICS: stats}
            return self.critic.apply(variables, obs, action, train=True, mutable=[STATISTICS])

        def loss(critics: tuple[PyTree, ...]) -> tuple[Array, Any]:
            both, moved = map_ensemble(one, critics, stats["critics"])
            q, next_q = jnp.split(both, 2, axis=1)
            value = self.target_value(next_q) - self.ent_coef(params) * log_prob[:, None]
            target = jax.lax.stop_gradient(batch.reward[:, None] + batch.discount[:, None] * value)
            mean, aux = self.critic_loss(q, target, batch)
            return mean, (*aux, moved[STATISTICS])

        train_state, (metrics, error, moved) = self.step_part(train_state, "critics", loss, rate)
        return _with_stats(train_state, "critics", unstack(moved, len(stats["critics"]))), metrics, error

    def actor_step(self, train_state: TrainState, batch: Transitions, key: Key, rate: Array) -> TrainState:
        def loss(actor: PyTree) -> tuple[Array, Any]:
            variables = {"params": actor, STATISTICS: train_state.params["stats"]["actor"]}
            policy, moved = self.actor.apply(variables, batch.obs, train=True, mutable=[STATISTICS])
            value, entropy = self.soft_value(train_state.params, policy, batch.obs, key, self.policy_value)
            return -value.mean(), (-value.mean(), entropy.mean(), moved[STATISTICS])

        train_state, (mean, entropy, moved) = self.step_part(train_state, "actor", loss, rate)
        return self.update_temperature(_with_stats(train_state, "actor", moved), mean, entropy, rate)


def _with_stats(train_state: TrainState, part: str, stats: PyTree) -> TrainState:
    old = train_state.params["stats"]
    kept = jax.tree.map(lambda new, old: jnp.where(train_state.finite, new, old), stats, old[part])
    return train_state._replace(params={**train_state.params, "stats": {**old, part: kept}})
