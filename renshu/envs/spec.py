"""Conversion of spaces and environment specs to plain JSON data and back. Nothing in the data is run or imported."""

from __future__ import annotations

import math
import reprlib
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from gymnasium import spaces

from renshu.errors import SpaceError
from renshu.types import EnvSpec

_INTEGERS = [f"{sign}int{bits}" for sign in ("", "u") for bits in (8, 16, 32, 64)]
_DTYPES = frozenset([*_INTEGERS, "bool", "float16", "float32", "float64"])
# A file may claim any shape, and bounds take ten times this room; a picture of 3840 x 2160 pixels has 25 MB.
_MAX_BYTES = 2**25
_MAX_DEPTH = 32
_MAX_PARTS = 10_000
_MAX_ENVS = 2**24
_MAX_PLAYERS = 64
_TUPLE = "__tuple__"
"""Key under which a tuple is written, which JSON has not."""


_FIELDS: dict[str, tuple[Any, Callable[[Any], bool]]] = {
    "observation_space": (dict, bool),
    "action_space": (dict, bool),
    "num_envs": (int, lambda n: 1 <= n <= _MAX_ENVS),
    "id": (str, bool),
    "kwargs": (dict, lambda kwargs: True),
    "unsaved": (list, lambda names: all(isinstance(name, str) for name in names)),
    "max_episode_steps": (int, lambda n: 1 <= n < 2**63),
    "reward_threshold": ((int, float), lambda x: isinstance(x, float) or abs(x) < 2**1023),
    "rollout_envs": (int, lambda n: 1 <= n <= _MAX_ENVS),
    "players": (int, lambda n: 1 <= n <= _MAX_PLAYERS),
}
"""Types of the fields of an EnvSpec in a file, and whether a value of the type will do."""
_OPTIONAL = ("id", "max_episode_steps", "reward_threshold", "rollout_envs")
_RANGES = {
    "num_envs": f" from 1 to {_MAX_ENVS}",
    "rollout_envs": f" from 1 to {_MAX_ENVS}",
    "max_episode_steps": " of at least 1",
    "players": f" from 1 to {_MAX_PLAYERS}",
}


def space_to_json(space: spaces.Space) -> dict[str, Any]:
    """Describe a space as JSON data.

    space: Box, Discrete, MultiDiscrete, MultiBinary, or Dict and Tuple of these to any depth. Bounds are exact; bounds
    that are the same everywhere are stored as one number, infinities as "inf" and "-inf".
    Raises SpaceError for any other space.
    """
    match space:
        case spaces.Box():
            low = _bound_to_json(space.low, space.bounded_below, "-inf")
            bounds = {"low": low, "high": _bound_to_json(space.high, space.bounded_above, "inf")}
            return {"type": "Box", "shape": list(space.shape), "dtype": _dtype_name(space), **bounds}
        case spaces.Discrete():
            return {"type": "Discrete", "n": int(space.n), "start": int(space.start), "dtype": _dtype_name(space)}
        case spaces.MultiDiscrete():
            sizes = {"nvec": space.nvec.tolist(), "start": space.start.tolist()}
            return {"type": "MultiDiscrete", **sizes, "dtype": _dtype_name(space)}
        case spaces.MultiBinary():
            return {"type": "MultiBinary", "n": space.n if isinstance(space.n, int) else list(space.n)}
        case spaces.Dict():
            if not all(isinstance(key, str) for key in space.spaces):
                raise SpaceError(f"the keys of a Dict space must be strings, got {list(space.spaces)}; rename them")
            return {"type": "Dict", "spaces": [[key, space_to_json(part)] for key, part in space.spaces.items()]}
        case spaces.Tuple():
            return {"type": "Tuple", "spaces": [space_to_json(part) for part in space.spaces]}
    raise SpaceError(
        f"{type(space).__name__} is not a space that Renshu can describe. It knows Box, Discrete, MultiDiscrete, "
        "MultiBinary, Dict and Tuple; wrap the environment so that its spaces are made of these"
    )


