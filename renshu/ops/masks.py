"""Masks of the actions that are allowed now; they travel with the observation, {MASK: [n], OBSERVATION: ...}."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from gymnasium import spaces

from renshu.errors import SpaceError
from renshu.ops.spaces import batched
from renshu.types import MASK, OBSERVATION, Array, Key, PyTree

FORBIDDEN = -1e30
"""The value or logit of an action that is not allowed. Not -inf, which makes NaN of a probability of 0."""


def split(obs: Mapping[str, Any]) -> tuple[PyTree, Array]:
    """Take observations with their masks apart: OBSERVATION `[B, ...]`, and which actions are allowed `[B, n]` bool.

    Of masks `[B, frame_stack, n]` of several observations that of the newest counts. Where no action is allowed, as
    after the end of an episode, all are.
    """
    mask = obs[MASK]
    allowed = (mask[:, -1] if mask.ndim == 3 else mask) != 0
    return obs[OBSERVATION], allowed | ~allowed.any(axis=-1, keepdims=True)


def mask_values(values: Array, mask: Array | None) -> Array:
    """Set values or logits `[B, n]` to FORBIDDEN where the mask `[B, n]` is False. mask: None for no change."""
    return values if mask is None else jnp.where(mask, values, FORBIDDEN)


def mask_for_display(values: Array, mask: Array | None) -> Array:
    """Set values to -inf where the mask is False, for results that users see. mask: None for no change."""
    return values if mask is None else jnp.where(mask, values, -jnp.inf)


def uniform_actions(key: Key, batch: int, actions: int, mask: Array | None) -> Array:
    """Draw from all actions alike, or from those that the mask `[batch, actions]` allows: `[batch]` int32."""
    if mask is None:
        return jax.random.randint(key, (batch,), 0, actions, jnp.int32)
    return jax.random.categorical(key, mask_values(jnp.zeros((batch, actions)), mask)).astype(jnp.int32)


def batched_with_mask(space: spaces.Space, observation: PyTree, mask: Any = None) -> tuple[PyTree, int, bool]:
    """Make a batch, as `ops.spaces.batched`, of observations that may lack their mask: then all actions are allowed.

    space: Dict of MASK and OBSERVATION. observation: one of `space` or of its OBSERVATION alone, or a batch of either.
    mask: `[n]`, or `[B, n]` for a batch; only where the observation has none.
    Raises SpaceError where observation or mask is of another shape, or the mask is given twice.
    """
    parts: Any = getattr(space, "spaces")
    if isinstance(observation, Mapping) and set(observation) == {MASK, OBSERVATION}:
        if mask is not None:
            raise SpaceError(f"the observation has {MASK!r} already: give the mask once, in it or as {MASK}=...")
        observation, mask = observation[OBSERVATION], observation[MASK]
    obs, batch, single = batched(parts[OBSERVATION], observation)
    n = parts[MASK].shape[0]
    mask = np.ones(n, np.int8) if mask is None else np.asarray(mask)
    if mask.shape not in ((n,), (batch, n)) or mask.dtype.kind not in "biu":
        wanted = f"({n},)" if single else f"({n},) or ({batch}, {n})"
        raise SpaceError(
            f"an action mask says of each of {n} actions whether it is allowed: bools or whole numbers of shape "
            f"{wanted}; this is {mask.dtype} of shape {mask.shape}"
        )
    return {MASK: np.broadcast_to(mask != 0, (batch, n)).astype(parts[MASK].dtype), OBSERVATION: obs}, batch, single
