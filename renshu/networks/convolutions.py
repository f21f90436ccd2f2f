"""Convolutions: from images `[B, height, width, channels]` to features `[B, F]`, before any dense layer."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, TypeAlias

import jax
import jax.numpy as jnp
from flax import linen as nn

from renshu.errors import HyperparameterError
from renshu.networks.layers import orthogonal
from renshu.ops.images import Layout
from renshu.types import Array

WIDTHS = {"nature": (512,), "impala": (256,), "minatar": (128,)}
"""Hidden layers behind each convolution, as published."""
_SMALLEST = {"nature": 36, "impala": 8, "minatar": 3}
_NATURE_FROM = _SMALLEST["nature"]


def cnn_for(cnn: str | None, layout: Layout) -> str:
    """Choose the convolution for an image. Raises HyperparameterError where the image is too small for it."""
    height, width, channels = layout.shape
    side = min(height, width)
    chosen = cnn or ("nature" if side >= _NATURE_FROM else "minatar")
    if side < _SMALLEST[chosen]:
        fits = [name for name, least in _SMALLEST.items() if side >= least]
        raise HyperparameterError(
            f'cnn="{chosen}" takes images of at least {_SMALLEST[chosen]} x {_SMALLEST[chosen]} pixels, and this one '
            f"has {height} x {width} with {channels} channels: "
            + (f"take cnn={' or '.join(map(repr, fits))}" if fits else "pass a network of your own, or make it larger")
        )
    return chosen


class Nature(nn.Module):
    """Three convolutions, for 84 x 84 pixels (Mnih et al. 2015, "Human-level control", methods)."""

    conv: Callable[..., Any]

    @nn.compact
    def __call__(self, x: Array) -> Array:
        for features, size, stride in ((32, 8, 4), (64, 4, 2), (64, 3, 1)):
            x = nn.relu(self.conv(features, size, stride, "VALID")(x))
        return x.reshape(x.shape[0], -1)


class Impala(nn.Module):
    """Three blocks of a convolution, a maximum and two residual blocks (Espeholt et al. 2018, "IMPALA", figure 3)."""

    conv: Callable[..., Any]

    @nn.compact
    def __call__(self, x: Array) -> Array:
        for features in (16, 32, 32):
            x = self.conv(features, 3, 1, "SAME")(x)
            x = nn.max_pool(x, (3, 3), (2, 2), "SAME")
            for _ in range(2):
                inner = self.conv(features, 3, 1, "SAME")(nn.relu(x))
                x = x + self.conv(features, 3, 1, "SAME")(nn.relu(inner))
        return nn.relu(x).reshape(x.shape[0], -1)


class MinAtar(nn.Module):
    """One small convolution, for boards of 10 x 10 cells (Young & Tian 2019, "MinAtar", section 3)."""

    conv: Callable[..., Any]

    @nn.compact
    def __call__(self, x: Array) -> Array:
        x = nn.relu(self.conv(16, 3, 1, "VALID")(x))
        return x.reshape(x.shape[0], -1)


class Conv(nn.Module):
    """A convolution with a square kernel, and a gradient that is fast inside loops too.

    padding: "VALID" or "SAME". ortho_init: orthogonal initialisation with gain sqrt(2), otherwise Flax's own.
    layer_norm: normalise what comes out over its height, width and channels.
    """

    features: int
    size: int
    stride: int
    padding: str
    ortho_init: bool
    layer_norm: bool

    @nn.compact
    def __call__(self, x: Array) -> Array:
        init = orthogonal(2**0.5) if self.ortho_init else nn.initializers.lecun_normal()
        kernel = self.param("kernel", init, (self.size, self.size, x.shape[-1], self.features))
        bias = self.param("bias", nn.initializers.zeros, (self.features,))
        sides, sizes, strides = x.shape[1:3], (self.size,) * 2, (self.stride,) * 2
        x = convolve(x, kernel, self.stride, tuple(jax.lax.padtype_to_pads(sides, sizes, strides, self.padding))) + bias
        return nn.LayerNorm(reduction_axes=(-3, -2, -1))(x) if self.layer_norm else x


Padding: TypeAlias = "tuple[tuple[int, int], ...]"


def convolve(x: Array, kernel: Array, stride: int, padding: Padding) -> Array:
    """Convolve x `[B, H, W, C]` with a kernel `[h, w, C, D]`; padding: before and after, of height and width."""
    return (_convolve if jax.default_backend() == "cpu" else _plain)(x, kernel, stride, padding)


def _plain(
    x: Array, kernel: Array, stride: int, padding: Padding, lhs_dilation: int = 1, rhs_dilation: int = 1
) -> jax.Array:
    dilations = (lhs_dilation,) * 2, (rhs_dilation,) * 2
    return jax.lax.conv_general_dilated(
        x, kernel, (stride,) * 2, padding, *dilations, dimension_numbers=("NHWC", "HWIO", "NHWC")
    )


@partial(jax.custom_vjp, nondiff_argnums=(2, 3))
def _convolve(x: Array, kernel: Array, stride: int, padding: Padding) -> jax.Array:
    return _plain(x, kernel, stride, padding)


def _forward(x: Array, kernel: Array, stride: int, padding: Padding) -> tuple[jax.Array, tuple[Array, Array]]:
    return _plain(x, kernel, stride, padding), (x, kernel)


def _backward(stride: int, padding: Padding, saved: tuple[Array, Array], g: Array) -> tuple[Array, Array]:
    """Compute both gradients as convolutions of the one layout that XLA's fast routines on a CPU take.

    XLA brings other layouts into that form at the top of a program, but not inside loops, where they take 25 times as
    long. The barriers keep it from undoing the transpositions.
    """
    (x, kernel), barrier = saved, jax.lax.optimization_barrier
    sides = [
        (size, length, (out - 1) * stride + 1, before)
        for size, length, out, (before, _) in zip(kernel.shape[:2], x.shape[1:3], g.shape[1:3], padding, strict=True)
    ]
    turned = barrier(jnp.flip(kernel, (0, 1)).transpose(0, 1, 3, 2))
    around = tuple((size - 1 - before, length + before - spread) for size, length, spread, before in sides)
    x_gradient = _plain(g, turned, 1, around, lhs_dilation=stride)
    inputs, outputs = barrier(x.transpose(3, 1, 2, 0)), barrier(g.transpose(1, 2, 0, 3))
    around = tuple((before, size - 1 + spread - length - before) for size, length, spread, before in sides)
    return x_gradient, _plain(inputs, outputs, 1, around, rhs_dilation=stride).transpose(1, 2, 0, 3)


_convolve.defvjp(_forward, _backward)


_KINDS: dict[str, type[nn.Module]] = {"nature": Nature, "impala": Impala, "minatar": MinAtar}


def convolution(name: str, *, ortho_init: bool, layer_norm: bool) -> nn.Module:
    """Make a convolution of a name in `CNN`. ortho_init, layer_norm: of each layer, as for Conv."""

    def conv(features: int, size: int, stride: int, padding: str) -> nn.Module:
        return Conv(features, size, stride, padding, ortho_init, layer_norm)

    return _KINDS[name](conv)
