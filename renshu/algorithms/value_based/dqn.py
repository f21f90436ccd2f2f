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
    convolutions,
    integer,
    layer_sizes,
    module,
    number,
    schedule,
)
from renshu.algorithms.replay_learner import ActorState, ReplayAlgorithm, ReplayLearner, State
from renshu.errors import HyperparameterError
from renshu.networks.encoders import check_own, default_widths
from renshu.networks.layers import ACTIVATIONS, NOISE
from renshu.networks.q_network import QNetwork
from renshu.ops.frame_stack import stack_frames
from renshu.ops.masks import mask_for_display, mask_values, uniform_actions
from renshu.ops.spaces import dummy
from renshu.ops.value_heads import Histogram, Mean, Quantiles
from renshu.optim.layout import ParameterLayout
from renshu.optim.train_state import Optimizers, TrainState, polyak
from renshu.replay.ring import Transitions
from renshu.types import Accepts, ActorOutput, Array, Counters, EnvSpec, Key, Metrics, PyTree, TimeStep

FRACTIONS = 32
"""Quantile fractions by which an implicit quantile network chooses actions (K in Dabney et al. 2018)."""
COSINES = 64


@dataclass(frozen=True, kw_only=True)
class DQN(EpsilonGreedy, ReplayAlgorithm):
    """Learn action values by bootstrapping from a target network, on transitions drawn from a memory.

    double, dueling, prioritized, n_steps, noisy, distributional and munchausen may be combined as you like; all of them
    but the last are Rainbow.
    """

    accepts: ClassVar[Accepts] = Accepts(
        observations=OBSERVATIONS, actions=frozenset({"discrete"}), frame_stack=True, masks=True
    )

    learning_rate: ScheduleLike = schedule(1e-4, "step size of Adam", least=0, traceable=True, tune=(1e-5, 1e-2))
    batch_size: int = integer(32, "steps drawn for one gradient step", least=1, tune=[32, 64, 128, 256])
    tau: float = number(
        1.0, "share of the parameters that the target network takes over in an update", above=0, most=1, traceable=True
    )
    train_freq: int = integer(
        4, "steps collected of each environment between two trainings", least=1, tune=[1, 4, 8, 16]
    )
    target_update_interval: int = integer(
        10_000, "environment steps between updates of the target network", least=1, tune=(500, 20_000)
    )
    max_grad_norm: float | None = number(
        10.0, "gradients are scaled down to this norm; None: never", above=0, optional=True
    )
    adam_eps: float = number(1e-8, "added to the deviation by which Adam divides", above=0)
    double: bool = boolean(
        False, "choose the next action by the network itself, value it by the target (van Hasselt 2016)"
    )
    dueling: bool = boolean(
        False, "value of the state and advantages of the actions apart, in streams with a hidden layer each (Wang 2016)"
    )
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
    munchausen_alpha: float = number(0.9, "weight of the log-probability in the reward", least=0, traceable=True)
    munchausen_tau: float = number(0.03, "temperature of the soft policy", above=0, traceable=True)
    munchausen_clip: float = number(-1.0, "the log-probability is no lower than this", most=0, traceable=True)
    cnn: str | None = convolutions()
    net_arch: NetArch | None = layer_sizes(
        None, "widths of the hidden layers; None: (64, 64), or on images as published", optional=True
    )
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


