"""Common part of TD3 and SAC: an actor, critics of its actions, and target networks."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple

import jax
import jax.numpy as jnp
import optax
from flax import linen as nn

from renshu.algorithms.base import OBSERVATIONS
from renshu.algorithms.hyperparameters import NetArch, choice, integer, layer_sizes, module
from renshu.algorithms.off_policy import OffPolicyAlgorithm, OffPolicyLearner, TrainState
from renshu.networks.critics import Critic, init_ensemble, map_ensemble
from renshu.networks.encoders import Hidden, Torso, check_own
from renshu.networks.layers import ACTIVATIONS, STATISTICS
from renshu.ops.spaces import dummy
from renshu.optim.gradient_steps import optimizer_step
from renshu.replay.ring import Transitions
from renshu.types import Accepts, Array, EnvSpec, Key, Metrics, PyTree


@dataclass(frozen=True, kw_only=True)
class ReplayActorCritic(OffPolicyAlgorithm):
    """Hyperparameters of TD3 and SAC; names and meaning as in Stable-Baselines3."""

    accepts: ClassVar[Accepts] = Accepts(observations=OBSERVATIONS, actions=frozenset({"box"}), frame_stack=True)

    n_critics: int = integer(2, "critics: networks that each estimate the value of an action", least=1)
    policy_delay: int = integer(1, "updates of the critics for one of the policy", least=1)
    net_arch: NetArch = layer_sizes(
        (256, 256), 'widths of the hidden layers: a list, or {"pi": [...], "qf": [...]}', qf=True
    )
    activation_fn: str = choice("relu", "activation of the hidden layers", tuple(ACTIVATIONS))
    network: Any = module(
        "a Flax module of your own, obs [B, ...] -> features [B, F]: in place of the policy's hidden layers, and "
        "before those of the critics"
    )


class Aux(NamedTuple):
    """State besides the networks."""

    metrics: Metrics  # of the latest update of the policy
    noise: PyTree = ()  # state of the exploration noise


class ReplayActorCriticLearner(OffPolicyLearner):
    """One gradient step: critics towards a target, the policy towards higher values, target networks behind both.

    A subclass makes `actor` and `critic` in its constructor. The parameters are a dict of "actor", "critics" (a tuple)
    and what else there is; `params` below is such a dict, of the networks themselves or of target networks.
    """

    actor: nn.Module
    critic: nn.Module
    targets: tuple[str, ...]
    """Parts of the parameters that have a target network."""
    target_interval: int
    """Gradient steps between updates of the target networks."""

    def __init__(self, algorithm: ReplayActorCritic, spec: EnvSpec) -> None:
        super().__init__(algorithm, spec)
        if algorithm.network is not None:
            check_own(algorithm.network, self.observation_space)
        self.optimizer = optax.scale_by_adam()

    def torso(self, **options: Any) -> Torso:
        """Make hidden layers for the policy. options: of `Hidden`."""
        a: ReplayActorCritic = self.algorithm
        return Torso(self.observation_space, Hidden(a.net_arch.pi, a.activation_fn, **options), self._own())

    def make_critic(self, outputs: int = 1, **options: Any) -> Critic:
        """Make a critic with that many outputs. options: of `Hidden`."""
        a: ReplayActorCritic = self.algorithm
        return Critic(self.observation_space, Hidden(a.net_arch.vf, a.activation_fn, **options), self._own(), outputs)

    def _own(self) -> nn.Module | None:
        network = self.algorithm.network
        return None if network is None else network.copy(name=None)

    def init_params(self, key: Key) -> dict[str, Any]:
        """Make the parameters; running statistics of batch normalisation, where there are any, are the part "stats"."""
        key_actor, key_critics = jax.random.split(key)
        obs, action = dummy(self.observation_space, 1), self.dummy_action()
        actor = self.actor.init(key_actor, obs)
        critics = init_ensemble(lambda k: self.critic.init(k, obs, action), self.algorithm.n_critics, key_critics)
        params: dict[str, Any] = {"actor": actor["params"], "critics": tuple(one["params"] for one in critics)}
        if STATISTICS in actor:
            params["stats"] = {"actor": actor[STATISTICS], "critics": tuple(one[STATISTICS] for one in critics)}
        return params

    def dummy_action(self) -> Array | None:
        """Make an action `[1, A]` for the critics; None where they value all at once."""
        return jnp.zeros((1, *self.spec.action_space.shape))  # type: ignore[misc]

    @abstractmethod
    def init_aux(self, params: dict[str, Any], key: Key) -> Aux:
        """Make the state besides the networks."""

    def init_train_state(self, key: Key) -> TrainState:
        params = self.init_params(key)
        return TrainState(
            params=params,
            target=jax.tree.map(jnp.copy, {part: params[part] for part in self.targets}),
            opt_state={part: self.optimizer.init(params[part]) for part in params if part != "stats"},
            updates=jnp.int32(0),
            aux=self.init_aux(params, jax.random.fold_in(key, 1)),
        )

    def policy(self, params: dict[str, Any], obs: PyTree) -> Any:
        """Compute the actor's actions `[B, A]`, or its distribution over them."""
        return self.actor.apply({"params": params["actor"]}, obs)

    def q(self, params: dict[str, Any], obs: PyTree, action: Array | None, key: Key | None = None) -> Array:
        """Estimate the values of actions by all critics, `[n, B, K]`. key: of dropout; None for none."""
        return map_ensemble(lambda critic: self.critic.apply({"params": critic}, obs, action), params["critics"])

    def gradient_step(
        self, train_state: TrainState, batch: Transitions, key: Key, learning_rate: Array, progress_remaining: Array
    ) -> tuple[TrainState, Metrics, Array]:
        a: ReplayActorCritic = self.algorithm
        key_critics, key_actor = jax.random.split(key)
        train_state, metrics, error = self.critic_step(train_state, batch, key_critics, learning_rate)
        train_state = train_state._replace(updates=train_state.updates + 1)
        train_state = apply_every(
            a.policy_delay,
            lambda train_state: self.actor_step(train_state, batch, key_actor, learning_rate),
            train_state,
        )
        if self.targets:
            train_state = apply_every(self.target_interval, self.polyak_update, train_state)
        return train_state, {**metrics, **train_state.aux.metrics}, error

    def critic_step(
        self, train_state: TrainState, batch: Transitions, key: Key, rate: Array
    ) -> tuple[TrainState, Metrics, Array]:
        """Move the critics towards the target. Returns also metrics and the error of each transition `[B]`."""
        key_target, key_q = jax.random.split(key)
        target = jax.lax.stop_gradient(self.target(train_state, batch, key_target))

        def loss(critics: tuple[PyTree, ...]) -> tuple[Array, tuple[Metrics, Array]]:
            q = self.q({**train_state.params, "critics": critics}, batch.obs, batch.action, key_q)
            return self.critic_loss(q, target, batch)

        train_state, (metrics, error) = self.step_part(train_state, "critics", loss, rate)
        return train_state, metrics, error

    def critic_loss(self, q: Array, target: Array, batch: Transitions) -> tuple[Array, tuple[Metrics, Array]]:
        """Compute the mean of `losses` by the transitions' weights, metrics, and the error of each transition `[B]`."""
        losses, error = self.losses(q, target)
        mean = (batch.weight * losses).mean()
        return mean, ({"critic_loss": mean, "value": q.mean()}, error)

    @abstractmethod
    def target(self, train_state: TrainState, batch: Transitions, key: Key) -> Array:
        """Compute the critics' target for the actions that were taken, `[B, K]`."""

    def losses(self, q: Array, target: Array) -> tuple[Array, Array]:
        """Compute squared errors `[B]`, summed over the critics, of `q` `[n, B, 1]`; and mean absolute errors `[B]`."""
        error = (q - target)[..., 0]
        return (error**2).sum(axis=0), jnp.abs(error).mean(axis=0)

    @abstractmethod
    def actor_step(self, train_state: TrainState, batch: Transitions, key: Key, rate: Array) -> TrainState:
        """Move the policy towards higher values of the critics."""

    def step_part(
        self, train_state: TrainState, part: str, loss: Callable[[PyTree], Any], rate: Array
    ) -> tuple[TrainState, Any]:
        """Take a step down the gradient of `loss(part of the parameters) -> (loss, aux)`. Returns aux, too."""
        params, opt_state, aux, finite = optimizer_step(
            self.optimizer,
            loss,
            train_state.params[part],
            train_state.opt_state[part],
            rate,
            train_state.finite,
            guard=self.guards_each_step,
        )
        params, opt_state = {**train_state.params, part: params}, {**train_state.opt_state, part: opt_state}
        return train_state._replace(params=params, opt_state=opt_state, finite=finite), aux

    def polyak_update(self, train_state: TrainState) -> TrainState:
        """Move the target networks towards the parameters by `tau` (Polyak averaging)."""
        tau, params = (
            jnp.where(train_state.finite, self.algorithm.tau, 0.0),
            {part: train_state.params[part] for part in train_state.target},
        )
        return train_state._replace(target=jax.tree.map(lambda t, p: t + tau * (p - t), train_state.target, params))

    def mix_random(self, action: Array, share: Array, key: Key) -> Array:
        """Replace a share of the actions `[N, A]` by uniformly random ones."""
        key_action, key_random = jax.random.split(key)
        anything = jax.random.uniform(key_action, action.shape, minval=-1.0, maxval=1.0)
        random = jax.random.uniform(key_random, action.shape[:1]) < share
        return jnp.where(random[:, None], anything, action)

    def value(self, params: dict[str, Any], obs: PyTree, action: Array) -> Array:
        """Estimate values of actions by the lowest critic, `[N]`."""
        return self.q(params, obs, action).mean(axis=2).min(axis=0)

    def stack_first(self, obs: PyTree, carry: PyTree) -> PyTree:
        """Stack observations that `explain` was given, each as the first of an episode."""
        return self.stack_frames(carry, obs, jnp.ones(jax.tree.leaves(obs)[0].shape[0], jnp.bool_))[0]


def apply_every(interval: int, fn: Callable[[TrainState], TrainState], train_state: TrainState) -> TrainState:
    """Apply `fn` after each `interval`-th gradient step."""
    if interval == 1:
        return fn(train_state)
    due = (train_state.updates % interval == 0).astype(jnp.int32)
    # A branch would copy all that it carries; a loop of no or one turn works in place.
    return jax.lax.fori_loop(0, due, lambda _, train_state: fn(train_state), train_state)
