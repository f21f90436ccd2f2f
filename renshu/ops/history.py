"""The last k observations at once: for environments that show a part of their state only."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
from gymnasium import spaces

from renshu.ops.spaces import dummy, map_space
from renshu.types import Array, PyTree


def stacked_space(space: spaces.Space, history: int) -> spaces.Space:
    """The space of the last `history` observations of a space: each leaf with a leading axis, oldest first."""
    if isinstance(space, spaces.Dict):
        return spaces.Dict({key: stacked_space(part, history) for key, part in space.spaces.items()})
    if isinstance(space, spaces.Tuple):
        return spaces.Tuple(tuple(stacked_space(part, history) for part in space.spaces))
    if isinstance(space, spaces.Box):
        low, high = (np.repeat(bound[None], history, axis=0) for bound in (space.low, space.high))
        return spaces.Box(low, high, dtype=space.dtype.type)  # type: ignore[union-attr]
    if isinstance(space, spaces.Discrete):
        return spaces.MultiDiscrete(np.full(history, space.n), start=np.full(history, space.start))
    if isinstance(space, spaces.MultiDiscrete):
        nvec, start = (np.repeat(x[None], history, axis=0) for x in (space.nvec, space.start))
        return spaces.MultiDiscrete(nvec, start=start)
    return spaces.MultiBinary((history, *(space.shape or ())))


def nothing_seen(space: spaces.Space, history: int, num_envs: int) -> PyTree:
    """Frames before the first observation, `[N, history, ...]`: they are overwritten by it."""
    return map_space(lambda _, x: np.repeat(x[:, None], history, axis=1), space, dummy(space, num_envs))


def push(frames: PyTree, obs: PyTree, first: Array) -> PyTree:
    """Frames `[N, history, ...]` with the newest observation `[N, ...]`; the first of an episode fills all places."""

    def one(frames: Array, obs: Array) -> Array:
        new = jnp.concatenate([frames[:, 1:], obs[:, None]], axis=1)
        begins = first.reshape(-1, *(1,) * (new.ndim - 1))
        return jnp.where(begins, obs[:, None], new)

    return jax.tree.map(one, frames, obs)


def recall(carry: PyTree, obs: PyTree, first: Array) -> tuple[PyTree, PyTree]:
    """What a network sees and the new carry: frames `[N, history, ...]`, or `obs` as it is where the carry is ()."""
    if isinstance(carry, tuple) and not carry:
        return obs, carry
    frames = push(carry, obs, first)
    return frames, frames


def recall_all(carry: PyTree, obs: PyTree, first: Array) -> PyTree:
    """What a network saw in a rollout, `[T+1, N, history, ...]`, of obs `[T+1, N, ...]` and the carry before them."""
    if isinstance(carry, tuple) and not carry:
        return obs

    def step(carry: PyTree, row: tuple[PyTree, Array]) -> tuple[PyTree, PyTree]:
        frames = push(carry, *row)
        return frames, frames

    return jax.lax.scan(step, carry, (obs, first))[1]
