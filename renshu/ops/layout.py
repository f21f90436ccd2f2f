"""A small network's parameters as one vector: one kernel where a dozen small arrays would be a dozen."""

from __future__ import annotations

import jax
import numpy as np
from jax.flatten_util import ravel_pytree

from renshu.types import PyTree

SMALL = 2**15
"""Parameters of up to so many numbers are packed; copying larger ones would cost more than it saves."""


class Layout:
    """Packs a pytree of float32 arrays into one vector and back, or leaves it as it is where it is large.

    like: arrays or their shapes.
    """

    def __init__(self, like: PyTree) -> None:
        zeros = jax.tree.map(lambda x: np.zeros(x.shape, x.dtype), like)
        vector, self._unravel = ravel_pytree(zeros)
        self.packs = vector.size <= SMALL

    def pack(self, tree: PyTree) -> PyTree:
        """One vector, or the tree itself."""
        return ravel_pytree(tree)[0] if self.packs else tree

    def unpack(self, packed: PyTree) -> PyTree:
        """The tree that was packed."""
        return self._unravel(packed) if self.packs else packed
