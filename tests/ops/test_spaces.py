"""Observations of any nesting, against Gymnasium's own flattening."""

import jax
import numpy as np
import pytest
from gymnasium import spaces
from gymnasium.spaces import utils
from hypothesis import given, settings
from hypothesis import strategies as st

from renshu.errors import SpaceError
from renshu.ops.spaces import batched, dummy, encode, flatten, leaf_spaces, map_space, stored, unflatten
from tests.algorithms.rollouts import assert_same, draw

QUICK = settings(max_examples=40, deadline=None)
LEAVES = st.sampled_from(
    [
        spaces.Box(-1, 1, (2,), np.float32),
        spaces.Box(-5, 5, (2, 3), np.float64),
        spaces.Box(0, 9, (), np.int32),
        spaces.Discrete(3),
        spaces.Discrete(4, start=-2),
        spaces.MultiDiscrete([2, 3]),
        spaces.MultiDiscrete([[2, 3], [4, 2]], start=[[1, 0], [0, -1]]),
        spaces.MultiBinary(3),
        spaces.MultiBinary([2, 2]),
    ]
)


def nested(children: st.SearchStrategy) -> st.SearchStrategy:
    names = st.dictionaries(st.sampled_from("zyxabc"), children, min_size=1, max_size=3)
    # Pairs keep their order, where Gymnasium would sort a plain dict.
    return st.lists(children, min_size=1, max_size=3).map(spaces.Tuple) | names.map(
        lambda parts: spaces.Dict(list(parts.items()))
    )


SPACES = st.recursive(LEAVES, nested, max_leaves=5)


@QUICK
@given(SPACES, st.integers(0, 1000))
def test_flatten_and_unflatten_are_inverse(space: spaces.Space, seed: int):
    tree = draw(space, (4,), seed)
    leaves = flatten(space, tree)
    assert [leaf.shape for leaf in leaves] == [(4, *(kind.shape or ())) for kind in leaf_spaces(space)]
    again = unflatten(space, leaves)
    assert jax.tree.structure(again) == jax.tree.structure(tree)
    assert_same(again, tree)


@QUICK
@given(SPACES, st.integers(0, 1000))
def test_encode_equals_gymnasium_row_by_row(space: spaces.Space, seed: int):
    space.seed(seed)
    samples = [space.sample() for _ in range(3)]
    batch = map_space(lambda _, *x: np.stack(x), space, *samples)
    expected = np.stack([utils.flatten(space, sample) for sample in samples])
    encoded = encode(space, stored(space, batch))
    assert encoded.dtype == np.float32
    np.testing.assert_allclose(encoded, expected, rtol=1e-6)


def test_encode_by_hand():
    space = spaces.Dict(
        [
            ("where", spaces.Discrete(3, start=5)),
            ("flags", spaces.MultiBinary(2)),
            ("pair", spaces.Tuple([spaces.MultiDiscrete([2, 2]), spaces.Box(-9, 9, (1,), np.float32)])),
        ]
    )
    obs = {
        "where": np.array([7, 5]),
        "flags": np.array([[1, 0], [1, 1]], np.int8),
        "pair": (np.array([[0, 1], [1, 1]]), np.array([[2.5], [-3.0]], np.float32)),
    }
    expected = [[0, 0, 1, 1, 0, 1, 0, 0, 1, 2.5], [1, 0, 0, 1, 1, 0, 1, 0, 1, -3.0]]
    np.testing.assert_array_equal(encode(space, obs), expected)
    np.testing.assert_array_equal(jax.jit(lambda x: encode(space, x))(obs), expected)


def test_stored_makes_64_bit_numbers_32_bit_ones():
    space = spaces.Tuple([spaces.Discrete(3), spaces.Box(0, 1, (1,), np.float64), spaces.Box(0, 255, (1,), np.uint8)])
    found = stored(space, (np.array([1]), np.array([[0.5]]), np.array([[7]], np.uint8)))
    assert [leaf.dtype for leaf in found] == [np.int32, np.float32, np.uint8]
    assert [leaf.dtype for leaf in dummy(space, 2)] == [np.int32, np.float32, np.uint8]


@QUICK
@given(SPACES, st.integers(0, 1000))
def test_batched_takes_one_observation_or_several(space: spaces.Space, seed: int):
    many = draw(space, (3,), seed)
    batch, size, single = batched(space, many)
    assert (size, single) == (3, False)
    assert_same(batch, many)
    one = map_space(lambda _, x: x[1], space, many)
    batch, size, single = batched(space, one)
    assert (size, single) == (1, True)
    assert_same(batch, map_space(lambda _, x: x[1:2], space, many))


def test_batched_takes_lists_and_numbers():
    batch, size, single = batched(spaces.Box(-1, 1, (2,), np.float32), [0.5, 1])  # type: ignore[arg-type]
    np.testing.assert_array_equal(batch, np.array([[0.5, 1.0]], np.float32))
    assert (size, single, batch.dtype) == (1, True, np.float32)
    assert batched(spaces.Discrete(3), 2)[1:] == (1, True)
    assert batched(spaces.Discrete(3), [2, 0])[1:] == (2, False)


PAIR = spaces.Dict({"a": spaces.Box(-1, 1, (2,), np.float32), "b": spaces.Discrete(2)})


@pytest.mark.parametrize(
    ("space", "wrong", "words"),
    [
        (
            spaces.Box(-1, 1, (2,), np.float32),
            np.zeros(3),
            r"shape \(2,\).*\('B', 2\); this is float64 of shape \(3,\)",
        ),
        (spaces.Box(-1, 1, (2,), np.float32), np.zeros((4, 3)), r"shape \(4, 3\)"),
        (spaces.Box(-1, 1, (2,), np.float32), 1.0, r"shape \(\)"),
        (spaces.Box(-1, 1, (2,), np.float32), None, "object"),
        (spaces.Box(-1, 1, (1,), np.float32), ["fast"], "<U4"),
        (spaces.Box(-1, 1, (2,), np.float32), [[0.0, 1.0], [0.0]], "ValueError"),
        (spaces.Discrete(3), np.zeros((2, 2), int), r"shape \(2, 2\)"),
        (PAIR, {"a": np.zeros(2)}, "KeyError: 'b'"),
        (PAIR, np.zeros(2), "is not of Dict"),
        (PAIR, {"a": np.zeros((3, 2)), "b": np.zeros(2, int)}, r"int64 of shape \(2,\)"),
        (PAIR, {"a": np.zeros(2), "b": np.zeros(2, int)}, r"int64 of shape \(2,\)"),
        (spaces.Tuple([spaces.Discrete(2), spaces.Discrete(2)]), (1,), "IndexError"),
    ],
    ids=str,
)
def test_batched_refuses_what_does_not_fit(space: spaces.Space, wrong, words: str):
    with pytest.raises(SpaceError, match=words):
        batched(space, wrong)
