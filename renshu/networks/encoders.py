"""Encoders: from observations of any space to features `[B, F]`."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from flax import linen as nn
from gymnasium import spaces

from renshu.errors import HyperparameterError
from renshu.networks.layers import ACTIVATIONS, DROPOUT, BatchRenorm, dense
from renshu.ops.spaces import dummy, encode
from renshu.types import Array, PyTree


class MLP(nn.Module):
    """Encode an observation `[B, ...]` as one vector and pass it through hidden layers: features `[B, widths[-1]]`."""

    space: spaces.Space
    widths: tuple[int, ...]
    activation: str = "tanh"
    ortho_init: bool = True

    @nn.compact
    def __call__(self, obs: PyTree) -> Array:
        x = encode(self.space, obs)
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

    def __call__(self, obs: PyTree, train: bool = False) -> Array:
        return self.hidden(encode(self.space, obs), train) if self.own is None else self.own(obs)


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
