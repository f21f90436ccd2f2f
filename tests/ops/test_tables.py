"""Observations as rows of a table, against NumPy and by hand."""

import math

import jax
import numpy as np
import pytest
from gymnasium import spaces
from hypothesis import given, settings
from hypothesis import strategies as st

from renshu.errors import HyperparameterError, SpaceError
from renshu.ops.spaces import dummy, flatten, leaf_spaces, storage_dtype
from renshu.ops.tables import MOST_ENTRIES, table_index
from tests.algorithms.rollouts import draw
from tests.ops.test_spaces import SPACES

LINE = spaces.Box(-1.0, 1.0, (1,), np.float32)


def index_of(space, obs, *args, **kwargs):
    """The index of a batch, the same with and without jit."""
    index = table_index(space, *args, **kwargs)
    plain, jitted = index.of(obs), jax.jit(index.of)(obs)
    np.testing.assert_array_equal(plain, jitted)
    assert plain.dtype == np.int32
    return np.asarray(plain).tolist(), index.size


def column(*values, dtype=np.float32):
    return np.array(values, dtype)[:, None]


# --- by hand --------------------------------------------------------------------------------------------------------


def test_whole_numbers_are_numbered_row_major():
    assert index_of(spaces.Discrete(4), np.array([0, 3, 1])) == ([0, 3, 1], 4)
    assert index_of(spaces.Discrete(4, start=-2), np.array([-2, 1])) == ([0, 3], 4)
    assert index_of(spaces.MultiDiscrete([2, 3]), np.array([[0, 0], [0, 2], [1, 0], [1, 2]])) == ([0, 2, 3, 5], 6)
    assert index_of(spaces.MultiDiscrete([[2], [3]], start=[[5], [-1]]), np.array([[[6], [1]]])) == ([5], 6)
    assert index_of(spaces.MultiBinary(3), np.array([[0, 0, 1], [1, 0, 0], [1, 1, 1]], np.int8)) == ([1, 4, 7], 8)


def test_nested():
    space = spaces.Dict([("b", spaces.Discrete(3)), ("a", spaces.Tuple([LINE, spaces.MultiBinary(1)]))])
    obs = {"b": np.array([2, 0]), "a": (column(0.9, -0.9), np.array([[1], [0]], np.int8))}
    assert index_of(space, obs, 4) == ([2 * 8 + 3 * 2 + 1, 0], 24)


def test_a_bin_holds_its_lower_edge_and_the_outer_ones_hold_what_is_beyond():
    values = column(-np.inf, -7, -1, np.nextafter(np.float32(-0.5), -1), -0.5, 0, 0.4999, 0.5, 1, 7, np.inf)
    assert index_of(LINE, values, 4) == ([0, 0, 0, 0, 1, 2, 2, 3, 3, 3, 3], 4)


@pytest.mark.parametrize("bins", [1, 3, 7, 10, 33])
def test_every_edge_opens_its_bin(bins):
    """Also where the edge is no round number of float32: the next number below it is in the bin before."""
    edges = np.linspace(-1, 1, bins + 1)[1:-1].astype(np.float32)
    assert index_of(LINE, column(*edges), bins) == (list(range(1, bins)), bins)
    below = np.where(edges == 0, -1e-30, np.nextafter(edges, np.float32(-9)))  # XLA takes the next below 0 for 0
    assert index_of(LINE, column(*below), bins) == (list(range(bins - 1)), bins)


def test_bins_of_each_dimension():
    space = spaces.Box(np.array([-1, 0, 0], np.float32), np.array([1, 1, 8], np.float32))
    obs = np.array([[-1, 0, 0], [1, 1, 8], [0.1, 0.9, 3]], np.float32)
    assert index_of(space, obs, (2, 1, 4)) == ([0, 7, 4 + 1], 8)


def test_limits_where_the_space_has_none():
    space = spaces.Box(np.array([-1, -np.inf], np.float32), np.array([1, np.inf], np.float32))
    obs = np.array([[0.5, -3], [0.5, 0.1], [2, 99]], np.float32)
    assert index_of(space, obs, 2, -3, 3) == ([2, 3, 3], 4), "numbers are for the unbounded dimension only"
    assert index_of(space, obs, 2, (0.6, -3), (1, 3)) == ([0, 1, 3], 4), "tuples for all"
    biggest = np.finfo(np.float32).max
    assert index_of(spaces.Box(-biggest, biggest, (1,), np.float32), column(0.9, 1.1), 2, 0, 2) == ([0, 1], 2)
    assert index_of(spaces.Box(0, np.inf, (1,), np.float32), column(-5, 1.9, 2.1), 2, obs_high=4) == ([0, 0, 1], 2)


