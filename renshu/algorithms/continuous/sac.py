"""Soft actor-critic (Haarnoja et al. 2018, "Soft actor-critic algorithms and applications", arXiv:1812.05905)."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple

import jax
import jax.numpy as jnp
from gymnasium import spaces

from renshu.algorithms.base import OBSERVATIONS
from renshu.algorithms.continuous.actor_critic import Aux, ReplayActorCritic, ReplayActorCriticLearner
from renshu.algorithms.hyperparameters import auto, boolean, integer, number
from renshu.algorithms.off_policy import ActorState, TrainState
from renshu.errors import HyperparameterError
from renshu.networks.actors import CategoricalActor, GaussianActor, StateDependentActor
from renshu.networks.critics import map_ensemble, unstack
from renshu.networks.layers import DROPOUT
from renshu.ops.distributions import Categorical, TanhNormal
from renshu.ops.masks import mask_for_display, mask_values, uniform_actions
from renshu.ops.spaces import dummy
from renshu.replay.ring import Transitions
from renshu.types import Accepts, ActorOutput, Array, EnvSpec, Key, PyTree


@dataclass(frozen=True, kw_only=True)
class SAC(ReplayActorCritic):
    """A policy that seeks reward and entropy, with a learned temperature; discrete actions as in Christodoulou 2019.

    REDQ (Chen 2021): n_critics=10, n_target_critics=2, gradient_steps=20, policy_delay=20.
    DroQ (Hiraoka 2022): dropout=0.01, layer_norm=True, gradient_steps=20, policy_delay=20.
    """

    accepts: ClassVar[Accepts] = Accepts(
        observations=OBSERVATIONS, actions=frozenset({"box", "discrete"}), frame_stack=True, masks=True
    )

    ent_coef: float | str = auto(
        "auto", "temperature: reward for 1 nat of entropy; learned, from 1 or another number on", least=0, starts=True
    )
    target_entropy: float | str = auto(
        "auto", "entropy that a learned ent_coef aims at, in nats; auto: minus the dimensions, or 0.98 of the highest"
    )
    target_update_interval: int = integer(1, "gradient steps between updates of the target networks", least=1)
    use_sde: bool = boolean(False, "explore by noise that is a function of the state (Raffin 2021)")
    sde_sample_freq: int = integer(-1, "steps between draws of that function; -1: train_freq", least=-1)
    log_std_init: float = number(-3.0, "initial log deviation of its parameters")
    n_target_critics: int | None = integer(
        None, "critics drawn for each target, of all; the policy then maximises the mean of all", least=1, optional=True
    )
    layer_norm: bool = boolean(False, "normalise the hidden layers of critics")
    dropout: float = number(
        0.0, "share of the critics' hidden units that is left out, drawn each time", least=0, most=0.9
    )

    def build(self, spec: EnvSpec) -> SACLearner:
        """Bind SAC to an environment. Raises HyperparameterError for options that do not go together."""
        return (DiscreteSACLearner if isinstance(spec.action_space, spaces.Discrete) else SACLearner)(self, spec)


class StateDependentNoise(NamedTuple):
    """Carry of state-dependent exploration."""

    matrix: Array  # [N, F, A] float32  standard normal
    age: Array  # [N] int32  steps since the episode began


class SACLearner(ReplayActorCriticLearner):
    """The networks, acting, soft values, and the losses of policy and entropy coefficient."""

    targets: tuple[str, ...] = ("critics",)
    batch_norm = False

    def __init__(self, algorithm: SAC, spec: EnvSpec) -> None:
        super().__init__(algorithm, spec)
        a, name = algorithm, type(algorithm).__name__
        if a.n_target_critics is not None and a.n_target_critics > a.n_critics:
            raise HyperparameterError(
                f"{name}: n_target_critics={a.n_target_critics} is more than n_critics={a.n_critics}: give fewer of "
                "them, or more critics"
            )
        if a.sde_sample_freq == 0:
            raise HyperparameterError(f"{name}: sde_sample_freq=0 draws no noise; give 1 or more, or -1 for train_freq")
        self.learns_ent_coef = isinstance(a.ent_coef, str)
        start = str(a.ent_coef).removeprefix("auto").removeprefix("_")  # "0.1" of "auto_0.1"
        self.log_start = math.log(float(start or 1)) if self.learns_ent_coef else 0.0
        self.drops = not (isinstance(a.dropout, float) and a.dropout == 0.0)
        self.target_interval = a.target_update_interval
        self.critic = self.make_critic(
            self.outputs(), layer_norm=a.layer_norm, dropout=a.dropout, batch_norm=self.batch_norm
        )
        self.actor = self.make_actor()
        self.target_entropy = self.auto_entropy() if isinstance(a.target_entropy, str) else a.target_entropy

    def outputs(self) -> int:
        """Return the number of outputs of a critic for an action."""
        return 1

    def make_actor(self) -> Any:
        """Make the policy's network."""
        a: SAC = self.algorithm
        size, torso = self.spec.action_space.shape[0], self.torso(batch_norm=self.batch_norm)  # type: ignore[index]
        if not a.use_sde:
            return GaussianActor(torso, size)
        obs = dummy(self.observation_space, 1)
        features = jax.eval_shape(lambda: torso.init_with_output(jax.random.key(0), obs)[0])
        self.noise_shape = (features.shape[1], size)
        return StateDependentActor(torso, size, features.shape[1], a.log_std_init)

    def auto_entropy(self) -> float:
        """Return the target_entropy of "auto" (Haarnoja 2018, appendix D)."""
        return -float(self.spec.action_space.shape[0])  # type: ignore[index]

    def init_params(self, key: Key) -> dict[str, Any]:
        params = super().init_params(key)
        if self.learns_ent_coef:
            params["log_ent_coef"] = jnp.float32(self.log_start)
        return params

    def init_aux(self, params: dict[str, Any], key: Key) -> Aux:
        nothing = jnp.float32(0.0)
        return Aux({"actor_loss": nothing, "entropy": nothing, "ent_coef": jnp.float32(self.ent_coef(params))})

    def ent_coef(self, params: dict[str, Any]) -> Array | float:
        """Return the temperature, []."""
        return jnp.exp(params["log_ent_coef"]) if self.learns_ent_coef else self.algorithm.ent_coef

    # --- acting -----------------------------------------------------------------------------------------------------

    def initial_carry(self, num_envs: int) -> PyTree:
        """Make the carry: matrices of state-dependent noise, beside the frames of a frame stack."""
        frames = super().initial_carry(num_envs)
        if not self.algorithm.use_sde:
            return frames
        noise = StateDependentNoise(jnp.zeros((num_envs, *self.noise_shape)), jnp.zeros(num_envs, jnp.int32))
        return frames, noise

    def act(
        self, actor_state: ActorState, carry: PyTree, obs: PyTree, first: Array, key: Key, *, explore: bool
    ) -> ActorOutput:
        frames, noise = carry if self.algorithm.use_sde else (carry, None)
        obs, frames = self.stack_frames(frames, obs, first)
        if not explore:
            action = self.policy(actor_state.params, obs).mode()
        else:
            key_noise, key_random = jax.random.split(key)
            if self.algorithm.use_sde:
                noise = self.resample_noise(noise, first, key_noise)
                action = self.actor.apply({"params": actor_state.params["actor"]}, obs, noise.matrix, method="act")
            else:
                action = self.policy(actor_state.params, obs).sample(key_noise)
            action = self.mix_uniform(action, obs, actor_state.exploration, key_random)  # type: ignore[arg-type]
        return ActorOutput(action, (frames, noise) if self.algorithm.use_sde else frames, ())

    def mix_uniform(self, action: Array, obs: PyTree, share: Array, key: Key) -> Array:
        """Replace a share of the actions by uniformly random ones."""
        return self.mix_random(action, share, key)

    def resample_noise(self, noise: PyTree, first: Array, key: Key) -> StateDependentNoise:
        """Draw new matrices where an episode begins or the old ones are due."""
        a: SAC = self.algorithm
        age = jnp.where(first, 0, noise.age)
        due = age % (a.train_freq if a.sde_sample_freq == -1 else a.sde_sample_freq) == 0

        def draw() -> Array:
            return jnp.where(due[:, None, None], jax.random.normal(key, noise.matrix.shape), noise.matrix)

        return StateDependentNoise(jax.lax.cond(due.any(), draw, lambda: noise.matrix), age + 1)

    def explain(self, actor_state: ActorState, carry: PyTree, obs: PyTree) -> dict[str, Array]:
        """Return the greedy action from -1 to 1, the deviation before the tanh, `[N, A]`, and the action's value."""
        obs = self.stack_first(obs, carry[0] if self.algorithm.use_sde else carry)
        policy: TanhNormal = self.policy(actor_state.params, obs)
        action = policy.mode()
        return {"mean": action, "std": jnp.exp(policy.log_std), "value": self.value(actor_state.params, obs, action)}

    # --- learning ---------------------------------------------------------------------------------------------------

    def q(self, params: dict[str, Any], obs: PyTree, action: Array | None, key: Key | None = None) -> Array:
        if key is None or not self.drops:
            return super().q(params, obs, action)
        keys = tuple(jax.random.split(key, len(params["critics"])))

        def one(critic: PyTree, key: Key) -> Any:
            return self.critic.apply({"params": critic}, obs, action, rngs={DROPOUT: key})

        return map_ensemble(one, params["critics"], keys)

    def soft_value(
        self, params: dict[str, Any], policy: Any, obs: PyTree, key: Key, reduce: Callable[[Array], Array]
    ) -> tuple[Array, Array]:
        """Estimate the soft value of observations, `[B, K]`, and the entropy of the policy `[B]` (equation 3).

        reduce: from the values of all critics `[n, B, K]` to `[B, K]`.
        """
        key_action, key_q = jax.random.split(key)
        action, log_prob = policy.sample_and_log_prob(key_action)
        q = reduce(self.q(params, obs, action, key_q))
        return q - self.ent_coef(params) * log_prob[:, None], -log_prob

    def target_value(self, q: Array) -> Array:
        """Reduce the critics' values `[n, B, K]` to those of targets, the least: `[B, K]`."""
        return q.min(axis=0)

    def policy_value(self, q: Array) -> Array:
        """Reduce the critics' values to those that the policy maximises, `[B, K]`."""
        return q.min(axis=0) if self.algorithm.n_target_critics is None else q.mean(axis=0)

    def target(self, train_state: TrainState, batch: Transitions, key: Key) -> Array:
        a: SAC = self.algorithm
        params = {**train_state.params, **train_state.target}
        key_value, key_subset = jax.random.split(key)
        if a.n_target_critics is not None:
            params["critics"] = random_subset(params["critics"], a.n_target_critics, key_subset)
        policy = self.policy(params, batch.next_obs)
        value, _ = self.soft_value(params, policy, batch.next_obs, key_value, self.target_value)
        return batch.reward[:, None] + batch.discount[:, None] * value

    def losses(self, q: Array, target: Array) -> tuple[Array, Array]:
        losses, error = super().losses(q, target)
        return 0.5 * losses, error

    def actor_step(self, train_state: TrainState, batch: Transitions, key: Key, rate: Array) -> TrainState:
        def loss(actor: PyTree) -> tuple[Array, tuple[Array, Array]]:
            policy = self.policy({**train_state.params, "actor": actor}, batch.obs)
            value, entropy = self.soft_value(train_state.params, policy, batch.obs, key, self.policy_value)
            return -value.mean(), (-value.mean(), entropy.mean())

        train_state, (mean, entropy) = self.step_part(train_state, "actor", loss, rate)
        return self.update_temperature(train_state, mean, entropy, rate, self.entropy_target(batch.obs))

    def entropy_target(self, obs: PyTree) -> Array | float:
        """Return the target of the policy's mean entropy at these observations, in nats."""
        return self.target_entropy

    def update_temperature(
        self,
        train_state: TrainState,
        actor_loss: Array,
        entropy: Array,
        rate: Array,
        entropy_target: Array | float | None = None,
    ) -> TrainState:
        """Move the temperature by how far the entropy is from its target (equation 18); None: target_entropy."""
        if self.learns_ent_coef:
            off = jax.lax.stop_gradient(entropy - (self.target_entropy if entropy_target is None else entropy_target))
            train_state, _ = self.step_part(
                train_state, "log_ent_coef", lambda log_ent_coef: (log_ent_coef * off, ()), rate
            )
        metrics = {
            "actor_loss": actor_loss,
            "entropy": entropy,
            "ent_coef": jnp.float32(self.ent_coef(train_state.params)),
        }
        return train_state._replace(aux=train_state.aux._replace(metrics=metrics))


