"""Action values over any observation, as numbers or as distributions of the return."""

from __future__ import annotations

from typing import Any

import jax.numpy as jnp
from flax import linen as nn
from gymnasium import spaces

from renshu.networks.encoders import Encoder
from renshu.networks.layers import ACTIVATIONS, NoisyDense, dense
from renshu.networks.recurrent import Core
from renshu.ops.images import has_images
from renshu.types import Array, PyTree


class QNetwork(nn.Module):
    """From observations `[B, ...]` to `[B, A, K]`: K numbers for each of A actions.

    torso: an own module in place of the hidden layers, or None. dueling: value and advantage apart, each with a hidden
    layer of its own, as wide as the last of `widths`, which the shared ones then lack (Wang et al. 2016, figure 1 and
    equation 9); a single width is that of a shared layer too, unless a convolution is shared. noisy: noisy layers.
    embedding: with quantile fractions `taus` [B, K] as the second argument, features are multiplied by an embedding of
    that many cosines (Dabney et al. 2018, "Implicit quantile networks", equation 4). layer_norm: before each activation
    of the hidden layers (Gallici et al. 2024, "Simplifying deep temporal ..."). cnn: as for an Encoder. core: a
    recurrent layer before the heads; then obs are `[T * B, ...]` and `memory` its carry `[B, ...]` and `first` [T, B],
    and the carry after them is returned too.
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
    cnn: str | None = None
    core: Core | None = None

    @nn.compact
    def __call__(
        self, obs: PyTree, taus: Array | None = None, memory: tuple[PyTree, Array] | None = None
    ) -> Array | tuple[Array, PyTree]:
        def layer(width: int) -> nn.Module:
            return NoisyDense(width) if self.noisy else dense(width, 1.0, False)

        activation = ACTIVATIONS[self.activation]
        if self.torso is not None:
            x = self.torso(obs)
        else:
            x = Encoder(self.space, self.cnn, layer_norm=self.layer_norm)(obs)
            alone = not has_images(self.space, self.cnn is not None)
            shared = self.widths[:-1] or self.widths * alone if self.dueling else self.widths
            for width in shared:
                x = layer(width)(x)
                x = activation(nn.LayerNorm()(x) if self.layer_norm else x)
        if taus is not None:
            waves = jnp.cos(jnp.pi * taus[..., None] * jnp.arange(1, self.embedding + 1))
            x = x[:, None] * nn.relu(nn.Dense(x.shape[-1])(waves))  # [B, K, F]
            return jnp.swapaxes(self.heads(x, 1, layer)[..., 0], 1, 2)
        if self.core is None or memory is None:
            return self.heads(x, self.outputs, layer)
        carry, first = memory
        x, carry = self.core(x.reshape(*first.shape, x.shape[-1]), carry, first)
        return self.heads(x.reshape(-1, x.shape[-1]), self.outputs, layer), carry

    def stream(self, x: Array, layer: Any) -> Array:
        """Apply the hidden layer of one of the two dueling streams, `[..., F]` to `[..., F']`."""
        if not self.dueling or not self.widths:
            return x
        x = layer(self.widths[-1])(x)
        return ACTIVATIONS[self.activation](nn.LayerNorm()(x) if self.layer_norm else x)

    def heads(self, x: Array, outputs: int, layer: Any) -> Array:
        """From features `[..., F]` to `[..., A, K]`."""
        advantage = layer(self.actions * outputs)(self.stream(x, layer)).reshape(*x.shape[:-1], self.actions, outputs)
        if not self.dueling:
            return advantage
        value = layer(outputs)(self.stream(x, layer))[..., None, :]
        return value + advantage - advantage.mean(axis=-2, keepdims=True)
