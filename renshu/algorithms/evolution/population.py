"""Common part of evolutionary learners: members of a population play whole episodes, and returns are all that is seen.

Environment n is played by member n mod P; what members there are follows from the state, so that they are made where
they play.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol, TypeVar

import jax
import jax.numpy as jnp

from renshu.algorithms.base import Algorithm, Learner
from renshu.algorithms.hyperparameters import boolean, integer, number
from renshu.errors import HyperparameterError
from renshu.ops.observations import init_observation_stats, normalize_observations, update_observation_stats
from renshu.types import Array, Counters, EnvSpec, Key, Metrics, Needs, PyTree, Rollout


@dataclass(frozen=True, kw_only=True)
class EvolutionaryAlgorithm(Algorithm):
    """Hyperparameters of all learners with a population of policies."""

    n_eval_episodes: int = integer(
        1, "episodes of each member in a generation, at seeds that all members share", least=1
    )
    norm_obs: bool = boolean(False, "normalise continuous observations by statistics of all that the population saw")
    clip_obs: float = number(10.0, "normalised observations are clipped at +- this", above=0)
    squash_output: bool = boolean(True, "squash continuous actions by tanh instead of clipping them")

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
    """Pure functions that search for the policy of the highest fitness, among vectors or other pytrees."""

    def init(self, key: Key, start: PyTree) -> PyTree:
        """Make the state of a search that begins at the policy `start`."""
        ...

    def ask(self, key: Key, state: PyTree) -> tuple[PyTree, PyTree]:
        """Return the members of the next generation, [P, ...], and the state that `tell` takes."""
        ...

    def tell(self, key: Key, members: PyTree, fitness: Array, state: PyTree, learning_rate: Array) -> PyTree:
        """Return the state after a generation. fitness: [P], finite; the higher the better."""
        ...

    def solution(self, state: PyTree, members: PyTree, fitness: Array) -> PyTree:
        """Return the policy that stands for the whole after a generation: the mean, or the best of its members."""
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
    """Policies in their environments. members: [P, ...] where these are all environments in order, else [N, ...]."""

    params: PyTree
    members: PyTree
    obs_stats: PyTree


class PopulationLearner(Learner[Config, State]):
    """Policies, and the episodes that they play. A subclass has the strategy, and lets policies act."""

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
        if config.n_eval_episodes > 1 and spec.num_envs != config.default_num_envs:
            raise HyperparameterError(
                f"num_envs={spec.num_envs}: {members} members with n_eval_episodes={config.n_eval_episodes} play in "
                f"{config.default_num_envs} environments. Leave num_envs= out"
            )
        keep = {"reward", "obs"} if config.norm_obs else {"reward"}
        self.needs = Needs(
            steps=spec.max_episode_steps, fresh=True, common_seeds=members, finite_rewards=False, keep=frozenset(keep)
        )

    @property
    @abstractmethod
    def strategy(self) -> Strategy:
        """The search for policies."""

    def learning_rate(self, counters: Counters) -> Array:
        """Return the step size of the next generation. Default: none."""
        return jnp.float32(0.0)

    @abstractmethod
    def start(self, key: Key) -> PyTree:
        """Make the policy that the search begins at, as the strategy has them."""

    @abstractmethod
    def params_of(self, solution: PyTree) -> PyTree:
        """Return the weights of a policy by name, of one as the strategy has them."""

    def init(self, key: Key) -> State:
        """Begin the search."""
        key_start, key_search, key_seed = jax.random.split(key, 3)
        start = self.start(key_start)
        search = self.strategy.init(key_search, start)
        stats = init_observation_stats(self.spec.observation_space) if self.config.norm_obs else ()
        return State(self.params_of(start), search, stats, jax.random.bits(key_seed, (), jnp.uint32), Counters.zeros())

    def actor_state(self, state: State) -> ActorState:
        """Select what members are made from."""
        return ActorState(state.params, state.search, state.obs_stats, state.seed, state.counters.updates)

    def generation(self, seed: Array, number: Array, search: PyTree) -> tuple[Array, PyTree, Key]:
        """Return the members of a generation, [P, ...], the strategy's state after asking, and a key to tell."""
        key = jax.random.fold_in(jax.random.key(seed), number)
        key_ask, key_tell = jax.random.split(key)
        return *self.strategy.ask(key_ask, search), key_tell

    def prepare(self, actor_state: ActorState, env_id: Array) -> Acting:
        """Make the members that play here."""
        a = actor_state
        members = self.generation(a.seed, a.generation, a.search)[0]
        if not isinstance(env_id, tuple):
            index = jnp.asarray(env_id) % self.config.members
            members = jax.tree.map(lambda x: x[index], members)
        return Acting(a.params, members, a.obs_stats)

    def normalized(self, acting: Acting, obs: PyTree) -> PyTree:
        """Normalise observations `[N, ...]` where that was asked for."""
        if not self.config.norm_obs:
            return obs
        return normalize_observations(self.spec.observation_space, acting.obs_stats, obs, self.config.clip_obs)

    def returns(self, rollout: Rollout) -> Array:
        """Sum the rewards of each episode, `[N]`."""
        return rollout.reward.sum(axis=0)

    def by_member(self, rollout: Rollout, values: Array) -> Array:
        """Average what there is of each environment, `[N, ...]`, over the episodes of each member, `[P, ...]`."""
        if not isinstance(rollout.env_id, tuple):
            values = values[jnp.argsort(rollout.env_id)]
        return values.reshape(-1, self.config.members, *values.shape[1:]).mean(axis=0)

    def failed(self, lowest: Array) -> Array:
        """Return the fitness of a member whose return is not finite. lowest: of the others in its generation."""
        return lowest - 1.0

    def tell(
        self, key: Key, members: PyTree, fitness: Array, search: PyTree, learning_rate: Array, rollout: Rollout
    ) -> PyTree:
        """Return the strategy's state after a generation. Default: it is told of returns alone."""
        return self.strategy.tell(key, members, fitness, search, learning_rate)

    def learn(self, state: State, rollout: Rollout, key: Key) -> tuple[State, Metrics]:
        """Tell the strategy the mean return of each member. A member whose return is not finite comes last."""
        members, search, key_tell = self.generation(state.seed, state.counters.updates, state.search)
        fitness = self.by_member(rollout, self.returns(rollout))
        fits = jnp.isfinite(fitness)
        lowest = jnp.where(fits.any(), jnp.where(fits, fitness, jnp.inf).min(), 0.0)
        told = jnp.where(fits, fitness, self.failed(lowest))
        rate = self.learning_rate(state.counters)
        search = self.tell(key_tell, members, told, search, rate, rollout)
        solution = self.strategy.solution(search, members, told)
        known = jnp.where(fits, fitness, 0.0)
        metrics = {
            "fitness_mean": known.sum() / fits.sum().clip(1),
            "fitness_max": jnp.where(fits.any(), jnp.where(fits, fitness, -jnp.inf).max(), 0.0),
            "failed_members": (~fits).sum(dtype=jnp.float32),
            **self.metrics(search, solution, rate),
        }
        after = state._replace(
            params=self.params_of(solution),
            search=search,
            obs_stats=self.newer_stats(state, rollout),
            counters=state.counters.after(rollout, updates=1, episodes=rollout.reward.shape[1]),
        )
        return after, metrics

    def metrics(self, search: PyTree, solution: PyTree, rate: Array) -> Metrics:
        """Return what a strategy has to tell besides. Default: nothing."""
        return {}

    def named(self, state: State) -> dict[str, PyTree]:
        """Return weights of policies that have a name: "best" of all generations, "mean" of the members."""
        return {}

    def member(self, state: State, which: str | int | Sequence[float]) -> State:
        """Return the state in which a policy by its name plays, or a member of the next generation by its number.

        Raises HyperparameterError where there is no such policy.
        """
        known, count = self.named(state), self.config.members
        if isinstance(which, str) and which in known:
            return state._replace(params=known[which])
        if not isinstance(which, int) or isinstance(which, bool) or not 0 <= which < count:
            names = "".join(f"{name!r}, " for name in known)
            raise HyperparameterError(
                f"{type(self.config).__name__} has no member {which!r}: expected {names}or a number from 0 to "
                f"{count - 1}"
            )
        members = self.generation(state.seed, state.counters.updates, state.search)[0]
        return state._replace(params=self.params_of(jax.tree.map(lambda x: x[which], members)))

    def newer_stats(self, state: State, rollout: Rollout) -> PyTree:
        """Take the observations of a generation into the statistics that the next one will see by."""
        if not self.config.norm_obs:
            return ()
        # The row that ends an episode is seen by nobody, and neither are those that wait after it.
        seen = ~rollout.first[1:].reshape(-1)
        obs = jax.tree.map(lambda x: x[:-1].reshape(-1, *x.shape[2:]), rollout.obs)
        return update_observation_stats(self.spec.observation_space, state.obs_stats, obs, seen)
