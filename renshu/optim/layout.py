"""Small networks' parameters as one vector: one kernel in place of a dozen for a dozen small arrays."""

from __future__ import annotations

import jax
import numpy as np
from jax.flatten_util import ravel_pytree

from renshu.types import PyTree

SMALL = 2**15
"""Largest number of parameters that are packed; copying more would cost more than it saves."""


class ParameterLayout:
    """Packs a pytree of float32 arrays into one vector and back, or leaves it as it is where it is large.

    like: arrays or their shapes.
    """

    def __init__(self, like: PyTree) -> None:
        zeros = jax.tree.map(lambda x: np.zeros(x.shape, x.dtype), like)
        vector, self._unravel = ravel_pytree(zeros)
        self.packs = vector.size <= SMALL

    def pack(self, tree: PyTree) -> PyTree:
        """Pack a tree into one vector, or return it as it is."""
        return ravel_pytree(tree)[0] if self.packs else tree

    def unpack(self, packed: PyTree) -> PyTree:
        """Undo `pack`."""
        return self._unravel(packed) if self.packs else packed
