"""TD3 (Fujimoto et al. 2018, "Addressing function approximation error in actor-critic methods", algorithm 1)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import optax

from renshu.algorithms.continuous.actor_critic import ActorCriticAlgorithm, Networks, lowest_value, mix_random
from renshu.algorithms.continuous.noise import (
    ADAPT_EVERY,
    ParameterNoise,
    adapted_std,
    normal_noise,
    ornstein_uhlenbeck,
    perturbation,
    perturbed,
)
from renshu.algorithms.hyperparameters import NetArch, ScheduleLike, choice, integer, layer_sizes, number, schedule
from renshu.algorithms.replay_learner import ActorState, Aux, ReplayLearner, State
from renshu.networks.actors import DeterministicActor
from renshu.networks.critics import map_ensemble
from renshu.ops.frame_stack import stack_frames
from renshu.ops.losses import td_loss
from renshu.ops.targets import td_target
from renshu.optim.train_state import Optimizers, TrainState, apply_every, polyak
from renshu.replay.ring import Transitions
from renshu.types import ActorOutput, Array, EnvSpec, Key, Metrics, PyTree, Rollout, TimeStep


@dataclass(frozen=True, kw_only=True)
class TD3(ActorCriticAlgorithm):
    """A deterministic policy, valued by the lower of two critics, with smoothed targets and delayed updates."""

    learning_rate: ScheduleLike = schedule(1e-3, "step size of Adam", least=0, traceable=True, tune=(1e-5, 1e-2))
    tau: float = number(
        0.005,
        "share of the parameters that a target network takes over in an update",
        above=0,
        most=1,
        traceable=True,
        tune=(1e-3, 0.08),
    )
    policy_delay: int = integer(2, "updates of the critics for one of the policy", least=1)
    target_update_interval: int | None = integer(
        None, "updates of the critics for one of the target networks; None: policy_delay", least=1, optional=True
    )
    target_policy_noise: float = number(0.2, "deviation of the noise on the target's actions", least=0, traceable=True)
    target_noise_clip: float = number(0.5, "that noise stays within +- this", least=0, traceable=True)
    action_noise: str | None = choice(
        None,
        'explore by noise on actions, "normal" (as in the paper) or "ou" (Ornstein-Uhlenbeck); on the policy\'s '
        '"parameter"s, adapted (Plappert 2018); or not at all, as Stable-Baselines3 does without being told',
        ("normal", "ou", "parameter", None),
    )
    action_noise_std: float = number(
        0.1,
        "its deviation, where actions go from -1 to 1; for parameter noise, that of actions which it aims at",
        least=0,
        traceable=True,
    )
    net_arch: NetArch = layer_sizes(
        (400, 300), 'widths of the hidden layers: a list, or {"pi": [...], "qf": [...]}', qf=True
    )

    def build(self, spec: EnvSpec) -> TD3Learner:
        """Bind TD3 to an environment."""
        return TD3Learner(self, spec)


class TD3Learner(ReplayLearner[TD3]):
    """The networks, exploration, and the gradient step."""

    def __init__(self, config: TD3, spec: EnvSpec) -> None:
        super().__init__(config, spec)
        self.size = spec.action_space.shape[0]  # type: ignore[index]
        self.networks = Networks(config, self.observation_space)
        self.has_parameter_noise = config.action_noise == "parameter"
        # Noise of one size suits all layers only where their inputs are of one size (Plappert 2018, section 3).
        self.actor = DeterministicActor(self.networks.torso(layer_norm=self.has_parameter_noise), self.size)
        self.critic = self.networks.critic()
        adam = optax.scale_by_adam()
        self.optim = Optimizers({"actor": adam, "critics": adam}, guard=self.guards_each_step)

    def init_train(self, key: Key) -> TrainState:
        params = self.networks.init(self.actor, self.critic, jnp.zeros((1, self.size)), key)
        noise: Any = ()
        if self.has_parameter_noise:
            std = jnp.float32(self.config.action_noise_std)
            noise = ParameterNoise(perturbation(params["actor"], std, jax.random.fold_in(key, 1)), std)
        aux = Aux({"actor_loss": jnp.float32(0.0)}, noise)
        return TrainState(params, jax.tree.map(jnp.copy, params), self.optim.init(params), jnp.int32(0), aux)

    def policy(self, actor: PyTree, obs: PyTree) -> Array:
        """Compute actions `[B, A]` in [-1, 1]."""
        return self.actor.apply({"params": actor}, obs)  # type: ignore[return-value]

    def q(self, critics: tuple[PyTree, ...], obs: PyTree, action: Array) -> Array:
        """Estimate the values of actions by all critics, `[n, B, 1]`."""
        return map_ensemble(lambda critic: self.critic.apply({"params": critic}, obs, action), critics)

    # --- acting -----------------------------------------------------------------------------------------------------

    def initial_carry(self, num_envs: int) -> PyTree:
        """Make the carry: the value of Ornstein-Uhlenbeck noise `[N, A]`, beside the frames of a frame stack."""
        frames = super().initial_carry(num_envs)
        return (frames, jnp.zeros((num_envs, self.size))) if self.config.action_noise == "ou" else frames

    def act(self, acting: ActorState, carry: PyTree, timestep: TimeStep, key: Key, *, explore: bool) -> ActorOutput:
        correlated = self.config.action_noise == "ou"
        frames, noise = carry if correlated else (carry, ())
        obs, frames = stack_frames(frames, timestep.obs, timestep.first)
        actor = acting.params["actor"]
        if explore and self.has_parameter_noise:
            actor = perturbed(actor, acting.aux.noise.delta)
        greedy = self.policy(actor, obs)
        if not explore:
            return ActorOutput(greedy, (frames, noise) if correlated else frames)
        key_noise, key_random = jax.random.split(key)
        std, action = self.noise_std(timestep), greedy
        if correlated:
            action, noise = ornstein_uhlenbeck(action, noise, timestep.first, std, key_noise)
        elif self.config.action_noise == "normal":
            action = normal_noise(action, std, key_noise)
        action = mix_random(action, acting.exploration, key_random)
        return ActorOutput(action, (frames, noise) if correlated else frames, self.judged(acting, obs, greedy, action))

    def noise_std(self, timestep: TimeStep) -> Array | float:
        """Return the deviation of the noise on actions, [] or `[N, 1]`."""
        return self.config.action_noise_std

    def judged(self, acting: ActorState, obs: PyTree, greedy: Array, action: Array) -> PyTree:
        """Return what is recorded with the actions. Default: nothing."""
        return ()

    def explain(self, acting: ActorState, carry: PyTree, timestep: TimeStep) -> dict[str, Array]:
        """Return the action, `[N, A]` from -1 to 1, and its value by the lowest critic, `[N]`."""
        frames = carry[0] if self.config.action_noise == "ou" else carry
        obs, _ = stack_frames(frames, timestep.obs, timestep.first)
        action = self.policy(acting.params["actor"], obs)
        return {"mean": action, "value": lowest_value(self.q(acting.params["critics"], obs, action))}

    # --- learning ---------------------------------------------------------------------------------------------------

    def gradient_step(
        self, train_state: TrainState, batch: Transitions, key: Key, learning_rate: Array
    ) -> tuple[TrainState, Metrics, Array]:
        """Update the critics, and every `policy_delay` steps the policy and the target networks (algorithm 1)."""
        key_critics, _ = jax.random.split(key)
        target = self.target(train_state, batch, jax.random.split(key_critics)[0])

        def critic_loss(critics: tuple[PyTree, ...]) -> tuple[Array, Any]:
            q = self.q(critics, batch.obs, batch.action)
            loss, error = td_loss(q, target, batch.weight)
            return loss, ({"critic_loss": loss, "value": q.mean()}, error)

        def improve(train_state: TrainState) -> TrainState:
            return self.policy_step(train_state, batch.obs, learning_rate)

        train_state, (metrics, error) = self.optim.step(train_state, "critics", critic_loss, learning_rate)
        train_state = train_state._replace(updates=train_state.updates + 1)
        train_state = apply_every(self.config.policy_delay, improve, train_state)
        interval, tau = self.config.target_update_interval or self.config.policy_delay, self.config.tau
        train_state = apply_every(interval, lambda state: polyak(state, tau), train_state)
        return train_state, {**metrics, **train_state.aux.metrics}, error

    def policy_step(self, train_state: TrainState, obs: PyTree, learning_rate: Array) -> TrainState:
        """Move the policy towards higher values of the first critic."""
        first_critic = train_state.params["critics"][:1]

        def loss(actor: PyTree) -> tuple[Array, Array]:
            mean = -self.q(first_critic, obs, self.policy(actor, obs)).mean()
            return mean, mean

        train_state, mean = self.optim.step(train_state, "actor", loss, learning_rate)
        return train_state._replace(aux=train_state.aux._replace(metrics={"actor_loss": mean}))

    def target(self, train_state: TrainState, batch: Transitions, key: Key) -> Array:
        """Compute the critics' target: the lower value of the smoothed next action, `[B, 1]` (equations 14 and 15)."""
        late = train_state.target
        action = self.policy(late["actor"], batch.next_obs)
        noise = self.config.target_policy_noise * jax.random.normal(key, action.shape)
        limit = self.config.target_noise_clip
        smoothed = jnp.clip(action + jnp.clip(noise, -limit, limit), -1.0, 1.0)
        return td_target(batch.reward, batch.discount, self.q(late["critics"], batch.next_obs, smoothed).min(axis=0))

    # --- noise on parameters ----------------------------------------------------------------------------------------

    def observe(self, state: State, rollout: Rollout, key: Key) -> State:
        before = state.counters.steps
        state = super().observe(state, rollout, key)
        if not self.has_parameter_noise:
            return state
        due = before // ADAPT_EVERY != state.counters.steps // ADAPT_EVERY
        # An episode begins: of several environments all take the new noise, since one actor acts for all.
        begins = rollout.first[1:].any()
        noise = self.adapt_noise(state, due, begins, jax.random.fold_in(key, 1))
        return state._replace(train=state.train._replace(aux=state.train.aux._replace(noise=noise)))

    def update(self, state: State, key: Key, count: Array, *, most: int = 0) -> tuple[State, Metrics]:
        state, metrics = super().update(state, key, count, most=most)
        return state, {**metrics, "parameter_std": state.train.aux.noise.std} if self.has_parameter_noise else metrics

    def adapt_noise(self, state: State, due: Array, begins: Array, key: Key) -> ParameterNoise:
        """Adapt the deviation where `due`, and draw new noise where an episode `begins` (Plappert 2018, section 3).

        The distance of actions is that over states of the memory and dimensions.
        """
        key_draw, key_try, key_new = jax.random.split(key, 3)
        actor, noise = state.train.params["actor"], state.train.aux.noise

        def adapt() -> Array:
            obs = self.replay.sample(state.memory, key_draw, self.config.batch_size, gamma=self.config.gamma).obs
            tried = self.policy(perturbed(actor, perturbation(actor, noise.std, key_try)), obs)
            distance = jnp.sqrt(((tried - self.policy(actor, obs)) ** 2).mean())
            return adapted_std(noise.std, distance, self.config.action_noise_std)

        std = jax.lax.cond(due, adapt, lambda: noise.std)
        delta = jax.lax.cond(begins, lambda: perturbation(actor, std, key_new), lambda: noise.delta)
        return ParameterNoise(delta, std)
