"""Frame stacks: the last k observations at once, for environments that show only part of their state."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
from gymnasium import spaces

from renshu.ops.spaces import dummy, map_space
from renshu.types import Array, PyTree


def stacked_space(space: spaces.Space, frame_stack: int) -> spaces.Space:
    """Return the space of `frame_stack` observations of a space: each leaf with a leading axis, oldest first."""
    if isinstance(space, spaces.Dict):
        return spaces.Dict({key: stacked_space(part, frame_stack) for key, part in space.spaces.items()})
    if isinstance(space, spaces.Tuple):
        return spaces.Tuple(tuple(stacked_space(part, frame_stack) for part in space.spaces))
    if isinstance(space, spaces.Box):
        low, high = (np.repeat(bound[None], frame_stack, axis=0) for bound in (space.low, space.high))
        return spaces.Box(low, high, dtype=space.dtype.type)  # type: ignore[union-attr]
    if isinstance(space, spaces.Discrete):
        return spaces.MultiDiscrete(np.full(frame_stack, space.n), start=np.full(frame_stack, space.start))
    if isinstance(space, spaces.MultiDiscrete):
        nvec, start = (np.repeat(x[None], frame_stack, axis=0) for x in (space.nvec, space.start))
        return spaces.MultiDiscrete(nvec, start=start)
    return spaces.MultiBinary((frame_stack, *(space.shape or ())))


def empty_frames(space: spaces.Space, frame_stack: int, num_envs: int) -> PyTree:
    """Make the frames before the first observation, `[N, frame_stack, ...]`; it overwrites them."""
    return map_space(lambda _, x: np.repeat(x[:, None], frame_stack, axis=1), space, dummy(space, num_envs))


def push_frame(frames: PyTree, obs: PyTree, first: Array) -> PyTree:
    """Add the newest observation `[N, ...]` to `[N, frame_stack, ...]`; the first of an episode fills all places."""

    def one(frames: Array, obs: Array) -> Array:
        new = jnp.concatenate([frames[:, 1:], obs[:, None]], axis=1)
        begins = first.reshape(-1, *(1,) * (new.ndim - 1))
        return jnp.where(begins, obs[:, None], new)

    return jax.tree.map(one, frames, obs)


def stack_frames(carry: PyTree, obs: PyTree, first: Array) -> tuple[PyTree, PyTree]:
    """Return a network's input and the new carry: `[N, frame_stack, ...]`, or `obs` as it is for a carry of ()."""
    if isinstance(carry, tuple) and not carry:
        return obs, carry
    frames = push_frame(carry, obs, first)
    return frames, frames


def stack_rollout(carry: PyTree, obs: PyTree, first: Array) -> PyTree:
    """Stack a rollout: `[T+1, N, frame_stack, ...]` from obs `[T+1, N, ...]` and the carry before them."""
    if isinstance(carry, tuple) and not carry:
        return obs

    def step(carry: PyTree, row: tuple[PyTree, Array]) -> tuple[PyTree, PyTree]:
        frames = push_frame(carry, *row)
        return frames, frames

    return jax.lax.scan(step, carry, (obs, first))[1]
