"""An evolution strategy (Salimans et al. 2017): each environment plays one episode with a member of its own."""

from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple

import jax
import jax.numpy as jnp
import optax

from renshu import Algorithm, Learner
from renshu.algorithms.hyperparameters import number
from renshu.types import Accepts, ActorOutput, Counters, Needs


@dataclass(frozen=True, kw_only=True)
class Population(Algorithm):
    """A linear policy whose weights move towards those of the members with the higher returns."""

    accepts: ClassVar[Accepts] = Accepts(frozenset({"box"}), frozenset({"discrete"}))
    learning_rate: float = number(0.1, "step size of Adam", above=0)
    sigma: float = number(0.3, "standard deviation of the members about their mean", above=0)

    def build(self, spec):
        return PopulationLearner(self, spec)


class State(NamedTuple):
    params: Any  # [obs + 1, actions] the mean of the members
    opt_state: Any
    seed: Any  # [] uint32  of the members' noise
    generation: Any  # [] int32
    counters: Counters


class PopulationLearner(Learner[Population, State]):
    def __init__(self, config, spec):
        super().__init__(config, spec)
        self.needs = Needs(steps=spec.max_episode_steps, fresh=True, keep=frozenset({"reward"}))
        self.shape = spec.observation_space.shape[0] + 1, int(spec.action_space.n)
        self.optimizer = optax.adam(config.learning_rate)

    def init(self, key):
        start, seed = jax.random.split(key)
        mean = 0.1 * jax.random.normal(start, self.shape)
        return State(mean, self.optimizer.init(mean), jax.random.bits(seed), jnp.int32(0), Counters.zeros())

    def actor_state(self, state):
        return state.params, (state.seed, state.generation)

    def noise(self, name, env_id):
        """Draw the members' differences from their mean, [N, ...]: neighbours have opposite ones."""
        seed, generation = name
        env_id = jnp.arange(self.spec.num_envs) if isinstance(env_id, tuple) else jnp.asarray(env_id)
        root = jax.random.fold_in(jax.random.key(seed), generation)
        keys = jax.vmap(jax.random.fold_in, (None, 0))(root, env_id // 2)
        half = jax.vmap(lambda key: jax.random.normal(key, self.shape))(keys)
        return half * (1 - 2 * (env_id % 2))[:, None, None]

    def prepare(self, actor_state, env_id):
        mean, name = actor_state
        return mean, mean + self.config.sigma * self.noise(name, env_id)

    def act(self, acting, carry, timestep, key, *, explore):
        mean, members = acting
        obs = jnp.append(timestep.obs, jnp.ones((len(timestep.obs), 1)), axis=1)
        logits = jnp.einsum("no,noa->na", obs, members) if explore else obs @ mean
        return ActorOutput(logits.argmax(axis=-1), carry)

    def learn(self, state, rollout, key):
        assert rollout.obs == rollout.action == rollout.extras == ()
        fitness = rollout.reward.sum(axis=0)
        rank = jnp.sign(fitness[:, None] - fitness).mean(axis=1)  # from -1 to 1, equal ones share theirs
        noise = self.noise((state.seed, state.generation), rollout.env_id)
        ascent = jnp.tensordot(rank, noise, axes=1) / len(rank)
        updates, opt_state = self.optimizer.update(-ascent, state.opt_state)
        mean = optax.apply_updates(state.params, updates)
        counters = state.counters.after(rollout, updates=1, episodes=len(fitness))
        return State(mean, opt_state, state.seed, state.generation + 1, counters), {"fitness": fitness.mean()}
