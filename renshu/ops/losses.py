"""Losses of values and policies, as functions of arrays. `weight` [B] are importance-sampling weights."""

from __future__ import annotations

import jax
import jax.numpy as jnp

from renshu.ops.value_heads import quantile_huber
from renshu.types import Array


def td_loss(q: Array, target: Array, weight: Array, scale: float = 1.0) -> tuple[Array, Array]:
    """Compute the weighted mean of squared TD errors, summed over an ensemble; and absolute errors, `[B]`.

    q: `[n, B, 1]`, of n critics. target: `[B, 1]`, through which no gradient flows. scale: 0.5 in SAC.
    """
    error = (q - jax.lax.stop_gradient(target))[..., 0]
    return (weight * (scale * (error**2).sum(axis=0))).mean(), jnp.abs(error).mean(axis=0)


def quantile_td_loss(q: Array, target: Array, taus: Array, weight: Array) -> tuple[Array, Array]:
    """Compute quantile regression of an ensemble (Kuznetsov et al. 2020, section 3); and absolute errors, `[B]`.

    q: `[n, B, K]`, quantiles of n critics at fractions `taus` `[K]`. target: `[B, K']`.
    """
    taus = jnp.broadcast_to(taus, q.shape[1:])
    losses, errors = jax.vmap(lambda one: quantile_huber(one, jax.lax.stop_gradient(target), taus))(q)
    return (weight * (losses.mean(axis=0) / q.shape[-1])).mean(), errors.mean(axis=0)


def soft_actor_loss(q: Array, log_prob: Array, temperature: Array | float) -> Array:
    """Compute the loss of a stochastic policy: alpha log pi(a|s) - Q(s, a) (Haarnoja 2018, equation 9).

    q: `[B, 1]`, of actions drawn from the policy. log_prob: `[B]`.
    """
    return -(q - temperature * log_prob[:, None]).mean()


def temperature_loss(log_temperature: Array, entropy: Array, target: Array | float) -> Array:
    """Compute the loss of a learned temperature: it rises while the entropy is below its target (equation 18 there)."""
    return log_temperature * jax.lax.stop_gradient(entropy - target)
