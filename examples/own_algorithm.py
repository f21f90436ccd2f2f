"""An algorithm of your own in one file: REINFORCE with a baseline (Williams 1992; Sutton & Barto 2018, section 13.4).

It defines what it accepts, how its state is made, how it acts and how it learns. Everything else comes with it: every
environment, both loops, run folders, checkpoints, evaluation, videos.
"""

from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple

import jax
import optax
from flax import linen as nn

from renshu import Agent, Algorithm, Learner
from renshu.algorithms.base import OBSERVATIONS
from renshu.algorithms.hyperparameters import integer, number
from renshu.networks.encoders import MLP
from renshu.ops.distributions import Categorical
from renshu.ops.returns import discounted_returns
from renshu.ops.spaces import dummy
from renshu.ops.statistics import masked_mean
from renshu.types import Accepts, ActorOutput, Counters, Needs


@dataclass(frozen=True, kw_only=True)
class Reinforce(Algorithm):
    """Gradient of log pi(a|s) (G - V(s)) on whole stretches of experience."""

    accepts: ClassVar[Accepts] = Accepts(observations=OBSERVATIONS, actions=frozenset({"discrete"}))
    learning_rate: float = number(3e-3, "step size of Adam", above=0)
    n_steps: int = integer(64, "steps collected of each environment for one update", least=1)
    gamma: float = number(0.99, "discount factor", least=0, most=1)

    def build(self, spec):
        return ReinforceLearner(self, spec)


class State(NamedTuple):
    """State that learning changes. Every state has `params` and `counters`."""

    params: Any
    opt_state: Any
    counters: Counters


class ReinforceLearner(Learner[Reinforce, State]):
    """Pure functions over the state. The network has an output for each action, and a last one for the value."""

    def __init__(self, algorithm, spec):
        super().__init__(algorithm, spec)
        self.needs = Needs(steps=algorithm.n_steps)
        self.net = nn.Sequential([MLP(spec.observation_space, (64,)), nn.Dense(int(spec.action_space.n) + 1)])
        self.optimizer = optax.adam(algorithm.learning_rate)

    def init(self, key):
        params = self.net.init(key, dummy(self.spec.observation_space, 1))
        return State(params, self.optimizer.init(params), Counters.zeros())

    def actor_state(self, state):  # the part of the state that acting needs
        return state.params

    def act(self, acting, carry, timestep, key, *, explore):
        policy = Categorical(self.net.apply(acting, timestep.obs)[:, :-1])
        return ActorOutput(policy.sample(key) if explore else policy.mode(), carry)

    def learn(self, state, rollout, key):
        def loss(params):
            out = jax.vmap(self.net.apply, (None, 0))(params, rollout.obs)  # [T + 1, N, actions + 1]
            policy, value = Categorical(out[:-1, :, :-1]), out[..., -1]
            baseline = jax.lax.stop_gradient(value)  # and the rest of the return where a rollout ends too early
            r, valid = rollout, rollout.valid
            returns = discounted_returns(r.reward, baseline, r.terminated, valid, self.config.gamma)
            policy_loss = -masked_mean(policy.log_prob(r.action) * (returns - baseline[:-1]), valid)
            return policy_loss + 0.5 * masked_mean((value[:-1] - returns) ** 2, valid)

        total, grads = jax.value_and_grad(loss)(state.params)
        updates, opt_state = self.optimizer.update(grads, state.opt_state)
        counters = state.counters.after(rollout, updates=1)
        return State(optax.apply_updates(state.params, updates), opt_state, counters), {"loss": total}


def main(steps: int = 200_000) -> dict[str, Agent]:
    """Train it as any other algorithm: in Gymnasium's CartPole, and in Renshu's, compiled with it into one program."""
    agents = {}
    for env in ("CartPole-v1", "renshu/CartPole-v1"):
        agent = agents[env] = Reinforce().on(env, num_envs=16, seed=0).learn(steps)
        print(f"{agent.loop_name} loop, mean return of 20 episodes: {agent.evaluate(20)}")
    return agents


if __name__ == "__main__":
    main()
