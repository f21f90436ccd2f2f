"""Running statistics and masked means, against NumPy in float64."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from renshu.ops.statistics import (
    RunningStats,
    init_stats,
    masked_mean,
    masked_normalize,
    normalize,
    running_returns,
    update_stats,
)

QUICK = settings(max_examples=50, deadline=None)
BATCH = 8
update = jax.jit(update_stats)
jit_running_returns = jax.jit(running_returns)
jit_normalize = jax.jit(masked_normalize)


def moments(rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean and variance of the rows, in float64."""
    rows = rows.astype(np.float64)
    return rows.mean(0), rows.var(0)


def test_init_has_no_weight() -> None:
    stats = init_stats((2, 3))
    np.testing.assert_array_equal(stats.mean, np.zeros((2, 3)))
    np.testing.assert_array_equal(stats.var, np.ones((2, 3)))
    assert stats.count == 0
    assert {leaf.dtype for leaf in jax.tree.leaves(stats)} == {jnp.dtype("float32")}


def test_update_by_hand() -> None:
    stats = RunningStats(jnp.array([2.0]), jnp.array([1.0]), jnp.array(2.0))  # as of the rows 1 and 3
    stats = update_stats(stats, jnp.array([[5.0], [7.0]]))
    np.testing.assert_allclose(stats.mean, [4.0])
    np.testing.assert_allclose(stats.var, [5.0])
    assert stats.count == 4.0


