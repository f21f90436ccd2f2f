"""Action values over any observation, as numbers or as distributions of the return."""

from __future__ import annotations

from typing import Any

import jax.numpy as jnp
from flax import linen as nn
from gymnasium import spaces

from renshu.networks.layers import ACTIVATIONS, NoisyDense, dense
from renshu.ops.spaces import encode
from renshu.types import Array, PyTree


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
