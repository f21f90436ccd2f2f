"""TD3 (Fujimoto et al. 2018, "Addressing function approximation error in actor-critic methods", algorithm 1)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from renshu.algorithms.continuous.actor_critic import Aux, ReplayActorCritic, ReplayActorCriticLearner
from renshu.algorithms.hyperparameters import NetArch, ScheduleLike, choice, integer, layer_sizes, number, schedule
from renshu.algorithms.off_policy import ActorState, State, TrainState
from renshu.networks.actors import DeterministicActor
from renshu.replay.ring import Transitions
from renshu.types import ActorOutput, Array, EnvSpec, Key, Metrics, PyTree, Rollout

THETA, TIME_STEP = 0.15, 1e-2
"""Of the Ornstein-Uhlenbeck process: how strongly it is drawn back to 0 (Lillicrap et al. 2016), and its time step."""
ADAPT_EVERY, ADAPT_BY = 50, 1.01
"""Of parameter noise: environment steps between changes of its deviation, and their factor (Plappert et al. 2018)."""


@dataclass(frozen=True, kw_only=True)
class TD3(ReplayActorCritic):
    """A deterministic policy, valued by the lower of two critics, with smoothed targets and delayed updates."""

    learning_rate: ScheduleLike = schedule(1e-3, "step size of Adam", least=0)
    policy_delay: int = integer(2, "updates of the critics for one of the policy and of the target networks", least=1)
    target_policy_noise: float = number(0.2, "deviation of the noise on the target's actions", least=0)
    target_noise_clip: float = number(0.5, "that noise stays within +- this", least=0)
    action_noise: str | None = choice(
        "normal",
        'explore by noise on actions, "normal" or "ou" (Ornstein-Uhlenbeck); on the policy\'s "parameter"s, adapted '
        "(Plappert 2018); or not at all",
        ("normal", "ou", "parameter", None),
    )
    action_noise_std: float = number(
        0.1,
        "its deviation, where actions go from -1 to 1; for parameter noise, that of actions which it aims at",
        least=0,
    )
    net_arch: NetArch = layer_sizes(
        (400, 300), 'widths of the hidden layers: a list, or {"pi": [...], "qf": [...]}', qf=True
    )

    def build(self, spec: EnvSpec) -> TD3Learner:
        """Bind TD3 to an environment."""
        return TD3Learner(self, spec)


class ParameterNoise(NamedTuple):
    """A perturbed policy that explores."""

    actor: PyTree  # the policy's parameters with noise on them
    std: Array  # [] float32  of the noise


class TD3Learner(ReplayActorCriticLearner):
    """The networks, noise, targets and the policy's loss."""

    targets = ("actor", "critics")

    def __init__(self, algorithm: TD3, spec: EnvSpec) -> None:
        super().__init__(algorithm, spec)
        self.size = spec.action_space.shape[0]  # type: ignore[index]
        self.has_parameter_noise = algorithm.action_noise == "parameter"
        # Noise of one size suits all layers only where their inputs are of one size (Plappert 2018, section 3).
        self.actor = DeterministicActor(self.torso(layer_norm=self.has_parameter_noise), self.size)
        self.critic = self.make_critic()
        self.target_interval = algorithm.policy_delay

    def init_aux(self, params: dict[str, Any], key: Key) -> Aux:
        std = jnp.float32(self.algorithm.action_noise_std)
        noise = ParameterNoise(self.perturb(params["actor"], std, key), std) if self.has_parameter_noise else ()
        return Aux({"actor_loss": jnp.float32(0.0)}, noise)

    def initial_carry(self, num_envs: int) -> PyTree:
        """Make the carry: the value of Ornstein-Uhlenbeck noise `[N, A]`, beside the frames of a frame stack."""
        frames = super().initial_carry(num_envs)
        return (frames, jnp.zeros((num_envs, self.size))) if self.algorithm.action_noise == "ou" else frames

    def act(
        self, actor_state: ActorState, carry: PyTree, obs: PyTree, first: Array, key: Key, *, explore: bool
    ) -> ActorOutput:
        correlated = self.algorithm.action_noise == "ou"
        frames, noise = carry if correlated else (carry, ())
        obs, frames = self.stack_frames(frames, obs, first)
        action = self.policy(
            {"actor": actor_state.aux.noise.actor} if explore and self.has_parameter_noise else actor_state.params, obs
        )
        if explore:
            key_noise, key_random = jax.random.split(key)
            action, noise = self.noisy(action, noise, first, key_noise)
            action = self.mix_random(action, actor_state.exploration, key_random)
        return ActorOutput(action, (frames, noise) if correlated else frames, ())

    def noisy(self, action: Array, noise: PyTree, first: Array, key: Key) -> tuple[Array, PyTree]:
        """Add noise to actions `[N, A]`; returns the noise to go on from too."""
        a: TD3 = self.algorithm
        if a.action_noise not in ("normal", "ou"):
            return action, noise
        drawn = a.action_noise_std * jax.random.normal(key, action.shape)
        if a.action_noise == "ou":
            before = jnp.where(first[:, None], 0.0, noise)
            drawn = noise = before - THETA * before * TIME_STEP + TIME_STEP**0.5 * drawn
        return jnp.clip(action + drawn, -1.0, 1.0), noise

    def explain(self, actor_state: ActorState, carry: PyTree, obs: PyTree) -> dict[str, Array]:
        """Return the action, `[N, A]` from -1 to 1, and its value by the lowest critic, `[N]`."""
        obs = self.stack_first(obs, carry[0] if self.algorithm.action_noise == "ou" else carry)
        action = self.policy(actor_state.params, obs)
        return {"mean": action, "value": self.value(actor_state.params, obs, action)}

    def target(self, train_state: TrainState, batch: Transitions, key: Key) -> Array:
        a: TD3 = self.algorithm
        action = self.policy(train_state.target, batch.next_obs)
        noise = a.target_policy_noise * jax.random.normal(key, action.shape)
        smoothed = jnp.clip(action + jnp.clip(noise, -a.target_noise_clip, a.target_noise_clip), -1.0, 1.0)
        value = self.q(train_state.target, batch.next_obs, smoothed).min(axis=0)
        return batch.reward[:, None] + batch.discount[:, None] * value

    def actor_step(self, train_state: TrainState, batch: Transitions, key: Key, rate: Array) -> TrainState:
        first_critic = {"critics": train_state.params["critics"][:1]}

        def loss(actor: PyTree) -> tuple[Array, Array]:
            mean = -self.q(first_critic, batch.obs, self.policy({"actor": actor}, batch.obs)).mean()
            return mean, mean

        train_state, mean = self.step_part(train_state, "actor", loss, rate)
        return train_state._replace(aux=train_state.aux._replace(metrics={"actor_loss": mean}))

    # --- noise on parameters ----------------------------------------------------------------------------------------

    def learn(self, state: State, rollout: Rollout, key: Key) -> tuple[State, Metrics]:
        before = state.counters.steps
        state, metrics = super().learn(state, rollout, key)
        if not self.has_parameter_noise:
            return state, metrics
        due = before // ADAPT_EVERY != state.counters.steps // ADAPT_EVERY
        # An episode begins: of several environments all take the new noise, since one actor acts for all.
        begins = rollout.first[1:].any()
        noise = self.adapt_noise(state, due, begins, jax.random.fold_in(key, 1))
        return state._replace(aux=state.aux._replace(noise=noise)), {**metrics, "parameter_std": noise.std}

    def adapt_noise(self, state: State, due: Array, begins: Array, key: Key) -> ParameterNoise:
        """Adapt the deviation where `due`, and draw new noise where an episode `begins` (Plappert 2018, section 3).

        The deviation grows while actions differ by less than `action_noise_std` (the root of the mean square, over
        states of the memory and dimensions), and else shrinks (equation 4).
        """
        key_draw, key_try, key_new = jax.random.split(key, 3)
        actor, noise = state.params["actor"], state.aux.noise
        obs = self.replay.sample(state.memory, key_draw, self.algorithm.batch_size).obs

        def adapt() -> Array:
            tried = self.policy({"actor": self.perturb(actor, noise.std, key_try)}, obs)
            distance = jnp.sqrt(((tried - self.policy({"actor": actor}, obs)) ** 2).mean())
            near = distance < self.algorithm.action_noise_std
            return jnp.where(near, noise.std * ADAPT_BY, noise.std / ADAPT_BY)

        std = jax.lax.cond(due, adapt, lambda: noise.std)
        perturb = jax.lax.cond(begins, lambda: self.perturb(actor, std, key_new), lambda: noise.actor)
        return ParameterNoise(perturb, std)

    def perturb(self, actor: PyTree, std: Array, key: Key) -> PyTree:
        """Add normal noise to the policy's parameters, all but those of the normalisation."""
        leaves, structure = jax.tree_util.tree_flatten_with_path(actor)
        keys = jax.random.split(key, len(leaves))
        noisy = [
            x if "LayerNorm" in jax.tree_util.keystr(path) else x + std * jax.random.normal(k, x.shape)
            for (path, x), k in zip(leaves, keys, strict=True)
        ]
        return jax.tree.unflatten(structure, noisy)
