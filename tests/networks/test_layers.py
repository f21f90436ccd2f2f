"""Batch renormalisation against NumPy; products against their gradients."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from renshu.networks.layers import BatchRenorm, product
from tests.algorithms.rollouts import assert_close
from tests.networks.inputs import KEY


@pytest.mark.parametrize("warmup", [0, 10])
def test_batch_renorm(warmup):
    """Ioffe's algorithm 1 in NumPy, over three batches; then the running statistics alone."""
    layer, rng = BatchRenorm(momentum=0.9, warmup=warmup), np.random.default_rng(0)
    variables = layer.init(KEY, np.zeros((2, 3), np.float32))
    assert_close(variables["batch_stats"], {"mean": np.zeros(3), "var": np.ones(3), "batches": np.int32(0)})
    mean, var = np.zeros(3), np.ones(3)
    for size in (8.0, 0.2, 1.0):
        x = rng.normal(4.0, size, (16, 3)).astype(np.float32)
        y, moved = layer.apply(variables, x, train=True, mutable=["batch_stats"])
        std, batch_std = np.sqrt(var + 1e-3), np.sqrt(x.var(0) + 1e-3)
        r = np.clip(batch_std / std, 1 / 3, 3) if warmup == 0 else 1.0
        d = np.clip((x.mean(0) - mean) / std, -5, 5) if warmup == 0 else 0.0
        np.testing.assert_allclose(y, (x - x.mean(0)) / batch_std * r + d, rtol=1e-3, atol=1e-3)
        mean, var = 0.9 * mean + 0.1 * x.mean(0), 0.9 * var + 0.1 * x.var(0)
        variables = {**variables, **moved}
    assert_close(variables["batch_stats"], {"mean": mean, "var": var, "batches": np.int32(3)})
    running = layer.apply(variables, x[:1])
    np.testing.assert_allclose(running, (x[:1] - mean) / np.sqrt(var + 1e-3), rtol=1e-4)


@pytest.mark.parametrize("outputs", [1, 2, 7])
def test_product_has_the_gradients_of_a_matrix_product(outputs):
    """The way they are computed is its own, for speed; also under vmap and for gradients of gradients."""
    rng = np.random.default_rng(outputs)
    x, w = (rng.normal(size=shape).astype(np.float32) for shape in ((3, 5, 4), (3, 4, outputs)))

    def loss(multiply):
        return lambda x, w: jnp.sin(multiply(x, w)).sum()

    def slope(multiply):
        return lambda x, w: sum((g**2).sum() for g in jax.grad(loss(multiply), argnums=(0, 1))(x, w))

    for make in (loss, slope):
        own, plain = (jax.vmap(jax.grad(make(f), argnums=(0, 1)))(x, w) for f in (product, jnp.matmul))
        for a, b in zip(own, plain, strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5)
