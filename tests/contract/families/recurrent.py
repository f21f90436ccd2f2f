"""A recurrent actor-critic: `learn` unrolls the memory again, from the carry with which a rollout began."""

from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple

import jax
import jax.numpy as jnp
import optax
from flax import linen as nn

from renshu import Algorithm, Learner
from renshu.ops.returns import discounted_returns
from renshu.ops.statistics import masked_mean
from renshu.types import Accepts, ActorOutput, Counters, Needs, TimeStep


@dataclass(frozen=True, kw_only=True)
class Recurrent(Algorithm):
    accepts: ClassVar[Accepts] = Accepts(frozenset({"box"}), frozenset({"discrete"}))
    learning_rate: float = 1e-2

    def build(self, spec):
        return RecurrentLearner(self, spec)


class Net(nn.Module):  # one step: a new carry, the actions' log-probabilities and a value
    actions: int

    @nn.compact
    def __call__(self, carry, timestep):
        carry = jnp.where(timestep.first[:, None], 0.0, carry)
        gate, new = jnp.split(nn.Dense(2 * carry.shape[1])(jnp.append(carry, timestep.obs, axis=1)), 2, axis=1)
        carry += nn.sigmoid(gate) * (nn.tanh(new) - carry)
        return carry, (nn.log_softmax(nn.Dense(self.actions)(carry)), nn.Dense(1)(carry)[:, 0])


class State(NamedTuple):
    params: Any
    opt_state: Any
    counters: Counters


class RecurrentLearner(Learner[Recurrent, State]):
    def __init__(self, config, spec):
        super().__init__(config, spec)
        self.needs = Needs(steps=7)
        self.net, self.optimizer = Net(int(spec.action_space.n)), optax.adam(config.learning_rate)

    def init(self, key):
        obs = jnp.zeros((1, *self.spec.observation_space.shape))
        params = self.net.init(key, self.initial_carry(1), TimeStep(obs, jnp.ones(1, bool)))
        return State(params, self.optimizer.init(params), Counters.zeros())

    def actor_state(self, state):
        return state.params

    def initial_carry(self, num_envs):
        return jnp.zeros((num_envs, 16))

    def act(self, acting, carry, timestep, key, *, explore):
        carry, (log_probs, _) = self.net.apply(acting, carry, timestep)
        action = jax.random.categorical(key, log_probs) if explore else log_probs.argmax(axis=-1)
        return ActorOutput(action, carry, extras=log_probs)

    def learn(self, state, rollout, key):
        def loss(params):
            seen = TimeStep(rollout.obs, rollout.first)
            _, (log_probs, value) = jax.lax.scan(lambda h, now: self.net.apply(params, h, now), rollout.carry, seen)
            log_prob = jnp.take_along_axis(log_probs[:-1], rollout.action[..., None], axis=-1)[..., 0]
            fixed = jax.lax.stop_gradient(value)
            returns = discounted_returns(rollout.reward, fixed, rollout.terminated, rollout.valid, 1.0)
            loss = 0.5 * (value[:-1] - returns) ** 2 - log_prob * (returns - fixed[:-1])
            return masked_mean(loss, rollout.valid), jnp.abs(log_probs[:-1] - rollout.extras).max()

        (_, drift), grads = jax.value_and_grad(loss, has_aux=True)(state.params)
        updates, opt_state = self.optimizer.update(grads, state.opt_state)
        params, counters = optax.apply_updates(state.params, updates), state.counters.after(rollout, updates=1)
        return State(params, opt_state, counters), {"drift": drift}