class DQNLearner(ReplayLearner[DQN]):
    """The network, epsilon-greedy actions, targets and the loss."""

    def __init__(self, config: DQN, spec: EnvSpec) -> None:
        super().__init__(config, spec)
        name, space = type(config).__name__, self.observation_space
        if config.value_rescaling and config.distributional == "c51":
            raise HyperparameterError(f"{name}: value_rescaling does not go with c51, whose values are v_min to v_max")
        if config.v_min >= config.v_max:
            raise HyperparameterError(f"{name}: v_min={config.v_min:g} must be below v_max={config.v_max:g}")
        if config.network is not None:
            check_own(config.network, self.observation_space)
        self.actions = int(spec.action_space.n)  # type: ignore[attr-defined]
        self.implicit = config.distributional == "iqn"
        if config.distributional == "c51":
            self.head = Histogram(config.v_min, config.v_max, config.n_atoms)
        elif config.distributional:
            self.head = Quantiles(FRACTIONS if self.implicit else config.n_quantiles, config.value_rescaling)
        else:
            self.head = Mean(config.loss == "mse", config.value_rescaling)
        self.network = QNetwork(
            space=space,
            actions=self.actions,
            outputs=1 if self.implicit else self.head.outputs,
            widths=config.net_arch.vf if config.net_arch else default_widths(space, config.cnn, (64, 64)),
            cnn=config.cnn,
            activation=config.activation_fn,
            torso=None if config.network is None else config.network.copy(name=None),
            dueling=config.dueling,
            noisy=config.noisy,
            embedding=COSINES if self.implicit else 0,
        )
        self.layout = ParameterLayout(jax.eval_shape(self.init_params, jax.random.key(0)))
        limit = config.max_grad_norm
        clip = optax.identity() if limit is None else optax.clip_by_global_norm(limit)
        adam = optax.chain(clip, optax.scale_by_adam(eps=config.adam_eps))
        self.optim = Optimizers({"network": adam}, guard=self.guards_each_step)

    def init_params(self, key: Key) -> PyTree:
        """Make the network's parameters."""
        taus = (jnp.zeros((1, 1)),) if self.implicit else ()
        return self.network.init(key, dummy(self.observation_space, 1), *taus)["params"]

    def init_train(self, key: Key) -> TrainState:
        params = {"network": self.layout.pack(self.init_params(key))}
        return TrainState(params, jax.tree.map(jnp.copy, params), self.optim.init(params), jnp.int32(0))

    def pack(self, train_state: TrainState) -> TrainState:
        return train_state._replace(params={"network": self.layout.pack(train_state.params)})

    def unpack(self, train_state: TrainState) -> TrainState:
        return train_state._replace(params=self.layout.unpack(train_state.params["network"]))

    # --- acting -----------------------------------------------------------------------------------------------------

    def out(self, params: PyTree, obs: PyTree, taus: Array | None, key: Key | None = None) -> Array:
        """Compute the network's output, `[B, A, K]`. taus: `[B, K]` for iqn. key: of noisy layers; None: their mean."""
        extra = (taus,) if self.implicit else ()
        rngs = {NOISE: key} if self.config.noisy and key is not None else None
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
            return jax.random.uniform(key, (batch, self.config.n_fractions))
        count = self.head.outputs
        return jnp.broadcast_to((jnp.arange(count) + 0.5) / count, (batch, count))

    def random_share(self, counters: Counters) -> Array:
        return jnp.float32(0.0) if self.config.noisy else self.config.epsilon(counters)

    def act(self, acting: ActorState, carry: PyTree, timestep: TimeStep, key: Key, *, explore: bool) -> ActorOutput:
        obs, carry = stack_frames(carry, timestep.obs, timestep.first)
        if not explore:
            return ActorOutput(jnp.argmax(self.values(acting.params, obs), axis=1).astype(jnp.int32), carry)
        key_noise, key_action, key_random = jax.random.split(key, 3)
        values = self.values(acting.params, obs, key_noise)
        greedy = jnp.argmax(values, axis=1).astype(jnp.int32)
        anything = uniform_actions(key_action, len(greedy), self.actions, self.split(obs)[1])
        random = jax.random.uniform(key_random, greedy.shape) < self.epsilon(acting, timestep)
        action = jnp.where(random, anything, greedy)
        return ActorOutput(action, carry, self.judged(values, action))

    def epsilon(self, acting: ActorState, timestep: TimeStep) -> Array:
        """Return the share of random actions, [] or `[N]`."""
        return acting.exploration

    def judged(self, values: Array, action: Array) -> PyTree:
        """Return what is recorded with the actions. Default: nothing. values: of all actions, `[N, A]`."""
        return ()

    def explain(self, acting: ActorState, carry: PyTree, timestep: TimeStep) -> dict[str, Array]:
        """Return the expected return of each action, `[N, A]`, -inf if not allowed, and the highest of them, `[N]`."""
        obs, _ = stack_frames(carry, timestep.obs, timestep.first)
        values = self.values(acting.params, obs)
        return {"action_values": mask_for_display(values, self.split(obs)[1]), "value": values.max(axis=1)}

    # --- learning ---------------------------------------------------------------------------------------------------

    def after_steps(self, state: State, counters: Counters) -> State:
        """Put newer counters in place; the target network follows when `target_update_interval` steps are over."""
        interval, tau = self.config.target_update_interval, jnp.asarray(self.config.tau, jnp.float32)
        # At most one update for each step of all environments at once, as in Stable-Baselines3.
        times = counters.steps // interval - state.counters.steps // interval
        share = 1 - (1 - tau) ** jnp.minimum(times, self.config.train_freq)
        train = polyak(self.pack(state.train), share)
        return super().after_steps(state._replace(train=self.unpack(train)), counters)

    def gradient_step(
        self, train_state: TrainState, batch: Transitions, key: Key, learning_rate: Array
    ) -> tuple[TrainState, Metrics, Array]:
        """Move the values of the actions taken towards their targets (Mnih 2015, algorithm 1)."""
        keys = Keys(*jax.random.split(key, 3))
        target = jax.lax.stop_gradient(self.target(train_state, batch, keys))
        taus = self.fractions(len(target), jax.random.fold_in(keys.online, 1))

        def loss(packed: PyTree) -> tuple[Array, tuple[Metrics, Array]]:
            out = self.out(self.layout.unpack(packed), batch.obs, taus, keys.online)
            chosen = jnp.take_along_axis(out, batch.action[:, None, None], axis=1)[:, 0]
            losses, error = self.head.loss(chosen, target, taus)
            mean = (batch.weight * losses).mean()
            return mean, ({"loss": mean, "value": self.head.values(chosen[:, None])[:, 0].mean()}, error)

        train_state, (metrics, error) = self.optim.step(train_state, "network", loss, learning_rate)
        return train_state._replace(updates=train_state.updates + 1), metrics, error

    def target(self, train_state: TrainState, batch: Transitions, keys: Keys) -> Array:
        """Compute the target of the actions that were taken, `[B, K]`."""
        online, late = (self.layout.unpack(x["network"]) for x in (train_state.params, train_state.target))
        count = batch.reward.shape[0]
        taus = self.fractions(count, jax.random.fold_in(keys.target, 1))
        next_out = self.out(late, batch.next_obs, taus, keys.target)
        # An implicit network chooses by fractions of its own: the best of drawn values would be too high a value.
        next_values = (
            self.values(late, batch.next_obs, keys.target)
            if self.implicit
            else mask_values(self.head.values(next_out), self.split(batch.next_obs)[1])
        )
        if self.config.munchausen:
            return self._munchausen(late, batch, next_out, next_values, keys)
        if self.config.double:
            next_values = self.values(online, batch.next_obs, keys.choosing)
        policy = jax.nn.one_hot(jnp.argmax(next_values, axis=1), self.actions)
        return self.head.target(next_out, policy, jnp.zeros_like(policy), batch.reward, batch.discount)

    def _munchausen(self, late: PyTree, batch: Transitions, next_out: Array, next_values: Array, keys: Keys) -> Array:
        """Compute the target with a soft policy of the target network on both sides (Vieillard 2020, equation 2)."""
        config = self.config
        tau = config.munchausen_tau
        now = jax.nn.log_softmax(self.values(late, batch.obs, keys.choosing) / tau)
        taken = jnp.take_along_axis(now, batch.action[:, None], axis=1)[:, 0]
        reward = batch.reward + config.munchausen_alpha * (tau * taken).clip(config.munchausen_clip, 0)
        log_policy = jax.nn.log_softmax(next_values / tau)
        return self.head.target(next_out, jnp.exp(log_policy), -tau * log_policy, reward, batch.discount)
