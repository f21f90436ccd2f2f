"""Spaces and specs survive a round trip through JSON, and bad data is refused before it can do anything."""

from __future__ import annotations

import json
import tracemalloc

import numpy as np
import pytest
from gymnasium import spaces

from renshu.envs.spec import space_from_json, space_to_json, spec_from_json, spec_to_json
from renshu.errors import SpaceError
from renshu.types import EnvSpec

SPACES = {
    "box": spaces.Box(-1.5, 2.25, (3, 2)),
    "box per element": spaces.Box(np.array([-0.1, -np.inf], np.float32), np.array([0.1, np.inf], np.float32)),
    "box half open": spaces.Box(0.0, np.inf, (2,), np.float64),
    "box float16": spaces.Box(-2, 2, (2,), np.float16),
    "box scalar": spaces.Box(-1, 1, ()),
    "box empty": spaces.Box(0, 1, (0,)),
    "image": spaces.Box(0, 255, (4, 4, 3), np.uint8),
    "box int64 unbounded": spaces.Box(-np.inf, np.inf, (2,), np.int64),
    "box int16 half open": spaces.Box(np.array([-np.inf, 0]), np.array([5, np.inf]), dtype=np.int16),
    "box uint64": spaces.Box(np.array([0, 1], np.uint64), np.array([2**62, 3], np.uint64), dtype=np.uint64),
    "box bool": spaces.Box(0, 1, (2,), np.bool_),  # pyright: ignore[reportArgumentType, reportCallIssue]
    "discrete": spaces.Discrete(5),
    "discrete from -2": spaces.Discrete(3, start=-2),
    "discrete int32": spaces.Discrete(3, dtype=np.int32),
    "multidiscrete": spaces.MultiDiscrete([3, 4], start=[1, -1]),
    "multidiscrete 2d": spaces.MultiDiscrete(np.array([[2, 3], [4, 5]]), dtype=np.int32),
    "multibinary": spaces.MultiBinary(4),
    "multibinary 2d": spaces.MultiBinary((2, 3)),
    "tuple": spaces.Tuple([spaces.Discrete(2), spaces.Box(0, 1, (2,))]),
    "nested": spaces.Dict(
        [
            ("z first", spaces.Tuple([spaces.Dict({"a": spaces.MultiBinary(2)}), spaces.Discrete(2)])),
            ("a", spaces.Box(-np.inf, np.inf, (2,))),
        ]
    ),
}


def same(a: spaces.Space, b: spaces.Space) -> bool:
    """Exactly equal, where Gymnasium's == lets bounds be close and forgets the order of keys."""
    if type(a) is not type(b) or a != b or a.dtype != b.dtype:
        return False
    if isinstance(a, spaces.Box):
        names = ("low", "high", "bounded_below", "bounded_above")
        return all(np.array_equal(getattr(a, name), getattr(b, name)) for name in names)
    if isinstance(a, spaces.Dict) and isinstance(b, spaces.Dict):
        return list(a.spaces) == list(b.spaces) and all(same(a[key], b[key]) for key in a.spaces)
    if isinstance(a, spaces.Tuple) and isinstance(b, spaces.Tuple):
        return all(same(x, y) for x, y in zip(a.spaces, b.spaces, strict=True))
    return True


@pytest.mark.parametrize("name", SPACES)
def test_round_trip(name: str) -> None:
    text = json.dumps(space_to_json(SPACES[name]), allow_nan=False, sort_keys=True)
    assert same(space_from_json(json.loads(text)), SPACES[name])


def test_uniform_bounds_are_one_number_and_infinities_are_text() -> None:
    data = space_to_json(spaces.Box(0, np.inf, (84, 84)))
    assert data == {"type": "Box", "shape": [84, 84], "dtype": "float32", "low": 0.0, "high": "inf"}


@pytest.mark.parametrize("space", [spaces.Text(5), spaces.Dict({"a": spaces.Sequence(spaces.Discrete(2))})])
def test_other_spaces_are_refused(space: spaces.Space) -> None:
    with pytest.raises(SpaceError, match="Box, Discrete"):
        space_to_json(space)


def test_keys_that_are_no_strings_are_refused() -> None:
    with pytest.raises(SpaceError, match="must be strings"):
        space_to_json(spaces.Dict({0: spaces.Discrete(2)}))  # pyright: ignore[reportArgumentType]


BOX = {"type": "Box", "shape": [2], "dtype": "float32", "low": 0.0, "high": 1.0}
DEEP: dict = {"type": "Discrete", "n": 2, "start": 0, "dtype": "int64"}
for _ in range(5000):
    DEEP = {"type": "Tuple", "spaces": [DEEP]}


