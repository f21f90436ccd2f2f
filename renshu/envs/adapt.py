"""Fitting of environments to algorithms: what the algorithm sees, and how its actions go back, in NumPy and in JAX."""

from __future__ import annotations

import dataclasses
import itertools
import math
import numbers
import reprlib
import warnings
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
from gymnasium import spaces

from renshu.envs.masks import has_mask
from renshu.errors import HyperparameterError, SpaceError
from renshu.ops.images import layout_of
from renshu.types import Accepts, EnvSpec

UNBOUNDED_LIMIT = 10.0
"""Limit in either direction at which actions of a Box without bounds are clipped."""

MOST_ACTIONS = 4096
"""Limit on the actions that numbering several dimensions may make for an algorithm that takes only Discrete ones."""

LOOKS_LIKE_AN_IMAGE = 32
"""Height and width from which on a Box of floats is probably a picture."""

KINDS: dict[type[spaces.Space], str] = {
    spaces.Box: "box",
    spaces.Discrete: "discrete",
    spaces.MultiDiscrete: "multi_discrete",
    spaces.MultiBinary: "multi_binary",
    spaces.Dict: "nested",
    spaces.Tuple: "nested",
}
_NUMBERED = ("box", "multi_discrete", "multi_binary")


def _is_whole(value: Any, least: int) -> bool:
    return isinstance(value, numbers.Integral) and not isinstance(value, bool) and int(value) >= least


@dataclass(frozen=True)
class SpaceConfig:
    """Options for fitting an environment to an algorithm.

    bins: number of points in each dimension of a Box for an algorithm that takes only Discrete actions, 2 or more, both
    ends included; a tuple has a number for each dimension. frame_stack: number of most recent observations that the
    learner sees at once, 1 or more. masks: the learner leaves out actions that the environment currently forbids.

    Raises HyperparameterError for other values.
    """

    bins: int | tuple[int, ...] = 5
    frame_stack: int = 1
    masks: bool = False

    def __post_init__(self) -> None:
        bins: Any = self.bins
        several = isinstance(bins, list | tuple)
        if not all(_is_whole(n, 2) for n in (bins if several else [bins])):
            raise HyperparameterError(
                f"bins={bins!r}: expected a whole number of at least 2, or one for each dimension of the actions, "
                "as in bins=(3, 5)"
            )
        if not _is_whole(self.frame_stack, 1):
            raise HyperparameterError(f"frame_stack={self.frame_stack!r}: expected a whole number of at least 1")
        if not isinstance(self.masks, bool):
            raise HyperparameterError(f"masks={self.masks!r}: expected True or False")
        object.__setattr__(self, "bins", tuple(map(int, bins)) if several else int(bins))
        object.__setattr__(self, "frame_stack", int(self.frame_stack))

    def override(
        self, bins: int | Iterable[int] | None = None, frame_stack: int | None = None, masks: bool | None = None
    ) -> SpaceConfig:
        """Return a copy with the values that are not None put in place."""
        given = {"bins": bins, "frame_stack": frame_stack, "masks": masks}
        return dataclasses.replace(self, **{name: value for name, value in given.items() if value is not None})

    def to_json(self) -> dict[str, Any]:
        """Return plain JSON data. "masks" is present only where True, as in files from before the option existed."""
        bins = list(self.bins) if isinstance(self.bins, tuple) else self.bins
        return {"bins": bins, "frame_stack": self.frame_stack} | ({"masks": True} if self.masks else {})

    @classmethod
    def from_json(cls, data: Any) -> SpaceConfig:
        """Make what `to_json` described, with defaults for missing keys. Raises HyperparameterError for other data."""
        if not isinstance(data, Mapping) or not set(data) <= {"bins", "frame_stack", "masks"}:
            raise HyperparameterError(
                f"not a configuration of spaces: {reprlib.repr(data)}; expected bins, frame_stack and maybe masks"
            )
        return cls(**data)


