"""Layers: linear ones with a fast gradient, noisy ones, batch renormalisation."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn

from renshu.types import Array

ACTIVATIONS: dict[str, Callable[[Array], Array]] = {"tanh": jnp.tanh, "relu": nn.relu, "elu": nn.elu, "silu": nn.silu}

DROPOUT = "dropout"
"""The stream of random numbers of dropout; without it nothing is dropped."""
STATISTICS = "batch_stats"
"""The collection of running statistics of batch normalisation."""
NOISE = "noise"
"""The stream of random numbers of noisy layers; without it they give their mean."""


def product(x: Array, w: Array) -> Array:
    """Compute x [..., F] @ w [F, G], with a gradient that XLA multiplies fast on a CPU."""
    return _product(x.reshape(-1, x.shape[-1]), w).reshape(*x.shape[:-1], w.shape[-1])


@jax.custom_vjp
def _product(x: Array, w: Array) -> Array:
    return x @ w


def _product_forward(x: Array, w: Array) -> tuple[Array, tuple[Array, Array]]:
    return x @ w, (x, w)


def _product_backward(saved: tuple[Array, Array], g: Array) -> tuple[Array, Array]:
    x, w = saved
    if g.shape[1] == 1:
        return g @ w.T, (g.T @ x).T
    # XLA folds the transposition into the product, which on a CPU halves its speed; written out it costs a tenth.
    x_t = jax.lax.optimization_barrier(x.T) if jax.default_backend() == "cpu" else x.T
    return g @ w.T, x_t @ g


_product.defvjp(_product_forward, _product_backward)


def orthogonal(gain: float) -> Callable[..., Array]:
    """Make an initialiser of orthogonal matrices (Saxe et al. 2014), times `gain`.

    A tall matrix of normal numbers is well conditioned: Cholesky's factor of its square gives the same as a QR
    decomposition in a twentieth of the time.
    """

    def init(key: Any, shape: tuple[int, ...], dtype: Any = jnp.float32) -> Array:
        rows, columns = math.prod(shape[:-1]), shape[-1]
        if columns < 128 or rows < 2 * columns:
            return nn.initializers.orthogonal(gain)(key, shape, dtype)
        normal = jax.random.normal(key, (rows, columns), dtype)
        factor = jnp.linalg.cholesky(normal.T @ normal, symmetrize_input=False)
        return gain * jax.scipy.linalg.solve_triangular(factor, normal.T, lower=True).T.reshape(shape)

    return init


def dense(width: int, gain: float, orthogonally: bool, use_bias: bool = True) -> nn.Dense:
    """Make a linear layer; orthogonal initialisation with `gain`, or Flax's own (LeCun normal)."""
    init = orthogonal(gain) if orthogonally else nn.initializers.lecun_normal()
    return nn.Dense(width, use_bias, kernel_init=init, dot_general=lambda x, w, *_, **__: product(x, w))


class NoisyDense(nn.Module):
    """A linear layer with factorised noise of learned size on its weights (Fortunato et al. 2018, section 3)."""

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
