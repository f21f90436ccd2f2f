"""Actions of any kind for an algorithm that takes only Discrete ones, and what may be chosen about fitting."""

import itertools
import json
import warnings
from typing import Any

import jax
import numpy as np
import pytest
from gymnasium import spaces
from hypothesis import given, settings
from hypothesis import strategies as st

from renshu import PPO, QLearning
from renshu.envs.adapt import MOST_ACTIONS, UNBOUNDED_LIMIT, FittedSpaces, SpaceConfig, fit_spaces
from renshu.errors import HyperparameterError, SpaceError
from renshu.types import Accepts, EnvSpec

VECTOR = spaces.Box(-1, 1, (2,), np.float32)
DISCRETE = Accepts(observations=frozenset({"box"}), actions=frozenset({"discrete"}))
INF = np.inf


def fitted(action: spaces.Space, accepts: Accepts = DISCRETE, **space_config: Any) -> FittedSpaces:
    return fit_spaces(EnvSpec(VECTOR, action, 2), accepts, algorithm="DQN", config=SpaceConfig(**space_config))


def all_actions(found: FittedSpaces, space: spaces.Space) -> np.ndarray:
    """Every action by its number; checked to be of the space, and to be the same in any batch and inside jit."""
    count = int(found.spec.action_space.n)
    index = np.arange(count, dtype=np.int32)
    actions = found.decode_action(index)
    assert actions.shape == (count, *space.shape)
    assert actions.dtype == space.dtype
    compiled = jax.jit(found.decode_action)(index)
    assert compiled.shape == actions.shape
    assert compiled.dtype == jax.dtypes.canonicalize_dtype(space.dtype)
    np.testing.assert_allclose(compiled, actions, rtol=1e-6)
    np.testing.assert_array_equal(found.encode_action(actions), index)
    for size in range(1, min(count, 8) + 1):
        np.testing.assert_array_equal(found.decode_action(index[-size:]), actions[-size:])
    for action in actions:
        assert space.contains(np.asarray(action)), f"{action!r} is not in {space}"
    return actions


CASES = {
    "one dimension": (spaces.Box(-1, 1, (1,)), 3, [[-1], [0], [1]]),
    "ends alone": (spaces.Box(-2, 3, (1,)), 2, [[-2], [3]]),
    "two dimensions": (spaces.Box(-1, 1, (2,)), 2, [[-1, -1], [-1, 1], [1, -1], [1, 1]]),
    "a number each": (
        spaces.Box(np.array([0, -4], "f"), np.array([1, 4], "f")),
        (2, 3),
        [[0, -4], [0, 0], [0, 4], [1, -4], [1, 0], [1, 4]],
    ),
    "2d": (spaces.Box(-1, 1, (1, 2)), (2, 2), [[[-1, -1]], [[-1, 1]], [[1, -1]], [[1, 1]]]),
    "scalar": (spaces.Box(0, 10, ()), 3, [0, 5, 10]),
    "float64": (spaces.Box(-0.1, 0.3, (1,), np.float64), 2, [[-0.1], [0.3]]),
    "float16": (spaces.Box(-2, 2, (1,), np.float16), 5, [[-2], [-1], [0], [1], [2]]),
    "whole numbers": (spaces.Box(0, 10, (1,), np.int32), 3, [[0], [5], [10]]),
    "few whole numbers": (spaces.Box(-1, 1, (1,), np.int64), 9, [[-1], [0], [1]]),
    "uint8": (spaces.Box(0, 255, (1,), np.uint8), 2, [[0], [255]]),
    "bool": (spaces.Box(0, 1, (1,), np.bool_), 5, [[False], [True]]),  # pyright: ignore[reportArgumentType, reportCallIssue]
    "a constant": (spaces.Box(np.array([2, 0], "f"), np.array([2, 1], "f")), 2, [[2, 0], [2, 1]]),
    "multi_discrete": (spaces.MultiDiscrete([2, 3]), 5, [[0, 0], [0, 1], [0, 2], [1, 0], [1, 1], [1, 2]]),
    "multi_discrete start": (spaces.MultiDiscrete([1, 2], start=[7, -1]), 5, [[7, -1], [7, 0]]),
    "multi_discrete 2d": (
        spaces.MultiDiscrete([[2], [2]], dtype=np.uint8),
        5,
        [[[0], [0]], [[0], [1]], [[1], [0]], [[1], [1]]],
    ),
    "multi_binary": (spaces.MultiBinary(2), 5, [[0, 0], [0, 1], [1, 0], [1, 1]]),
    "multi_binary 2d": (spaces.MultiBinary([1, 2]), 5, [[[0, 0]], [[0, 1]], [[1, 0]], [[1, 1]]]),
}


