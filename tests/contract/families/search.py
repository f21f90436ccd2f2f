"""A search in the environment's own state, whose result a policy network learns to guess: AlphaZero, one move deep."""

from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple

import jax
import jax.numpy as jnp
import optax
from flax import linen as nn

from renshu import Algorithm, Learner
from renshu.algorithms.hyperparameters import integer, number
from renshu.envs.device import DeviceEnv
from renshu.ops.statistics import masked_mean
from renshu.types import Accepts, ActorOutput, Counters, Needs


@dataclass(frozen=True, kw_only=True)
class Search(Algorithm):
    """One simulated step for each action; its reward and the network's prior choose."""

    accepts: ClassVar[Accepts] = Accepts(frozenset({"box"}), frozenset({"discrete"}))
    game: DeviceEnv  # whose step is the model
    learning_rate: float = number(1e-2, "step size of Adam", above=0)
    temperature: float = number(0.1, "of the distribution over actions that the search gives", above=0)
    prior: float = number(0.1, "weight of the network's probabilities beside rewards", least=0)
    n_steps: int = integer(8, "steps collected of each environment for one update", least=1)

    def build(self, spec):
        return SearchLearner(self, spec)


class Net(nn.Module):
    """Logits of the actions."""

    actions: int

    @nn.compact
    def __call__(self, obs):
        return nn.Dense(self.actions)(nn.relu(nn.Dense(64)(obs)))


class State(NamedTuple):
    params: Any
    opt_state: Any
    counters: Counters


class SearchLearner(Learner[Search, State]):
    def __init__(self, config, spec):
        super().__init__(config, spec)
        self.needs = Needs(steps=config.n_steps, env_state=True, keep=frozenset({"obs", "extras"}))
        self.actions = int(spec.action_space.n)
        self.net, self.optimizer = Net(self.actions), optax.adam(config.learning_rate)

    def init(self, key):
        params = self.net.init(key, jnp.zeros((1, *self.spec.observation_space.shape)))
        return State(params, self.optimizer.init(params), Counters.zeros())

    def actor_state(self, state):
        return state.params

    def act(self, acting, carry, timestep, key, *, explore):
        every_action = jax.vmap(self.config.game.step, in_axes=(None, 0, None))
        simulated = jax.vmap(every_action, in_axes=(0, None, None))(timestep.env_state, jnp.arange(self.actions), key)
        prior = jax.nn.softmax(self.net.apply(acting, timestep.obs))
        logits = (simulated.reward + self.config.prior * prior) / self.config.temperature
        action = jax.random.categorical(key, logits) if explore else logits.argmax(axis=-1)
        return ActorOutput(action, carry, extras=jax.nn.softmax(logits))

    def learn(self, state, rollout, key):
        def loss(params):
            logits = self.net.apply(params, rollout.obs[:-1])
            return masked_mean(optax.softmax_cross_entropy(logits, rollout.extras), rollout.valid)

        cross_entropy, grads = jax.value_and_grad(loss)(state.params)
        updates, opt_state = self.optimizer.update(grads, state.opt_state)
        params = optax.apply_updates(state.params, updates)
        return State(params, opt_state, state.counters.after(rollout, updates=1)), {"cross_entropy": cross_entropy}
