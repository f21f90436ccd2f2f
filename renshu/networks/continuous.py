"""Actors, and ensembles of critics Q(observation, action), over any observation."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn
from gymnasium import spaces

from renshu.networks.actor_critic import ACTIVATIONS, dense, product
from renshu.ops.distributions import Categorical, TanhNormal
from renshu.ops.spaces import encode
from renshu.types import Array, Key, PyTree

DROPOUT = "dropout"
"""The stream of random numbers of dropout; without it nothing is dropped."""
STATISTICS = "batch_stats"
"""The collection of running statistics of batch normalisation."""
LOG_STD = (-20.0, 2.0)
"""Bounds of the log standard deviation that a network says (Haarnoja et al. 2018, reference implementation)."""
MOST_MEAN = 2.0
"""With state-dependent noise, means before the tanh stay within +- this (Raffin et al. 2021, reference code)."""


class BatchRenorm(nn.Module):
    """Batch renormalisation (Ioffe 2017, algorithm 1) of x `[B, F]`, with momentum and bounds of Bhatt et al. 2024.

    In training it takes the batch's mean and deviation, corrected towards the running ones (within `most_r` and
    `most_d`) from the `warmup`-th batch on; otherwise the running ones. They are the collection `batch_stats`.
    """

    momentum: float = 0.99
    epsilon: float = 1e-3
    most_r: float = 3.0
    most_d: float = 5.0
    warmup: int = 100_000

    @nn.compact
    def __call__(self, x: Array, train: bool = False) -> Array:
        shape = (x.shape[-1],)
        scale = self.param("scale", nn.initializers.ones, shape)
        bias = self.param("bias", nn.initializers.zeros, shape)
        mean = self.variable(STATISTICS, "mean", jnp.zeros, shape)
        var = self.variable(STATISTICS, "var", jnp.ones, shape)
        batches = self.variable(STATISTICS, "batches", jnp.int32, 0)
        std = jnp.sqrt(var.value + self.epsilon)
        if not train:
            return (x - mean.value) / std * scale + bias
        batch_mean, batch_var = x.mean(axis=0), x.var(axis=0)
        batch_std = jnp.sqrt(batch_var + self.epsilon)
        r = jnp.clip(batch_std / std, 1 / self.most_r, self.most_r)
        d = jnp.clip((batch_mean - mean.value) / std, -self.most_d, self.most_d)
        warm = batches.value >= self.warmup
        r, d = jax.lax.stop_gradient((jnp.where(warm, r, 1.0), jnp.where(warm, d, 0.0)))
        if not self.is_initializing():
            mean.value += (1 - self.momentum) * (batch_mean - mean.value)
            var.value += (1 - self.momentum) * (batch_var - var.value)
            batches.value += 1
        return ((x - batch_mean) / batch_std * r + d) * scale + bias


class Hidden(nn.Module):
    """Hidden layers over x `[B, F]`: features `[B, widths[-1]]`.

    dropout, layer_norm: before the activation (Hiraoka et al. 2022, "Dropout Q-functions", figure 2). batch_norm: of
    the input and after each activation (Bhatt et al. 2024, "CrossQ").
    """

    widths: tuple[int, ...]
    activation: str = "relu"
    layer_norm: bool = False
    dropout: float = 0.0
    batch_norm: bool = False

    @nn.compact
    def __call__(self, x: Array, train: bool = False) -> Array:
        if self.batch_norm:
            x = BatchRenorm()(x, train)
        for width in self.widths:
            x = dense(width, 1.0, False)(x)
            if self.has_rng(DROPOUT):
                kept = jax.random.bernoulli(self.make_rng(DROPOUT), 1 - self.dropout, x.shape)
                x = jnp.where(kept, x / (1 - self.dropout), 0.0)
            if self.layer_norm:
                x = nn.LayerNorm()(x)
            x = ACTIVATIONS[self.activation](x)
            if self.batch_norm:
                x = BatchRenorm()(x, train)
        return x


class Torso(nn.Module):
    """From observations `[B, ...]` to features `[B, F]`: hidden layers, or an own module in their place."""

    space: spaces.Space
    hidden: Hidden
    own: nn.Module | None = None

    def __call__(self, obs: PyTree, train: bool = False) -> Array:
        return self.hidden(encode(self.space, obs), train) if self.own is None else self.own(obs)


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
        """The distribution that actions have when the matrix is drawn anew for each (equation 7)."""
        features = self.torso(obs, train)
        var = product(features**2, jnp.exp(2 * self.log_std))
        return TanhNormal(self._mean(features), 0.5 * jnp.log(var + 1e-6))

    def act(self, obs: PyTree, noise: Array) -> Array:
        """Actions `[B, size]` by matrices of standard normal numbers, `[B, F, size]`."""
        features = self.torso(obs)
        return jnp.tanh(self._mean(features) + jnp.einsum("bf,bfa->ba", features, jnp.exp(self.log_std) * noise))

    def _mean(self, features: Array) -> Array:
        return jnp.clip(self.mean(features), -MOST_MEAN, MOST_MEAN)


class CategoricalActor(nn.Module):
    """Probabilities of `size` choices."""

    torso: nn.Module
    size: int

    @nn.compact
    def __call__(self, obs: PyTree, train: bool = False) -> Categorical:
        return Categorical(dense(self.size, 1.0, False)(self.torso(obs, train)))


class Critic(nn.Module):
    """Values `[B, outputs]` of observations and actions `[B, A]`; of all choices where no action is given.

    own: a module that makes features of the observation, which go through the hidden layers with the action.
    """

    space: spaces.Space
    hidden: nn.Module
    own: nn.Module | None = None
    outputs: int = 1

    @nn.compact
    def __call__(self, obs: PyTree, action: Array | None = None, train: bool = False) -> Array:
        x = encode(self.space, obs) if self.own is None else self.own(obs)
        if action is not None:
            x = jnp.concatenate([x, action], axis=-1)
        return dense(self.outputs, 1.0, False)(self.hidden(x, train))


def ensemble(init: Callable[[Key], PyTree], count: int, key: Key) -> tuple[PyTree, ...]:
    """Parameters of `count` networks of one kind, each drawn for itself."""
    return members(jax.vmap(init)(jax.random.split(key, count)), count)


def members(stacked: PyTree, count: int) -> tuple[PyTree, ...]:
    """The members of an ensemble that is stacked along the first axis."""
    return tuple(jax.tree.map(lambda x, i=i: x[i], stacked) for i in range(count))


def each(fn: Callable[..., PyTree], *of: tuple[Any, ...]) -> PyTree:
    """Apply `fn` to the parameters (and whatever else) of each member: results stacked along a new first axis.

    On a CPU one after the other, since products of small matrices in a batch are slower there; else all at once.
    """
    if jax.default_backend() == "cpu":
        return _stack(*(fn(*one) for one in zip(*of, strict=True)))
    return jax.vmap(fn)(*(_stack(*one) for one in of))


def _stack(*trees: PyTree) -> PyTree:
    return jax.tree.map(lambda *x: jnp.stack(x), *trees)
