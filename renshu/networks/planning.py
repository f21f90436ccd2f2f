"""Networks of learners that plan: a policy and a value of boards and of other observations."""

from __future__ import annotations

import jax.numpy as jnp
from flax import linen as nn
from gymnasium import spaces

from renshu.networks.convolutions import convolve
from renshu.networks.encoders import Encoder
from renshu.networks.layers import dense
from renshu.ops.images import scaled
from renshu.types import Array, PyTree

LEAST_VARIANCE = 1e-5


def is_board(space: spaces.Space) -> bool:
    """Tell whether observations are boards: planes `[height, width, C]` of numbers or bits."""
    return isinstance(space, spaces.Box | spaces.MultiBinary) and len(space.shape or ()) == 3


class Conv(nn.Module):
    """A 3x3 convolution of boards `[B, height, width, C]` that keeps their size, without a bias."""

    channels: int

    @nn.compact
    def __call__(self, x: Array) -> Array:
        kernel = self.param("kernel", nn.initializers.he_normal(), (3, 3, x.shape[-1], self.channels))
        return convolve(x, kernel, 1, ((1, 1), (1, 1)))


class Norm(nn.Module):
    """Normalisation over all squares and channels of a board, with a scale and a bias for each channel."""

    @nn.compact
    def __call__(self, x: Array) -> Array:
        mean = x.mean(axis=(1, 2, 3), keepdims=True)
        variance = x.var(axis=(1, 2, 3), keepdims=True)
        scale = self.param("scale", nn.initializers.ones, (x.shape[-1],))
        bias = self.param("bias", nn.initializers.zeros, (x.shape[-1],))
        return (x - mean) / jnp.sqrt(variance + LEAST_VARIANCE) * scale + bias


class ResidualTower(nn.Module):
    """Residual blocks over boards (He et al. 2016, pre-activation): `[B, height, width, C]` to `[.., channels]`."""

    blocks: int
    channels: int

    @nn.compact
    def __call__(self, x: Array) -> Array:
        x = Conv(self.channels)(x)
        for _ in range(self.blocks):
            inner = Conv(self.channels)(nn.relu(Norm()(x)))
            x = x + Conv(self.channels)(nn.relu(Norm()(inner)))
        return nn.relu(Norm()(x))


class PolicyValueNetwork(nn.Module):
    """From observations `[B, ...]` to the logits of actions `[B, A]` and a value `[B]` (Silver et al. 2018).

    Boards pass a residual tower, all other observations hidden layers of `widths`. bounded: values are within [-1, 1],
    as in games that are won or lost.
    """

    space: spaces.Space
    actions: int
    blocks: int = 2
    channels: int = 32
    widths: tuple[int, ...] = (64, 64)
    bounded: bool = True

    @nn.compact
    def __call__(self, obs: PyTree) -> tuple[Array, Array]:
        if is_board(self.space):
            x = ResidualTower(self.blocks, self.channels)(scaled(self.space, obs))
            policy, value = (nn.relu(dense(n, 1.0, False)(x)).reshape(len(x), -1) for n in (4, 2))
            value = nn.relu(dense(self.channels, 1.0, False)(value))
        else:
            x = Encoder(self.space)(obs)
            for width in self.widths:
                x = nn.relu(dense(width, 1.0, False)(x))
            policy = value = x
        logits = nn.Dense(self.actions, kernel_init=nn.initializers.zeros)(policy)
        value = nn.Dense(1, kernel_init=nn.initializers.zeros)(value)[:, 0]
        return logits, jnp.tanh(value) if self.bounded else value
