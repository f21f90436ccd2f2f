"""Stretches drawn from the ring: whole, in order, from anywhere."""

import jax
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from renshu.errors import HyperparameterError
from renshu.replay import ring, sequences
from tests.replay.experience import SHAPES, NaiveMemory, chi_square, ids_of, make_rollouts, rows_of, seeds, templates

QUICK = settings(max_examples=20, deadline=None)
LENGTH = 3
add = jax.jit(ring.add)
draw = jax.jit(sequences.draw, static_argnames=("count", "length"))


@QUICK
@given(seeds, st.sampled_from(SHAPES), st.integers(1, 9))
def test_stretches_are_those_of_the_stream(seed: int, shape: tuple[int, int, int], count: int) -> None:
    rows, N, T = shape
    held, naive = ring.empty(rows, *templates(N)), NaiveMemory(rows, N)
    for rollout in make_rollouts(seed, count, T, N):
        held = add(held, rollout)
        naive.add(rollout)
    drawn = draw(held, jax.random.key(seed), count=16, length=LENGTH)
    assert (drawn.carry, drawn.extras) == ((), ())
    assert drawn.reward.shape == (LENGTH, 16)
    if count * T < LENGTH:
        assert not drawn.valid.any()
        return
    stretches = {}
    for stream in naive.streams:
        for start in range(len(stream) - LENGTH):
            stretches[stream[start].id] = stream[start : start + LENGTH + 1]
    drawn = jax.tree.map(np.asarray, drawn)
    for i, start in enumerate(ids_of(drawn.obs)[0].tolist()):
        found, wanted = rows_of(drawn, i), stretches[start]
        assert found[:-1] == wanted[:-1]
        assert found[-1][:2] == wanted[-1][:2]


def test_starting_places_are_uniform() -> None:
    rows, N, T = SHAPES[1]
    held = ring.empty(rows, *templates(N))
    for rollout in make_rollouts(0, 4, T, N):
        held = add(held, rollout)
    starts = ids_of(draw(held, jax.random.key(0), count=10_000, length=LENGTH).obs)[0]
    counts = np.unique(starts, return_counts=True)[1]
    assert len(counts) == (rows - LENGTH + 1) * N
    assert chi_square(counts, np.full(len(counts), 10_000 / len(counts))) < 5


@pytest.mark.parametrize("length", [0, 5])
def test_a_length_that_the_ring_cannot_hold_is_refused(length: int) -> None:
    with pytest.raises(HyperparameterError, match="1 to 4"):
        sequences.draw(ring.empty(4, *templates(2)), jax.random.key(0), 2, length)
