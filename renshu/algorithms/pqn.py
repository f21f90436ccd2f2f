"""Parallelised Q-network (Gallici et al. 2024, "Simplifying deep temporal difference learning", arXiv:2407.04811).

Q-learning from what many environments just gave: no memory, no late copy. Layer normalisation keeps it from diverging.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple

import jax
import jax.numpy as jnp
import optax

from renshu.algorithms.base import OBSERVATIONS, Algorithm, Learner
from renshu.algorithms.exploration import EpsilonGreedy, epsilon_greedy_action
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
from renshu.networks.actor_critic import ACTIVATIONS, check_own
from renshu.networks.q_network import QNetwork
from renshu.ops.descent import descent, keep_if_finite
from renshu.ops.history import nothing_seen, recall, recall_all, stacked_space
from renshu.ops.masks import hide, mask_values
from renshu.ops.returns import gae
from renshu.ops.schedules import value_of
from renshu.ops.shuffling import check_minibatches, minibatch, minibatches
from renshu.ops.spaces import dummy
from renshu.ops.statistics import masked_mean
from renshu.types import Accepts, Act, Array, Counters, EnvSpec, Key, Metrics, PyTree, Rollout


@dataclass(frozen=True, kw_only=True)
class PQN(EpsilonGreedy, Algorithm):
    """Several epochs of minibatch steps on each rollout, towards Q(lambda) returns. It wants many environments."""

    accepts: ClassVar[Accepts] = Accepts(
        observations=OBSERVATIONS, actions=frozenset({"discrete"}), history=True, masks=True
    )

    learning_rate: ScheduleLike = schedule(2.5e-4, "step size of RAdam", least=0)
    n_steps: int = whole(32, "steps collected of each environment for one update", least=1)
    batch_size: int = whole(32, "steps in a minibatch; divides n_steps * num_envs", least=1)
    n_epochs: int = whole(2, "passes over each rollout", least=1)
    gamma: float = real(0.99, "discount factor", least=0, most=1)
    td_lambda: float = real(0.65, "0: targets of one reward and the value after it; 1: of all rewards", least=0, most=1)
    max_grad_norm: float = real(10.0, "gradients are scaled down to this norm", above=0)
    layer_norm: bool = flag(True, "normalise the hidden layers")
    net_arch: NetArch = widths((128, 128), "widths of the hidden layers")
    activation_fn: str = choice("relu", "activation of the hidden layers", tuple(ACTIVATIONS))
    network: Any = module("a Flax module of your own in place of the hidden layers: obs [B, ...] -> features [B, F]")

    def build(self, spec: EnvSpec) -> PQNLearner:
        """Bind PQN to an environment. Raises HyperparameterError where the minibatches do not divide the rollout."""
        return PQNLearner(self, spec)


class State(NamedTuple):
    """Everything that learning changes."""

    params: PyTree
    opt_state: PyTree
    counters: Counters
    episodes: Array  # [] int32  episodes that ended
    exploration: Array  # [] float32  the share of random actions


class View(NamedTuple):
    """What acting needs."""

    params: PyTree
    exploration: Array


class Batch(NamedTuple):
    """Steps to learn from, `[B, ...]`."""

    obs: PyTree
    action: Array
    target: Array  # the Q(lambda) return
    valid: Array  # bool


class PQNLearner(Learner[State]):
    """The network, epsilon-greedy actions, Q(lambda) returns and the loss."""

    algorithm: Any
    max_lag = 0

    def __init__(self, algorithm: PQN, spec: EnvSpec) -> None:
        super().__init__(algorithm, spec)
        a, self.history, space = algorithm, spec.history, spec.network_space
        check_minibatches("PQN", a.n_steps, spec.num_envs, a.batch_size)
        if self.history > 1:
            space = stacked_space(space, self.history)  # as the network sees it
        if a.network is not None:
            check_own(a.network, space)
        self.rollout_length = a.n_steps
        self.network = QNetwork(
            space=space,
            actions=int(spec.action_space.n),  # type: ignore[attr-defined]
            widths=a.net_arch.vf,
            activation=a.activation_fn,
            torso=None if a.network is None else a.network.copy(name=None),
            layer_norm=a.layer_norm,
        )
        self.example = dummy(space, 1)
        self.descent = descent(optax.chain(optax.clip_by_global_norm(a.max_grad_norm), optax.scale_by_radam()))

    def init(self, key: Key) -> State:
        params = self.network.init(key, self.example)["params"]
        counters, episodes = Counters.zeros(), jnp.int32(0)
        exploration = self.exploration(counters._replace(target=jnp.int32(1)), episodes)
        return State(params, self.descent.init(params), counters, episodes, exploration)

    def view(self, state: State) -> View:
        return View(state.params, state.exploration)

    def carry(self, num_envs: int) -> PyTree:
        return nothing_seen(self.spec.observation_space, self.history, num_envs) if self.history > 1 else ()

    def exploration(self, counters: Counters, episodes: Array) -> Array:
        """The share of random actions, [] float32."""
        return jnp.asarray(self.algorithm.epsilon(counters, episodes), jnp.float32)

    def values(self, params: PyTree, obs: PyTree) -> Array:
        """Expected returns of all actions, allowed or not, `[B, A]`. obs: `[B, ...]`, with mask and history."""
        return self.network.apply({"params": params}, self.split(obs)[0])[..., 0]  # type: ignore[index]

    def act(self, view: View, carry: PyTree, obs: PyTree, first: Array, key: Key, *, explore: bool) -> Act:
        obs, carry = recall(carry, obs, first)
        mask = self.split(obs)[1]
        values = mask_values(self.values(view.params, obs), mask)
        if explore:
            return Act(epsilon_greedy_action(values, view.exploration, key, mask), carry, ())
        return Act(jnp.argmax(values, axis=1).astype(jnp.int32), carry, ())

    def explain(self, view: View, carry: PyTree, obs: PyTree) -> dict[str, Array]:
        """Return the expected return of each action, `[N, A]`, -inf if not allowed, and the highest of them, `[N]`."""
        obs, _ = recall(carry, obs, jnp.ones(jax.tree.leaves(obs)[0].shape[0], jnp.bool_))
        values = hide(self.values(view.params, obs), self.split(obs)[1])
        return {"action_values": values, "value": values.max(axis=1)}

    def learn(self, state: State, rollout: Rollout, key: Key) -> tuple[State, Metrics]:
        a: PQN = self.algorithm
        rate = value_of(a.learning_rate, state.counters.progress_remaining)
        batch = self.prepare(state.params, rollout)

        def loss(params: PyTree, order: Array) -> tuple[Array, Metrics]:
            return self.loss(params, minibatch(batch, order))

        orders = minibatches(key, batch.valid.shape[0], a.batch_size, a.n_epochs)
        params, opt_state, taken, metrics = self.descent.run(loss, state.params, state.opt_state, orders, rate)
        params, opt_state = keep_if_finite((params, opt_state), (state.params, state.opt_state), metrics)
        counters = state.counters.add(steps=rollout.valid.sum(dtype=jnp.int32), updates=taken)
        # A step of one environment after the first of an episode was a reset: an episode ended before it.
        episodes = state.episodes + rollout.first[1:].sum(dtype=jnp.int32)
        exploration = self.exploration(counters, episodes)
        state = State(params, opt_state, counters, episodes, exploration)
        return state, {**metrics, "learning_rate": rate, "exploration": exploration}

    def prepare(self, params: PyTree, rollout: Rollout) -> Batch:
        """From a rollout to a flat batch `[T * N]`, with targets by the parameters that acted.

        The Q(lambda) return, R_t = r_t + gamma ((1 - lambda) max_a Q(s_t+1, a) + lambda R_t+1), is the value
        max_a Q(s_t, a) and the generalised advantage over it. It is Peng's: random actions do not cut it.
        """
        a: PQN = self.algorithm
        T, N = rollout.reward.shape
        obs = recall_all(rollout.carry, rollout.obs, rollout.first)
        obs = jax.tree.map(lambda x: x.reshape((T + 1) * N, *x.shape[2:]), obs)
        value = mask_values(self.values(params, obs), self.split(obs)[1]).max(axis=1).reshape(T + 1, N)
        target = value[:-1] + gae(rollout.reward, value, rollout.terminated, rollout.valid, a.gamma, a.td_lambda)
        acted_on = jax.tree.map(lambda x: x[: T * N], obs)
        return Batch(acted_on, *(jnp.asarray(x).reshape(-1) for x in (rollout.action, target, rollout.valid)))

    def loss(self, params: PyTree, batch: Batch) -> tuple[Array, Metrics]:
        """Half the squared distance of Q(s, a) from its target, over steps that were real."""
        values = self.values(params, batch.obs)
        chosen = jnp.take_along_axis(values, batch.action[:, None], axis=1)[:, 0]
        loss = 0.5 * masked_mean((chosen - batch.target) ** 2, batch.valid)
        return loss, {"value": masked_mean(chosen, batch.valid)}
