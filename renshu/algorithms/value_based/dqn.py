"""Deep Q-learning (Mnih et al. 2015, "Human-level control"), with the ideas that followed as options."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple

import jax
import jax.numpy as jnp
import optax

from renshu.algorithms.base import OBSERVATIONS
from renshu.algorithms.exploration import EpsilonGreedy
from renshu.algorithms.hyperparameters import (
    NetArch,
    ScheduleLike,
    boolean,
    choice,
    integer,
    layer_sizes,
    module,
    number,
    schedule,
)
from renshu.algorithms.off_policy import ActorState, OffPolicyAlgorithm, OffPolicyLearner, TrainState
from renshu.errors import HyperparameterError
from renshu.networks.encoders import check_own
from renshu.networks.layers import ACTIVATIONS, NOISE
from renshu.networks.q_network import QNetwork
from renshu.ops.masks import mask_for_display, mask_values, uniform_actions
from renshu.ops.spaces import dummy
from renshu.ops.value_heads import Histogram, Mean, Quantiles
from renshu.optim.gradient_steps import optimizer_step
from renshu.optim.layout import ParameterLayout
from renshu.replay.ring import Transitions
from renshu.types import Accepts, ActorOutput, Array, Counters, EnvSpec, Key, Metrics, PyTree

FRACTIONS = 32
"""Quantile fractions by which an implicit quantile network chooses actions (K in Dabney et al. 2018)."""
COSINES = 64


@dataclass(frozen=True, kw_only=True)
class DQN(EpsilonGreedy, OffPolicyAlgorithm):
    """Learn action values by bootstrapping from a target network, on transitions drawn from a memory.

    double, dueling, prioritized, n_step, noisy, distributional and munchausen may be combined as you like; all of them
    but the last are Rainbow.
    """

    accepts: ClassVar[Accepts] = Accepts(
        observations=OBSERVATIONS, actions=frozenset({"discrete"}), frame_stack=True, masks=True
    )

    learning_rate: ScheduleLike = schedule(1e-4, "step size of Adam", least=0)
    batch_size: int = integer(32, "steps drawn for one gradient step", least=1)
    tau: float = number(1.0, "share of the parameters that the target network takes over in an update", above=0, most=1)
    train_freq: int = integer(4, "steps collected of each environment between two trainings", least=1)
    target_update_interval: int = integer(10_000, "environment steps between updates of the target network", least=1)
    max_grad_norm: float = number(10.0, "gradients are scaled down to this norm", above=0)
    adam_eps: float = number(1e-8, "added to the deviation by which Adam divides", above=0)
    double: bool = boolean(
        False, "choose the next action by the network itself, value it by the target (van Hasselt 2016)"
    )
    dueling: bool = boolean(False, "value of the state and advantages of the actions apart (Wang 2016)")
    noisy: bool = boolean(
        False, "explore by noise on the weights whose size is learned, not by epsilon (Fortunato 2018)"
    )
    distributional: str | None = choice(
        None,
        'learn the distribution of returns: "c51" (Bellemare 2017), "qr" or "iqn" (Dabney 2018)',
        (None, "c51", "qr", "iqn"),
    )
    munchausen: bool = boolean(False, "a soft policy, and its log-probability added to the reward (Vieillard 2020)")
    loss: str = choice("huber", 'of the error of the value: "huber" or "mse"', ("huber", "mse"))
    value_rescaling: bool = boolean(False, "learn squashed values, for rewards of any size (Pohlen 2018)")
    n_atoms: int = integer(51, "returns whose probabilities c51 learns", least=2)
    v_min: float = number(-10.0, "the lowest of them")
    v_max: float = number(10.0, "the highest of them")
    n_quantiles: int = integer(200, "quantiles that qr learns", least=1)
    n_fractions: int = integer(8, "quantile fractions that iqn draws for an update", least=1)
    munchausen_alpha: float = number(0.9, "weight of the log-probability in the reward", least=0)
    munchausen_tau: float = number(0.03, "temperature of the soft policy", above=0)
    munchausen_clip: float = number(-1.0, "the log-probability is no lower than this", most=0)
    net_arch: NetArch = layer_sizes((64, 64), "widths of the hidden layers")
    activation_fn: str = choice("relu", "activation of the hidden layers", tuple(ACTIVATIONS))
    network: Any = module("a Flax module of your own in place of the hidden layers: obs [B, ...] -> features [B, F]")

    def build(self, spec: EnvSpec) -> DQNLearner:
        """Bind DQN to an environment. Raises HyperparameterError for options that do not go together."""
        return DQNLearner(self, spec)


class Keys(NamedTuple):
    """Random keys of one gradient step: of the network, of the choice of next actions, of the target network."""

    online: Key
    choosing: Key
    target: Key


class DQNLearner(OffPolicyLearner):
    """The network, epsilon-greedy actions, targets and the loss."""

    def __init__(self, algorithm: DQN, spec: EnvSpec) -> None:
        super().__init__(algorithm, spec)
        a, name = algorithm, type(algorithm).__name__
        if a.value_rescaling and a.distributional == "c51":
            raise HyperparameterError(f"{name}: value_rescaling does not go with c51, whose values are v_min to v_max")
        if a.v_min >= a.v_max:
            raise HyperparameterError(f"{name}: v_min={a.v_min:g} must be below v_max={a.v_max:g}")
        if a.network is not None:
            check_own(a.network, self.observation_space)
        self.actions = int(spec.action_space.n)  # type: ignore[attr-defined]
        self.implicit = a.distributional == "iqn"
        if a.distributional == "c51":
            self.head = Histogram(a.v_min, a.v_max, a.n_atoms)
        elif a.distributional:
            self.head = Quantiles(FRACTIONS if self.implicit else a.n_quantiles, a.value_rescaling)
        else:
            self.head = Mean(a.loss == "mse", a.value_rescaling)
        self.network = QNetwork(
            space=self.observation_space,
            actions=self.actions,
            outputs=1 if self.implicit else self.head.outputs,
            widths=a.net_arch.vf,
            activation=a.activation_fn,
            torso=None if a.network is None else a.network.copy(name=None),
            dueling=a.dueling,
            noisy=a.noisy,
            embedding=COSINES if self.implicit else 0,
        )
        obs = dummy(self.observation_space, 1)
        taus = (jnp.zeros((1, 1)),) if self.implicit else ()
        self.make = lambda key: self.network.init(key, obs, *taus)["params"]
        self.layout = ParameterLayout(jax.eval_shape(self.make, jax.random.key(0)))
        self.optimizer = optax.chain(optax.clip_by_global_norm(a.max_grad_norm), optax.scale_by_adam(eps=a.adam_eps))

    def pack(self, params: PyTree) -> PyTree:
        return self.layout.pack(params)

    def unpack(self, params: PyTree) -> PyTree:
        return self.layout.unpack(params)

    def init_train_state(self, key: Key) -> TrainState:
        params = self.pack(self.make(key))
        return TrainState(params, jax.tree.map(jnp.copy, params), self.optimizer.init(params), jnp.int32(0))

    def out(self, params: PyTree, obs: PyTree, taus: Array | None, key: Key | None = None) -> Array:
        """Compute the network's output, `[B, A, K]`. taus: `[B, K]` for iqn. key: of noisy layers; None: their mean."""
        extra = (taus,) if self.implicit else ()
        rngs = {NOISE: key} if self.algorithm.noisy and key is not None else None
        seen, _ = self.split(obs)
        return self.network.apply({"params": params}, seen, *extra, rngs=rngs)  # type: ignore[return-value]

    def values(self, params: PyTree, obs: PyTree, key: Key | None = None) -> Array:
        """Estimate returns of all actions, `[B, A]`; FORBIDDEN for those that are not allowed."""
        count = jax.tree.leaves(obs)[0].shape[0]
        values = self.head.values(self.out(params, obs, self.fractions(count, None), key))
        return mask_values(values, self.split(obs)[1])

    def fractions(self, batch: int, key: Key | None) -> Array:
        """Make quantile fractions `[B, K]`: drawn for iqn, midpoints without a key and for all others."""
        if self.implicit and key is not None:
            return jax.random.uniform(key, (batch, self.algorithm.n_fractions))
        count = self.head.outputs
        return jnp.broadcast_to((jnp.arange(count) + 0.5) / count, (batch, count))

    def exploration(self, counters: Counters, episodes: Array) -> Array:
        return jnp.float32(0.0) if self.algorithm.noisy else self.algorithm.epsilon(counters, episodes)

    def act(
        self, actor_state: ActorState, carry: PyTree, obs: PyTree, first: Array, key: Key, *, explore: bool
    ) -> ActorOutput:
        obs, carry = self.stack_frames(carry, obs, first)
        if not explore:
            return ActorOutput(jnp.argmax(self.values(actor_state.params, obs), axis=1).astype(jnp.int32), carry, ())
        key_noise, key_action, key_random = jax.random.split(key, 3)
        greedy = jnp.argmax(self.values(actor_state.params, obs, key_noise), axis=1).astype(jnp.int32)
        anything = uniform_actions(key_action, len(greedy), self.actions, self.split(obs)[1])
        random = jax.random.uniform(key_random, greedy.shape) < actor_state.exploration
        return ActorOutput(jnp.where(random, anything, greedy), carry, ())

    def explain(self, actor_state: ActorState, carry: PyTree, obs: PyTree) -> dict[str, Array]:
        """Return the expected return of each action, `[N, A]`, -inf if not allowed, and the highest of them, `[N]`."""
        obs, _ = self.stack_frames(carry, obs, jnp.ones(jax.tree.leaves(obs)[0].shape[0], jnp.bool_))
        values = self.values(actor_state.params, obs)
        return {"action_values": mask_for_display(values, self.split(obs)[1]), "value": values.max(axis=1)}

    def update_target(self, train_state: TrainState, before: Counters, after: Counters) -> TrainState:
        a: DQN = self.algorithm
        due = before.steps // a.target_update_interval != after.steps // a.target_update_interval
        share = jnp.where(due, a.tau, 0.0)
        return train_state._replace(
            target=jax.tree.map(lambda t, p: t + share * (p - t), train_state.target, train_state.params)
        )

    def gradient_step(
        self, train_state: TrainState, batch: Transitions, key: Key, learning_rate: Array, progress_remaining: Array
    ) -> tuple[TrainState, Metrics, Array]:
        keys = Keys(*jax.random.split(key, 3))
        target = jax.lax.stop_gradient(self.target(train_state, batch, keys))

        def loss(packed: PyTree) -> tuple[Array, tuple[Metrics, Array]]:
            params = self.unpack(packed)
            taus = self.fractions(len(target), jax.random.fold_in(keys.online, 1))
            out = self.out(params, batch.obs, taus, keys.online)
            chosen = jnp.take_along_axis(out, batch.action[:, None, None], axis=1)[:, 0]
            losses, error = self.head.loss(chosen, target, taus)
            mean = (batch.weight * losses).mean()
            value = self.head.values(chosen[:, None])[:, 0].mean()
            return mean, ({"loss": mean, "value": value}, error)

        params, opt_state, (metrics, error), finite = optimizer_step(
            self.optimizer,
            loss,
            train_state.params,
            train_state.opt_state,
            learning_rate,
            train_state.finite,
            guard=self.guards_each_step,
        )
        train_state = train_state._replace(
            params=params, opt_state=opt_state, updates=train_state.updates + 1, finite=finite
        )
        return train_state, metrics, error

    def target(self, train_state: TrainState, batch: Transitions, keys: Keys) -> Array:
        """Compute the target of the actions that were taken, `[B, K]`."""
        a: DQN = self.algorithm
        train_state = train_state._replace(
            params=self.unpack(train_state.params), target=self.unpack(train_state.target)
        )
        count = batch.reward.shape[0]
        next_out = self.out(
            train_state.target, batch.next_obs, self.fractions(count, jax.random.fold_in(keys.target, 1)), keys.target
        )
        next_values = mask_values(self.head.values(next_out), self.split(batch.next_obs)[1])
        if a.munchausen:
            return self._munchausen(train_state, batch, next_out, next_values, keys)
        if a.double:
            next_values = self.values(train_state.params, batch.next_obs, keys.choosing)
        policy = jax.nn.one_hot(jnp.argmax(next_values, axis=1), self.actions)
        return self.head.target(next_out, policy, jnp.zeros_like(policy), batch.reward, batch.discount)

    def _munchausen(
        self, train_state: TrainState, batch: Transitions, next_out: Array, next_values: Array, keys: Keys
    ) -> Array:
        """Compute the target with a soft policy of the target network on both sides (Vieillard 2020, equation 2)."""
        a: DQN = self.algorithm
        tau = a.munchausen_tau
        now = jax.nn.log_softmax(self.values(train_state.target, batch.obs, keys.choosing) / tau)
        taken = jnp.take_along_axis(now, batch.action[:, None], axis=1)[:, 0]
        reward = batch.reward + a.munchausen_alpha * (tau * taken).clip(a.munchausen_clip, 0)
        log_policy = jax.nn.log_softmax(next_values / tau)
        return self.head.target(next_out, jnp.exp(log_policy), -tau * log_policy, reward, batch.discount)
