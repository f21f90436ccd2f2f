"""Encoders: from observations of any space to features `[B, F]`."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn
from gymnasium import spaces

from renshu.errors import HyperparameterError
from renshu.networks.convolutions import WIDTHS, cnn_for, convolution
from renshu.networks.layers import ACTIVATIONS, DROPOUT, BatchRenorm, dense
from renshu.ops.images import has_images, layout_of, pixels
from renshu.ops.spaces import dummy, encode, encode_leaf, joined, leaf_spaces, map_space
from renshu.types import Array, PyTree


class Encoder(nn.Module):
    """Make one vector `[B, F]` of an observation: images through a convolution each, all else as `encode` does.

    cnn: a name in `ops.images.CNN`; given, Boxes of other numbers than uint8 are images too, if they have the axes.
    """

    space: spaces.Space
    cnn: str | None = None
    ortho_init: bool = False
    layer_norm: bool = False

    @nn.compact
    def __call__(self, obs: PyTree) -> Array:
        if not has_images(self.space, self.cnn is not None):
            return encode(self.space, obs)
        parts: list[Array] = []

        def one(leaf: Any, x: Array) -> None:
            layout = layout_of(leaf, self.cnn is not None)
            if layout is None:
                return parts.append(encode_leaf(leaf, x))
            made = convolution(cnn_for(self.cnn, layout), ortho_init=self.ortho_init, layer_norm=self.layer_norm)
            return parts.append(made(pixels(leaf, x, layout)))  # type: ignore[operator]

        map_space(one, self.space, obs)
        return joined(parts)


def default_widths(space: spaces.Space, cnn: str | None, otherwise: tuple[int, ...]) -> tuple[int, ...]:
    """Return the widths of hidden layers that none were asked for: those behind the first image's convolution."""
    found = (layout_of(leaf, cnn is not None) for leaf in leaf_spaces(space))
    layout = next((layout for layout in found if layout is not None), None)
    return otherwise if layout is None else WIDTHS[cnn_for(cnn, layout)]


class MLP(nn.Module):
    """Encode an observation `[B, ...]` as one vector and pass it through hidden layers: features `[B, widths[-1]]`."""

    space: spaces.Space
    widths: tuple[int, ...]
    activation: str = "tanh"
    ortho_init: bool = True
    cnn: str | None = None

    @nn.compact
    def __call__(self, obs: PyTree) -> Array:
        x = Encoder(self.space, self.cnn, self.ortho_init)(obs)
        for width in self.widths:
            x = ACTIVATIONS[self.activation](dense(width, 2**0.5, self.ortho_init)(x))
        return x


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
    cnn: str | None = None

    @nn.compact
    def __call__(self, obs: PyTree, train: bool = False) -> Array:
        return self.hidden(Encoder(self.space, self.cnn)(obs), train) if self.own is None else self.own(obs)


def check_own(network: nn.Module, space: spaces.Space) -> None:
    """Raise HyperparameterError where a user's network does not take observations or returns no features `[B, F]`."""
    obs, name = dummy(space, 2), type(network).__name__
    try:
        features, variables = jax.eval_shape(lambda: network.init_with_output(jax.random.key(0), obs))
    except Exception as error:
        raise HyperparameterError(
            f"network: {name} does not take observations of {space} in batches of 2: {type(error).__name__}: {error}"
        ) from error
    if not hasattr(features, "shape") or len(features.shape) != 2 or features.shape[0] != 2:
        got = getattr(features, "shape", type(features).__name__)
        raise HyperparameterError(f"network: {name} must return features of shape [B, F], here (2, F), not {got}")
    if set(variables) - {"params"}:
        extra = ", ".join(sorted(set(variables) - {"params"}))
        raise HyperparameterError(f"network: {name} keeps variables beside its params ({extra}); that is not supported")