DEFAULT_SPACES = SpaceConfig()
"""Options used when none are given."""


@dataclass(frozen=True)
class FittedSpaces:
    """An environment as an algorithm sees it.

    spec: the EnvSpec to build the learner with. decode_action: converts the algorithm's actions `[N, ...]` to the
    environment's. encode_action: the other way around, NumPy arrays only; raises SpaceError for an action that the
    algorithm cannot choose. notes: the choices made and why, for `summary()`.
    """

    spec: EnvSpec
    decode_action: Callable[[Any], Any]
    encode_action: Callable[[np.ndarray], np.ndarray]
    notes: tuple[str, ...]


class FittedActions(NamedTuple):
    """Actions as an algorithm chooses them: their space, the ways to the environment's and back, and why."""

    space: spaces.Space
    decode: Callable[[Any], Any]
    encode: Callable[[np.ndarray], np.ndarray]
    note: str


def kind_of_space(space: spaces.Space) -> str:
    """Return the kind of a space as `Accepts` names it, or the class name of a space that no algorithm takes."""
    if layout_of(space) is not None:
        return "image"
    return next((kind for known, kind in KINDS.items() if isinstance(space, known)), type(space).__name__)


def fit_spaces(
    spec: EnvSpec,
    accepts: Accepts,
    *,
    algorithm: str,
    own_network: bool = False,
    cnn: str | None = None,
    squashed: bool = False,
    config: SpaceConfig = DEFAULT_SPACES,
) -> FittedSpaces:
    """Fit an environment to what an algorithm accepts.

    own_network: the user's network takes the observation as it is, so its kind is not checked. cnn: the convolution
    that was asked for, for which Boxes of floats can be images too. squashed: the policy's
    Box actions stay within [-1, 1], whatever `accepts` says.
    Raises SpaceError naming the space, what the algorithm takes, and what would fit; HyperparameterError where `config`
    does not suit the space or the algorithm.
    """
    spec = dataclasses.replace(spec, masks=_masks(spec, accepts, algorithm, config))
    notes = _check_observation(spec.network_space, accepts, algorithm, own_network, cnn)
    if config.frame_stack > 1:
        if not accepts.frame_stack:
            raise HyperparameterError(
                f"{algorithm} sees one observation at a time and takes no frame_stack={config.frame_stack}: leave it "
                "out, or put the environment into gymnasium.wrappers.FrameStackObservation"
            )
        notes.append(f"frame_stack: the last {config.frame_stack} observations at once")
    if spec.masks:
        notes.append("action_mask: actions not allowed are left out of sampling, maximum and target")
    accepts = dataclasses.replace(accepts, squashed=accepts.squashed or squashed)
    action = _fit_action(spec.action_space, accepts, algorithm, config)
    fitted = dataclasses.replace(spec, action_space=action.space, frame_stack=config.frame_stack)
    return FittedSpaces(fitted, action.decode, action.encode, (*notes, action.note))


def _masks(spec: EnvSpec, accepts: Accepts, algorithm: str, config: SpaceConfig) -> bool:
    if config.masks and not accepts.masks:
        raise HyperparameterError(f"{algorithm} cannot leave out actions by a mask: leave masks=True out")
    if config.masks and not has_mask(spec.observation_space, spec.action_space):
        raise SpaceError(
            f"masks=True, but there are none: for Discrete actions, here {spec.action_space}, an environment gives "
            'info["action_mask"] of shape [n] from reset and step, or observations that are a Dict of "action_mask" '
            'and "observation"; a DeviceEnv has a method action_mask(state)'
        )
    return config.masks


