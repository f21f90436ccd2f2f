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
    choice,
    flag,
    module,
    real,
    schedule,
    whole,
    widths,
)
from renshu.algorithms.off_policy import Core, OffPolicyAlgorithm, OffPolicyLearner, View
from renshu.errors import HyperparameterError
from renshu.networks.actor_critic import ACTIVATIONS, check_own
from renshu.networks.q_network import NOISE, QNetwork
from renshu.ops.descent import gradient_step
from renshu.ops.layout import Layout
from renshu.ops.masks import hide, mask_values, uniform_actions
from renshu.ops.spaces import dummy
from renshu.ops.value_heads import Histogram, Mean, Quantiles
from renshu.replay.ring import Samples
from renshu.types import Accepts, Act, Array, Counters, EnvSpec, Key, Metrics, PyTree

FRACTIONS = 32
"""Quantile fractions by which an implicit quantile network chooses actions (K in Dabney et al. 2018)."""
COSINES = 64


@dataclass(frozen=True, kw_only=True)
class DQN(EpsilonGreedy, OffPolicyAlgorithm):
    """Learn action values by bootstrapping from a late copy of the network, on steps drawn from a memory.

    double, dueling, prioritized, n_step, noisy, distributional and munchausen may be combined as you like; all of them
    but the last are Rainbow.
    """

    accepts: ClassVar[Accepts] = Accepts(
        observations=OBSERVATIONS, actions=frozenset({"discrete"}), history=True, masks=True
    )

    learning_rate: ScheduleLike = schedule(1e-4, "step size of Adam", least=0)
    batch_size: int = whole(32, "steps drawn for one gradient step", least=1)
    tau: float = real(1.0, "share of the parameters that the target network takes over in an update", above=0, most=1)
    train_freq: int = whole(4, "steps collected of each environment between two trainings", least=1)
    target_update_interval: int = whole(10_000, "environment steps between updates of the target network", least=1)
    max_grad_norm: float = real(10.0, "gradients are scaled down to this norm", above=0)
    adam_eps: float = real(1e-8, "added to the deviation by which Adam divides", above=0)
    double: bool = flag(
        False, "choose the next action by the network itself, value it by the target (van Hasselt 2016)"
    )
    dueling: bool = flag(False, "value of the state and advantages of the actions apart (Wang 2016)")
    noisy: bool = flag(False, "explore by noise on the weights whose size is learned, not by epsilon (Fortunato 2018)")
    distributional: str | None = choice(
        None,
        'learn the distribution of returns: "c51" (Bellemare 2017), "qr" or "iqn" (Dabney 2018)',
        (None, "c51", "qr", "iqn"),
    )
    munchausen: bool = flag(False, "a soft policy, and its log-probability added to the reward (Vieillard 2020)")
    loss: str = choice("huber", 'of the error of the value: "huber" or "mse"', ("huber", "mse"))
    value_rescaling: bool = flag(False, "learn squashed values, for rewards of any size (Pohlen 2018)")
    n_atoms: int = whole(51, "returns whose probabilities c51 learns", least=2)
    v_min: float = real(-10.0, "the lowest of them")
    v_max: float = real(10.0, "the highest of them")
    n_quantiles: int = whole(200, "quantiles that qr learns", least=1)
    n_fractions: int = whole(8, "quantile fractions that iqn draws for an update", least=1)
    munchausen_alpha: float = real(0.9, "weight of the log-probability in the reward", least=0)
    munchausen_tau: float = real(0.03, "temperature of the soft policy", above=0)
    munchausen_clip: float = real(-1.0, "the log-probability is no lower than this", most=0)
    net_arch: NetArch = widths((64, 64), "widths of the hidden layers")
    activation_fn: str = choice("relu", "activation of the hidden layers", tuple(ACTIVATIONS))
    network: Any = module("a Flax module of your own in place of the hidden layers: obs [B, ...] -> features [B, F]")

    def build(self, spec: EnvSpec) -> DQNLearner:
        """Bind DQN to an environment. Raises HyperparameterError for options that do not go together."""
        return DQNLearner(self, spec)


