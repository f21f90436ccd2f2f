"""Value heads: action values as one number, as a histogram of the return, or as its quantiles.

Each head takes the output of a network for B states and A actions, `out` [B, A, K]:

- `values(out)` -> [B, A]: the expected return of each action;
- `target(next_out, policy, bonus, reward, discount)`: target of the chosen action's `out`, from the target
  network's output for the next states, the policy there [B, A], and a `bonus` [B, A] on the value after each action;
- `loss(out, target, taus)` -> [B], [B]: loss of the chosen action's K numbers [B, K], and its error, for priorities.
"""

from __future__ import annotations

from dataclasses import dataclass

import jax
import jax.numpy as jnp

from renshu.types import Array


def huber(x: Array, delta: float = 1.0) -> Array:
    """Compute a loss that is quadratic up to `delta` and linear beyond (Huber 1964)."""
    size = jnp.abs(x)
    return jnp.where(size <= delta, 0.5 * x**2, delta * (size - 0.5 * delta))


def quantile_huber(out: Array, target: Array, taus: Array) -> tuple[Array, Array]:
    """Compute quantile regression with Huber's loss (QR-DQN, equation 10), `[B]`, and mean absolute errors, `[B]`.

    out: `[B, K]`, quantiles at fractions `taus` `[B, K]`, summed over. target: `[B, K']`, averaged over.
    """
    error = target[:, None, :] - out[:, :, None]  # [B, K, K']
    slope = jnp.abs(taus[:, :, None] - (error < 0))
    loss = (slope * huber(error)).mean(axis=2).sum(axis=1)
    return loss, jnp.abs(error).mean(axis=(1, 2))


def rescale(x: Array, eps: float = 1e-3) -> Array:
    """Squash returns: sign(x) (sqrt(|x| + 1) - 1) + eps x (Pohlen 2018, "Observe and look further", section 3.2)."""
    return jnp.sign(x) * (jnp.sqrt(jnp.abs(x) + 1) - 1) + eps * x


def unscale(x: Array, eps: float = 1e-3) -> Array:
    """Undo `rescale` (proposition A.2 there)."""
    root = (jnp.sqrt(1 + 4 * eps * (jnp.abs(x) + 1 + eps)) - 1) / (2 * eps)
    return jnp.sign(x) * (root**2 - 1)


@dataclass(frozen=True)
class Mean:
    """One number: the expected return."""

    squared: bool = False
    rescaled: bool = False
    outputs: int = 1

    def values(self, out: Array) -> Array:
        """Compute expected returns, [B, A]."""
        return unscale(out[..., 0]) if self.rescaled else out[..., 0]

    def target(self, next_out: Array, policy: Array, bonus: Array, reward: Array, discount: Array) -> Array:
        """Compute the reward plus the discounted value after it, [B, 1]."""
        after = unscale(next_out) if self.rescaled else next_out
        after = (policy * (after[..., 0] + bonus)).sum(axis=1)
        target = (reward + discount * after)[:, None]
        return rescale(target) if self.rescaled else target

    def loss(self, out: Array, target: Array, taus: Array) -> tuple[Array, Array]:
        """Compute Huber's loss, or the squared error as PyTorch has it (without the half)."""
        error = (out - target)[:, 0]
        return error**2 if self.squared else huber(error), error


@dataclass(frozen=True)
class Histogram:
    """C51 (Bellemare 2017, "A distributional perspective"): probabilities of `outputs` returns, evenly spaced."""

    low: float
    high: float
    outputs: int = 51

    @property
    def support(self) -> Array:
        """The returns, [K]."""
        return jnp.linspace(self.low, self.high, self.outputs)

    def values(self, out: Array) -> Array:
        """Compute expected returns, [B, A]."""
        return jax.nn.softmax(out) @ self.support

    def target(self, next_out: Array, policy: Array, bonus: Array, reward: Array, discount: Array) -> Array:
        """Project the discounted distribution after the reward on the support (algorithm 1), [B, K]."""
        after = jnp.einsum("ba,bak->bk", policy, jax.nn.softmax(next_out))
        places = reward[:, None] + discount[:, None] * self.support + (discount * (policy * bonus).sum(axis=1))[:, None]
        step = (self.high - self.low) / (self.outputs - 1)
        position = (places.clip(self.low, self.high) - self.low) / step
        near = jnp.maximum(0.0, 1.0 - jnp.abs(position[:, :, None] - jnp.arange(self.outputs)))
        return jnp.einsum("bj,bjk->bk", after, near)

    def loss(self, out: Array, target: Array, taus: Array) -> tuple[Array, Array]:
        """Compute the cross-entropy; the error for priorities is the divergence, as in Rainbow (Hessel et al. 2018)."""
        cross = -(target * jax.nn.log_softmax(out)).sum(axis=1)
        return cross, cross + (target * jnp.log(jnp.maximum(target, 1e-30))).sum(axis=1)


@dataclass(frozen=True)
class Quantiles:
    """Quantiles of the return: at fixed fractions (QR-DQN, Dabney et al. 2018) or at drawn ones (IQN)."""

    outputs: int = 200
    rescaled: bool = False

    @property
    def midpoints(self) -> Array:
        """The fixed fractions, [K]."""
        return (jnp.arange(self.outputs) + 0.5) / self.outputs

    def values(self, out: Array) -> Array:
        """Compute expected returns, [B, A]."""
        return (unscale(out) if self.rescaled else out).mean(axis=-1)

    def target(self, next_out: Array, policy: Array, bonus: Array, reward: Array, discount: Array) -> Array:
        """Compute quantiles after the reward, [B, K], averaged over actions (Vieillard 2020, appendix)."""
        after = unscale(next_out) if self.rescaled else next_out
        after = jnp.einsum("ba,bak->bk", policy, after + bonus[..., None])
        target = reward[:, None] + discount[:, None] * after
        return rescale(target) if self.rescaled else target

    def loss(self, out: Array, target: Array, taus: Array) -> tuple[Array, Array]:
        """Compute the loss of `quantile_huber`."""
        return quantile_huber(out, target, taus)