@pytest.mark.parametrize(("space", "bins", "expected"), CASES.values(), ids=CASES.keys())
@pytest.mark.filterwarnings("error")
def test_the_product_is_one_index(space: spaces.Space, bins: Any, expected: Any):
    found = fitted(space, bins=bins)
    np.testing.assert_allclose(all_actions(found, space), expected, rtol=1e-6)
    assert found.spec.action_space == spaces.Discrete(len(expected))
    assert f"{len(expected)} actions, because DQN takes only Discrete ones" in found.notes[-1]


def test_five_points_where_nothing_is_said():
    assert SpaceConfig().bins == 5
    found = fit_spaces(EnvSpec(VECTOR, spaces.Box(-2, 2, (1,)), 1), DISCRETE, algorithm="DQN")
    assert found.decode_action(np.arange(5)).tolist() == [[-2], [-1], [0], [1], [2]]


@pytest.mark.parametrize(
    ("space", "expected"),
    [
        (spaces.Box(-INF, INF, (1,)), [-UNBOUNDED_LIMIT, 0, UNBOUNDED_LIMIT]),
        (spaces.Box(0, INF, (1,)), [0, UNBOUNDED_LIMIT / 2, UNBOUNDED_LIMIT]),
        (spaces.Box(-INF, 5, (1,)), [-UNBOUNDED_LIMIT, -2.5, 5]),
    ],
    ids=["both", "below", "above"],
)
def test_a_grid_without_bounds_ends_at_the_limit_with_a_warning(space: spaces.Box, expected: list[float]):
    with pytest.warns(UserWarning, match=r"no bounds in 1 of 1 dimensions: .* \+-10"):
        found = fitted(space, bins=3)
    np.testing.assert_allclose(all_actions(found, space)[:, 0], expected)
    with pytest.raises(SpaceError, match="give it both bounds"):
        fitted(spaces.Box(2 * UNBOUNDED_LIMIT, INF, (1,)))


bounds = st.tuples(st.floats(-1e3, 1e3, width=16), st.floats(0, 1e3, width=16))


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.tuples(bounds, st.integers(2, 6)), min_size=1, max_size=4),
    st.sampled_from([np.float16, np.float32, np.float64, np.int16, np.int64]),
)
def test_any_grid(dimensions: list, dtype: Any):
    """Every point is in the space, no action is there twice, and the ends are among them."""
    low, high = (np.array(x).astype(dtype) for x in zip(*[(a, a + b) for (a, b), _ in dimensions], strict=True))
    high = np.maximum(low, high)
    space = spaces.Box(low, high, dtype=dtype)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = fitted(space, bins=tuple(n for _, n in dimensions))
    actions = found.decode_action(np.arange(found.spec.action_space.n))
    assert all(space.contains(action) for action in actions)
    np.testing.assert_allclose(actions[0], low, rtol=1e-6)
    np.testing.assert_allclose(actions[-1], high, rtol=1e-6)
    if np.issubdtype(dtype, np.integer):
        assert len({tuple(action) for action in actions}) == len(actions)
    for column, (_, n) in zip(actions.T, dimensions, strict=True):
        points = np.unique(column)
        assert len(points) <= n
        if dtype == np.float64 and len(points) == n > 2:
            np.testing.assert_allclose(np.diff(points), (points[-1] - points[0]) / (n - 1), rtol=1e-5)


def test_the_order_is_that_of_a_product():
    space = spaces.MultiDiscrete([3, 2, 4])
    expected = list(itertools.product(range(3), range(2), range(4)))
    np.testing.assert_array_equal(all_actions(fitted(space), space), expected)


# --- too many -------------------------------------------------------------------------------------------------------


def test_as_many_as_the_limit():
    assert fitted(spaces.Box(-1, 1, (12,)), bins=2).spec.action_space == spaces.Discrete(MOST_ACTIONS)
    assert fitted(spaces.MultiBinary(12)).spec.action_space == spaces.Discrete(MOST_ACTIONS)


@pytest.mark.parametrize(
    ("space", "bins", "match"),
    [
        (
            spaces.Box(-1, 1, (6,)),
            5,
            r"makes 15,625 of them, more than 4,096\. Take fewer bins, as in bins=4, or .*PPO or SAC",
        ),
        (spaces.Box(-1, 1, (1,)), 4097, r"makes 4,097 of them.*as in bins=4096"),
        (
            spaces.Box(-1, 1, (17,)),
            2,
            r"makes 131,072 of them.*Take an algorithm for continuous actions, as PPO or SAC",
        ),
        (spaces.Box(-1, 1, (400,)), 10, r"makes about 10\^400 of them"),
        (spaces.MultiBinary(13), 5, r"makes 8,192 of them.*Take an algorithm for such actions, as PPO or A2C"),
        (spaces.MultiBinary(20_000), 5, r"about 10\^6020"),
        (spaces.MultiDiscrete([100, 100]), 5, r"makes 10,000 of them.*PPO or A2C"),
    ],
    ids=str,
)
def test_more_than_the_limit_is_refused(space: spaces.Space, bins: int, match: str):
    with pytest.raises(SpaceError, match=f"DQN takes only Discrete actions, and to number those of .* {match}"):
        fitted(space, bins=bins)


