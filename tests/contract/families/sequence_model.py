"""A sequence model in small (R2D2, DreamerV3): trained on sequences of replay that begin with their stored carries."""

from dataclasses import dataclass
from typing import ClassVar

import jax
import jax.numpy as jnp
import optax

from renshu.algorithms.exploration import EpsilonGreedy, epsilon_greedy_action
from renshu.algorithms.replay_learner import Feedback, ReplayAlgorithm, ReplayLearner, examples
from renshu.optim.train_state import Optimizers, TrainState
from renshu.replay.sequences import SequenceBuffer
from renshu.types import Accepts, ActorOutput


@dataclass(frozen=True, kw_only=True)
class SequenceModel(EpsilonGreedy, ReplayAlgorithm):
    """Predict each action's reward from the latent state, and take the action that promises most."""

    accepts: ClassVar[Accepts] = Accepts(frozenset({"box"}), frozenset({"discrete"}))

    def build(self, spec):
        return SequenceModelLearner(self, spec)


class SequenceModelLearner(ReplayLearner[SequenceModel]):
    keeps_carry = True
    writes_extras = True

    def __init__(self, config, spec):
        super().__init__(config, spec)
        self.optim = Optimizers({"model": optax.scale_by_adam()}, guard=self.guards_each_step)

    def make_replay(self):
        config, n, steps = self.config, self.spec.num_envs, self.config.train_freq
        alpha = config.prioritized_replay_alpha if config.prioritized else None
        shape = {"num_envs": n, "rollout_length": steps, "sequence_length": steps}
        return SequenceBuffer(config.buffer_size, *examples(self.spec), alpha=alpha, **shape)

    def init_train(self, key):
        seen, actions = self.spec.observation_space.shape[0], self.spec.action_space.n
        sizes = {"encoder": (seen, 8), "hidden": (8 + seen, 32), "head": (32, actions)}
        keys = dict(zip(sizes, jax.random.split(key, len(sizes)), strict=True))
        params = {"model": {name: jax.random.normal(keys[name], size) / size[0] ** 0.5 for name, size in sizes.items()}}
        return TrainState(params, {}, self.optim.init(params), jnp.int32(0))

    def initial_carry(self, num_envs):
        return jnp.zeros((num_envs, 8))

    def unroll(self, model, carry, obs, first):
        """Latents `[T, B, L]` and predicted rewards `[T, B, A]`. What an episode began with is latched, not learned."""

        def step(latent, now):
            latent = jnp.where(now[1][:, None], jnp.tanh(now[0] @ model["encoder"]), latent)
            hidden = jax.nn.relu(jnp.concatenate([latent, now[0]], axis=-1) @ model["hidden"])
            return latent, (latent, hidden @ model["head"])

        return jax.lax.scan(step, carry, (obs, first))[1]

    def random_share(self, counters):
        return self.config.epsilon(counters)

    def act(self, acting, carry, timestep, key, *, explore):
        latents, rewards = self.unroll(acting.params["model"], carry, timestep.obs[None], timestep.first[None])
        action = epsilon_greedy_action(rewards[0], acting.exploration if explore else 0.0, key)
        return ActorOutput(action, carry=latents[0], extras=latents[0])

    def gradient_step(self, train_state, batch, key, learning_rate):
        def loss(model):
            rollout = batch.rollout
            latents, rewards = self.unroll(model, rollout.carry, rollout.obs[:-1], rollout.first[:-1])
            predicted = jnp.take_along_axis(rewards, rollout.action[..., None], axis=-1)[..., 0]
            errors = jnp.where(rollout.valid, (predicted - rollout.reward) ** 2, 0.0).mean(axis=0)
            return (batch.weight * errors).mean(), (errors, latents)

        train_state, (errors, latents) = self.optim.step(train_state, "model", loss, learning_rate)
        return train_state._replace(updates=train_state.updates + 1), {"loss": errors.mean()}, Feedback(errors, latents)
