"""TD3 (Fujimoto et al. 2018, "Addressing function approximation error in actor-critic methods", algorithm 1)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from renshu.algorithms.hyperparameters import NetArch, ScheduleLike, choice, real, schedule, whole, widths
from renshu.algorithms.off_policy import Core, State, View
from renshu.algorithms.replay_actor_critic import Extra, ReplayActorCritic, ReplayActorCriticLearner
from renshu.networks.continuous import DeterministicActor
from renshu.replay.ring import Samples
from renshu.types import Act, Array, EnvSpec, Key, Metrics, PyTree, Rollout

THETA, TIME_STEP = 0.15, 1e-2
"""Of the Ornstein-Uhlenbeck process: how strongly it is drawn back to 0 (Lillicrap et al. 2016), and its time step."""
ADAPT_EVERY, ADAPT_BY = 50, 1.01
"""Of parameter noise: environment steps between changes of its deviation, and their factor (Plappert et al. 2018)."""


@dataclass(frozen=True, kw_only=True)
class TD3(ReplayActorCritic):
    """A deterministic policy, valued by the lower of two critics, with smoothed targets and delayed updates."""

    learning_rate: ScheduleLike = schedule(1e-3, "step size of Adam", least=0)
    policy_delay: int = whole(2, "updates of the critics for one of the policy and of the late copies", least=1)
    target_policy_noise: float = real(0.2, "deviation of the noise on the target's actions", least=0)
    target_noise_clip: float = real(0.5, "that noise stays within +- this", least=0)
    action_noise: str | None = choice(
        "normal",
        'explore by noise on actions, "normal" or "ou" (Ornstein-Uhlenbeck); on the policy\'s "parameter"s, adapted '
        "(Plappert 2018); or not at all",
        ("normal", "ou", "parameter", None),
    )
    action_noise_std: float = real(
        0.1,
        "its deviation, where actions go from -1 to 1; for parameter noise, that of actions which it aims at",
        least=0,
    )
    net_arch: NetArch = widths(
        (400, 300), 'widths of the hidden layers: a list, or {"pi": [...], "qf": [...]}', qf=True
    )

    def build(self, spec: EnvSpec) -> TD3Learner:
        """Bind TD3 to an environment."""
        return TD3Learner(self, spec)


class ParameterNoise(NamedTuple):
    """What explores in place of the policy."""

    actor: PyTree  # the policy's parameters with noise on them
    std: Array  # [] float32  of the noise


class TD3Learner(ReplayActorCriticLearner):
    """The networks, noise, targets and the policy's loss."""

    targets = ("actor", "critics")

    def __init__(self, algorithm: TD3, spec: EnvSpec) -> None:
        super().__init__(algorithm, spec)
        self.size = spec.action_space.shape[0]  # type: ignore[index]
        self.perturbs = algorithm.action_noise == "parameter"
        # Noise of one size suits all layers only where their inputs are of one size (Plappert 2018, section 3).
        self.actor = DeterministicActor(self.torso(layer_norm=self.perturbs), self.size)
        self.critic = self.make_critic()
        self.target_interval = algorithm.policy_delay

    def init_extra(self, params: dict[str, Any], key: Key) -> Extra:
        std = jnp.float32(self.algorithm.action_noise_std)
        noise = ParameterNoise(self.perturbed(params["actor"], std, key), std) if self.perturbs else ()
        return Extra({"actor_loss": jnp.float32(0.0)}, noise)

    def carry(self, num_envs: int) -> PyTree:
        """With Ornstein-Uhlenbeck noise: its value `[N, A]`, beside what the history needs."""
        frames = super().carry(num_envs)
        return (frames, jnp.zeros((num_envs, self.size))) if self.algorithm.action_noise == "ou" else frames

    def act(self, view: View, carry: PyTree, obs: PyTree, first: Array, key: Key, *, explore: bool) -> Act:
        correlated = self.algorithm.action_noise == "ou"
        frames, noise = carry if correlated else (carry, ())
        obs, frames = self.recall(frames, obs, first)
        action = self.policy({"actor": view.extra.noise.actor} if explore and self.perturbs else view.params, obs)
        if explore:
            key_noise, key_random = jax.random.split(key)
            action, noise = self.noisy(action, noise, first, key_noise)
            action = self.mixed(action, view.exploration, key_random)
        return Act(action, (frames, noise) if correlated else frames, ())

    def noisy(self, action: Array, noise: PyTree, first: Array, key: Key) -> tuple[Array, PyTree]:
        """Actions `[N, A]` with noise on them, and the noise to go on from."""
        a: TD3 = self.algorithm
        if a.action_noise not in ("normal", "ou"):
            return action, noise
        drawn = a.action_noise_std * jax.random.normal(key, action.shape)
        if a.action_noise == "ou":
            before = jnp.where(first[:, None], 0.0, noise)
            drawn = noise = before - THETA * before * TIME_STEP + TIME_STEP**0.5 * drawn
        return jnp.clip(action + drawn, -1.0, 1.0), noise

    def explain(self, view: View, carry: PyTree, obs: PyTree) -> dict[str, Array]:
        """Return the action, `[N, A]` from -1 to 1, and its value by the critic that thinks least of it, `[N]`."""
        obs = self.stacked(obs, carry[0] if self.algorithm.action_noise == "ou" else carry)
        action = self.policy(view.params, obs)
        return {"mean": action, "value": self.value(view.params, obs, action)}

    def target(self, core: Core, samples: Samples, key: Key) -> Array:
        a: TD3 = self.algorithm
        action = self.policy(core.target, samples.next_obs)
        noise = a.target_policy_noise * jax.random.normal(key, action.shape)
        smoothed = jnp.clip(action + jnp.clip(noise, -a.target_noise_clip, a.target_noise_clip), -1.0, 1.0)
        value = self.q(core.target, samples.next_obs, smoothed).min(axis=0)
        return samples.reward[:, None] + samples.discount[:, None] * value

    def actor_step(self, core: Core, samples: Samples, key: Key, rate: Array) -> Core:
        first_critic = {"critics": core.params["critics"][:1]}

        def loss(actor: PyTree) -> tuple[Array, Array]:
            mean = -self.q(first_critic, samples.obs, self.policy({"actor": actor}, samples.obs)).mean()
            return mean, mean

        core, mean = self.descend(core, "actor", loss, rate)
        return core._replace(extra=core.extra._replace(metrics={"actor_loss": mean}))

    # --- noise on parameters ----------------------------------------------------------------------------------------

    def learn(self, state: State, rollout: Rollout, key: Key) -> tuple[State, Metrics]:
        before = state.counters.steps
        state, metrics = super().learn(state, rollout, key)
        if not self.perturbs:
            return state, metrics
        due = before // ADAPT_EVERY != state.counters.steps // ADAPT_EVERY
        # An episode begins: of several environments all take the new noise, since one actor acts for all.
        begins = rollout.first[1:].any()
        noise = self.adapted(state, due, begins, jax.random.fold_in(key, 1))
        return state._replace(extra=state.extra._replace(noise=noise)), {**metrics, "parameter_std": noise.std}

    def adapted(self, state: State, due: Array, begins: Array, key: Key) -> ParameterNoise:
        """Adapt the deviation where `due`, and draw new noise where an episode `begins` (Plappert 2018, section 3).

        The deviation grows while actions differ by less than `action_noise_std` (the root of the mean square, over
        states of the memory and dimensions), and else shrinks (equation 4).
        """
        key_draw, key_try, key_new = jax.random.split(key, 3)
        actor, noise = state.params["actor"], state.extra.noise
        obs = self.replay.sample(state.memory, key_draw, self.algorithm.batch_size).obs

        def adapt() -> Array:
            tried = self.policy({"actor": self.perturbed(actor, noise.std, key_try)}, obs)
            distance = jnp.sqrt(((tried - self.policy({"actor": actor}, obs)) ** 2).mean())
            near = distance < self.algorithm.action_noise_std
            return jnp.where(near, noise.std * ADAPT_BY, noise.std / ADAPT_BY)

        std = jax.lax.cond(due, adapt, lambda: noise.std)
        perturbed = jax.lax.cond(begins, lambda: self.perturbed(actor, std, key_new), lambda: noise.actor)
        return ParameterNoise(perturbed, std)

    def perturbed(self, actor: PyTree, std: Array, key: Key) -> PyTree:
        """The policy's parameters with normal noise on all but those of the normalisation."""
        leaves, structure = jax.tree_util.tree_flatten_with_path(actor)
        keys = jax.random.split(key, len(leaves))
        noisy = [
            x if "LayerNorm" in jax.tree_util.keystr(path) else x + std * jax.random.normal(k, x.shape)
            for (path, x), k in zip(leaves, keys, strict=True)
        ]
        return jax.tree.unflatten(structure, noisy)
