"""The sum tree: every sum holds after any change, and draws are in proportion."""

from itertools import pairwise

import jax
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from renshu.replay import sum_tree
from tests.replay.experience import chi_square, seeds

QUICK = settings(max_examples=30, deadline=None)
LEAVES = [1, 16, 17, 300, 5000]
put = jax.jit(sum_tree.put)
draw = jax.jit(sum_tree.draw, static_argnames="count")


def assert_sums(tree: sum_tree.Tree) -> None:
    """Each number is the sum of its 16; what has no 16 below is 0."""
    for below, level in pairwise(tree):
        sums = np.asarray(below).reshape(-1, sum_tree.WIDTH).sum(axis=1)
        np.testing.assert_allclose(level[: len(sums)], sums, rtol=1e-6)
        assert not level[len(sums) :].any()
    assert tree[-1].shape == (sum_tree.WIDTH,)
    np.testing.assert_allclose(sum_tree.total(tree), np.asarray(tree[0], np.float64).sum(), rtol=1e-5)


@QUICK
@given(seeds, st.sampled_from(LEAVES), st.integers(1, 5))
def test_sums_hold_after_changes_with_duplicates(seed: int, leaves: int, rounds: int) -> None:
    rng = np.random.default_rng(seed)
    tree, expected = sum_tree.zeros(leaves), np.zeros(leaves, np.float32)
    for _ in range(rounds):
        index = rng.integers(0, leaves, 24)
        value = rng.choice([0.0, 1e-3, 1.0, 50.0], 24).astype(np.float32) * rng.random(24).astype(np.float32)
        tree = put(tree, index, value)
        found = np.asarray(tree[0])[:leaves]
        assert all(found[i] in value[index == i] for i in set(index.tolist()))
        untouched = np.setdiff1d(np.arange(leaves), index)
        np.testing.assert_array_equal(found[untouched], expected[untouched])
        expected = found
        assert_sums(tree)


@QUICK
@given(seeds, st.sampled_from(LEAVES), st.integers(1, 24))
def test_a_leaf_that_is_0_is_never_drawn(seed: int, leaves: int, some: int) -> None:
    rng = np.random.default_rng(seed)
    index = np.resize(rng.integers(0, leaves, some), 24)
    value = np.where(np.arange(24) < some, 10.0 ** rng.uniform(-6, 3, 24), 0.0)[np.arange(24) % some]
    tree = put(sum_tree.zeros(leaves), index, value.astype(np.float32))
    drawn, number = jax.tree.map(np.asarray, draw(tree, jax.random.key(seed), count=256))
    assert set(drawn.tolist()) <= set(index.tolist())
    assert (number > 0).all()
    np.testing.assert_array_equal(number, np.asarray(tree[0])[drawn])


@pytest.mark.parametrize("leaves", [17, 300])
def test_draws_are_in_proportion(leaves: int) -> None:
    rng = np.random.default_rng(0)
    value = np.where(rng.random(leaves) < 0.3, 0.0, rng.uniform(0.2, 5.0, leaves)).astype(np.float32)
    tree = sum_tree.put(sum_tree.zeros(leaves), np.arange(leaves), value)
    # Draws of one call are spread out on purpose; those of single draws are independent.
    single = jax.jit(jax.vmap(lambda key: sum_tree.draw(tree, key, 1)[0][0]))
    for drawn in (draw(tree, jax.random.key(1), count=30_000)[0], single(jax.random.split(jax.random.key(2), 30_000))):
        counts = np.bincount(drawn, minlength=leaves)
        expected = 30_000 * value / value.sum()
        assert chi_square(counts[value > 0], expected[value > 0]) < 5


def test_draws_of_one_call_are_stratified() -> None:
    tree = sum_tree.put(sum_tree.zeros(64), np.arange(64), np.ones(64, np.float32))
    np.testing.assert_array_equal(draw(tree, jax.random.key(0), count=64)[0], np.arange(64))


def test_of_nothing_the_first_is_drawn() -> None:
    np.testing.assert_array_equal(draw(sum_tree.zeros(300), jax.random.key(0), count=4), np.zeros((2, 4)))


@pytest.mark.parametrize("leaves", LEAVES)
def test_an_index_beyond_is_left_out(leaves: int) -> None:
    tree = put(sum_tree.zeros(leaves), np.array([0, sum_tree.NOWHERE]), np.array([2.0, 9.0], np.float32))
    assert_sums(tree)
    assert sum_tree.total(tree) == 2.0


def test_a_million_leaves_take_little_more_than_a_million_numbers() -> None:
    shapes = jax.eval_shape(lambda: sum_tree.zeros(1_100_000))
    assert sum(level.size for level in shapes) < 1.07 * 1_100_000 + 100
