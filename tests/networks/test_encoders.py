"""Hidden layers: dropout and normalisation."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from renshu.networks.encoders import Hidden
from tests.networks.inputs import KEY


def test_dropout_needs_a_key_and_keeps_the_mean():
    hidden = Hidden((400,), dropout=0.25)
    x = np.ones((3, 2), np.float32)
    params = hidden.init(KEY, x)
    params = jax.tree.map(lambda p: jnp.full_like(p, 0.5), params)
    plain = hidden.apply(params, x)
    np.testing.assert_array_equal(plain, 1.5)
    dropped = np.asarray(hidden.apply(params, x, rngs={"dropout": KEY}))
    assert set(np.unique(dropped)) == {0.0, 2.0}
    assert (dropped == 0).mean() == pytest.approx(0.25, abs=0.04)


def test_layer_norm_stands_before_the_activation():
    hidden = Hidden((64,), layer_norm=True)
    x = np.random.default_rng(0).normal(3, 5, (4, 2)).astype(np.float32)
    variables = hidden.init(KEY, x)
    before = x @ np.asarray(variables["params"]["Dense_0"]["kernel"])
    normal = (before - before.mean(1, keepdims=True)) / np.sqrt(before.var(1, keepdims=True) + 1e-6)
    np.testing.assert_allclose(hidden.apply(variables, x), np.maximum(normal, 0), rtol=1e-3, atol=1e-3)
