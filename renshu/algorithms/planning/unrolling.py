"""Parts of unrolling a latent model along sequences: what it is told, what it says, and how losses are summed."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from renshu.algorithms.planning.targets import Targets
from renshu.types import Array, PyTree


class Lesson(NamedTuple):
    """Sequences to unroll the model along, and everything that it should say there."""

    seen: PyTree  # [T+1, B, ...]  observations
    action: Array  # [K, B, ...]
    targets: Targets
    found: dict[str, Array]  # [K+1, B, ...]  by search: policies among it


class Unrolled(NamedTuple):
    """Outputs of the model in K steps from B observations."""

    policy: Array  # [K+1, B, ...]
    value: Array  # [K+1, B, bins]
    reward: Array  # [K, B, bins]  or value prefixes
    latent: Array  # [K+1, B, ...]
    chance: PyTree = ()  # of models with chance


Parts = dict[str, tuple[Any, Array, Array]]
"""Losses by name: a weight, losses `[K+1, B]` or `[K, B]` of the unrolled steps alone, and where they count."""


def over_steps(losses: Array, where: Array, weight: Array, steps: int) -> Array:
    """Sum up losses `[steps + 1, B]`, or those of unrolled steps alone, which share a weight of 1; average over B."""
    shares = jnp.concatenate([jnp.ones(1), jnp.full(steps, 1 / steps)])[-len(losses) :, None]
    return (jnp.where(where, losses, 0.0) * shares * weight).sum(axis=0).mean()


def halved(latent: Array) -> Array:
    """Halve the gradient: at the start of an unrolled model it does not grow with the number of steps then."""
    return 0.5 * (latent + jax.lax.stop_gradient(latent))


def flat(tree: PyTree) -> PyTree:
    """Join the axes of steps and sequences, `[T, B, ...]` to `[T B, ...]`."""
    return jax.tree.map(lambda x: x.reshape(-1, *x.shape[2:]), tree)


def by_step(x: Array, like: PyTree) -> Array:
    """Undo `flat`, as in `like`."""
    return x.reshape(*jax.tree.leaves(like)[0].shape[:2], *x.shape[1:])


def at(tree: PyTree, rows: int | slice) -> PyTree:
    """Take rows of all leaves."""
    return jax.tree.map(lambda x: x[rows], tree)


def expanded(where: Array, like: Array) -> Array:
    """Give a mask axes of 1 behind, to choose among arrays of more axes."""
    return where.reshape(*where.shape, *(1,) * (like.ndim - where.ndim))
