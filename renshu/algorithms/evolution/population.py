"""Common part of evolutionary learners: members of a population play whole episodes, and returns are all that is seen.

Environment n is played by member n mod P; what members there are follows from the state, so that they are made where
they play.
"""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple, Protocol, TypeVar

import jax
import jax.numpy as jnp

from renshu.algorithms.base import KINDS, OBSERVATIONS, Algorithm, Learner
from renshu.algorithms.hyperparameters import (
    NetArch,
    boolean,
    choice,
    convolutions,
    integer,
    layer_sizes,
    module,
    number,
)
from renshu.errors import HyperparameterError
from renshu.networks.encoders import default_widths
from renshu.networks.heads import describe
from renshu.networks.layers import ACTIVATIONS
from renshu.networks.policy import vector_policy
from renshu.ops.adopted import adopted
from renshu.ops.frame_stack import empty_frames, stack_frames, stacked_space
from renshu.ops.images import has_images
from renshu.ops.observations import init_observation_stats, normalize_observations, update_observation_stats
from renshu.types import Accepts, ActorOutput, Array, Counters, EnvSpec, Key, Metrics, Needs, PyTree, Rollout, TimeStep

WIDTHS = (32,)


@dataclass(frozen=True, kw_only=True)
class EvolutionaryAlgorithm(Algorithm):
    """Hyperparameters of all learners with a population of policies."""

    accepts: ClassVar[Accepts] = Accepts(observations=OBSERVATIONS, actions=KINDS, frame_stack=True, masks=True)

    n_eval_episodes: int = integer(
        1, "episodes of each member in a generation, at seeds that all members share", least=1
    )
    norm_obs: bool = boolean(False, "normalise continuous observations by statistics of all that the population saw")
    clip_obs: float = number(10.0, "normalised observations are clipped at +- this", above=0)
    net_arch: NetArch | None = layer_sizes(
        None,
        f"widths of the hidden layers, [] for a linear policy; None: {WIDTHS}, or on images as published",
        optional=True,
    )
    activation_fn: str | None = choice(
        None, "activation of the hidden layers; None: tanh, or on images relu", (None, *ACTIVATIONS)
    )
    ortho_init: bool = boolean(True, "orthogonal initialisation of the weights that evolution begins at")
    squash_output: bool = boolean(True, "squash continuous actions by tanh instead of clipping them")
    cnn: str | None = convolutions()
    network: Any = module("a Flax module of your own in place of the hidden layers: obs [B, ...] -> features [B, F]")

    @property
    @abstractmethod
    def members(self) -> int:
        """Members of the population, P."""

    @property
    def default_num_envs(self) -> int:
        """An environment for each episode of a generation."""
        return self.members * self.n_eval_episodes


Config = TypeVar("Config", bound=EvolutionaryAlgorithm)


class Strategy(Protocol):
    """Pure functions that search vectors [D] for the one of the highest fitness."""

    def init(self, key: Key, start: Array) -> PyTree:
        """Make the state of a search that begins at `start` [D]."""
        ...

    def ask(self, key: Key, state: PyTree) -> tuple[Array, PyTree]:
        """Return the members of the next generation, [P, D], and the state that `tell` takes."""
        ...

    def tell(self, key: Key, members: Array, fitness: Array, state: PyTree, learning_rate: Array) -> PyTree:
        """Return the state after a generation. fitness: [P], finite; the higher the better."""
        ...

    def solution(self, state: PyTree, members: Array, fitness: Array) -> Array:
        """Return the vector that stands for the whole after a generation, [D]: the mean, or the best of its members."""
        ...


class State(NamedTuple):
    """Everything that learning changes."""

    params: PyTree  # of the policy that plays where nothing is explored
    search: PyTree  # the strategy's own
    obs_stats: PyTree  # RunningStats at each continuous leaf of the observation; () elsewhere, or as a whole
    seed: Array  # [] uint32  of all members of all generations
    counters: Counters  # an update is a generation


class ActorState(NamedTuple):
    """The part of the state that acting needs, from which members can be made."""

    params: PyTree
    search: PyTree
    obs_stats: PyTree
    seed: Array
    generation: Array