def _check_observation(space: spaces.Space, accepts: Accepts, algorithm: str, own: bool, cnn: str | None) -> list[str]:
    if own:
        return [f"observation: {space}, given to your network as it is"]
    kind = kind_of_space(space)
    if kind not in accepts.observations:
        hint = " DQN, PPO and all others with networks take images." if kind == "image" else ""
        raise SpaceError(
            f"{algorithm} does not take observations of {space} ({kind}). "
            f"It takes {_words(accepts.observations)}.{hint}"
        )
    if isinstance(space, spaces.Dict):
        return [
            f"{note} at {key!r}"
            for key, part in space.spaces.items()
            for note in _check_observation(part, accepts, algorithm, own, cnn)
        ]
    if isinstance(space, spaces.Tuple):
        return [
            f"{note} at {i}"
            for i, part in enumerate(space.spaces)
            for note in _check_observation(part, accepts, algorithm, own, cnn)
        ]
    layout = layout_of(space, cnn is not None) if "image" in accepts.observations else None
    if layout is not None:
        height, width, channels = layout.shape
        return [f"observation: {space}, an image of {height} x {width}, channels {channels}, convolved"]
    if layout_of(space, anything=True) is not None and min(sorted(space.shape or ())[-2:]) >= LOOKS_LIKE_AN_IMAGE:
        warnings.warn(
            f"{space} looks like an image, but is {space.dtype} and will be flattened to one vector: let the "
            'environment give uint8, or ask for a convolution, as in cnn="nature"',
            stacklevel=2,
        )
    rule = {"box": "flattened", "multi_binary": "as 0 and 1"}.get(kind, "one-hot")
    return [f"observation: {space}, {rule}"]


def _fit_action(space: spaces.Space, accepts: Accepts, algorithm: str, config: SpaceConfig) -> FittedActions:
    kind = kind_of_space(space)
    if kind not in accepts.actions and "discrete" in accepts.actions and kind in _NUMBERED:
        return _fit_index(space, algorithm, config.bins)
    if kind not in accepts.actions:
        raise SpaceError(
            f"{algorithm} does not take actions of {space} ({kind}). It takes {_words(accepts.actions)}; "
            f"PPO, A2C and DQN take Box, Discrete, MultiDiscrete and MultiBinary.{_in_one(space)}"
        )
    if config.bins != DEFAULT_SPACES.bins:
        warnings.warn(f"bins={config.bins} is not used: {algorithm} takes actions of {space} as they are", stacklevel=2)
    if isinstance(space, spaces.Box):
        return _fit_box(space, accepts.squashed)
    dtype, shape = space.dtype, space.shape or ()
    if isinstance(space, spaces.Discrete):
        start = int(space.start)
        note = f"action: {space}, as it is" + (f", shifted by {start}" if start else "")
        decode = (lambda a: a + start) if start else (lambda a: a)
        return FittedActions(spaces.Discrete(int(space.n)), decode, lambda a: (a - start).astype(np.int32), note)
    if isinstance(space, spaces.MultiDiscrete):
        start, kept = space.start.astype(np.int32), np.int32 if dtype == np.int64 else dtype
        return FittedActions(
            spaces.MultiDiscrete(space.nvec.reshape(-1)),
            lambda a: (a.reshape(-1, *shape) + start).astype(kept),
            lambda a: (a - start).reshape(len(a), -1).astype(np.int32),
            f"action: {space}, one distribution a dimension",
        )
    return FittedActions(
        spaces.MultiBinary(math.prod(shape)),
        lambda a: a.reshape(-1, *shape).astype(dtype),
        lambda a: a.reshape(len(a), -1),
        f"action: {space}, one probability a bit",
    )


def _in_one(space: spaces.Space) -> str:
    """Write the wrapper that makes one action of several parts, for a Tuple or Dict of them; "" for other spaces."""
    if not isinstance(space, spaces.Tuple | spaces.Dict):
        return ""
    named = isinstance(space, spaces.Dict)
    parts: list[Any] = list(space.spaces.values() if isinstance(space, spaces.Dict) else space.spaces)
    if all(isinstance(part, spaces.Discrete) and not part.start for part in parts):
        func = f"lambda a: dict(zip({list(space.spaces)}, a))" if named else "tuple"
        one = f"gymnasium.spaces.MultiDiscrete({[int(part.n) for part in parts]})"
    elif all(isinstance(part, spaces.Box) for part in parts):
        func = "lambda a: gymnasium.spaces.unflatten(MyEnv().action_space, a)"
        one = "gymnasium.spaces.flatten_space(MyEnv().action_space)"
    else:
        return (
            " Put the parts into one Box, in gymnasium.wrappers.TransformAction: of numbers for a Discrete part the "
            "greatest chooses"
        )
    return f" Put the parts into one: lambda: gymnasium.wrappers.TransformAction(MyEnv(), {func}, {one})"


