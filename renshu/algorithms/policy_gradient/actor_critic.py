"""Common part of PPO and A2C: a policy and a value function, learned from rollouts of the policy itself."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple, TypeVar

import jax
import jax.numpy as jnp
import optax

from renshu.algorithms.base import KINDS, OBSERVATIONS, Algorithm, Learner
from renshu.algorithms.hyperparameters import (
    GAE_LAMBDAS,
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
from renshu.algorithms.sde import sample_freq
from renshu.networks.actor_critic import Inputs, actor_critic, masked
from renshu.networks.encoders import default_widths
from renshu.networks.heads import Distribution, describe
from renshu.networks.layers import ACTIVATIONS
from renshu.networks.recurrent import CORES
from renshu.networks.state_noise import initial_noise, resample
from renshu.ops.adopted import adopted
from renshu.ops.frame_stack import empty_frames, stack_frames, stack_rollout, stacked_space
from renshu.ops.images import has_images
from renshu.ops.observations import init_observation_stats, normalize_observations, update_observation_stats
from renshu.ops.returns import gae
from renshu.ops.schedules import value_of
from renshu.ops.spaces import is_continuous, map_space
from renshu.ops.statistics import RunningStats, init_stats, running_returns, update_stats
from renshu.optim.gradient_steps import minibatch_descent
from renshu.optim.guards import keep_and_tell, keep_if, keep_if_finite
from renshu.types import Accepts, ActorOutput, Array, Counters, EnvSpec, Key, Metrics, Needs, PyTree, Rollout, TimeStep


@dataclass(frozen=True, kw_only=True)
class ActorCriticAlgorithm(Algorithm):
    """Hyperparameters of PPO and A2C; names and meaning as in Stable-Baselines3."""

    accepts: ClassVar[Accepts] = Accepts(observations=OBSERVATIONS, actions=KINDS, frame_stack=True, masks=True)

    learning_rate: ScheduleLike = schedule(
        7e-4, "step size of the optimiser", least=0, traceable=True, tune=(1e-5, 1e-2)
    )
    n_steps: int = integer(
        5, "steps collected of each environment for one update", least=1, tune=[5, 8, 16, 32, 64, 128]
    )
    gamma: float = number(0.99, "discount factor", least=0, most=1, traceable=True, tune=GAMMAS)
    gae_lambda: float = number(
        1.0, "bias against variance of the advantage estimate", least=0, most=1, traceable=True, tune=GAE_LAMBDAS
    )
    normalize_advantage: bool = boolean(False, "give advantages zero mean and unit deviation within a minibatch")
    ent_coef: float = number(0.0, "weight of the entropy bonus in the loss", least=0, traceable=True, tune=(1e-8, 0.1))
    vf_coef: float = number(0.5, "weight of the value loss in the loss", least=0, traceable=True, tune=(0.2, 1.0))
    max_grad_norm: float = number(0.5, "gradients are scaled down to this norm", above=0, tune=(0.3, 5.0))
    norm_obs: bool = boolean(
        False, "normalise continuous observations by their running mean and deviation; the first rollout acts without"
    )
    reward_clipping: bool = boolean(False, "learn from the sign of the reward, as is usual in Atari games (Mnih 2015)")
    norm_reward: bool = boolean(False, "divide rewards by the running deviation of the discounted return")
    clip_obs: float = number(10.0, "normalised observations are clipped at +- this", above=0, traceable=True)
    clip_reward: float = number(10.0, "normalised rewards are clipped at +- this", above=0, traceable=True)
    cnn: str | None = convolutions()
    net_arch: NetArch | None = layer_sizes(
        None,
        'widths of the hidden layers: a list, or {"pi": [...], "vf": [...]}; None: (64, 64), or on images as published',
        optional=True,
    )
    activation_fn: str | None = choice(
        None, "activation of the hidden layers; None: tanh, or on images relu", (None, *ACTIVATIONS)
    )
    ortho_init: bool = boolean(True, "orthogonal initialisation of the weights")
    share_features_extractor: bool | None = boolean(
        None,
        "policy and value function share convolution and hidden layers (widths of pi); None: on images",
        optional=True,
    )
    log_std_init: float = number(0.0, "initial log deviation of continuous actions, or of state-dependent noise")
    squash_output: bool = boolean(False, "squash continuous actions by tanh instead of clipping them")
    recurrent: str | None = choice(
        None, 'a memory on top of the hidden layers: "lstm", "gru" or "mingru", which learns fastest', CORES
    )
    recurrent_size: int = integer(64, "units of the memory", least=1)
    network: Any = module("a Flax module of your own in place of the hidden layers: obs [B, ...] -> features [B, F]")


Config = TypeVar("Config", bound=ActorCriticAlgorithm)


class State(NamedTuple):
    """Everything that learning changes."""

    params: PyTree
    opt_state: PyTree
    obs_stats: PyTree  # RunningStats at each continuous leaf of the observation; () elsewhere, or as a whole
    reward_stats: RunningStats | tuple[()]  # of the discounted return
    returns: Array | tuple[()]  # [N] discounted return so far
    counters: Counters


class ActorState(NamedTuple):
    """The part of the state that acting and explaining need."""

    params: PyTree
    obs_stats: PyTree
    reward_stats: RunningStats | tuple[()]


class Batch(NamedTuple):
    """Steps to learn from, `[T * N, ...]`; `[N, T, ...]`, whole environments, where the policy is recurrent."""

    obs: PyTree
    action: PyTree
    log_prob: Array  # under the policy that acted; () where it is not needed
    value: Array  # before the update
    advantage: Array
    target: Array  # of the value function: advantage + value
    valid: Array  # bool
    first: Array = ()  # [N, T] bool  the obs is an episode's first
    carry: PyTree = ()  # [N, ...]  of the memory, before the first step


class Carry(NamedTuple):
    """Memory of an actor; () where it has none of a kind. Without cores and noise the frames stand alone."""

    frames: PyTree = ()  # [N, frame_stack, ...]  of a frame stack
    cores: PyTree = ()  # [N, ...]  of recurrent cores
    noise: PyTree = ()  # StateDependentNoise


class ActorCriticLearner(Learner[Config, State]):
    """Networks, normalisation, acting and advantages. A subclass has the optimiser and `learn`."""

    guards_itself = True
    records_log_prob: ClassVar[bool] = False
    """True where the log-probability of each action goes into rollouts, which a later policy will learn from."""

    def __init__(self, algorithm: Config, spec: EnvSpec) -> None:
        super().__init__(algorithm, spec)
        self.needs = Needs(steps=algorithm.n_steps, max_lag=getattr(algorithm, "max_lag", 0))
        space = spec.network_space  # as the network sees it
        if spec.frame_stack > 1:
            space = stacked_space(space, spec.frame_stack)
        self.sample_freq = sample_freq(algorithm, spec.action_space, "n_steps")
        self.use_sde = self.sample_freq > 0
        on_images = has_images(space, algorithm.cnn is not None)
        share = algorithm.share_features_extractor
        self.network = actor_critic(
            space,
            spec.action_space,
            net_arch=algorithm.net_arch or NetArch(*[default_widths(space, algorithm.cnn, (64, 64))] * 2),
            activation_fn=algorithm.activation_fn or ("relu" if on_images else "tanh"),
            cnn=algorithm.cnn,
            ortho_init=algorithm.ortho_init,
            share_features_extractor=on_images if share is None else share,
            log_std_init=algorithm.log_std_init,
            squash_output=algorithm.squash_output,
            network=algorithm.network,
            recurrent=algorithm.recurrent,
            recurrent_size=algorithm.recurrent_size,
            use_sde=self.use_sde,
        )
        self.recurrent = algorithm.recurrent is not None
        if spec.masks:
            self.network = masked(self.network)
        clip = optax.clip_by_global_norm(algorithm.max_grad_norm)
        self.minibatch_descent = minibatch_descent(optax.chain(clip, self.optimizer()))

    @abstractmethod
    def optimizer(self) -> optax.GradientTransformation:
        """Make the optimiser, without its learning rate and gradient clipping."""

    def init(self, key: Key) -> State:
        params = self.network.init(key)
        a, n = self.config, self.spec.num_envs
        return State(
            params=params,
            opt_state=self.minibatch_descent.init(params),
            obs_stats=init_observation_stats(self.spec.observation_space) if a.norm_obs else (),
            reward_stats=init_stats(()) if a.norm_reward else (),
            returns=jnp.zeros(n, jnp.float32) if a.norm_reward else (),
            counters=Counters.zeros(),
        )

    def start_from(self, state: State, params: PyTree) -> State:
        """Begin at the weights of another's networks, of those parts that both have; the optimiser begins anew."""
        params = adopted(state.params, params)
        return state._replace(params=params, opt_state=self.minibatch_descent.init(params))

    def actor_state(self, state: State) -> ActorState:
        return ActorState(state.params, state.obs_stats, state.reward_stats)

    def initial_carry(self, num_envs: int) -> PyTree:
        count = self.spec.frame_stack
        frames = empty_frames(self.spec.observation_space, count, num_envs) if count > 1 else ()
        noise = initial_noise(num_envs, self.network.noise_shape()) if self.use_sde else ()
        return self.packed(Carry(frames, self.network.initial_carry(num_envs), noise))

    def packed(self, carry: Carry) -> PyTree:
        """Return a carry as loops keep it: a feed-forward policy has frames alone, or nothing."""
        return carry if self.recurrent or self.use_sde else carry.frames

    def unpacked(self, carry: PyTree) -> Carry:
        """Return the parts of a carry that loops kept."""
        return Carry(*carry) if self.recurrent or self.use_sde else Carry(carry)

    def seen(self, acting: ActorState, carry: PyTree, timestep: TimeStep) -> tuple[Inputs, Carry]:
        """Return the network's inputs in a step, and the memory with newer frames."""
        memory = self.unpacked(carry)
        obs, frames = stack_frames(memory.frames, timestep.obs, timestep.first)
        first = timestep.first[None] if self.recurrent else ()
        return Inputs(self.normalized(acting.obs_stats, obs), memory.cores, first), memory._replace(frames=frames)

    def act(self, acting: ActorState, carry: PyTree, timestep: TimeStep, key: Key, *, explore: bool) -> ActorOutput:
        inputs, memory = self.seen(acting, carry, timestep)
        if self.use_sde and explore:
            noise = resample(memory.noise, timestep.first, key, self.sample_freq)
            action, cores = self.network.explore(acting.params, inputs, noise.matrix)
            memory = memory._replace(noise=noise)
        else:
            if self.recurrent:
                policy, _, cores = self.network.both(acting.params, inputs)
            else:
                policy, cores = self.network.policy(acting.params, inputs), ()
            action = policy.sample(key) if explore else policy.mode()
        carry = self.packed(memory._replace(cores=cores) if self.recurrent else memory)
        extras = self.network.both(acting.params, inputs)[0].log_prob(action) if self.records_log_prob else ()
        return ActorOutput(action, carry, extras)

    def explain(self, acting: ActorState, carry: PyTree, timestep: TimeStep) -> dict[str, Array]:
        """Return the policy's parameters and the value, `[N, ...]`; the value is in the units of the raw reward."""
        policy, value, _ = self.network.both(acting.params, self.seen(acting, carry, timestep)[0])
        if isinstance(acting.reward_stats, RunningStats):
            value = value * jnp.sqrt(acting.reward_stats.var + 1e-8)
        return {**describe(policy), "value": value}

    def resize(self, state: State) -> State:
        """Restart the running returns where the number of environments differs; the rest stays."""
        if not self.config.norm_reward or state.returns.shape == (self.spec.num_envs,):  # type: ignore[union-attr]
            return state
        return state._replace(returns=jnp.zeros(self.spec.num_envs, jnp.float32))

    def normalized(self, obs_stats: PyTree, obs: PyTree) -> PyTree:
        """Normalise observations `[B, ...]` by running mean and deviation, clipped; without `norm_obs` do nothing."""
        if not self.config.norm_obs:
            return obs
        return normalize_observations(self.spec.observation_space, obs_stats, obs, self.config.clip_obs)

    def look(self, state: State, rollout: Rollout) -> tuple[State, Inputs, Inputs, Array]:
        """Count a rollout, and return the state with newer statistics, inputs of its T + 1 rows, and rewards `[T, N]`.

        The inputs are those that were acted on, and those to learn from: in the first rollout, before which there were
        no statistics, they go by its own.
        """
        memory = self.unpacked(rollout.carry)
        after = self._counted(state, rollout, flat(rollout.obs))
        obs = flat(stack_rollout(memory.frames, rollout.obs, rollout.first))
        first = rollout.first if self.recurrent else ()
        acted = Inputs(self.normalized(state.obs_stats, obs), memory.cores, first)
        learned = acted._replace(obs=self.normalized(self._known(state.obs_stats, after.obs_stats), obs))
        reward, after = self._scaled_reward(after, rollout)
        return self._finite(after, state), acted, learned, reward

    def advantages(self, rollout: Rollout, reward: Array, value: Array, obs: PyTree, log_prob: Array = ()) -> Batch:
        """Make a flat batch `[T * N]` with advantages. value: `[(T + 1) * N]`. obs: of as many rows."""
        T, N = reward.shape
        value = value.reshape(T + 1, N)
        advantage, target = self.estimates(rollout, reward, value, log_prob)
        rows = jax.tree.map(lambda x: x[: T * N], obs)
        return Batch(rows, flat(rollout.action), log_prob, *flat((value[:-1], advantage, target, rollout.valid)))

    def estimates(self, rollout: Rollout, reward: Array, value: Array, log_prob: Array) -> tuple[Array, Array]:
        """Estimate advantages and targets of the value, `[T, N]`. Default: generalised advantages.

        value: `[T + 1, N]`. log_prob: `[T * N]`, of the actions under the policy that learns; () where not computed.
        """
        a = self.config
        advantage = gae(reward, value, rollout.terminated, rollout.valid, a.gamma, a.gae_lambda)
        return advantage, advantage + value[:-1]

    def make_batch(self, state: State, rollout: Rollout) -> tuple[State, Batch]:
        """Make a batch with advantages of a rollout, and the state with newer statistics.

        Log-probabilities and values are computed here, under the parameters and statistics that acted.
        """
        T, N = rollout.reward.shape
        after, acted, learned, reward = self.look(state, rollout)
        policy, value, _ = self.network.both(state.params, acted)
        if self.config.norm_obs:
            value = self.network.value(state.params, learned)
        log_prob = jax.tree.map(lambda x: x[: T * N], policy).log_prob(flat(rollout.action))
        batch = self.advantages(rollout, reward, value, learned.obs, log_prob)
        if self.recurrent:
            whole = jax.tree.map(lambda x: jnp.swapaxes(x.reshape(T, N, *x.shape[1:]), 0, 1), batch)
            batch = whole._replace(first=rollout.first[:-1].T, carry=acted.carry)
        return after, batch

    def evaluate(self, params: PyTree, batch: Batch) -> tuple[Distribution, Array, Batch]:
        """Compute the distribution over actions and values `[B]` of a batch, and the batch in rows of that order."""
        if not self.recurrent:
            policy, value, _ = self.network.both(params, Inputs(batch.obs))
            return policy, value, batch
        rows = flat(jax.tree.map(lambda x: jnp.swapaxes(x, 0, 1), batch._replace(first=(), carry=())))
        policy, value, _ = self.network.both(params, Inputs(rows.obs, batch.carry, batch.first.T))
        return policy, value, rows

    def _scaled_reward(self, state: State, rollout: Rollout) -> tuple[Array, State]:
        if self.config.reward_clipping:
            rollout = rollout._replace(reward=jnp.sign(rollout.reward))
        if not self.config.norm_reward:
            return rollout.reward, state
        a = self.config
        before, which = _returns_before(state.returns, rollout), rollout.env_id
        returns, running = running_returns(before, rollout.reward, rollout.first, a.gamma)
        returns = returns if isinstance(which, tuple) else state.returns.at[which].set(returns)  # type: ignore[union-attr]
        stats = update_stats(state.reward_stats, running.reshape(-1), rollout.valid.reshape(-1))  # type: ignore[arg-type]
        scaled = (rollout.reward / jnp.sqrt(stats.var + 1e-8)).clip(-a.clip_reward, a.clip_reward)
        # Clipping must not hide an infinite reward: the update that it spoils tells of it.
        reward = jnp.where(jnp.isfinite(rollout.reward), scaled, rollout.reward)
        return reward, state._replace(reward_stats=stats, returns=returns)

    def _counted(self, state: State, rollout: Rollout, obs: PyTree) -> State:
        """Update statistics for the next rollout: after the update, so that it sees what the actor saw."""
        if self.config.norm_obs:
            T, N = rollout.reward.shape  # the last row comes again as the first of the next rollout
            seen = jax.tree.map(lambda x: x[: T * N], obs)
            stats = update_observation_stats(self.spec.observation_space, state.obs_stats, seen)
            state = state._replace(obs_stats=stats)
        return state._replace(counters=state.counters.after(rollout))

    def _known(self, before: PyTree, after: PyTree) -> PyTree:
        """Return the statistics to learn by: those that acted, or the own ones of a first rollout, which had none."""
        if not self.config.norm_obs:
            return before

        def choose(leaf: Any, old: PyTree, new: PyTree) -> PyTree:
            return keep_if(old.count > 0, old, new) if is_continuous(leaf) else old

        return map_space(choose, self.spec.observation_space, before, after)

    def _finite(self, after: State, before: State) -> State:
        """Keep the statistics from before where one of them went NaN, which would never leave them again."""
        new, old = ((s.obs_stats, s.reward_stats, s.returns) for s in (after, before))
        obs_stats, reward_stats, returns = keep_if_finite(new, old, {})
        return after._replace(obs_stats=obs_stats, reward_stats=reward_stats, returns=returns)

    def improve(self, state: State, loss: Any, batches: PyTree, stop: Any = None) -> tuple[State, Metrics]:
        """Take a gradient step for each of `batches`; parameters stay as they were if anything went NaN."""
        rate = value_of(self.config.learning_rate, state.counters.progress_remaining)
        run = self.minibatch_descent.run(loss, state.params, state.opt_state, batches, rate, stop)
        params, opt_state, taken, metrics = run
        metrics["learning_rate"] = rate
        kept, metrics = keep_and_tell((params, opt_state), (state.params, state.opt_state), metrics)
        counters = state.counters._replace(updates=state.counters.updates + taken)
        return state._replace(params=kept[0], opt_state=kept[1], counters=counters), metrics


def flat(tree: PyTree) -> PyTree:
    """Put time and environments into one axis: `[T, N, ...]` to `[T * N, ...]`."""
    return jax.tree.map(lambda x: x.reshape(-1, *x.shape[2:]), tree)


def _returns_before(returns: Any, rollout: Rollout) -> Array:
    """Return the discounted returns so far in the environments of a rollout; 0 where it does not follow on any."""
    which = rollout.env_id
    found = returns if isinstance(which, tuple) else returns[which]
    return found if isinstance(rollout.continues, tuple) else jnp.where(rollout.continues, found, 0.0)


def explained_variance(batch: Batch) -> Array:
    """Compute 1 - Var[target - value] / Var[target] over valid steps: 1 is perfect, 0 no better than a constant."""
    count = batch.valid.sum().clip(1)

    def variance(x: Array) -> Array:
        mean = jnp.where(batch.valid, x, 0).sum() / count
        return jnp.where(batch.valid, (x - mean) ** 2, 0).sum() / count

    target = variance(batch.target)
    return jnp.where(target > 0, 1 - variance(batch.advantage) / jnp.maximum(target, 1e-12), 0.0)
