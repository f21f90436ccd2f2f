"""Simple shapes drawn on an image with NumPy, for environments that have a picture.

Coordinates are pixels as floats, x to the right and y downward: pixel (row, column) covers [column, column + 1) by
[row, row + 1). Every shape is drawn in place, over what is there, with smooth edges, and cut off at the borders.
"""

from __future__ import annotations

from math import ceil, floor

import numpy as np

Colour = tuple[int, int, int]  # red, green, blue, each 0..255


def canvas(height: int, width: int) -> np.ndarray:
    """Return a white image, [height, width, 3] uint8."""
    return np.full((height, width, 3), 255, np.uint8)


def line(image: np.ndarray, x0: float, y0: float, x1: float, y1: float, width: float, colour: Colour) -> None:
    """Draw a line from (x0, y0) to (x1, y1), `width` pixels thick, with round ends, on an image [H, W, 3] uint8."""
    reach = width / 2
    top, bottom = _span(min(y0, y1) - reach, max(y0, y1) + reach, image.shape[0])
    left, right = _span(min(x0, x1) - reach, max(x0, x1) + reach, image.shape[1])
    x = np.arange(left, right, dtype=np.float32) + np.float32(0.5 - x0)
    y = np.arange(top, bottom, dtype=np.float32)[:, None] + np.float32(0.5 - y0)
    dx, dy = np.float32(x1 - x0), np.float32(y1 - y0)
    along = ((x * dx + y * dy) / max(dx * dx + dy * dy, np.float32(1e-12))).clip(0, 1)
    distance = np.hypot(x - along * dx, y - along * dy)
    _paint(image[top:bottom, left:right], (reach + 0.5 - distance).clip(0, 1), colour)


def disc(image: np.ndarray, x: float, y: float, radius: float, colour: Colour) -> None:
    """Draw a filled disc around (x, y) on an image [H, W, 3] uint8."""
    line(image, x, y, x, y, 2 * radius, colour)


def box(image: np.ndarray, x0: float, y0: float, x1: float, y1: float, colour: Colour) -> None:
    """Draw a filled rectangle between the corners (x0, y0) and (x1, y1), in any order, on an image [H, W, 3] uint8."""
    x0, x1, y0, y1 = min(x0, x1), max(x0, x1), min(y0, y1), max(y0, y1)
    top, bottom = _span(y0, y1, image.shape[0])
    left, right = _span(x0, x1, image.shape[1])
    across, down = _overlap(x0, x1, left, right), _overlap(y0, y1, top, bottom)
    region = image[top:bottom, left:right]
    if np.all(across == 1) and np.all(down == 1):
        region[...] = colour
    else:
        _paint(region, down[:, None] * across, colour)


def _span(low: float, high: float, size: int) -> tuple[int, int]:
    """Return the range of pixels in the image that a shape between two coordinates may touch, plus one on each side."""
    first = floor(min(max(low - 1, 0), size))
    return first, max(first, ceil(min(max(high + 1, 0), size)))


def _overlap(low: float, high: float, first: int, last: int) -> np.ndarray:
    """Compute the share of each pixel that lies between two coordinates, 0..1."""
    pixel = np.arange(first, last, dtype=np.float32)
    return (np.minimum(pixel + 1, high) - np.maximum(pixel, low)).clip(0, 1)


def _paint(region: np.ndarray, cover: np.ndarray, colour: Colour) -> None:
    """Mix the colour into a part of an image by how much of each pixel it covers."""
    for channel, value in enumerate(colour):
        old = region[..., channel]
        old[...] = old + cover * (np.float32(value) - old) + np.float32(0.5)