def _fit_index(space: spaces.Space, algorithm: str, bins: int | tuple[int, ...]) -> FittedActions:
    """Assign a number to each combination of values in the dimensions of a Box, MultiDiscrete or MultiBinary."""
    if isinstance(space, spaces.Box):
        sizes, values, rule = _grid(space, bins)
    elif isinstance(space, spaces.MultiDiscrete):
        sizes, rule = space.nvec.reshape(-1).tolist(), "numbered"
        values = (range(first, first + n) for first, n in zip(space.start.reshape(-1).tolist(), sizes, strict=True))
    else:
        sizes, rule = [2] * math.prod(space.shape or ()), "numbered"
        values = (range(2) for _ in sizes)
    size = math.prod(sizes)
    if size > MOST_ACTIONS:
        raise SpaceError(_too_many(space, sizes, algorithm))
    table = np.array(list(itertools.product(*values)), space.dtype).reshape(size, *(space.shape or ()))

    def decode(action: Any) -> Any:
        return table[action] if isinstance(action, np.ndarray) else jnp.asarray(table)[action]

    def encode(action: np.ndarray) -> np.ndarray:
        return _index_of(table.reshape(size, -1).astype(float), action.reshape(len(action), -1).astype(float), space)

    note = f"action: {space}, {rule}: {size:,} actions, because {algorithm} takes only Discrete ones"
    return FittedActions(spaces.Discrete(size), decode, encode, note)


def _index_of(table: np.ndarray, action: np.ndarray, space: spaces.Space) -> np.ndarray:
    """Find actions `[N, D]` in a table of all that there are, `[A, D]`. Raises SpaceError where one is not there."""
    found, which = np.unique(action, axis=0, return_inverse=True)
    near = np.array([np.abs(table - row).max(axis=1).argmin() for row in found], np.int32)
    wrong = ~np.isclose(table[near], found, rtol=1e-4, atol=1e-5).all(axis=1)
    if wrong.any():
        raise SpaceError(
            f"the action {found[wrong][0].tolist()} of {space} is none of the {len(table):,} there are to choose from. "
            "Give the bins with which it was chosen, or take an algorithm for such actions"
        )
    return near[which.reshape(-1)]


def _grid(space: spaces.Box, bins: int | tuple[int, ...]) -> tuple[list[int], Iterable[list[float]], str]:
    """Return the number of points in each dimension of a Box, the points, and both in words.

    An integer dimension gets no more points than it has values.
    """
    low, high, _ = _bounds(space)
    ends = list(zip(low.reshape(-1).tolist(), high.reshape(-1).tolist(), strict=True))
    wanted = bins if isinstance(bins, tuple) else (bins,) * len(ends)
    if len(wanted) != len(ends):
        raise HyperparameterError(
            f"bins={bins} are {len(wanted)} numbers, but actions of {space} have {len(ends)} dimensions: give that "
            "many, or one number for all"
        )
    whole = np.dtype(space.dtype).kind in "iub"
    sizes = [1 if a == b else min(n, int(b - a) + 1) if whole else n for (a, b), n in zip(ends, wanted, strict=True)]
    points = (np.linspace(a, b, n) for (a, b), n in zip(ends, sizes, strict=True))
    values = ((line.round() if whole else line).tolist() for line in points)
    same = len(sizes) > 1 and len(set(sizes)) == 1
    rule = f"{sizes[0]} points in each of {len(sizes)} dimensions" if same else f"{' x '.join(map(str, sizes))} points"
    return sizes, values, rule