@QUICK
@given(st.integers(0, 2**32 - 1), hnp.arrays(bool, (5, BATCH)), st.sampled_from([0.0, -3.0, 50.0]))
def test_masked_batches_give_the_statistics_of_all_their_rows(seed: int, masks: np.ndarray, offset: float) -> None:
    batches = np.random.default_rng(seed).normal(offset, 2.0, (*masks.shape, 3)).astype(np.float32)
    stats = init_stats((3,))
    for batch, mask in zip(batches, masks, strict=True):
        stats = update(stats, np.where(mask[:, None], batch, np.nan), mask)
    mean, var = moments(batches[masks]) if masks.any() else (np.zeros(3), np.ones(3))
    np.testing.assert_allclose(stats.mean, mean, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(stats.var, var, rtol=1e-3, atol=1e-5)
    np.testing.assert_allclose(stats.count, masks.sum(), rtol=1e-6)


@QUICK
@given(st.integers(0, 2**32 - 1), st.lists(st.sampled_from([1, 3, BATCH]), min_size=1, max_size=6))
def test_any_split_into_batches_gives_the_same(seed: int, sizes: list[int]) -> None:
    rows = np.random.default_rng(seed).normal(1.0, 2.0, sum(sizes)).astype(np.float32)
    stats = init_stats(())
    for batch in np.split(rows, np.cumsum(sizes)[:-1]):
        stats = update(stats, batch)
    mean, var = moments(rows)
    np.testing.assert_allclose(stats.mean, mean, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(stats.var, var, rtol=1e-3, atol=1e-5)


def test_a_large_offset_does_not_drown_the_deviation() -> None:
    rows = np.random.default_rng(0).normal(1e4, 1.0, (64, 1024)).astype(np.float32)
    first = rows[0].astype(np.float64)
    stats = RunningStats(jnp.array(first.mean()), jnp.array(first.var()), jnp.array(1024.0))
    for batch in rows[1:]:
        stats = update(stats, batch)
    assert float(stats.mean) == pytest.approx(rows.mean(dtype=np.float64), abs=5e-3)
    assert float(stats.var) == pytest.approx(rows.var(dtype=np.float64), rel=1e-3)


def test_a_large_offset_leaves_no_trace_of_the_beginning() -> None:
    rows = np.random.default_rng(0).normal(1e4, 0.1, 50_000).astype(np.float32)
    stats = update_stats(update_stats(init_stats(()), rows[:100]), rows[100:])
    assert float(jnp.sqrt(stats.var)) == pytest.approx(0.1, rel=0.02)


@pytest.mark.parametrize("bad", [1e20, np.inf, np.nan])
def test_an_element_that_cannot_be_counted_stands_alone(bad: float) -> None:
    rows = np.random.default_rng(0).normal(3.0, 2.0, (1000, 3)).astype(np.float32)
    rows[:, 1] = rows[:, 1] * bad
    stats = update_stats(update_stats(init_stats((3,)), rows[:500]), rows[500:])
    np.testing.assert_allclose(stats.mean, [rows[:, 0].mean(), 0.0, rows[:, 2].mean()], rtol=1e-4)
    np.testing.assert_allclose(stats.var, [rows[:, 0].var(), 1.0, rows[:, 2].var()], rtol=1e-3)


def test_rows_that_cannot_be_counted_at_all_are_not() -> None:
    stats = update_stats(init_stats((2,)), np.full((5, 2), np.nan, np.float32))
    assert (stats.count, *stats.mean, *stats.var) == (0, 0, 0, 1, 1)


def test_many_small_batches_after_many_rows_still_count() -> None:
    stats = RunningStats(jnp.array(0.0), jnp.array(1.0), jnp.array(1e6))
    for _ in range(100):
        stats = update(stats, jnp.full(BATCH, 100.0))
    weight = 800 / (1e6 + 800)
    assert float(stats.mean) == pytest.approx(100 * weight, rel=1e-3)
    assert float(stats.var) == pytest.approx(1 - weight + 1e4 * weight * (1 - weight), rel=1e-3)


def test_an_empty_mask_leaves_the_statistics_alone() -> None:
    before = update_stats(init_stats((2,)), jnp.array([[1.0, 2.0], [3.0, 5.0]]))
    after = update_stats(before, jnp.full((4, 2), jnp.nan), jnp.zeros(4, bool))
    for old, new in zip(before, after, strict=True):
        np.testing.assert_array_equal(old, new)


def test_whole_numbers_are_taken_too() -> None:
    images = np.array([[[0, 255]], [[255, 255]]], np.uint8)
    stats = update_stats(init_stats((1, 2)), images)
    np.testing.assert_allclose(stats.mean, [[127.5, 255.0]], rtol=1e-3)
    assert normalize(stats, images).dtype == jnp.float32


@pytest.mark.parametrize(("batch", "mask"), [((4, 3), None), ((4,), None), ((4, 2), (3,)), ((4, 2), (4, 1))])
def test_shapes_that_do_not_fit_are_refused(batch: tuple[int, ...], mask: tuple[int, ...] | None) -> None:
    with pytest.raises(AssertionError):
        update_stats(init_stats((2,)), jnp.zeros(batch), None if mask is None else jnp.ones(mask, bool))


def test_normalize_shifts_scales_and_clips() -> None:
    stats = RunningStats(jnp.array([1.0, 0.0]), jnp.array([4.0, 0.0]), jnp.array(10.0))
    x = jnp.array([[5.0, 0.0], [-99.0, 1.0]])
    np.testing.assert_allclose(normalize(stats, x), [[2.0, 0.0], [-10.0, 10.0]])
    np.testing.assert_allclose(normalize(stats, x, clip=1.5), [[1.5, 0.0], [-1.5, 1.5]])
    np.testing.assert_allclose(normalize(stats, x[0], epsilon=12.0), [1.0, 0.0])


def test_running_returns_by_hand() -> None:
    # Two steps that carry on from 8, an end, its reset, the first two steps of the next episode.
    reward = jnp.array([1.0, 2.0, 0.0, 3.0, 4.0])[:, None]
    first = jnp.array([False, False, False, True, False, False])[:, None]
    end, returns = running_returns(jnp.array([8.0]), reward, first, 0.5)
    np.testing.assert_allclose(returns[:, 0], [5.0, 4.5, 0.0, 3.0, 5.5])
    np.testing.assert_allclose(end, [5.5])


@QUICK
@given(hnp.arrays(bool, (7, 2)), st.integers(0, 2**32 - 1), st.sampled_from([0.0, 0.9, 1.0]))
def test_running_returns_restart_with_each_episode(first: np.ndarray, seed: int, gamma: float) -> None:
    rng = np.random.default_rng(seed)
    start = rng.normal(size=2).astype(np.float32)
    reward = (rng.normal(size=(6, 2)) * ~first[1:]).astype(np.float32)
    end, returns = jit_running_returns(start, reward, first, gamma)
    expected = np.zeros((6, 2))
    for n in range(2):
        so_far = float(start[n])
        for t in range(6):
            so_far = float(reward[t, n]) + (0.0 if first[t, n] else gamma * so_far)
            so_far = 0.0 if first[t + 1, n] else so_far
            expected[t, n] = so_far
    np.testing.assert_allclose(returns, expected, rtol=1e-5, atol=1e-5)
    np.testing.assert_array_equal(end, returns[-1])


def test_running_returns_carry_on_over_the_edge_of_a_rollout() -> None:
    rng = np.random.default_rng(3)
    reward, first = rng.normal(size=(6, 2)).astype(np.float32), rng.random((7, 2)) < 0.3
    _, whole = running_returns(jnp.zeros(2), reward, first, 0.9)
    middle, head = running_returns(jnp.zeros(2), reward[:3], first[:4], 0.9)
    _, tail = running_returns(middle, reward[3:], first[3:], 0.9)
    np.testing.assert_array_equal(whole, np.concatenate([head, tail]))


def test_masked_mean() -> None:
    x = jnp.array([[1.0, jnp.nan], [3.0, jnp.inf]])
    assert masked_mean(x, jnp.array([[True, False], [True, False]])) == 2.0
    assert masked_mean(x, jnp.zeros((2, 2), bool)) == 0.0
    gradient = jax.grad(masked_mean)(jnp.array([1.0, 2.0, 4.0]), jnp.array([True, False, True]))
    np.testing.assert_array_equal(gradient, [0.5, 0.0, 0.5])
    with pytest.raises(AssertionError):
        masked_mean(jnp.zeros((3, 1)), jnp.ones(3, bool))


@QUICK
@given(
    hnp.arrays(np.float32, (5, 2), elements=st.floats(-100, 100, width=32)),
    hnp.arrays(bool, (5, 2)),
    st.sampled_from([0.0, 1e4]),
)
def test_masked_normalize_is_numpys_with_ddof_one(x: np.ndarray, mask: np.ndarray, offset: float) -> None:
    x = x + np.float32(offset)
    result = np.asarray(jit_normalize(np.where(mask, x, np.nan), mask))
    assert np.isfinite(result).all()
    assert (result[~mask] == 0).all()
    chosen = x[mask].astype(np.float64)
    if len(chosen) == 1:
        np.testing.assert_allclose(result[mask], chosen, rtol=1e-6)
    elif len(chosen) == 0 or np.ptp(chosen) == 0:
        assert (result == 0).all()
    elif chosen.std() > 0.1:
        np.testing.assert_allclose(result[mask], (chosen - chosen.mean()) / chosen.std(ddof=1), rtol=1e-2, atol=1e-2)


@pytest.mark.parametrize("value", [0.1, -1e4 / 3, 1.2345e7, 1e-12])
@pytest.mark.parametrize("count", [2, 7, 1000])
def test_masked_normalize_of_equal_numbers_is_zero(value: float, count: int) -> None:
    result = jit_normalize(jnp.full(count, value), jnp.ones(count, bool))
    np.testing.assert_array_equal(result, np.zeros(count))