class DiscreteSACLearner(SACLearner):
    """Probabilities in place of samples: critics value all choices at once (Christodoulou 2019, arXiv:1910.07207)."""

    def __init__(self, algorithm: SAC, spec: EnvSpec) -> None:
        if algorithm.use_sde:
            raise HyperparameterError(
                f"{type(algorithm).__name__}: use_sde is noise on continuous actions; {spec.action_space} has none: "
                "leave it out"
            )
        super().__init__(algorithm, spec)

    def outputs(self) -> int:
        return int(self.spec.action_space.n)  # type: ignore[attr-defined]

    def make_actor(self) -> Any:
        return CategoricalActor(self.torso(batch_norm=self.batch_norm), self.outputs())

    def auto_entropy(self) -> float:
        """Return 98 % of the entropy of uniform actions (appendix there)."""
        return 0.98 * math.log(self.outputs())

    def dummy_action(self) -> None:
        return None

    def mix_uniform(self, action: Array, obs: PyTree, share: Array, key: Key) -> Array:
        key_action, key_random = jax.random.split(key)
        anything = uniform_actions(key_action, len(action), self.outputs(), self.split(obs)[1])
        return jnp.where(jax.random.uniform(key_random, action.shape) < share, anything, action)

    def entropy_target(self, obs: PyTree) -> Array | float:
        """Return the target; with masks, "auto" is 98 % of the entropy of uniform allowed actions."""
        _, mask = self.split(obs)
        if mask is None or not isinstance(self.algorithm.target_entropy, str):
            return self.target_entropy
        return 0.98 * jnp.log(mask.sum(axis=1)).mean()

    def policy(self, params: dict[str, Any], obs: PyTree) -> Categorical:
        """Compute probabilities of all actions; 0 for those that are not allowed."""
        seen, mask = self.split(obs)
        return Categorical(mask_values(super().policy(params, seen).logits, mask))

    def q(self, params: dict[str, Any], obs: PyTree, action: Array | None, key: Key | None = None) -> Array:
        """Estimate values of the actions taken, `[n, B, 1]`, or of all, `[n, B, A]`."""
        q = super().q(params, self.split(obs)[0], None, key)
        return q if action is None else jnp.take_along_axis(q, action[None, :, None], axis=2)

    def soft_value(
        self, params: dict[str, Any], policy: Categorical, obs: PyTree, key: Key, reduce: Callable[[Array], Array]
    ) -> tuple[Array, Array]:
        log_prob = jax.nn.log_softmax(policy.logits)
        q = reduce(self.q(params, obs, None, key))
        value = (jnp.exp(log_prob) * (q - self.ent_coef(params) * log_prob)).sum(axis=1, keepdims=True)
        return value, policy.entropy()

    def explain(self, actor_state: ActorState, carry: PyTree, obs: PyTree) -> dict[str, Array]:
        """Return probabilities and values of all actions, `[N, A]`, and the value that the policy expects, `[N]`."""
        obs = self.stack_first(obs, carry)
        probabilities = jax.nn.softmax(self.policy(actor_state.params, obs).logits)
        values = self.q(actor_state.params, obs, None).min(axis=0)
        return {
            "probabilities": probabilities,
            "action_values": mask_for_display(values, self.split(obs)[1]),
            "value": (probabilities * values).sum(axis=1),
        }


def random_subset(critics: tuple[PyTree, ...], count: int, key: Key) -> tuple[PyTree, ...]:
    """Draw `count` different members of an ensemble."""
    chosen = jax.random.permutation(key, len(critics))[:count]
    return unstack(jax.tree.map(lambda *x: jnp.stack(x)[chosen], *critics), count)
