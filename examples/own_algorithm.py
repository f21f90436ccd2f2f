"""An algorithm of your own in one file: REINFORCE with a baseline (Williams 1992; Sutton & Barto 2018, section 13.4).

It defines what it accepts, how its state is made, how it acts and how it learns. Everything else comes with it: every
environment, the progress bar, run folders, checkpoints, evaluation, videos.
"""

from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple

import jax
import jax.numpy as jnp
import optax
from flax import linen as nn

from renshu import Algorithm, Learner
from renshu.algorithms.hyperparameters import integer, number
from renshu.ops.returns import discounted_returns
from renshu.ops.spaces import dummy, encode
from renshu.ops.statistics import masked_mean
from renshu.types import Accepts, ActorOutput, Counters, Needs


@dataclass(frozen=True, kw_only=True)
class Reinforce(Algorithm):
    """Gradient of log pi(a|s) (G - V(s)) on whole stretches of experience."""

    accepts: ClassVar[Accepts] = Accepts(
        observations=frozenset({"box", "discrete", "multi_discrete", "multi_binary", "nested"}),
        actions=frozenset({"discrete"}),
    )
    learning_rate: float = number(3e-3, "step size of Adam", above=0)
    n_steps: int = integer(128, "steps collected of each environment for one update", least=1)
    gamma: float = number(0.99, "discount factor", least=0, most=1)

    def build(self, spec):
        """Build the learner for an environment."""
        return ReinforceLearner(self, spec)


class Net(nn.Module):
    """Logits of the actions and a value."""

    space: Any
    actions: int

    @nn.compact
    def __call__(self, obs):
        x = nn.tanh(nn.Dense(64)(encode(self.space, obs)))
        return nn.Dense(self.actions)(x), nn.Dense(1)(x)[:, 0]


class State(NamedTuple):
    """State that learning changes. Every state has `params` and `counters`."""

    params: Any
    opt_state: Any
    counters: Counters


class ReinforceLearner(Learner[Reinforce, State]):
    """Pure functions over the state."""

    def __init__(self, algorithm, spec):
        super().__init__(algorithm, spec)
        self.needs = Needs(steps=algorithm.n_steps)
        self.net = Net(spec.observation_space, int(spec.action_space.n))
        self.optimizer = optax.adam(algorithm.learning_rate)

    def init(self, key):
        """Make parameters, optimiser and counters."""
        params = self.net.init(key, dummy(self.spec.observation_space, 1))
        return State(params, self.optimizer.init(params), Counters.zeros())

    def actor_state(self, state):
        """Return the part of the state that acting needs: the parameters alone."""
        return state.params

    def act(self, acting, carry, timestep, key, *, explore):
        """Draw an action, or take the likeliest."""
        logits, _ = self.net.apply(acting, timestep.obs)
        action = jax.random.categorical(key, logits) if explore else logits.argmax(axis=-1)
        return ActorOutput(action, carry)

    def learn(self, state, rollout, key):
        """Take one gradient step on a rollout."""
        T, N = rollout.reward.shape
        obs = jax.tree.map(lambda x: x.reshape((T + 1) * N, *x.shape[2:]), rollout.obs)
        valid, action = rollout.valid, rollout.action

        def loss(params):
            logits, value = self.net.apply(params, obs)
            value = value.reshape(T + 1, N)
            returns = discounted_returns(
                rollout.reward, jax.lax.stop_gradient(value), rollout.terminated, valid, self.config.gamma
            )
            advantage = jax.lax.stop_gradient(returns - value[:-1])
            log_prob = jax.nn.log_softmax(logits).reshape(T + 1, N, -1)[:-1]
            chosen = jnp.take_along_axis(log_prob, action[..., None], axis=-1)[..., 0]
            policy_loss = -masked_mean(chosen * advantage, valid)
            value_loss = masked_mean((value[:-1] - returns) ** 2, valid)
            return policy_loss + 0.5 * value_loss, {"policy_loss": policy_loss, "value_loss": value_loss}

        (_, metrics), grads = jax.value_and_grad(loss, has_aux=True)(state.params)
        updates, opt_state = self.optimizer.update(grads, state.opt_state)
        counters = state.counters.after(rollout, updates=1)
        return State(optax.apply_updates(state.params, updates), opt_state, counters), metrics


def main(steps: int = 200_000):
    """Train it like any other algorithm."""
    agent = Reinforce().on("CartPole-v1", num_envs=16, seed=0).learn(steps)
    print("mean return of 20 episodes:", agent.evaluate(20))
    return agent


if __name__ == "__main__":
    main()
