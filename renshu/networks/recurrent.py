"""Recurrent cores: features of T steps of B environments in, features that remember out, cut where episodes begin."""

from __future__ import annotations

from typing import ClassVar

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from renshu.networks.layers import orthogonal, product
from renshu.types import Array, PyTree

CORES = (None, "lstm", "gru", "mingru")
"""Values of the hyperparameter `recurrent`."""
LONGEST = 64
"""Steps that the slowest unit of a MinGRU remembers before it has learned anything."""


class Core(nn.Module):
    """A recurrent layer of `size` units. A subclass has `gates` and `advance`."""

    size: int
    ortho_init: bool = False
    parts: ClassVar[int] = 1
    """Arrays `[B, size]` that the carry is made of."""

    def initial_carry(self, batch: int) -> PyTree:
        """Return the carry at the start of an episode: zeros."""
        return tuple(np.zeros((batch, self.size), np.float32) for _ in range(self.parts))

    def __call__(self, x: Array, carry: PyTree, first: Array) -> tuple[Array, PyTree]:
        """Run over x `[T, B, F]` from a carry `[B, size]`; returns `[T, B, size]` and the carry after it.

        first: [T, B] bool, the step is an episode's first, before which nothing is remembered.
        """
        raise NotImplementedError

    def weights(self, name: str, inputs: int, outputs: int) -> Array:
        """Make a matrix of weights: each gate's part initialised by itself."""
        init = orthogonal(1.0) if self.ortho_init else nn.initializers.lecun_normal()
        gates = outputs // self.size

        def initial(key: Array, shape: tuple[int, int]) -> Array:
            keys = jax.random.split(key, gates)
            return jnp.concatenate([init(one, (shape[0], self.size)) for one in keys], axis=1)

        return self.param(name, initial, (inputs, outputs))


def kept(first: Array, carry: Array) -> Array:
    """Return a carry `[B, size]`, zeros where an episode begins."""
    return jnp.where(first[:, None], 0.0, carry)


class LSTM(Core):
    """Long short-term memory (Hochreiter & Schmidhuber 1997, with forget gates: Gers et al. 2000)."""

    parts: ClassVar[int] = 2

    @nn.compact
    def __call__(self, x: Array, carry: PyTree, first: Array) -> tuple[Array, PyTree]:
        bias = self.param("bias", nn.initializers.zeros, (4 * self.size,))
        gates = product(x, self.weights("input_kernel", x.shape[-1], 4 * self.size)) + bias
        recurrent = self.weights("recurrent_kernel", self.size, 4 * self.size)

        def step(carry: tuple[Array, Array], row: tuple[Array, Array]) -> tuple[tuple[Array, Array], Array]:
            given, first = row
            cell, hidden = (kept(first, part) for part in carry)
            i, f, g, o = jnp.split(given + product(hidden, recurrent), 4, axis=-1)
            # Forgetting begins slowly: one is added to what opens the forget gate (Jozefowicz et al. 2015).
            cell = nn.sigmoid(f + 1.0) * cell + nn.sigmoid(i) * jnp.tanh(g)
            hidden = nn.sigmoid(o) * jnp.tanh(cell)
            return (cell, hidden), hidden

        carry, hidden = jax.lax.scan(step, tuple(carry), (gates, first))
        return hidden, carry


class GRU(Core):
    """Gated recurrent units (Cho et al. 2014, equations 5 to 8)."""

    @nn.compact
    def __call__(self, x: Array, carry: PyTree, first: Array) -> tuple[Array, PyTree]:
        bias = self.param("bias", nn.initializers.zeros, (3 * self.size,))
        gates = product(x, self.weights("input_kernel", x.shape[-1], 3 * self.size)) + bias
        recurrent = self.weights("recurrent_kernel", self.size, 2 * self.size)
        candidate = self.weights("candidate_kernel", self.size, self.size)

        def step(carry: tuple[Array], row: tuple[Array, Array]) -> tuple[tuple[Array], Array]:
            given, first = row
            hidden = kept(first, carry[0])
            z_r, c = given[:, : 2 * self.size], given[:, 2 * self.size :]
            z, r = jnp.split(nn.sigmoid(z_r + product(hidden, recurrent)), 2, axis=-1)
            hidden = (1 - z) * hidden + z * jnp.tanh(c + product(r * hidden, candidate))
            return (hidden,), hidden

        carry, hidden = jax.lax.scan(step, tuple(carry), (gates, first))
        return hidden, carry


class MinGRU(Core):
    """Minimal gated recurrent units, all steps in parallel (Feng et al. 2024, "Were RNNs all we needed?", section 3.1).

    Gates do not see the carry, so that the carry is a weighted sum of all inputs: an associative scan.
    """

    @nn.compact
    def __call__(self, x: Array, carry: PyTree, first: Array) -> tuple[Array, PyTree]:
        bias = self.param("bias", _horizons, (2 * self.size,))
        z, candidate = jnp.split(product(x, self.weights("input_kernel", x.shape[-1], 2 * self.size)) + bias, 2, -1)
        z = nn.sigmoid(z)
        decay = jnp.where(first[..., None], 0.0, 1.0 - z)
        # The carry comes in as the step before the first.
        decay = jnp.concatenate([jnp.zeros_like(decay[:1]), decay])
        given = jnp.concatenate([carry[0][None], z * candidate])

        def compose(early: tuple[Array, Array], late: tuple[Array, Array]) -> tuple[Array, Array]:
            return early[0] * late[0], early[1] * late[0] + late[1]

        hidden = jax.lax.associative_scan(compose, (decay, given))[1]
        return hidden[1:], (hidden[-1],)


def _horizons(key: Array, shape: tuple[int]) -> Array:
    """Make biases by which gates remember for 1 to LONGEST steps at first, evenly spaced by their logarithm."""
    steps = jnp.logspace(0, jnp.log10(LONGEST), shape[0] // 2)
    return jnp.concatenate([-jnp.log(steps), jnp.zeros(shape[0] // 2)])


_KINDS: dict[str, type[Core]] = {"lstm": LSTM, "gru": GRU, "mingru": MinGRU}


def core(name: str, size: int, ortho_init: bool = False) -> Core:
    """Make a core of a name in `CORES`."""
    return _KINDS[name](size, ortho_init)