def space_from_json(data: Mapping[str, Any]) -> spaces.Space:
    """Make the space that `space_to_json` described. Raises SpaceError when `data` is not such a description.

    All its parts together are limited in number and size, before any of them is made.
    """
    try:
        _check_size(data)
        return _space(data)
    except SpaceError:
        raise
    # Gymnasium checks its arguments with all of these, asserts included; whatever it was, the data is at fault.
    except (ArithmeticError, AssertionError, LookupError, MemoryError, RecursionError, TypeError, ValueError) as error:
        raise SpaceError(
            f"not the description of a space: {reprlib.repr(data)} ({type(error).__name__}: {error}). "
            "Expected what space_to_json writes"
        ) from error


def spec_to_json(spec: EnvSpec) -> dict[str, Any]:
    """Describe an EnvSpec as JSON data.

    kwargs that JSON cannot hold are left out, and named as `unsaved`; `id` is then None, because the name alone would
    make a different environment; it stays where the `opponent` in a game is all that is missing. `frame_stack` and
    `masks` are left out too, because they belong to the learner, and `model`, which the environment itself has.
    Raises SpaceError for spaces that cannot be described.
    """
    kwargs, lost = kwargs_to_json(spec.kwargs)
    only_opponent = lost == ["opponent"] and getattr(spec.model, "players", 1) > 1
    return {
        "observation_space": space_to_json(spec.observation_space),
        "action_space": space_to_json(spec.action_space),
        "num_envs": spec.num_envs,
        "id": spec.id if not lost or only_opponent else None,
        "kwargs": kwargs,
        "unsaved": [*spec.unsaved, *lost],
        "max_episode_steps": spec.max_episode_steps,
        "reward_threshold": spec.reward_threshold,
        "rollout_envs": spec.rollout_envs,
        "players": spec.players,
    }


def spec_from_json(data: Mapping[str, Any]) -> EnvSpec:
    """Make the EnvSpec that `spec_to_json` described. Raises SpaceError when `data` is not such a description."""
    # Earlier files have none of these.
    data = {"unsaved": [], "rollout_envs": None, "players": 1, **data} if isinstance(data, Mapping) else data
    if not isinstance(data, Mapping) or set(data) != set(_FIELDS):
        raise SpaceError(
            f"not the description of an environment: {reprlib.repr(data)}. Expected the keys {sorted(_FIELDS)}"
        )
    for name, (kind, fits) in _FIELDS.items():
        value = data[name]
        if value is None and name in _OPTIONAL:
            continue
        if not isinstance(value, kind) or isinstance(value, bool) or not fits(value):
            wanted = " or ".join(k.__name__ for k in (kind if isinstance(kind, tuple) else (kind,)))
            raise SpaceError(
                f"the description of an environment has {name} = {reprlib.repr(value)}; expected {wanted}"
                f"{_RANGES.get(name, '')}{' or null' if name in _OPTIONAL else ''}"
            )
    parts = {name: space_from_json(data[name]) for name in ("observation_space", "action_space")}
    given = {"unsaved": tuple(data["unsaved"]), "kwargs": kwargs_from_json(data["kwargs"])}
    return EnvSpec(**{**data, **parts, **given})


def _check_size(data: Any) -> None:
    """Raise SpaceError for a description that is too deep, or that claims more room than any space takes."""
    parts = [(data, 0)]
    seen = size = 0
    while parts:
        part, depth = parts.pop()
        seen += 1
        if depth > _MAX_DEPTH or seen > _MAX_PARTS:
            raise SpaceError(
                f"a space has more than {_MAX_DEPTH if depth > _MAX_DEPTH else _MAX_PARTS} "
                f"{'spaces inside each other' if depth > _MAX_DEPTH else 'parts'}; the file is damaged"
            )
        kind = part["type"]
        if kind == "Box":
            size += _dtype(part).itemsize * math.prod(_length(n) for n in part["shape"])
        elif kind == "MultiBinary":
            size += math.prod(_length(n) for n in (part["n"] if isinstance(part["n"], list) else [part["n"]]))
        elif kind in ("Dict", "Tuple"):
            parts += [(inner[1] if kind == "Dict" else inner, depth + 1) for inner in part["spaces"]]
        if size > _MAX_BYTES:
            raise SpaceError(f"values of a space would have more than {_MAX_BYTES} bytes; the file is damaged")


def _length(value: Any) -> int:
    """Return the length of a dimension. Raises ValueError where it is none; with 0 among them a product hides it."""
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= _MAX_BYTES:
        raise ValueError(f"a dimension of length {reprlib.repr(value)}")
    return value


