"""The compiled programs beside their own plain functions."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from renshu.loops import programs
from renshu.loops.programs import pack, unpack

VIEW: Any = {
    "w": jnp.arange(6, dtype=jnp.float32).reshape(2, 3),
    "count": jnp.int32(7),
    "b": (jnp.float32(1.5), jnp.array([True, False])),
    "none": (),
}


@pytest.mark.parametrize("small", [programs.SMALL, 0])
def test_unpack_gives_back_the_view(small: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whether its numbers went into the vector or, in a large view, not; through jit too."""
    monkeypatch.setattr(programs, "SMALL", small)
    like = jax.eval_shape(lambda: VIEW)
    packed = jax.jit(lambda actor_state: pack(actor_state))(VIEW)  # a new function: jit remembers the old one
    assert packed[0].shape == (7 if small else 0,)
    again = jax.jit(lambda p: unpack(p, like))(packed)
    assert jax.tree.structure(again) == jax.tree.structure(VIEW)
    for one, other in zip(jax.tree.leaves(again), jax.tree.leaves(VIEW), strict=True):
        assert one.dtype == other.dtype
        np.testing.assert_array_equal(one, other)


def test_a_view_without_numbers() -> None:
    """A learner that has no parameters can act too."""
    assert unpack(pack(()), ()) == ()
