"""Actors of learners from replay: a torso and a head, over any observation."""

from __future__ import annotations

import jax.numpy as jnp
from flax import linen as nn

from renshu.networks.layers import dense
from renshu.networks.state_noise import log_deviation, offset
from renshu.ops.distributions import Categorical, TanhNormal
from renshu.types import Array, PyTree

LOG_STD = (-20.0, 2.0)
"""Bounds of the log standard deviation that a network predicts (Haarnoja et al. 2018, reference implementation)."""
MOST_MEAN = 2.0
"""With state-dependent noise, means before the tanh stay within +- this (Raffin et al. 2021, reference code)."""


class DeterministicActor(nn.Module):
    """Actions `[B, size]` in [-1, 1] (Lillicrap et al. 2016)."""

    torso: nn.Module
    size: int

    @nn.compact
    def __call__(self, obs: PyTree, train: bool = False) -> Array:
        return jnp.tanh(dense(self.size, 1.0, False)(self.torso(obs, train)))


class GaussianActor(nn.Module):
    """A squashed normal distribution over actions `[B, size]` (Haarnoja et al. 2018, appendix C)."""

    torso: nn.Module
    size: int

    @nn.compact
    def __call__(self, obs: PyTree, train: bool = False) -> TanhNormal:
        mean, log_std = jnp.split(dense(2 * self.size, 1.0, False)(self.torso(obs, train)), 2, axis=-1)
        return TanhNormal(mean, jnp.clip(log_std, *LOG_STD))


class StateDependentActor(nn.Module):
    """A squashed normal whose noise is a function of the state: features times a random matrix (Raffin et al. 2021).

    width: of the features, F. log_std_init: initial log deviation of the matrix's entries.
    """

    torso: nn.Module
    size: int
    width: int
    log_std_init: float = -3.0

    def setup(self) -> None:
        self.mean = dense(self.size, 1.0, False)
        self.log_std = self.param("log_std", nn.initializers.constant(self.log_std_init), (self.width, self.size))

    def __call__(self, obs: PyTree, train: bool = False) -> TanhNormal:
        """Compute the distribution of actions, each with a newly drawn matrix (equation 7)."""
        features = self.torso(obs, train)
        return TanhNormal(self._mean(features), log_deviation(features, self.log_std))

    def act(self, obs: PyTree, noise: Array) -> Array:
        """Compute actions `[B, size]` by matrices of standard normal numbers, `[B, F, size]`."""
        features = self.torso(obs)
        return jnp.tanh(self._mean(features) + offset(features, self.log_std, noise))

    def _mean(self, features: Array) -> Array:
        return jnp.clip(self.mean(features), -MOST_MEAN, MOST_MEAN)


class CategoricalActor(nn.Module):
    """Probabilities of `size` choices."""

    torso: nn.Module
    size: int

    @nn.compact
    def __call__(self, obs: PyTree, train: bool = False) -> Categorical:
        return Categorical(dense(self.size, 1.0, False)(self.torso(obs, train)))