class Keys(NamedTuple):
    """Random keys of one gradient step: of the network, of the next state's network, of its target."""

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
        self.layout = Layout(jax.eval_shape(self.make, jax.random.key(0)))
        self.optimizer = optax.chain(optax.clip_by_global_norm(a.max_grad_norm), optax.scale_by_adam(eps=a.adam_eps))

    def pack(self, params: PyTree) -> PyTree:
        return self.layout.pack(params)

    def unpack(self, params: PyTree) -> PyTree:
        return self.layout.unpack(params)

    def init_core(self, key: Key) -> Core:
        params = self.pack(self.make(key))
        return Core(params, jax.tree.map(jnp.copy, params), self.optimizer.init(params), jnp.int32(0))

    def out(self, params: PyTree, obs: PyTree, taus: Array | None, key: Key | None = None) -> Array:
        """What the network says, `[B, A, K]`. taus: `[B, K]` for iqn. key: of noisy layers; None gives their mean."""
        extra = (taus,) if self.implicit else ()
        rngs = {NOISE: key} if self.algorithm.noisy and key is not None else None
        seen, _ = self.split(obs)
        return self.network.apply({"params": params}, seen, *extra, rngs=rngs)  # type: ignore[return-value]

    def values(self, params: PyTree, obs: PyTree, key: Key | None = None) -> Array:
        """Expected returns of all actions, `[B, A]`; FORBIDDEN for those that are not allowed."""
        batch = jax.tree.leaves(obs)[0].shape[0]
        values = self.head.values(self.out(params, obs, self.fractions(batch, None), key))
        return mask_values(values, self.split(obs)[1])

    def fractions(self, batch: int, key: Key | None) -> Array:
        """Quantile fractions `[B, K]`: drawn anew for iqn, midpoints without a key and for all others."""
        if self.implicit and key is not None:
            return jax.random.uniform(key, (batch, self.algorithm.n_fractions))
        count = self.head.outputs
        return jnp.broadcast_to((jnp.arange(count) + 0.5) / count, (batch, count))

    def exploration(self, counters: Counters, episodes: Array) -> Array:
        return jnp.float32(0.0) if self.algorithm.noisy else self.algorithm.epsilon(counters, episodes)

    def act(self, view: View, carry: PyTree, obs: PyTree, first: Array, key: Key, *, explore: bool) -> Act:
        obs, carry = self.recall(carry, obs, first)
        if not explore:
            return Act(jnp.argmax(self.values(view.params, obs), axis=1).astype(jnp.int32), carry, ())
        key_noise, key_action, key_random = jax.random.split(key, 3)
        greedy = jnp.argmax(self.values(view.params, obs, key_noise), axis=1).astype(jnp.int32)
        anything = uniform_actions(key_action, len(greedy), self.actions, self.split(obs)[1])
        random = jax.random.uniform(key_random, greedy.shape) < view.exploration
        return Act(jnp.where(random, anything, greedy), carry, ())

    def explain(self, view: View, carry: PyTree, obs: PyTree) -> dict[str, Array]:
        """Return the expected return of each action, `[N, A]`, -inf if not allowed, and the highest of them, `[N]`."""
        obs, _ = self.recall(carry, obs, jnp.ones(jax.tree.leaves(obs)[0].shape[0], jnp.bool_))
        values = self.values(view.params, obs)
        return {"action_values": hide(values, self.split(obs)[1]), "value": values.max(axis=1)}

    def refresh(self, core: Core, before: Counters, after: Counters) -> Core:
        a: DQN = self.algorithm
        due = before.steps // a.target_update_interval != after.steps // a.target_update_interval
        share = jnp.where(due, a.tau, 0.0)
        return core._replace(target=jax.tree.map(lambda t, p: t + share * (p - t), core.target, core.params))

    def update(
        self, core: Core, samples: Samples, key: Key, learning_rate: Array, progress_remaining: Array
    ) -> tuple[Core, Metrics, Array]:
        keys = Keys(*jax.random.split(key, 3))
        target = jax.lax.stop_gradient(self.target(core, samples, keys))

        def loss(packed: PyTree) -> tuple[Array, tuple[Metrics, Array]]:
            params = self.unpack(packed)
            taus = self.fractions(len(target), jax.random.fold_in(keys.online, 1))
            out = self.out(params, samples.obs, taus, keys.online)
            chosen = jnp.take_along_axis(out, samples.action[:, None, None], axis=1)[:, 0]
            losses, error = self.head.loss(chosen, target, taus)
            mean = (samples.weight * losses).mean()
            value = self.head.values(chosen[:, None])[:, 0].mean()
            return mean, ({"loss": mean, "value": value}, error)

        params, opt_state, (metrics, error), sound = gradient_step(
            self.optimizer, loss, core.params, core.opt_state, learning_rate, core.sound, guard=self.guards
        )
        core = core._replace(params=params, opt_state=opt_state, updates=core.updates + 1, sound=sound)
        return core, metrics, error

    def target(self, core: Core, samples: Samples, keys: Keys) -> Array:
        """What the network should say of the actions that were taken, `[B, K]`."""
        a: DQN = self.algorithm
        core = core._replace(params=self.unpack(core.params), target=self.unpack(core.target))
        batch = samples.reward.shape[0]
        next_out = self.out(
            core.target, samples.next_obs, self.fractions(batch, jax.random.fold_in(keys.target, 1)), keys.target
        )
        next_values = mask_values(self.head.values(next_out), self.split(samples.next_obs)[1])
        if a.munchausen:
            return self._munchausen(core, samples, next_out, next_values, keys)
        if a.double:
            next_values = self.values(core.params, samples.next_obs, keys.choosing)
        policy = jax.nn.one_hot(jnp.argmax(next_values, axis=1), self.actions)
        return self.head.target(next_out, policy, jnp.zeros_like(policy), samples.reward, samples.discount)

    def _munchausen(self, core: Core, samples: Samples, next_out: Array, next_values: Array, keys: Keys) -> Array:
        """A soft policy of the target network on both sides (Vieillard et al. 2020, equation 2)."""
        a: DQN = self.algorithm
        tau = a.munchausen_tau
        now = jax.nn.log_softmax(self.values(core.target, samples.obs, keys.choosing) / tau)
        taken = jnp.take_along_axis(now, samples.action[:, None], axis=1)[:, 0]
        reward = samples.reward + a.munchausen_alpha * (tau * taken).clip(a.munchausen_clip, 0)
        log_policy = jax.nn.log_softmax(next_values / tau)
        return self.head.target(next_out, jnp.exp(log_policy), -tau * log_policy, reward, samples.discount)
