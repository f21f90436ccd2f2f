"""Random orders: each a permutation, all equally likely."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from renshu.optim.minibatches import permutation


@pytest.mark.parametrize("n", [1, 2, 3, 7, 64, 512, 1000, 2**16, 2**16 + 1])
def test_every_row_once(n: int) -> None:
    """Each row comes once, as int32."""
    order = permutation(jax.random.key(n), n)
    assert order.dtype == jnp.int32
    np.testing.assert_array_equal(np.sort(order), np.arange(n))


def test_all_orders_are_equally_likely() -> None:
    """24 orders of 4 rows, 24,000 draws: chi-square with 23 degrees of freedom, below its 99.99 % quantile."""
    draws = jax.vmap(lambda key: permutation(key, 4))(jax.random.split(jax.random.key(0), 24_000))
    _, counts = np.unique(np.asarray(draws) @ np.array([64, 16, 4, 1]), return_counts=True)
    assert len(counts) == 24
    assert ((counts - 1000) ** 2 / 1000).sum() < 59


def test_rows_move_far_in_a_large_batch() -> None:
    """Where a row goes says nothing of where it was, also where few bits are random."""
    order = np.asarray(permutation(jax.random.key(1), 2**16))
    assert abs(np.corrcoef(order, np.arange(2**16))[0, 1]) < 0.02
    assert (np.diff(order) == 1).mean() < 0.001


def test_keys_give_different_orders() -> None:
    """And the same key the same one."""
    a, b, again = (np.asarray(permutation(jax.random.key(k), 512)) for k in (0, 1, 0))
    assert (a != b).mean() > 0.9
    np.testing.assert_array_equal(a, again)