@pytest.mark.parametrize(
    "data",
    [
        {},
        [],
        None,
        {"type": "os.system"},
        {"type": ["Box"]},
        BOX | {"dtype": "object"},
        BOX | {"dtype": "__import__('os')"},
        BOX | {"shape": [10**12]},
        BOX | {"shape": [10**9, "a"]},
        BOX | {"shape": [-2]},
        BOX | {"low": "nan"},
        BOX | {"low": [0.0, 0.0, 0.0]},
        BOX | {"low": 2.0},
        BOX | {"low": None},
        {"type": "Discrete", "n": 0, "start": 0, "dtype": "int64"},
        {"type": "Discrete", "n": "2", "start": 0, "dtype": "int64"},
        {"type": "MultiDiscrete", "nvec": [0], "start": [0], "dtype": "int64"},
        {"type": "MultiBinary", "n": 10**12},
        {"type": "MultiBinary", "n": -1},
        {"type": "Dict", "spaces": {"a": 1}},
        {"type": "Tuple", "spaces": [1]},
        DEEP,
    ],
    ids=range(22),
)
def test_bad_descriptions_are_refused(data: object) -> None:
    with pytest.raises(SpaceError) as caught:
        space_from_json(data)  # pyright: ignore[reportArgumentType]
    assert len(str(caught.value)) < 500


def make_spec(**changes: object) -> EnvSpec:
    values = {"id": "X-v0", "kwargs": {"size": 3}, "max_episode_steps": 500, "reward_threshold": 475.0, **changes}
    return EnvSpec(SPACES["nested"], SPACES["discrete"], num_envs=4, **values)  # pyright: ignore[reportArgumentType]


def test_spec_round_trip() -> None:
    spec = make_spec()
    again = spec_from_json(json.loads(json.dumps(spec_to_json(spec), allow_nan=False)))
    assert same(again.observation_space, spec.observation_space)
    assert same(again.action_space, spec.action_space)
    assert (again.num_envs, again.id, again.kwargs) == (4, "X-v0", {"size": 3})
    assert (again.max_episode_steps, again.reward_threshold) == (500, 475.0)


@pytest.mark.parametrize("value", [lambda x: x, np.zeros(2), float("nan")], ids=["function", "array", "nan"])
def test_kwargs_that_are_not_json_make_the_name_unknown(value: object) -> None:
    data = spec_to_json(make_spec(kwargs={"size": 3, "bad": value}))
    assert (data["id"], data["kwargs"]) == (None, {"size": 3})
    assert (spec_from_json(data).id, spec_from_json(data).unsaved) == (None, ("bad",))


def test_bad_spec_descriptions_are_refused() -> None:
    good = spec_to_json(make_spec())
    with pytest.raises(SpaceError, match="Expected the keys"):
        spec_from_json({"id": "X"})
    with pytest.raises(SpaceError, match="num_envs = '4'; expected int"):
        spec_from_json(good | {"num_envs": "4"})
    with pytest.raises(SpaceError, match="id = 3; expected str or null"):
        spec_from_json(good | {"id": 3})


BIG = {"type": "Box", "shape": [2**22], "dtype": "float32", "low": 0, "high": 1}


@pytest.mark.parametrize(
    "parts",
    [
        [BIG] * 60,
        [{**BIG, "dtype": "uint8"}] * 60,
        [{"type": "MultiBinary", "n": 2**22}] * 60,
        [BIG | {"shape": [0]}] * 20_000,
    ],
    ids=["float32", "uint8", "binary", "many"],
)
@pytest.mark.parametrize("depth", [0, 1, 20])
def test_spaces_that_are_too_large_together_are_refused_before_any_is_made(parts, depth):
    data = {"type": "Tuple", "spaces": parts}
    for _ in range(depth):
        data = {"type": "Dict", "spaces": [["x", data], ["y", BIG]]}
    tracemalloc.start()
    try:
        with pytest.raises(SpaceError, match=r"the file is damaged"):
            space_from_json(data)
        assert tracemalloc.get_traced_memory()[1] < 20e6
    finally:
        tracemalloc.stop()


def test_spaces_that_are_too_deep_are_refused():
    data = {"type": "Discrete", "n": 2, "start": 0, "dtype": "int64"}
    for _ in range(33):
        data = {"type": "Tuple", "spaces": [data]}
    with pytest.raises(SpaceError, match="inside each other"):
        space_from_json(data)


@pytest.mark.parametrize(
    "change",
    [
        {"num_envs": 0},
        {"num_envs": True},
        {"num_envs": 10**12},
        {"max_episode_steps": -1},
        {"max_episode_steps": 2**63},
    ],
    ids=str,
)
def test_numbers_of_a_spec_that_nothing_can_have_are_refused(change):
    data = spec_to_json(EnvSpec(spaces.Box(0, 1, (2,)), spaces.Discrete(2), 2))
    with pytest.raises(SpaceError, match=next(iter(change))):
        spec_from_json(data | change)