def _space(data: Mapping[str, Any]) -> spaces.Space:
    match data["type"]:
        case "Box":
            shape, dtype = tuple(map(int, data["shape"])), _dtype(data)
            return spaces.Box(_bound(data["low"], shape, dtype), _bound(data["high"], shape, dtype), shape, dtype.type)
        case "Discrete":
            return spaces.Discrete(data["n"], start=data["start"], dtype=_dtype(data).type)
        case "MultiDiscrete":
            return spaces.MultiDiscrete(data["nvec"], dtype=_dtype(data).type, start=data["start"])
        case "MultiBinary":
            return spaces.MultiBinary(data["n"])
        case "Dict":
            # Pairs, because Gymnasium sorts the keys of a plain dict and the order says which input is which.
            return spaces.Dict([(key, _space(part)) for key, part in data["spaces"]])
        case "Tuple":
            return spaces.Tuple([_space(part) for part in data["spaces"]])
    raise SpaceError(
        f"{reprlib.repr(data['type'])} is no kind of space: expected Box, Discrete, MultiDiscrete, MultiBinary, "
        "Dict or Tuple"
    )


def _dtype_name(space: spaces.Space) -> str:
    name = np.dtype(space.dtype).name
    if name not in _DTYPES:
        raise SpaceError(f"{space} has dtype {name}; Renshu knows {', '.join(sorted(_DTYPES))}")
    return name


def _dtype(data: Mapping[str, Any]) -> np.dtype:
    if data["dtype"] not in _DTYPES:
        raise SpaceError(f"{reprlib.repr(data['dtype'])} is no dtype: expected one of {', '.join(sorted(_DTYPES))}")
    return np.dtype(data["dtype"])


def _bound_to_json(bound: np.ndarray, bounded: np.ndarray, unbounded: str) -> Any:
    # Integer arrays cannot hold infinity: Gymnasium records separately which entries are bounded.
    values = np.where(bounded, bound.astype(object), unbounded)
    uniform = values.size > 0 and (values == values.flat[0]).all()
    return values.flat[0] if uniform else values.tolist()


def _bound(data: Any, shape: tuple[int, ...], dtype: np.dtype) -> Any:
    values = _numbers(data)
    if not isinstance(values, list):
        return int(values) if isinstance(values, bool) else values
    # With an infinity among integer bounds, the array must stay float, because Gymnasium looks for infinity there.
    keep = dtype.kind == "i" and np.isinf(np.asarray(values, float)).any()
    return np.asarray(values, float if keep else dtype).reshape(shape)


def _numbers(data: Any) -> Any:
    if isinstance(data, list):
        return [_numbers(value) for value in data]
    if isinstance(data, int | float):
        return data
    return {"inf": math.inf, "-inf": -math.inf}[data]


def kwargs_to_json(kwargs: Mapping[str, Any]) -> tuple[dict[str, Any], list[str]]:
    """Describe arguments as JSON data that gives the same ones again, and name those for which there is none."""
    kept, lost = {}, []
    for name, value in kwargs.items():
        try:
            kept[name] = _plain(value)
        except (TypeError, RecursionError):
            lost.append(name)
    return kept, lost


def kwargs_from_json(kwargs: Mapping[str, Any]) -> dict[str, Any]:
    """Make the arguments that `kwargs_to_json` described."""
    return {name: _again(value) for name, value in kwargs.items()}


def _plain(value: Any) -> Any:
    if type(value) is tuple:
        return {_TUPLE: [_plain(one) for one in value]}
    if type(value) is list:
        return [_plain(one) for one in value]
    if type(value) is dict and all(type(key) is str and key != _TUPLE for key in value):
        return {key: _plain(one) for key, one in value.items()}
    if value is None or type(value) in (bool, int, str) or (type(value) is float and math.isfinite(value)):
        return value
    raise TypeError(f"{type(value).__name__} is none of JSON's types")


def _again(value: Any) -> Any:
    if isinstance(value, dict):
        return tuple(map(_again, value[_TUPLE])) if set(value) == {_TUPLE} else kwargs_from_json(value)
    return list(map(_again, value)) if isinstance(value, list) else value
