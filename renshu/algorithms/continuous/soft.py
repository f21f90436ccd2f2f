"""Soft actor-critics with a squashed Gaussian policy: networks, acting and the step of the policy."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
import optax

from renshu.algorithms.continuous.actor_critic import ActorCriticAlgorithm, Networks, lowest_value, mix_random
from renshu.algorithms.continuous.temperature import Entropy, init_temperature, temperature, temperature_step
from renshu.algorithms.hyperparameters import boolean, number
from renshu.algorithms.replay_learner import ActorState, Aux, ReplayLearner
from renshu.algorithms.sde import StateDependentExploration, sample_freq
from renshu.networks.actors import GaussianActor, StateDependentActor
from renshu.networks.critics import map_ensemble
from renshu.networks.layers import DROPOUT
from renshu.networks.state_noise import initial_noise, resample
from renshu.ops.distributions import TanhNormal
from renshu.ops.frame_stack import stack_frames
from renshu.ops.losses import soft_actor_loss
from renshu.ops.spaces import dummy
from renshu.optim.train_state import Optimizers, TrainState
from renshu.types import ActorOutput, Array, EnvSpec, Key, PyTree, TimeStep


@dataclass(frozen=True, kw_only=True)
class SoftActorCriticAlgorithm(Entropy, ActorCriticAlgorithm):
    """Hyperparameters of a soft actor and critics."""


@dataclass(frozen=True, kw_only=True)
class SoftStateDependentExploration(StateDependentExploration):
    """Hyperparameters of noise that is a function of the state, of policies that predict their deviation otherwise."""

    log_std_init: float = number(-3.0, "initial log deviation of its parameters")


@dataclass(frozen=True, kw_only=True)
class RegularisedCritics:
    """Hyperparameters of the critics' hidden layers."""

    layer_norm: bool = boolean(False, "normalise the hidden layers of critics")
    dropout: float = number(
        0.0, "share of the critics' hidden units that is left out, drawn each time", least=0, most=0.9
    )


Config = TypeVar("Config", bound=SoftActorCriticAlgorithm)


