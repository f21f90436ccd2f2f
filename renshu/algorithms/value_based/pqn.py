"""Parallelised Q-network (Gallici et al. 2024, "Simplifying deep temporal difference learning", arXiv:2407.04811).

Q-learning on fresh rollouts of many environments: no memory, no target network. Layer normalisation
keeps it from diverging.
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
    GAMMAS,
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
from renshu.networks.encoders import check_own, default_widths
from renshu.networks.layers import ACTIVATIONS
from renshu.networks.q_network import QNetwork
from renshu.ops.frame_stack import empty_frames, stack_frames, stack_rollout, stacked_space
from renshu.ops.masks import mask_for_display, mask_values
from renshu.ops.returns import gae
from renshu.ops.schedules import value_of
from renshu.ops.spaces import dummy
from renshu.ops.statistics import masked_mean
from renshu.optim.gradient_steps import minibatch_descent
from renshu.optim.guards import keep_and_tell
from renshu.optim.minibatches import check_minibatches, minibatch, minibatches
from renshu.types import Accepts, ActorOutput, Array, Counters, EnvSpec, Key, Metrics, Needs, PyTree, Rollout, TimeStep


@dataclass(frozen=True, kw_only=True)
class PQN(EpsilonGreedy, Algorithm):
    """Several epochs of minibatch steps on each rollout, towards Q(lambda) returns. It wants many environments."""

    accepts: ClassVar[Accepts] = Accepts(
        observations=OBSERVATIONS, actions=frozenset({"discrete"}), frame_stack=True, masks=True
    )

    learning_rate: ScheduleLike = schedule(2.5e-4, "step size of RAdam", least=0, traceable=True, tune=(1e-5, 1e-2))
    n_steps: int = integer(32, "steps collected of each environment for one update", least=1, tune=[8, 16, 32, 64, 128])
    batch_size: int = integer(
        32, "steps in a minibatch; divides n_steps * num_envs", least=1, tune=[32, 64, 128, 256, 512]
    )
    n_epochs: int = integer(2, "passes over each rollout", least=1, tune=(1, 8))
    gamma: float = number(0.99, "discount factor", least=0, most=1, traceable=True, tune=GAMMAS)
    td_lambda: float = number(
        0.65,
        "0: targets of one reward and the value after it; 1: of all rewards",
        least=0,
        most=1,
        traceable=True,
        tune=(0.0, 1.0),
    )
    reward_clipping: bool = boolean(False, "learn from the sign of the reward, as is usual in Atari games (Mnih 2015)")
    max_grad_norm: float = number(10.0, "gradients are scaled down to this norm", above=0)
    layer_norm: bool = boolean(True, "normalise the hidden layers")
    cnn: str | None = convolutions()
    net_arch: NetArch | None = layer_sizes(
        None, "widths of the hidden layers; None: (128, 128), or on images as published", optional=True
    )
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
    exploration: Array  # [] float32  the share of random actions


class ActorState(NamedTuple):
    """The part of the state that acting needs."""

    params: PyTree
    exploration: Array


class Batch(NamedTuple):
    """Steps to learn from, `[B, ...]`."""

    obs: PyTree
    action: Array
    target: Array  # the Q(lambda) return
    valid: Array  # bool


class PQNLearner(Learner[PQN, State]):
    """The network, epsilon-greedy actions, Q(lambda) returns and the loss."""

    guards_itself = True

    def __init__(self, algorithm: PQN, spec: EnvSpec) -> None:
        super().__init__(algorithm, spec)
        a, self.frame_stack, space = algorithm, spec.frame_stack, spec.network_space
        check_minibatches("PQN", a.n_steps, spec.num_envs, a.batch_size)
        if self.frame_stack > 1:
            space = stacked_space(space, self.frame_stack)  # as the network sees it
        if a.network is not None:
            check_own(a.network, space)
        self.needs = Needs(steps=a.n_steps)
        self.network = QNetwork(
            space=space,
            actions=int(spec.action_space.n),  # type: ignore[attr-defined]
            widths=a.net_arch.vf if a.net_arch else default_widths(space, a.cnn, (128, 128)),
            cnn=a.cnn,
            activation=a.activation_fn,
            torso=None if a.network is None else a.network.copy(name=None),
            layer_norm=a.layer_norm,
        )
        self.example = dummy(space, 1)
        self.minibatch_descent = minibatch_descent(
            optax.chain(optax.clip_by_global_norm(a.max_grad_norm), optax.scale_by_radam())
        )

    def init(self, key: Key) -> State:
        params = self.network.init(key, self.example)["params"]
        counters = Counters.zeros()
        exploration = self.exploration(counters._replace(target=jnp.int32(1)))
        return State(params, self.minibatch_descent.init(params), counters, exploration)

    def actor_state(self, state: State) -> ActorState:
        return ActorState(state.params, state.exploration)

    def initial_carry(self, num_envs: int) -> PyTree:
        return empty_frames(self.spec.observation_space, self.frame_stack, num_envs) if self.frame_stack > 1 else ()

    def exploration(self, counters: Counters, before: Array | float = 1.0) -> Array:
        """Compute the share of random actions, [] float32, no more than `before`."""
        return jnp.asarray(self.config.epsilon(counters, before), jnp.float32)

    def values(self, params: PyTree, obs: PyTree) -> Array:
        """Estimate returns of all actions, allowed or not, `[B, A]`. obs: `[B, ...]`, with mask and frame stack."""
        return self.network.apply({"params": params}, self.split(obs)[0])[..., 0]  # type: ignore[index]

    def act(self, acting: ActorState, carry: PyTree, timestep: TimeStep, key: Key, *, explore: bool) -> ActorOutput:
        obs, carry = stack_frames(carry, timestep.obs, timestep.first)
        mask = self.split(obs)[1]
        values = mask_values(self.values(acting.params, obs), mask)
        if explore:
            return ActorOutput(epsilon_greedy_action(values, acting.exploration, key, mask), carry)
        return ActorOutput(jnp.argmax(values, axis=1).astype(jnp.int32), carry)

    def explain(self, acting: ActorState, carry: PyTree, timestep: TimeStep) -> dict[str, Array]:
        """Return the expected return of each action, `[N, A]`, -inf if not allowed, and the highest of them, `[N]`."""
        obs, _ = stack_frames(carry, timestep.obs, timestep.first)
        values = mask_for_display(self.values(acting.params, obs), self.split(obs)[1])
        return {"action_values": values, "value": values.max(axis=1)}

    def learn(self, state: State, rollout: Rollout, key: Key) -> tuple[State, Metrics]:
        a = self.config
        counters = state.counters.after(rollout)
        rate = value_of(a.learning_rate, counters.progress_remaining)
        batch = self.make_batch(state.params, rollout)

        def loss(params: PyTree, order: Array) -> tuple[Array, Metrics]:
            return self.loss(params, minibatch(batch, order))

        orders = minibatches(key, batch.valid.shape[0], a.batch_size, a.n_epochs)
        params, opt_state, taken, metrics = self.minibatch_descent.run(
            loss, state.params, state.opt_state, orders, rate
        )
        new, old = (params, opt_state), (state.params, state.opt_state)
        (params, opt_state), metrics = keep_and_tell(new, old, metrics)
        counters = counters._replace(updates=counters.updates + taken)
        exploration = self.exploration(counters, state.exploration)
        state = State(params, opt_state, counters, exploration)
        return state, {**metrics, "learning_rate": rate, "exploration": exploration}

    def make_batch(self, params: PyTree, rollout: Rollout) -> Batch:
        """Make a flat batch `[T * N]` of a rollout, with targets by the parameters that acted.

        The Q(lambda) return, R_t = r_t + gamma ((1 - lambda) max_a Q(s_t+1, a) + lambda R_t+1), is the value
        max_a Q(s_t, a) and the generalised advantage over it. It is Peng's: random actions do not cut it.
        """
        a = self.config
        T, N = rollout.reward.shape
        reward = jnp.sign(rollout.reward) if a.reward_clipping else rollout.reward
        obs = stack_rollout(rollout.carry, rollout.obs, rollout.first)
        obs = jax.tree.map(lambda x: x.reshape((T + 1) * N, *x.shape[2:]), obs)
        value = mask_values(self.values(params, obs), self.split(obs)[1]).max(axis=1).reshape(T + 1, N)
        target = value[:-1] + gae(reward, value, rollout.terminated, rollout.valid, a.gamma, a.td_lambda)
        acted_on = jax.tree.map(lambda x: x[: T * N], obs)
        return Batch(acted_on, *(jnp.asarray(x).reshape(-1) for x in (rollout.action, target, rollout.valid)))

    def loss(self, params: PyTree, batch: Batch) -> tuple[Array, Metrics]:
        """Compute half the squared distance of Q(s, a) from its target, over steps that were real."""
        values = self.values(params, batch.obs)
        chosen = jnp.take_along_axis(values, batch.action[:, None], axis=1)[:, 0]
        loss = 0.5 * masked_mean((chosen - batch.target) ** 2, batch.valid)
        return loss, {"value": masked_mean(chosen, batch.valid)}
