"""Conservative Q-learning from a data set (Kumar et al. 2020): actions that the data do not show are valued low."""

from dataclasses import dataclass
from typing import ClassVar

import jax
import jax.numpy as jnp
import optax

from renshu.algorithms.exploration import epsilon_greedy_action
from renshu.algorithms.hyperparameters import number
from renshu.algorithms.replay_learner import ReplayAlgorithm, ReplayLearner
from renshu.ops.losses import td_loss
from renshu.ops.targets import td_target
from renshu.optim.train_state import Optimizers, TrainState
from renshu.types import Accepts, ActorOutput


@dataclass(frozen=True, kw_only=True)
class Conservative(ReplayAlgorithm):
    """A table of action values that begins too high; equation 4 with a uniform prior."""

    accepts: ClassVar[Accepts] = Accepts(frozenset({"discrete"}), frozenset({"discrete"}))
    alpha: float = number(0.1, "weight of the soft maximum of all actions against the action in the data", least=0)
    exploration: float = number(1.0, "share of random actions", least=0, most=1)

    def build(self, spec):
        return ConservativeLearner(self, spec)


class ConservativeLearner(ReplayLearner[Conservative]):
    def __init__(self, config, spec):
        super().__init__(config, spec)
        self.optim = Optimizers({"table": optax.identity()}, guard=self.guards_each_step)

    def init_train(self, key):
        params = {"table": jnp.full((self.spec.observation_space.n, self.spec.action_space.n), 2.0)}
        return TrainState(params, {}, self.optim.init(params), jnp.int32(0))

    def random_share(self, counters):
        return jnp.float32(self.config.exploration)

    def act(self, acting, carry, timestep, key, *, explore):
        epsilon = acting.exploration if explore else 0.0
        return ActorOutput(epsilon_greedy_action(acting.params["table"][timestep.obs], epsilon, key))

    def gradient_step(self, train_state, batch, key, learning_rate):
        value = train_state.params["table"][batch.next_obs].max(axis=-1, keepdims=True)
        target = td_target(batch.reward, batch.discount, value)

        def loss(table):
            q = table[batch.obs]
            chosen = jnp.take_along_axis(q, batch.action[:, None], axis=1)
            td, error = td_loss(chosen[None], target, batch.weight)
            gap = (batch.weight * (jax.nn.logsumexp(q, axis=1) - chosen[:, 0])).mean()
            return td + self.config.alpha * gap, (gap, error)

        train_state, (gap, error) = self.optim.step(train_state, "table", loss, learning_rate)
        return train_state._replace(updates=train_state.updates + 1), {"gap": gap}, error
