"""Images among observations: which leaves are images, and how a convolution sees them."""

from __future__ import annotations

from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from gymnasium import spaces

from renshu.ops.spaces import leaf_spaces
from renshu.types import Array

CNN = (None, "nature", "impala", "minatar")
"""Values of the hyperparameter `cnn`; None chooses by the size of the image."""
SMALLEST_WITHOUT_CHANNELS = 36
"""Sides from which on a uint8 Box of two axes is an image without an axis of channels, and no table of numbers."""


class Layout(NamedTuple):
    """Layout of an image's axes. shape: height, width, channels, as a convolution sees it."""

    shape: tuple[int, int, int]
    stacked: bool  # a leading axis of frames, which become channels
    channels: str  # "last", "first" or "none"


def layout_of(space: spaces.Space, anything: bool = False) -> Layout | None:
    """Return how the axes of a leaf make an image; None where it is none.

    An image is a uint8 Box of three axes, the shortest of which, first or last, are channels; of four, frames of such
    images; of two, if both are long enough. anything: Boxes of numbers of any kind count as well.
    """
    if not isinstance(space, spaces.Box) or not (anything or space.dtype == np.uint8):
        return None
    stacked = len(space.shape) == 4
    frames, shape = (space.shape[0], space.shape[1:]) if stacked else (1, space.shape)
    if len(shape) == 2 and min(shape) >= SMALLEST_WITHOUT_CHANNELS:
        height, width = shape
        return Layout((height, width, 1), False, "none")
    if len(shape) != 3:
        return None
    first = shape[0] < shape[2]
    channels, height, width = shape if first else (shape[2], shape[0], shape[1])
    return Layout((height, width, channels * frames), stacked, "first" if first else "last")


def has_images(space: spaces.Space, anything: bool = False) -> bool:
    """Tell whether a space has images among its leaves."""
    return any(layout_of(leaf, anything) is not None for leaf in leaf_spaces(space))


def pixels(space: spaces.Box, x: Array, layout: Layout) -> Array:
    """Make images `[B, height, width, channels]` float32 of a leaf's values `[B, ...]`, `scaled`."""
    if layout.channels == "none":
        x = x[..., None]
    elif layout.channels == "first":
        x = jnp.moveaxis(x, -3, -1)
    if layout.stacked:  # [B, frames, height, width, channels]
        x = jnp.moveaxis(x, 1, -2).reshape(x.shape[0], *layout.shape)
    return scaled(space, x)


def scaled(space: spaces.Space, x: Array) -> Array:
    """Scale the values of a leaf to [0, 1], as float32; bits stay, and Boxes that are not bounded from 0 on."""
    x = jnp.asarray(x, jnp.float32)
    if not isinstance(space, spaces.Box):
        return x
    high = float(np.max(space.high))
    bounded = bool(np.isfinite(space.high).all()) and float(np.min(space.low)) >= 0.0 and high > 0
    return x / high if bounded and high != 1.0 else x
