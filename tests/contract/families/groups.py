"""Q-learning from replay whose environments take turns in groups, each exploring in its own way (Ape-X)."""

from dataclasses import dataclass
from typing import ClassVar

import jax.numpy as jnp
import optax
from gymnasium import spaces

from renshu.algorithms.exploration import epsilon_greedy_action
from renshu.algorithms.hyperparameters import number
from renshu.algorithms.replay_learner import ReplayAlgorithm, ReplayLearner
from renshu.envs.device import DeviceEnv, Step
from renshu.ops.losses import td_loss
from renshu.ops.targets import td_target
from renshu.optim.train_state import Optimizers, TrainState
from renshu.types import Accepts, ActorOutput


@dataclass(frozen=True, kw_only=True)
class GroupedQ(ReplayAlgorithm):
    """A table of action values, for environments that each explore as much as their `env_id` says."""

    accepts: ClassVar[Accepts] = Accepts(frozenset({"discrete"}), frozenset({"discrete"}))
    epsilon: float = number(0.7, "share of random actions in the environment that explores most", least=0, most=1)
    spread: float = number(7.0, "the one that explores least has epsilon to the power of 1 + spread", least=0)

    def build(self, spec):
        return GroupedQLearner(self, spec)


class GroupedQLearner(ReplayLearner[GroupedQ]):
    def __init__(self, config, spec):
        super().__init__(config, spec)
        self.optim = Optimizers({"table": optax.identity()}, guard=self.guards_each_step)

    def init_train(self, key):
        params = {"table": jnp.zeros((self.spec.observation_space.n, self.spec.action_space.n))}
        return TrainState(params, {}, self.optim.init(params), jnp.int32(0))

    def random_share(self, counters):
        return jnp.float32(self.config.epsilon)

    def epsilons(self, exploration, env_id):
        """Return the share of random actions in each environment (Horgan et al. 2018, section 4.1)."""
        everyone = jnp.arange(self.spec.num_envs)
        rank = (everyone if isinstance(env_id, tuple) else env_id) / (self.spec.num_envs - 1)
        return exploration ** (1 + self.config.spread * rank)

    def act(self, acting, carry, timestep, key, *, explore):
        epsilon = self.epsilons(acting.exploration, timestep.env_id) if explore else 0.0
        return ActorOutput(epsilon_greedy_action(acting.params["table"][timestep.obs], epsilon, key))

    def gradient_step(self, train_state, batch, key, learning_rate):
        value = train_state.params["table"][batch.next_obs].max(axis=-1, keepdims=True)
        target = td_target(batch.reward, batch.discount, value)

        def loss(table):
            q = table[batch.obs, batch.action][None, :, None]
            return td_loss(q, target, batch.weight)

        train_state, error = self.optim.step(train_state, "table", loss, learning_rate)
        return train_state._replace(updates=train_state.updates + 1), {"error": error.mean()}, error


@dataclass(frozen=True)
class Corridor(DeviceEnv):
    """Walk left or right from the second of `length` places: the left end gives 0.1, the right end 1."""

    length: int = 6
    max_episode_steps: ClassVar[int] = 20
    action_space = spaces.Discrete(2)

    @property
    def observation_space(self):
        return spaces.Discrete(self.length)

    def reset(self, key):
        return jnp.int32(1), jnp.int32(1)

    def step(self, state, action, key):
        state = state + 2 * action - 1
        left, right = state == 0, state == self.length - 1
        return Step(state, state, jnp.where(left, 0.1, 0.0) + right, left | right)
