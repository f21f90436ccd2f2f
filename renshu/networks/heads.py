"""Policy heads: from features `[B, F]` to a distribution over actions."""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from gymnasium import spaces

from renshu.networks.layers import dense
from renshu.networks.state_noise import log_deviation, offset
from renshu.ops.distributions import Bernoulli, Categorical, MultiCategorical, Normal, TanhNormal
from renshu.types import Array

Distribution = Categorical | MultiCategorical | Bernoulli | Normal | TanhNormal


class PolicyHead(nn.Module):
    """From features `[B, F]` to a distribution over actions of `space`."""

    space: spaces.Space
    log_std_init: float = 0.0
    squash_output: bool = False
    ortho_init: bool = True
    use_bias: bool = True

    @nn.compact
    def __call__(self, features: Array) -> Distribution:
        outputs = dense(outputs_for(self.space), 0.01, self.ortho_init, self.use_bias)(features)
        if not isinstance(self.space, spaces.Box):
            return discrete(self.space, outputs)
        log_std = self.param("log_std", nn.initializers.constant(self.log_std_init), (outputs.shape[-1],))
        return (TanhNormal if self.squash_output else Normal)(outputs, jnp.broadcast_to(log_std, outputs.shape))


def outputs_for(space: spaces.Space) -> int:
    """Count the numbers that choose an action of a space: logits, or the mean of a Box."""
    if isinstance(space, spaces.Discrete):
        return int(space.n)
    if isinstance(space, spaces.MultiDiscrete):
        return int(np.sum(space.nvec))
    return math.prod(space.shape or ())


def discrete(space: spaces.Space, logits: Array) -> Categorical | MultiCategorical | Bernoulli:
    """Make a distribution over actions of a space that is no Box, of logits `[B, outputs_for(space)]`."""
    if isinstance(space, spaces.Discrete):
        return Categorical(logits)
    if isinstance(space, spaces.MultiDiscrete):
        parts = jnp.split(logits, np.cumsum(space.nvec)[:-1], axis=-1)
        return MultiCategorical(tuple(Categorical(part) for part in parts))
    return Bernoulli(logits)


class StateDependentHead(nn.Module):
    """From features `[B, F]` to a normal distribution over actions of a Box, with state-dependent noise (Raffin 2021).

    The noise does not shape the features: no gradient of the deviation reaches them (Stable-Baselines3's
    learn_features=False).
    """

    space: spaces.Box
    log_std_init: float = 0.0
    squash_output: bool = False
    ortho_init: bool = True

    def __call__(self, features: Array) -> Normal | TanhNormal:
        """Compute the distribution of actions, each with a newly drawn matrix (equation 7)."""
        mean, log_std = self._parts(features)
        deviation = log_deviation(jax.lax.stop_gradient(features), log_std)
        return (TanhNormal if self.squash_output else Normal)(mean, deviation)

    def act(self, features: Array, matrix: Array) -> Array:
        """Compute actions `[B, A]` by matrices of standard normal numbers, `[B, F, A]`."""
        mean, log_std = self._parts(features)
        action = mean + offset(features, log_std, matrix)
        return jnp.tanh(action) if self.squash_output else action

    @nn.compact
    def _parts(self, features: Array) -> tuple[Array, Array]:
        size = math.prod(self.space.shape)
        shape = (features.shape[-1], size)
        log_std = self.param("log_std", nn.initializers.constant(self.log_std_init), shape)
        return dense(size, 0.01, self.ortho_init)(features), log_std


def describe(policy: Distribution) -> dict[str, Array]:
    """Describe a distribution by the names that `explain` uses."""
    if isinstance(policy, Categorical):
        return {"probabilities": jax.nn.softmax(policy.logits)}
    if isinstance(policy, MultiCategorical):
        return {f"probabilities_{i}": jax.nn.softmax(part.logits) for i, part in enumerate(policy.parts)}
    if isinstance(policy, Bernoulli):
        return {"probabilities": jax.nn.sigmoid(policy.logits)}
    return {"mean": policy.mode(), "std": jnp.exp(policy.log_std)}
