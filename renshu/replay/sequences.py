"""Sequences drawn from a ring, for learners with a recurrent network."""

from __future__ import annotations

import jax
import jax.numpy as jnp

from renshu.errors import HyperparameterError
from renshu.replay.ring import Ring
from renshu.types import Key, Rollout


def draw(ring: Ring, key: Key, count: int, length: int) -> Rollout:
    """Draw `count` sequences of `length` steps uniformly: a Rollout of T = length and N = count, with an empty carry.

    They may cross the borders of episodes, where `first` says so. Where the ring holds fewer steps, no step is valid.
    Raises HyperparameterError where it never holds as many.
    """
    total, n = ring.first.shape
    if not 1 <= length < total:
        raise HyperparameterError(
            f"sequences of {length} steps cannot be drawn from a memory of {total - 1} steps of each environment: give "
            f"1 to {total - 1}, or a larger buffer_size"
        )
    starts = ring.size - length + 1
    index = jax.random.randint(key, (count,), 0, jnp.maximum(starts, 1) * n)
    rows = (ring.head - length - index // n + jnp.arange(length + 1)[:, None]) % total
    env = index % n
    return Rollout(
        obs=jax.tree.map(lambda x: x[rows, env], ring.obs),
        first=ring.first[rows, env] | (starts < 1),
        action=jax.tree.map(lambda x: x[rows[:-1], env], ring.action),
        reward=ring.reward[rows[:-1], env],
        terminated=ring.terminated[rows[:-1], env],
        carry=(),
        extras=(),
    )
