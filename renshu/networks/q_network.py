"""Action values over any observation, as numbers or as distributions of the return."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn
from gymnasium import spaces

from renshu.networks.actor_critic import ACTIVATIONS, dense, product
from renshu.ops.spaces import encode
from renshu.types import Array, PyTree

NOISE = "noise"
"""The stream of random numbers of noisy layers; without it they give their mean."""


class NoisyDense(nn.Module):
    """A linear layer with noise on its weights whose size is learned; factorised (Fortunato et al. 2018, section 3)."""

    width: int
    sigma: float = 0.5

    @nn.compact
    def __call__(self, x: Array) -> Array:
        fan_in = x.shape[-1]

        def uniform(key: Any, shape: tuple[int, ...]) -> Array:
            return jax.random.uniform(key, shape, minval=-1, maxval=1) / jnp.sqrt(fan_in)

        spread = nn.initializers.constant(self.sigma / fan_in**0.5)
        weight = self.param("kernel", uniform, (fan_in, self.width))
        bias = self.param("bias", uniform, (self.width,))
        weight_sigma = self.param("kernel_sigma", spread, (fan_in, self.width))
        bias_sigma = self.param("bias_sigma", spread, (self.width,))
        if self.has_rng(NOISE):
            key_in, key_out = jax.random.split(self.make_rng(NOISE))
            noise_in, noise_out = (
                jnp.sign(e) * jnp.sqrt(jnp.abs(e))
                for e in (jax.random.normal(key_in, (fan_in,)), jax.random.normal(key_out, (self.width,)))
            )
            weight = weight + weight_sigma * noise_in[:, None] * noise_out
            bias = bias + bias_sigma * noise_out
        return product(x, weight) + bias


class QNetwork(nn.Module):
    """From observations `[B, ...]` to `[B, A, K]`: K numbers for each of A actions.

    torso: an own module in place of the hidden layers, or None. dueling: value and advantage apart (Wang et al. 2016,
    equation 9). noisy: noisy layers. embedding: with quantile fractions `taus` [B, K] as the second argument, features
    are multiplied by an embedding of that many cosines (Dabney et al. 2018, "Implicit quantile networks", equation 4).
    layer_norm: before each activation of the hidden layers (Gallici et al. 2024, "Simplifying deep temporal ...").
    """

    space: spaces.Space
    actions: int
    outputs: int = 1
    widths: tuple[int, ...] = (64, 64)
    activation: str = "relu"
    torso: nn.Module | None = None
    dueling: bool = False
    noisy: bool = False
    embedding: int = 0
    layer_norm: bool = False

    @nn.compact
    def __call__(self, obs: PyTree, taus: Array | None = None) -> Array:
        def layer(width: int) -> nn.Module:
            return NoisyDense(width) if self.noisy else dense(width, 1.0, False)

        activation = ACTIVATIONS[self.activation]
        if self.torso is not None:
            x = self.torso(obs)
        else:
            x = encode(self.space, obs)
            for width in self.widths:
                x = layer(width)(x)
                x = activation(nn.LayerNorm()(x) if self.layer_norm else x)
        if taus is not None:
            waves = jnp.cos(jnp.pi * taus[..., None] * jnp.arange(1, self.embedding + 1))
            x = x[:, None] * nn.relu(nn.Dense(x.shape[-1])(waves))  # [B, K, F]
            return jnp.swapaxes(self.heads(x, 1, layer)[..., 0], 1, 2)
        return self.heads(x, self.outputs, layer)

    def heads(self, x: Array, outputs: int, layer: Any) -> Array:
        """From features `[..., F]` to `[..., A, K]`."""
        advantage = layer(self.actions * outputs)(x).reshape(*x.shape[:-1], self.actions, outputs)
        if not self.dueling:
            return advantage
        value = layer(outputs)(x)[..., None, :]
        return value + advantage - advantage.mean(axis=-2, keepdims=True)
