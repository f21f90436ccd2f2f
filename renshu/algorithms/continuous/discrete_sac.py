"""SAC on discrete actions (Christodoulou 2019, arXiv:1910.07207): expectations in place of samples."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import optax

from renshu.algorithms.continuous.actor_critic import Networks
from renshu.algorithms.continuous.temperature import init_temperature, temperature, temperature_step
from renshu.algorithms.replay_learner import ActorState, Aux, ReplayLearner
from renshu.algorithms.sde import sample_freq
from renshu.networks.actors import CategoricalActor
from renshu.networks.critics import map_ensemble, random_subset
from renshu.networks.layers import DROPOUT
from renshu.ops.distributions import Categorical
from renshu.ops.frame_stack import stack_frames
from renshu.ops.losses import td_loss
from renshu.ops.masks import mask_for_display, mask_values, uniform_actions
from renshu.ops.targets import td_target
from renshu.optim.train_state import Optimizers, TrainState, apply_every, polyak
from renshu.replay.ring import Transitions
from renshu.types import ActorOutput, Array, EnvSpec, Key, Metrics, PyTree, TimeStep

if TYPE_CHECKING:
    from renshu.algorithms.continuous.sac import SAC


class DiscreteSACLearner(ReplayLearner["SAC"]):
    """Probabilities in place of samples: critics value all choices at once."""

    def __init__(self, config: SAC, spec: EnvSpec) -> None:
        super().__init__(config, spec)
        sample_freq(config, spec.action_space, "train_freq")  # refuses noise on actions that are not continuous
        self.actions = int(spec.action_space.n)  # type: ignore[attr-defined]
        self.networks = Networks(config, self.observation_space)
        self.actor = CategoricalActor(self.networks.torso(), self.actions)
        self.critic = self.networks.critic(self.actions, layer_norm=config.layer_norm, dropout=config.dropout)
        adam = optax.scale_by_adam()
        parts = ("actor", "critics", *init_temperature(config))
        self.optim = Optimizers(dict.fromkeys(parts, adam), guard=self.guards_each_step)

    def init_params(self, key: Key) -> dict[str, Any]:
        """Make the parameters of all networks, and of the temperature."""
        return self.networks.init(self.actor, self.critic, None, key) | init_temperature(self.config)

    def init_train(self, key: Key) -> TrainState:
        params = self.init_params(key)
        nothing, now = jnp.float32(0.0), jnp.float32(temperature(self.config, params))
        return TrainState(
            params=params,
            target=jax.tree.map(jnp.copy, {"critics": params["critics"]}),
            opt_state=self.optim.init(params),
            updates=jnp.int32(0),
            aux=Aux({"actor_loss": nothing, "entropy": nothing, "ent_coef": now}),
        )

    def policy(self, params: dict[str, Any], obs: PyTree) -> Categorical:
        """Compute probabilities of all actions; 0 for those that are not allowed."""
        seen, mask = self.split(obs)
        policy: Any = self.actor.apply({"params": params["actor"]}, seen)
        return Categorical(mask_values(policy.logits, mask))

    def q(self, critics: tuple[PyTree, ...], obs: PyTree, key: Key | None = None) -> Array:
        """Estimate the values of all actions by all critics, `[n, B, A]`. key: of dropout; None for none."""
        seen, _ = self.split(obs)
        if key is None or self.config.dropout == 0.0:
            return map_ensemble(lambda critic: self.critic.apply({"params": critic}, seen, None), critics)

        def one(critic: PyTree, key: Key) -> Any:
            return self.critic.apply({"params": critic}, seen, None, rngs={DROPOUT: key})

        return map_ensemble(one, critics, tuple(jax.random.split(key, len(critics))))

    # --- acting -----------------------------------------------------------------------------------------------------

    def act(self, acting: ActorState, carry: PyTree, timestep: TimeStep, key: Key, *, explore: bool) -> ActorOutput:
        obs, carry = stack_frames(carry, timestep.obs, timestep.first)
        policy = self.policy(acting.params, obs)
        if not explore:
            return ActorOutput(policy.mode(), carry)
        key_noise, key_uniform = jax.random.split(key)
        action = policy.sample(key_noise)
        key_action, key_random = jax.random.split(key_uniform)
        anything = uniform_actions(key_action, len(action), self.actions, self.split(obs)[1])
        random = jax.random.uniform(key_random, action.shape) < acting.exploration
        return ActorOutput(jnp.where(random, anything, action), carry)

    def explain(self, acting: ActorState, carry: PyTree, timestep: TimeStep) -> dict[str, Array]:
        """Return probabilities and values of all actions, `[N, A]`, and the value that the policy expects, `[N]`."""
        obs, _ = stack_frames(carry, timestep.obs, timestep.first)
        probabilities = jax.nn.softmax(self.policy(acting.params, obs).logits)
        values = self.q(acting.params["critics"], obs).min(axis=0)
        return {
            "probabilities": probabilities,
            "action_values": mask_for_display(values, self.split(obs)[1]),
            "value": (probabilities * values).sum(axis=1),
        }

    # --- learning ---------------------------------------------------------------------------------------------------

    def gradient_step(
        self, train_state: TrainState, batch: Transitions, key: Key, learning_rate: Array
    ) -> tuple[TrainState, Metrics, Array]:
        """Update the critics; at their intervals policy and temperature, and the target networks."""
        key_critics, key_actor = jax.random.split(key)
        key_target, key_q = jax.random.split(key_critics)
        target = self.target(train_state, batch, key_target)

        def critic_loss(critics: tuple[PyTree, ...]) -> tuple[Array, Any]:
            q = jnp.take_along_axis(self.q(critics, batch.obs, key_q), batch.action[None, :, None], axis=2)
            loss, error = td_loss(q, target, batch.weight, scale=0.5)
            return loss, ({"critic_loss": loss, "value": q.mean()}, error)

        def improve(train_state: TrainState) -> TrainState:
            params = train_state.params

            def loss(actor: PyTree) -> tuple[Array, tuple[Array, Array]]:
                policy = self.policy({**params, "actor": actor}, batch.obs)
                q = self.policy_value(self.q(params["critics"], batch.obs, key_actor))
                mean = -self.soft_value(params, policy, q).mean()
                return mean, (mean, policy.entropy().mean())

            train_state, (mean, entropy) = self.optim.step(train_state, "actor", loss, learning_rate)
            aim = self.entropy_target(batch.obs)
            return temperature_step(self.config, self.optim, train_state, mean, entropy, aim, learning_rate)

        train_state, (metrics, error) = self.optim.step(train_state, "critics", critic_loss, learning_rate)
        train_state = train_state._replace(updates=train_state.updates + 1)
        train_state = apply_every(self.config.policy_delay, improve, train_state)
        tau = self.config.tau
        train_state = apply_every(self.config.target_update_interval, lambda state: polyak(state, tau), train_state)
        return train_state, {**metrics, **train_state.aux.metrics}, error

    def target(self, train_state: TrainState, batch: Transitions, key: Key) -> Array:
        """Compute the critics' target: the expected soft value of the next state, `[B, 1]` (equations 2 and 3)."""
        key_q, key_subset = jax.random.split(key)
        critics = train_state.target["critics"]
        if self.config.n_target_critics is not None:
            critics = random_subset(critics, self.config.n_target_critics, key_subset)
        q = self.q(critics, batch.next_obs, key_q).min(axis=0)
        value = self.soft_value(train_state.params, self.policy(train_state.params, batch.next_obs), q)
        return td_target(batch.reward, batch.discount, value)

    def soft_value(self, params: dict[str, Any], policy: Categorical, q: Array) -> Array:
        """Compute the expected value with the temperature's share of the entropy, `[B, 1]`. q: `[B, A]`."""
        log_prob = jax.nn.log_softmax(policy.logits)
        soft = q - temperature(self.config, params) * log_prob
        return (jnp.exp(log_prob) * soft).sum(axis=1, keepdims=True)

    def policy_value(self, q: Array) -> Array:
        """Reduce the critics' values `[n, B, A]` to those that the policy maximises, `[B, A]`."""
        return q.min(axis=0) if self.config.n_target_critics is None else q.mean(axis=0)

    def entropy_target(self, obs: PyTree) -> Array | float:
        """Return the target of the mean entropy: "auto" is 98 % of that of uniform allowed actions (appendix)."""
        if not isinstance(self.config.target_entropy, str):
            return self.config.target_entropy
        _, mask = self.split(obs)
        return 0.98 * math.log(self.actions) if mask is None else 0.98 * jnp.log(mask.sum(axis=1)).mean()