def _too_many(space: spaces.Space, sizes: list[int], algorithm: str) -> str:
    size = math.prod(sizes)
    told = f"{size:,}" if size < 10**15 else f"about 10^{int(math.log10(size))}"
    fewer = int(MOST_ACTIONS ** (1 / sum(n > 1 for n in sizes)) + 1e-9)
    box = isinstance(space, spaces.Box)
    advice = f"fewer bins, as in bins={fewer}, or " if box and fewer > 1 else ""
    return (
        f"{algorithm} takes only Discrete actions, and to number those of {space} makes {told} of them, more than "
        f"{MOST_ACTIONS:,}. Take {advice}an algorithm for {'continuous' if box else 'such'} actions, as PPO"
        f"{' or SAC' if box else ' or A2C'}"
    )


def _bounds(space: spaces.Box) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return float32 bounds, infinite ones replaced by +-UNBOUNDED_LIMIT with a warning, and where both are finite."""
    bounded = space.bounded_below & space.bounded_above
    low = _inward(np.where(bounded, space.low, np.maximum(space.low, -UNBOUNDED_LIMIT)), np.inf)
    high = _inward(np.where(bounded, space.high, np.minimum(space.high, UNBOUNDED_LIMIT)), -np.inf)
    if (low > high)[~bounded].any():
        raise SpaceError(
            f"the action space {space} is bounded on one side only, and lies beyond +-{UNBOUNDED_LIMIT:g}: "
            "give it both bounds, for example with gymnasium.wrappers.TransformAction"
        )
    if not bounded.all():
        warnings.warn(
            f"the action space {space} has no bounds in {int((~bounded).sum())} of {bounded.size} dimensions: "
            f"actions there stay within +-{UNBOUNDED_LIMIT:g}",
            stacklevel=2,
        )
    return low, high, bounded


def _fit_box(space: spaces.Box, squashed: bool) -> FittedActions:
    """Scale bounded dimensions from [-1, 1]; keep the scale of the others and clip them at +-UNBOUNDED_LIMIT.

    squashed: nothing beyond [-1, 1] is ever chosen, so that the others are scaled to their limits too.
    """
    low, high, bounded = _bounds(space)
    scaled = bounded | squashed
    centre = np.where(scaled, low / 2 + high / 2, 0).astype(np.float32)
    scale = np.where(scaled, high / 2 - low / 2, 1).astype(np.float32)
    shape, dtype, whole = space.shape, space.dtype, np.issubdtype(space.dtype, np.integer)

    def decode(action: Any) -> Any:
        action = (action.reshape(-1, *shape) * scale + centre).clip(low, high)
        return (action.round() if whole else action).astype(dtype)

    def encode(action: np.ndarray) -> np.ndarray:
        width = np.where(scale > 0, scale, 1)  # where both bounds are the same there is nothing to choose
        fitted = (action.astype(np.float32) - centre) / width
        return np.where(scaled, fitted.clip(-1, 1), fitted).reshape(len(action), -1).astype(np.float32)

    note = f"action: {space}, scaled from [-1, 1] and clipped"
    if not bounded.all():
        how = "scaled to" if squashed else "clipped at"
        note = f"action: {space}, scaled where bounded, {how} +-{UNBOUNDED_LIMIT:g} elsewhere"
    return FittedActions(spaces.Box(-1, 1, (math.prod(shape),), np.float32), decode, encode, note)


def _inward(bound: np.ndarray, towards: float) -> np.ndarray:
    """Round to the nearest float32 within the bounds: otherwise clipped actions could lie outside the space."""
    single = bound.astype(np.float32)
    beyond = single < bound if towards > 0 else single > bound
    return np.where(beyond, np.nextafter(single, np.float32(towards)), single)


def _words(kinds: frozenset[str]) -> str:
    return ", ".join(sorted(kinds))
