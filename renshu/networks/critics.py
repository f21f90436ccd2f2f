"""Critics Q(observation, action), and ensembles of them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn
from gymnasium import spaces

from renshu.networks.encoders import Encoder
from renshu.networks.layers import dense
from renshu.types import Array, Key, PyTree


class Critic(nn.Module):
    """Values `[B, outputs]` of observations and actions `[B, A]`; of all choices where no action is given.

    own: a module that makes features of the observation, which go through the hidden layers with the action.
    """

    space: spaces.Space
    hidden: nn.Module
    own: nn.Module | None = None
    outputs: int = 1
    cnn: str | None = None

    @nn.compact
    def __call__(self, obs: PyTree, action: Array | None = None, train: bool = False) -> Array:
        x = Encoder(self.space, self.cnn)(obs) if self.own is None else self.own(obs)
        if action is not None:
            x = jnp.concatenate([x, action], axis=-1)
        return dense(self.outputs, 1.0, False)(self.hidden(x, train))


def init_ensemble(init: Callable[[Key], PyTree], count: int, key: Key) -> tuple[PyTree, ...]:
    """Initialise `count` networks of one kind, each with parameters of its own."""
    return unstack(jax.vmap(init)(jax.random.split(key, count)), count)


def unstack(stacked: PyTree, count: int) -> tuple[PyTree, ...]:
    """Split an ensemble that is stacked along the first axis into its members."""
    return tuple(jax.tree.map(lambda x, i=i: x[i], stacked) for i in range(count))


def random_subset(members: tuple[PyTree, ...], count: int, key: Key) -> tuple[PyTree, ...]:
    """Draw `count` different members of an ensemble."""
    chosen = jax.random.permutation(key, len(members))[:count]
    return unstack(jax.tree.map(lambda *x: jnp.stack(x)[chosen], *members), count)


def map_ensemble(fn: Callable[..., PyTree], *of: tuple[Any, ...]) -> PyTree:
    """Apply `fn` to the parameters (and other inputs) of each member; results are stacked along a new first axis.

    On a CPU one member after the other, since batched products of small matrices are slower there; else all at once.
    """
    if jax.default_backend() == "cpu":
        return _stack(*(fn(*one) for one in zip(*of, strict=True)))
    return jax.vmap(fn)(*(_stack(*one) for one in of))


def _stack(*trees: PyTree) -> PyTree:
    return jax.tree.map(lambda *x: jnp.stack(x), *trees)
