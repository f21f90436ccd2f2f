"""Scalars as categories: squashed by hand, and back."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from renshu.ops.categorical import cross_entropy, scalar, support, two_hot, unscale
from renshu.ops.value_heads import rescale


def test_squashed_by_hand():
    x = np.array([0.0, 3.0, -8.0, 99.0], np.float32)
    # sign(x) (sqrt(|x| + 1) - 1) + x / 1000
    np.testing.assert_allclose(rescale(x), [0.0, 1.003, -2.008, 9.099], rtol=1e-6)


def test_the_inverse_is_that_of_the_paper():
    x = np.concatenate([-np.logspace(-3, 5, 50), [0.0], np.logspace(-3, 5, 50)])
    squashed = np.sign(x) * (np.sqrt(np.abs(x) + 1) - 1) + 1e-3 * x
    paper = np.sign(squashed) * (
        ((np.sqrt(1 + 4 * 1e-3 * (np.abs(squashed) + 1 + 1e-3)) - 1) / (2 * 1e-3)) ** 2 - 1
    )  # in float64
    np.testing.assert_allclose(paper, x, atol=1e-9, rtol=1e-9)
    np.testing.assert_allclose(unscale(jnp.asarray(squashed, jnp.float32)), x, atol=1e-6, rtol=1e-5)
    np.testing.assert_allclose(jax.jit(unscale)(jax.jit(rescale)(x.astype(np.float32))), x, atol=1e-6, rtol=1e-5)


def test_two_neighbours_share_a_scalar():
    found = np.asarray(two_hot(jnp.array([3.0, 0.0, -8.0, 1e6, -1e6]), 4))
    expected = np.zeros((5, 9))
    expected[0, [5, 6]] = 0.997, 0.003  # 1.003 on a support from -4 to 4
    expected[1, 4] = 1.0
    expected[2, [1, 2]] = 0.008, 0.992  # -2.008
    expected[3, 8] = expected[4, 0] = 1.0  # beyond the support
    np.testing.assert_allclose(found, expected, atol=1e-6)
    np.testing.assert_array_equal(support(2), [-2, -1, 0, 1, 2])


@given(st.lists(st.floats(-800, 800, width=32), min_size=4, max_size=4))
@settings(deadline=None, max_examples=50)
def test_from_scalars_to_categories_and_back(numbers):
    x = np.asarray(numbers, np.float32)
    shares = np.asarray(two_hot(x, 30))
    np.testing.assert_allclose(shares.sum(axis=-1), 1.0, rtol=1e-5)
    assert ((shares > 0).sum(axis=-1) <= 2).all()
    logits = jnp.log(jnp.maximum(shares, 1e-30))
    np.testing.assert_allclose(scalar(logits, 30), x, atol=1e-3, rtol=1e-4)


def test_a_network_that_knows_nothing_predicts_0():
    assert scalar(jnp.zeros((2, 61)), 30) == pytest.approx(0.0, abs=1e-5)


def test_cross_entropy_by_hand():
    logits = jnp.log(jnp.array([[0.5, 0.25, 0.25]]))
    found = cross_entropy(logits, jnp.array([[0.5, 0.5, 0.0]]))
    np.testing.assert_allclose(found, [-0.5 * np.log(0.5) - 0.5 * np.log(0.25)], rtol=1e-6)
    gradient = jax.grad(lambda x: cross_entropy(x, jnp.array([[0.0, 1.0, 0.0]])).sum())(logits)
    np.testing.assert_allclose(gradient, [[0.5, -0.75, 0.25]], rtol=1e-6)