class SoftActorCriticLearner(ReplayLearner[Config]):
    """Networks, acting and the policy's step. A subclass has `targets` and `gradient_step`.

    outputs: numbers that a critic predicts for an action. batch_norm: of all networks.
    """

    targets: tuple[str, ...] = ("critics",)
    """Parts of the parameters that have a target network."""

    def __init__(self, config: Config, spec: EnvSpec, *, outputs: int = 1, batch_norm: bool = False) -> None:
        super().__init__(config, spec)
        self.size = spec.action_space.shape[0]  # type: ignore[index]
        self.sample_freq = sample_freq(config, spec.action_space, "train_freq")
        self.use_sde = self.sample_freq > 0
        self.networks = Networks(config, self.observation_space)
        self.dropout = getattr(config, "dropout", 0.0)
        regularised = {"layer_norm": getattr(config, "layer_norm", False), "dropout": self.dropout}
        self.critic = self.networks.critic(outputs, **regularised, batch_norm=batch_norm)
        self.actor = self.make_actor(batch_norm)
        parts = ("actor", "critics", *init_temperature(config))
        self.optim = Optimizers({part: self.optimizer(part) for part in parts}, guard=self.guards_each_step)

    def optimizer(self, part: str) -> optax.GradientTransformation:
        """Make the optimiser of a part of the parameters."""
        return optax.scale_by_adam()

    def make_actor(self, batch_norm: bool) -> Any:
        """Make the policy's network."""
        torso = self.networks.torso(batch_norm=batch_norm)
        if not self.use_sde:
            return GaussianActor(torso, self.size)
        obs = dummy(self.observation_space, 1)
        features = jax.eval_shape(lambda: torso.init_with_output(jax.random.key(0), obs)[0])
        self.noise_shape = (features.shape[1], self.size)
        return StateDependentActor(torso, self.size, features.shape[1], getattr(self.config, "log_std_init"))

    @property
    def target_entropy(self) -> Array | float:
        """Target of a learned temperature, in nats; "auto" is minus the dimensions (Haarnoja 2018, appendix D)."""
        wanted = self.config.target_entropy
        return -float(self.size) if isinstance(wanted, str) else wanted

    def init_params(self, key: Key) -> dict[str, Any]:
        """Make the parameters of all networks, and of the temperature."""
        params = self.networks.init(self.actor, self.critic, jnp.zeros((1, self.size)), key)
        return params | init_temperature(self.config)

    def init_train(self, key: Key) -> TrainState:
        params, nothing = self.init_params(key), jnp.float32(0.0)
        now = jnp.float32(temperature(self.config, params))
        return TrainState(
            params=params,
            target=jax.tree.map(jnp.copy, {part: params[part] for part in self.targets}),
            opt_state=self.optim.init(params),
            updates=jnp.int32(0),
            aux=Aux({"actor_loss": nothing, "entropy": nothing, "ent_coef": now}),
        )

    def policy(self, params: dict[str, Any], obs: PyTree) -> TanhNormal:
        """Compute the distribution over actions."""
        return self.actor.apply({"params": params["actor"]}, obs)

    def q(self, params: dict[str, Any], obs: PyTree, action: Array, key: Key | None = None) -> Array:
        """Estimate the values of actions by all critics, `[n, B, K]`. key: of dropout; None for none."""
        critics = params["critics"]
        if key is None or self.dropout == 0.0:
            return map_ensemble(lambda critic: self.critic.apply({"params": critic}, obs, action), critics)

        def one(critic: PyTree, key: Key) -> Any:
            return self.critic.apply({"params": critic}, obs, action, rngs={DROPOUT: key})

        return map_ensemble(one, critics, tuple(jax.random.split(key, len(critics))))

    # --- acting -----------------------------------------------------------------------------------------------------

    def initial_carry(self, num_envs: int) -> PyTree:
        """Make the carry: matrices of state-dependent noise, beside the frames of a frame stack."""
        frames = super().initial_carry(num_envs)
        if not self.use_sde:
            return frames
        return frames, initial_noise(num_envs, self.noise_shape)

    def act(self, acting: ActorState, carry: PyTree, timestep: TimeStep, key: Key, *, explore: bool) -> ActorOutput:
        frames, noise = carry if self.use_sde else (carry, None)
        obs, frames = stack_frames(frames, timestep.obs, timestep.first)
        if not explore:
            action = self.policy(acting.params, obs).mode()
        else:
            key_noise, key_random = jax.random.split(key)
            if self.use_sde:
                noise = resample(noise, timestep.first, key_noise, self.sample_freq)  # type: ignore[arg-type]
                action = self.actor.apply({"params": acting.params["actor"]}, obs, noise.matrix, method="act")
            else:
                action = self.policy(acting.params, obs).sample(key_noise)
            action = mix_random(action, acting.exploration, key_random)
        return ActorOutput(action, (frames, noise) if self.use_sde else frames)

    def explain(self, acting: ActorState, carry: PyTree, timestep: TimeStep) -> dict[str, Array]:
        """Return the greedy action from -1 to 1, the deviation before the tanh, `[N, A]`, and the action's value."""
        obs, _ = stack_frames(carry[0] if self.use_sde else carry, timestep.obs, timestep.first)
        policy = self.policy(acting.params, obs)
        action = policy.mode()
        value = lowest_value(self.q(acting.params, obs, action))
        return {"mean": action, "std": jnp.exp(policy.log_std), "value": value}

    # --- learning ---------------------------------------------------------------------------------------------------

    def policy_step(
        self, train_state: TrainState, obs: PyTree, key: Key, learning_rate: Array, reduce: Callable[[Array], Array]
    ) -> TrainState:
        """Move the policy towards higher soft values, and the temperature towards its target.

        reduce: from the values of all critics `[n, B, K]` to `[B, 1]`.
        """
        key_action, key_q = jax.random.split(key)
        params, alpha = train_state.params, temperature(self.config, train_state.params)

        def loss(actor: PyTree) -> tuple[Array, tuple[Array, Array]]:
            action, log_prob = self.policy({**params, "actor": actor}, obs).sample_and_log_prob(key_action)
            mean = soft_actor_loss(reduce(self.q(params, obs, action, key_q)), log_prob, alpha)
            return mean, (mean, -log_prob.mean())

        train_state, (mean, entropy) = self.optim.step(train_state, "actor", loss, learning_rate)
        target = self.target_entropy
        return temperature_step(self.config, self.optim, train_state, mean, entropy, target, learning_rate)