# --- what is chosen -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("bins", [1, 0, -3, 2.5, True, "3", None, (), (3, 1), (3, 2.0), [2, None], {3}], ids=repr)
def test_bins_that_are_none(bins: Any):
    if bins == ():
        with pytest.raises(HyperparameterError, match=r"bins=\(\) are 0 numbers, but actions of .* have 2 dimensions"):
            fitted(VECTOR, bins=bins)
        return
    with pytest.raises(HyperparameterError, match=r"bins=.*: expected a whole number of at least 2, or one for each"):
        SpaceConfig(bins=bins)


@pytest.mark.parametrize("frame_stack", [0, -1, 1.5, True, "2", None], ids=repr)
def test_a_history_that_is_none(frame_stack: Any):
    with pytest.raises(HyperparameterError, match=r"frame_stack=.*: expected a whole number of at least 1"):
        SpaceConfig(frame_stack=frame_stack)


def test_one_number_for_each_dimension():
    with pytest.raises(HyperparameterError, match=r"bins=\(3, 3, 3\) are 3 numbers, but .* have 2 dimensions"):
        fitted(VECTOR, bins=(3, 3, 3))
    assert SpaceConfig(bins=[3, np.int64(4)]) == SpaceConfig(bins=(3, 4))  # type: ignore[arg-type]
    assert fitted(VECTOR, bins=[3, 4]).spec.action_space == spaces.Discrete(12)


@pytest.mark.parametrize(
    "space_config", [SpaceConfig(), SpaceConfig(bins=3), SpaceConfig(bins=(2, 3), frame_stack=4)], ids=str
)
def test_a_fitting_as_json(space_config: SpaceConfig):
    assert SpaceConfig.from_json(json.loads(json.dumps(space_config.to_json()))) == space_config
    assert SpaceConfig.from_json({}) == SpaceConfig()
    assert space_config.override() == space_config
    assert space_config.override(frame_stack=2) == SpaceConfig(space_config.bins, 2)
    assert space_config.override(bins=[7]) == SpaceConfig((7,), space_config.frame_stack)


@pytest.mark.parametrize("data", [None, [], "bins", {"bin": 3}, {"bins": "3"}, {"frame_stack": None}], ids=repr)
def test_json_that_is_no_fitting(data: Any):
    with pytest.raises(HyperparameterError):
        SpaceConfig.from_json(data)


def test_notes_say_what_was_chosen():
    def note(space: spaces.Space, bins: Any) -> str:
        return fitted(space, bins=bins).notes[-1]

    why = "because DQN takes only Discrete ones"
    box = spaces.Box(-1, 1, (4,))
    assert note(box, 3) == f"action: {box}, 3 points in each of 4 dimensions: 81 actions, {why}"
    assert note(VECTOR, (3, 40)).endswith(f", 3 x 40 points: 120 actions, {why}")
    assert note(spaces.Box(-1, 1, (1,)), 3).endswith(f", 3 points: 3 actions, {why}")
    assert note(spaces.MultiBinary(3), 5).endswith(f", numbered: 8 actions, {why}")


def test_bins_that_are_not_used_are_told():
    for space in (VECTOR, spaces.Discrete(2)):
        with pytest.warns(UserWarning, match=r"bins=3 is not used: PPO takes actions of .* as they are"):
            found = fit_spaces(EnvSpec(VECTOR, space, 1), PPO.accepts, algorithm="PPO", config=SpaceConfig(bins=3))
        assert type(found.spec.action_space) is type(space)


def test_history_is_for_those_who_can():
    for accepts in (DISCRETE, QLearning.accepts):
        with pytest.raises(
            HyperparameterError, match=r"DQN sees one observation at a time .* frame_stack=4.*FrameStack"
        ):
            fitted(spaces.Discrete(2), accepts, frame_stack=4)
    able = Accepts(DISCRETE.observations, DISCRETE.actions, frame_stack=True)
    found = fitted(spaces.Discrete(2), able, frame_stack=4)
    assert found.spec.frame_stack == 4
    assert found.spec.observation_space == VECTOR
    assert "frame_stack: the last 4 observations at once" in found.notes
    assert fitted(spaces.Discrete(2), able).spec.frame_stack == 1
    assert len(fitted(spaces.Discrete(2), able).notes) == 2
