"""Recurrent replay, R2D2 (Kapturowski et al. 2019): values of a network that remembers, from stored sequences."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple

import jax
import jax.numpy as jnp
import optax

from renshu.algorithms.base import OBSERVATIONS
from renshu.algorithms.exploration import EpsilonOfEach, epsilon_greedy_action
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
from renshu.algorithms.replay_learner import ActorState, ReplayAlgorithm, ReplayLearner, examples
from renshu.errors import HyperparameterError
from renshu.networks.encoders import check_own, default_widths
from renshu.networks.layers import ACTIVATIONS
from renshu.networks.q_network import QNetwork
from renshu.networks.recurrent import CORES, core
from renshu.ops.frame_stack import stack_frames, stack_rollout
from renshu.ops.masks import mask_for_display, mask_values
from renshu.ops.returns import n_step_returns
from renshu.ops.spaces import dummy
from renshu.ops.value_heads import rescale, unscale
from renshu.optim.train_state import Optimizers, TrainState, apply_every, polyak
from renshu.replay.sequences import SequenceBuffer, Sequences
from renshu.types import Accepts, ActorOutput, Array, EnvSpec, Key, Metrics, PyTree, TimeStep


@dataclass(frozen=True, kw_only=True)
class R2D2(EpsilonOfEach, ReplayAlgorithm):
    """Learn action values from sequences that begin with the memory which the actor had there, and a burn-in."""

    accepts: ClassVar[Accepts] = Accepts(
        observations=OBSERVATIONS, actions=frozenset({"discrete"}), frame_stack=True, masks=True
    )

    learning_rate: ScheduleLike = schedule(1e-4, "step size of Adam", least=0, traceable=True)
    buffer_size: int = integer(100_000, "steps that the memory holds, of all environments together", least=1)
    learning_starts: int = integer(1_000, "steps before the first gradient step; their actions are random", least=0)
    batch_size: int = integer(64, "sequences drawn for one gradient step", least=1)
    gamma: float = number(0.997, "discount factor", least=0, most=1, traceable=True)
    train_freq: int = integer(
        20, "steps collected of each environment between two trainings; a sequence begins with each", least=1
    )
    n_steps: int = integer(5, "rewards summed up before the value of what comes after", least=1)
    prioritized: bool = boolean(True, "draw sequences in proportion to their last error")
    prioritized_replay_alpha: float = number(0.9, "how much priorities matter: 0 not at all", least=0)
    prioritized_replay_beta: ScheduleLike = schedule(
        0.6, "importance-sampling exponent: how much weights correct the bias of priorities", least=0, traceable=True
    )
    sequence_length: int = integer(40, "steps of a sequence that are learned from", least=1)
    burn_in: int = integer(20, "steps before them, which only bring the memory up to date", least=0)
    priority_eta: float = number(
        0.9, "weight of the largest error of a sequence in its priority; the mean has the rest", least=0, most=1
    )
    target_update_interval: int = integer(400, "gradient steps between updates of the target network", least=1)
    max_grad_norm: float | None = number(
        40.0, "gradients are scaled down to this norm; None: never", above=0, optional=True
    )
    adam_eps: float = number(1e-3, "added to the deviation by which Adam divides", above=0)
    double: bool = boolean(True, "choose the next action by the network itself, value it by the target")
    dueling: bool = boolean(True, "value of the state and advantages of the actions apart")
    value_rescaling: bool = boolean(True, "learn squashed values, for rewards of any size (Pohlen 2018)")
    recurrent: str | None = choice("lstm", 'the memory: "lstm", "gru" or "mingru"', CORES[1:])
    recurrent_size: int = integer(64, "units of the memory", least=1)
    cnn: str | None = convolutions()
    net_arch: NetArch | None = layer_sizes(
        None, "widths of the hidden layers; None: (64, 64), or on images as published", optional=True
    )
    activation_fn: str = choice("relu", "activation of the hidden layers", tuple(ACTIVATIONS))
    network: Any = module("a Flax module of your own in place of the hidden layers: obs [B, ...] -> features [B, F]")

    def build(self, spec: EnvSpec) -> R2D2Learner:
        """Bind R2D2 to an environment. Raises HyperparameterError for options that do not go together."""
        return R2D2Learner(self, spec)


class Carry(NamedTuple):
    """Memory of an actor: frames of a frame stack, and the carry of the core."""

    frames: PyTree  # [N, frame_stack, ...]
    core: PyTree  # [N, ...]


class R2D2Learner(ReplayLearner[R2D2]):
    """The network, actions of each environment's own epsilon, and the loss on sequences."""

    keeps_carry = True

    def __init__(self, config: R2D2, spec: EnvSpec) -> None:
        if config.elite_episodes:
            raise HyperparameterError("R2D2: elite_episodes moves episodes, and sequences begin where rollouts did")
        super().__init__(config, spec)
        space = self.observation_space
        if config.network is not None:
            check_own(config.network, space)
        self.actions = int(spec.action_space.n)  # type: ignore[attr-defined]
        self.core = core(str(config.recurrent), config.recurrent_size)
        self.network = QNetwork(
            space=space,
            actions=self.actions,
            widths=config.net_arch.vf if config.net_arch else default_widths(space, config.cnn, (64, 64)),
            cnn=config.cnn,
            activation=config.activation_fn,
            torso=None if config.network is None else config.network.copy(name=None),
            dueling=config.dueling,
            core=self.core,
        )
        clip = optax.identity() if config.max_grad_norm is None else optax.clip_by_global_norm(config.max_grad_norm)
        adam = optax.chain(clip, optax.scale_by_adam(eps=config.adam_eps))
        self.optim = Optimizers({"network": adam}, guard=self.guards_each_step)

    def make_replay(self) -> SequenceBuffer:
        config = self.config
        length, rows = config.burn_in + config.sequence_length, config.buffer_size // self.spec.num_envs
        whole = -(-length // config.train_freq) * config.train_freq
        if rows < whole:
            raise HyperparameterError(
                f"R2D2: sequences of {length} steps begin where rollouts of {config.train_freq} did, and the memory "
                f"holds {rows} steps of each of {self.spec.num_envs} environments: give buffer_size >= "
                f"{whole * self.spec.num_envs}"
            )
        return SequenceBuffer(
            config.buffer_size,
            *examples(self.spec),
            num_envs=self.spec.num_envs,
            rollout_length=config.train_freq,
            sequence_length=length,
            alpha=config.prioritized_replay_alpha if config.prioritized else None,
            own_heads=self.spec.rollout_envs is not None,
        )

    def init_train(self, key: Key) -> TrainState:
        memory = self.core.initial_carry(1), jnp.ones((1, 1), jnp.bool_)
        params = {"network": self.network.init(key, dummy(self.observation_space, 1), memory=memory)["params"]}
        return TrainState(params, jax.tree.map(jnp.copy, params), self.optim.init(params), jnp.int32(0))

    # --- acting -----------------------------------------------------------------------------------------------------

    def initial_carry(self, num_envs: int) -> Carry:
        return Carry(super().initial_carry(num_envs), self.core.initial_carry(num_envs))

    def values(self, params: PyTree, carry: PyTree, obs: PyTree, first: Array) -> tuple[Array, PyTree]:
        """Estimate squashed returns of all actions in T steps, `[T, B, A]`, and the carry after them.

        carry: of the core, `[B, ...]`. obs: `[T, B, ...]`, stacked, with the mask. first: `[T, B]`.
        """
        rows = jax.tree.map(lambda x: x.reshape(-1, *x.shape[2:]), obs)
        seen, mask = self.split(rows)
        variables = {"params": params["network"]}
        out, carry = self.network.apply(variables, seen, memory=(carry, first))  # type: ignore[misc]
        return mask_values(out[..., 0], mask).reshape(*first.shape, self.actions), carry

    def epsilon(self, acting: ActorState, timestep: TimeStep) -> Array:
        """Compute the share of random actions of each environment, `[N]`."""
        return jnp.maximum(self.config.epsilons(timestep, self.spec.num_envs), acting.exploration)

    def act(self, acting: ActorState, carry: Carry, timestep: TimeStep, key: Key, *, explore: bool) -> ActorOutput:
        obs, frames = stack_frames(carry.frames, timestep.obs, timestep.first)
        now = jax.tree.map(lambda x: x[None], (obs, timestep.first))
        values, memory = self.values(acting.params, carry.core, *now)
        carry = Carry(frames, memory)
        if not explore:
            return ActorOutput(jnp.argmax(values[0], axis=1).astype(jnp.int32), carry)
        mask = self.split(obs)[1]
        return ActorOutput(epsilon_greedy_action(values[0], self.epsilon(acting, timestep), key, mask), carry)

    def explain(self, acting: ActorState, carry: Carry, timestep: TimeStep) -> dict[str, Array]:
        """Return the expected return of each action, `[N, A]`, -inf if not allowed, and the highest of them, `[N]`."""
        obs, _ = stack_frames(carry.frames, timestep.obs, timestep.first)
        now = jax.tree.map(lambda x: x[None], (obs, timestep.first))
        values = self.returns_of(self.values(acting.params, carry.core, *now)[0][0])
        return {"action_values": mask_for_display(values, self.split(obs)[1]), "value": values.max(axis=1)}

    def returns_of(self, values: Array) -> Array:
        """Turn the network's values into returns."""
        return unscale(values) if self.config.value_rescaling else values

    # --- learning ---------------------------------------------------------------------------------------------------

    def gradient_step(
        self, train_state: TrainState, batch: Sequences, key: Key, learning_rate: Array
    ) -> tuple[TrainState, Metrics, Array]:
        """Move the values of the actions taken towards n-step targets, in the steps after the burn-in (section 2.3)."""
        config, rollout, begin = self.config, batch.rollout, self.config.burn_in
        obs = stack_rollout(rollout.carry.frames, rollout.obs, rollout.first)
        early, late = (jax.tree.map(lambda x, part=part: x[part], (obs, rollout.first)) for part in _split(begin))

        def unroll(params: PyTree) -> Array:
            carry = self.values(jax.lax.stop_gradient(params), rollout.carry.core, *early)[1] if begin else None
            return self.values(params, rollout.carry.core if carry is None else carry, *late)[0]

        reward, terminated, valid, action = (
            x[begin:] for x in (rollout.reward, rollout.terminated, rollout.valid, rollout.action)
        )
        late_values = unroll(train_state.target)

        def loss(network: PyTree) -> tuple[Array, tuple[Metrics, Array]]:
            values = unroll({"network": network})
            best = jnp.argmax(values if config.double else late_values, axis=-1)[..., None]
            after = self.returns_of(jnp.take_along_axis(late_values, best, axis=-1)[..., 0])
            target = n_step_returns(reward, after, terminated, valid, config.gamma, config.n_steps)
            target = jax.lax.stop_gradient(rescale(target) if config.value_rescaling else target)
            chosen = jnp.take_along_axis(values[:-1], action[..., None], axis=-1)[..., 0]
            error = jnp.where(valid, target - chosen, 0.0)
            count = jnp.maximum(valid.sum(axis=0), 1)
            mean = (batch.weight * (error**2).sum(axis=0) / count).mean()
            size = jnp.abs(error)
            priority = config.priority_eta * size.max(axis=0) + (1 - config.priority_eta) * size.sum(axis=0) / count
            shown = jnp.where(valid, self.returns_of(chosen), 0.0).sum() / jnp.maximum(valid.sum(), 1)
            return mean, ({"loss": mean, "value": shown}, priority)

        train_state, (metrics, priority) = self.optim.step(train_state, "network", loss, learning_rate)
        train_state = train_state._replace(updates=train_state.updates + 1)
        train_state = apply_every(config.target_update_interval, lambda state: polyak(state, 1.0), train_state)
        return train_state, metrics, priority


def _split(begin: int) -> tuple[slice, slice]:
    return slice(None, begin), slice(begin, None)