def test_whole_numbers_in_a_box_get_no_more_bins_than_there_are():
    space = spaces.Box(np.array([0, 5]), np.array([3, 5]), dtype=np.int64)
    obs = np.array([[0, 5], [1, 5], [3, 5]], np.int32)
    assert index_of(space, obs, 10) == ([0, 1, 3], 4)
    assert index_of(space, obs, 2) == ([0, 0, 1], 2)
    pixels = spaces.Box(0, 255, (2,), np.uint8)
    assert index_of(pixels, np.array([[0, 255], [128, 127]], np.uint8), 2) == ([1, 2], 4)
    with pytest.raises(SpaceError, match="have none"):
        table_index(spaces.Box(-np.inf, np.inf, (1,), np.int32))


# --- against NumPy --------------------------------------------------------------------------------------------------


@settings(max_examples=20, deadline=None)
@given(SPACES, st.integers(0, 1000), st.integers(1, 4))
def test_index_equals_numpy(space, seed, bins):
    digits, sizes = [], []
    obs = draw(space, (5,), seed)
    for leaf, x in zip(leaf_spaces(space), flatten(space, obs), strict=True):
        x = x.reshape(5, -1)
        if isinstance(leaf, spaces.Box):
            top = leaf.high + np.issubdtype(leaf.dtype, np.integer)
            for i, (low, high) in enumerate(zip(leaf.low.reshape(-1), top.reshape(-1), strict=True)):
                edges = np.linspace(low, high, bins + 1)[1:-1].astype(np.float32)
                digits.append(np.digitize(x[:, i], edges))
                sizes.append(bins)
        else:
            start = np.asarray(getattr(leaf, "start", 0)).reshape(-1)
            nvec = [leaf.n] if isinstance(leaf, spaces.Discrete) else np.reshape(getattr(leaf, "nvec", []), -1)
            sizes += [int(n) for n in nvec] or [2] * math.prod(leaf.shape)
            digits += list((x - start).T)
    if math.prod(sizes) > MOST_ENTRIES:
        with pytest.raises(SpaceError, match="more than"):
            table_index(space, bins)
        return
    index = table_index(space, bins)
    assert index.size == math.prod(sizes)
    expected = np.ravel_multi_index([d.astype(np.int64) for d in digits], sizes)
    np.testing.assert_array_equal(index.of(obs), expected)


def test_what_lies_outside_of_a_space_stays_in_the_table():
    index = table_index(spaces.Discrete(3))
    np.testing.assert_array_equal(index.of(np.array([-5, 99], np.int32)), [0, 2])
    assert 0 <= int(table_index(LINE).of(column(np.nan))[0]) < 10


# --- bad input ------------------------------------------------------------------------------------------------------


def test_a_table_that_is_too_large():
    wide = spaces.Box(-1, 1, (20,), np.float32)
    with pytest.raises(SpaceError, match=r"about 10\^20 entries .*than 10,000,000. Take fewer bins, as in obs_bins=2"):
        table_index(wide, 10)
    assert table_index(wide, 2).size == 2**20
    with pytest.raises(SpaceError, match=r"3,486,784,401 entries.*obs_bins=2, or an algorithm with a network, as DQN"):
        table_index(wide, 3)
    with pytest.raises(SpaceError, match=r"\d Take an algorithm with a network|\. Take an algorithm with a network"):
        table_index(spaces.Box(-1, 1, (40,), np.float32), 10)
    with pytest.raises(SpaceError, match=r"12,000,000 entries \(4000000 states, 3 actions\)"):
        table_index(spaces.Discrete(4_000_000), actions=3)
    assert table_index(spaces.Discrete(4_000_000), actions=2).size == 4_000_000


@pytest.mark.parametrize(
    ("space", "options", "error", "words"),
    [
        (spaces.Box(-np.inf, np.inf, (2,), np.float32), {}, SpaceError, r"these have none: \[0, 1\]. Give obs_low and"),
        (spaces.Box(0, np.inf, (2,), np.float32), {"obs_low": 1}, SpaceError, r"these have none: \[0, 1\]"),
        (LINE, {"obs_bins": (3, 3)}, HyperparameterError, r"obs_bins=\(3, 3\) has 2 numbers, but .* has 1 dimensions"),
        (LINE, {"obs_low": (1.0, 2.0)}, HyperparameterError, r"obs_low=\(1.0, 2.0\) has 2 numbers"),
        (LINE, {"obs_low": (2.0,)}, HyperparameterError, r"bins from 2 to 1: obs_low must be below obs_high"),
        (spaces.Text(3), {}, SpaceError, "no states for Text"),
    ],
)
def test_bad_input(space, options, error, words):
    with pytest.raises(error, match=words):
        table_index(space, **options)


def test_a_batch_of_zeros_has_rows():
    space = spaces.Tuple([LINE, spaces.Discrete(2)])
    obs = dummy(space, 3)
    assert obs[0].dtype == storage_dtype(np.float32)
    assert index_of(space, obs, 2) == ([2, 2, 2], 4)