class Acting(NamedTuple):
    """Policies in their environments. members: [P, D] where these are all environments in order, else [N, D]."""

    params: PyTree
    members: Array
    obs_stats: PyTree


class PopulationLearner(Learner[Config, State]):
    """Policies as vectors, and the episodes that they play. A subclass has the strategy."""

    def __init__(self, config: Config, spec: EnvSpec) -> None:
        super().__init__(config, spec)
        name, members = type(config).__name__, config.members
        if spec.max_episode_steps is None:
            raise HyperparameterError(
                f"{name} plays whole episodes, and those of this environment may never end: give it a limit, as in "
                "on(env, max_episode_steps=1000)"
            )
        if spec.num_envs % members:
            raise HyperparameterError(
                f"num_envs={spec.num_envs}: each of the {members} members of {name}'s population plays in environments "
                f"of its own. Leave num_envs= out, or take a multiple of {members}; workers of a cluster must divide it"
            )
        keep = {"reward", "obs"} if config.norm_obs else {"reward"}
        self.needs = Needs(
            steps=spec.max_episode_steps, fresh=True, common_seeds=members, finite_rewards=False, keep=frozenset(keep)
        )
        space = spec.network_space
        if spec.frame_stack > 1:
            space = stacked_space(space, spec.frame_stack)
        on_images = has_images(space, config.cnn is not None)
        widths = default_widths(space, config.cnn, WIDTHS) if config.net_arch is None else config.net_arch.pi
        self.policy = vector_policy(
            space,
            spec.action_space,
            widths=widths,
            activation_fn=config.activation_fn or ("relu" if on_images else "tanh"),
            ortho_init=config.ortho_init,
            squash_output=config.squash_output,
            masks=spec.masks,
            cnn=config.cnn,
            network=config.network,
        )

    @property
    @abstractmethod
    def strategy(self) -> Strategy:
        """The search for vectors of `self.policy.size` weights."""

    def learning_rate(self, counters: Counters) -> Array:
        """Return the step size of the next generation. Default: none."""
        return jnp.float32(0.0)

    def start(self, key: Key) -> Array:
        """Make the weights that the search begins at, [D]."""
        return self.policy.start(key)

    def init(self, key: Key) -> State:
        """Begin the search at a network's initial weights."""
        key_start, key_search, key_seed = jax.random.split(key, 3)
        start = self.start(key_start)
        search = self.strategy.init(key_search, start)
        stats = init_observation_stats(self.spec.observation_space) if self.config.norm_obs else ()
        params = self.policy.params(start)
        return State(params, search, stats, jax.random.bits(key_seed, (), jnp.uint32), Counters.zeros())

    def start_from(self, state: State, params: PyTree) -> State:
        """Begin the search at the weights of another's policy."""
        params = adopted(state.params, params)
        search = self.strategy.init(jax.random.key(state.seed), self.policy.weights(params))
        return state._replace(params=params, search=search)

    def actor_state(self, state: State) -> ActorState:
        """Select what members are made from."""
        return ActorState(state.params, state.search, state.obs_stats, state.seed, state.counters.updates)

    def generation(self, seed: Array, number: Array, search: PyTree) -> tuple[Array, PyTree, Key]:
        """Return the members of a generation, [P, D], the strategy's state after asking for them, and a key to tell."""
        key = jax.random.fold_in(jax.random.key(seed), number)
        key_ask, key_tell = jax.random.split(key)
        return *self.strategy.ask(key_ask, search), key_tell

    def prepare(self, actor_state: ActorState, env_id: Array) -> Acting:
        """Make the members that play here."""
        a = actor_state
        members = self.generation(a.seed, a.generation, a.search)[0]
        if not isinstance(env_id, tuple):
            members = members[jnp.asarray(env_id) % len(members)]
        return Acting(a.params, members, a.obs_stats)

    def initial_carry(self, num_envs: int) -> PyTree:
        """Return the frames before the first observation; () without a frame stack."""
        count = self.spec.frame_stack
        return empty_frames(self.spec.observation_space, count, num_envs) if count > 1 else ()

    def act(self, acting: Acting, carry: PyTree, timestep: TimeStep, key: Key, *, explore: bool) -> ActorOutput:
        """Let each member act in its environments; without exploration one policy in all."""
        obs, frames = self.seen(acting, carry, timestep)
        if not explore:
            return ActorOutput(self.policy.policy(acting.params, obs).mode(), frames)
        count = len(acting.members)

        def by_member(x: Array) -> Array:
            return x.reshape(-1, count, *x.shape[1:]).swapaxes(0, 1)

        def in_order(x: Array) -> Array:
            return x.swapaxes(0, 1).reshape(-1, *x.shape[2:])

        def mode(weights: Array, obs: PyTree) -> Array:
            return self.policy.policy(self.policy.params(weights), obs).mode()

        action = jax.vmap(mode)(acting.members, jax.tree.map(by_member, obs))
        return ActorOutput(jax.tree.map(in_order, action), frames)

    def seen(self, acting: Acting, carry: PyTree, timestep: TimeStep) -> tuple[PyTree, PyTree]:
        """Return the network's inputs in a step, `[N, ...]`, and the newer frames."""
        obs, frames = stack_frames(carry, timestep.obs, timestep.first)
        if self.config.norm_obs:
            obs = normalize_observations(self.spec.observation_space, acting.obs_stats, obs, self.config.clip_obs)
        return obs, frames

    def explain(self, acting: Acting, carry: PyTree, timestep: TimeStep) -> dict[str, Array]:
        """Return the parameters of the policy that is played without exploration, `[N, ...]`."""
        obs, _ = self.seen(acting, carry, timestep)
        found = describe(self.policy.policy(acting.params, obs))
        return {name: value for name, value in found.items() if name != "std"}

    def returns(self, rollout: Rollout) -> Array:
        """Sum the rewards of each episode, `[N]`."""
        return rollout.reward.sum(axis=0)

    def learn(self, state: State, rollout: Rollout, key: Key) -> tuple[State, Metrics]:
        """Tell the strategy the mean return of each member. A member whose return is not finite comes last."""
        members, search, key_tell = self.generation(state.seed, state.counters.updates, state.search)
        returns = self.returns(rollout)
        if not isinstance(rollout.env_id, tuple):
            returns = returns[jnp.argsort(rollout.env_id)]
        fitness = returns.reshape(-1, len(members)).mean(axis=0)
        fits = jnp.isfinite(fitness)
        lowest = jnp.where(fits, fitness, jnp.inf).min()
        told = jnp.where(fits, fitness, jnp.where(fits.any(), lowest - 1.0, 0.0))
        rate = self.learning_rate(state.counters)
        search = self.strategy.tell(key_tell, members, told, search, rate)
        solution = self.strategy.solution(search, members, told)
        known = jnp.where(fits, fitness, 0.0)
        metrics = {
            "fitness_mean": known.sum() / fits.sum().clip(1),
            "fitness_max": jnp.where(fits.any(), jnp.where(fits, fitness, -jnp.inf).max(), 0.0),
            "failed_members": (~fits).sum(dtype=jnp.float32),
            "weights_norm": jnp.linalg.norm(solution),
            **self.metrics(search, rate),
        }
        after = state._replace(
            params=self.policy.params(solution),
            search=search,
            obs_stats=self.newer_stats(state, rollout),
            counters=state.counters.after(rollout, updates=1, episodes=rollout.reward.shape[1]),
        )
        return after, metrics

    def metrics(self, search: PyTree, rate: Array) -> Metrics:
        """Return what a strategy has to tell besides. Default: nothing."""
        return {}

    def newer_stats(self, state: State, rollout: Rollout) -> PyTree:
        """Take the observations of a generation into the statistics that the next one will see by."""
        if not self.config.norm_obs:
            return ()
        # The row that ends an episode is seen by nobody, and neither are those that wait after it.
        seen = ~rollout.first[1:].reshape(-1)
        obs = jax.tree.map(lambda x: x[:-1].reshape(-1, *x.shape[2:]), rollout.obs)
        return update_observation_stats(self.spec.observation_space, state.obs_stats, obs, seen)
