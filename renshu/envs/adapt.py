"""Fit an environment to an algorithm: what the algorithm sees, and how its actions go back. For NumPy and JAX alike."""

from __future__ import annotations

import dataclasses
import math
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from gymnasium import spaces

from renshu.errors import SpaceError
from renshu.types import Accepts, EnvSpec

UNBOUNDED_LIMIT = 10.0
"""Actions of a Box without bounds are clipped at +- this."""

KINDS: dict[type[spaces.Space], str] = {
    spaces.Box: "box",
    spaces.Discrete: "discrete",
    spaces.MultiDiscrete: "multi_discrete",
    spaces.MultiBinary: "multi_binary",
    spaces.Dict: "nested",
    spaces.Tuple: "nested",
}


@dataclass(frozen=True)
class Fitted:
    """An environment as an algorithm sees it.

    spec: the EnvSpec to build the learner with. decode_action: from the algorithm's actions `[N, ...]` to the
    environment's. notes: what was chosen and why, for `summary()`.
    """

    spec: EnvSpec
    decode_action: Callable[[Any], Any]
    notes: tuple[str, ...]


def kind_of_space(space: spaces.Space) -> str:
    """The kind of a space in the words of `Accepts`; the class name for one that nobody takes."""
    if isinstance(space, spaces.Box) and space.dtype == np.uint8 and len(space.shape) == 3:
        return "image"
    return KINDS.get(type(space), type(space).__name__)


def fit(spec: EnvSpec, accepts: Accepts, *, algorithm: str, own_network: bool = False) -> Fitted:
    """Fit an environment to what an algorithm accepts.

    own_network: the user's network takes the observation as it is, so that its kinds are not checked.
    Raises SpaceError naming the space, what the algorithm takes, and what would fit.
    """
    notes = _check_observation(spec.observation_space, accepts, algorithm, own_network)
    action_space, decode, note = _fit_action(spec.action_space, accepts, algorithm)
    fitted = dataclasses.replace(spec, action_space=action_space)
    return Fitted(fitted, decode, (*notes, note))


def _check_observation(space: spaces.Space, accepts: Accepts, algorithm: str, own: bool) -> list[str]:
    if own:
        return [f"observation: {space}, given to your network as it is"]
    kind = kind_of_space(space)
    if kind not in accepts.observations:
        hint = ""
        if kind == "image":
            hint = " For images pass a Flax module of your own: network=MyConvolutions, which takes [B, H, W, C] uint8."
        raise SpaceError(
            f"{algorithm} does not take observations of {space} ({kind}). "
            f"It takes {_words(accepts.observations)}.{hint}"
        )
    if isinstance(space, spaces.Dict):
        return [
            f"{note} at {key!r}"
            for key, part in space.spaces.items()
            for note in _check_observation(part, accepts, algorithm, own)
        ]
    if isinstance(space, spaces.Tuple):
        return [
            f"{note} at {i}"
            for i, part in enumerate(space.spaces)
            for note in _check_observation(part, accepts, algorithm, own)
        ]
    rule = {"box": "flattened", "multi_binary": "as 0 and 1"}.get(kind, "one-hot")
    return [f"observation: {space}, {rule}"]


def _fit_action(space: spaces.Space, accepts: Accepts, algorithm: str) -> tuple[spaces.Space, Callable, str]:
    kind = kind_of_space(space)
    if kind not in accepts.actions:
        raise SpaceError(
            f"{algorithm} does not take actions of {space} ({kind}). It takes {_words(accepts.actions)}; "
            "PPO and A2C take Box, Discrete, MultiDiscrete and MultiBinary."
        )
    if isinstance(space, spaces.Box):
        return _fit_box(space)
    dtype, shape = space.dtype, space.shape or ()
    if isinstance(space, spaces.Discrete):
        start = int(space.start)
        note = f"action: {space}, as it is" + (f", shifted by {start}" if start else "")
        return spaces.Discrete(int(space.n)), (lambda a: a + start) if start else (lambda a: a), note
    if isinstance(space, spaces.MultiDiscrete):
        start, kept = space.start.astype(np.int32), np.int32 if dtype == np.int64 else dtype
        flat = spaces.MultiDiscrete(space.nvec.reshape(-1))
        note = f"action: {space}, one distribution a dimension"
        return flat, lambda a: (a.reshape(-1, *shape) + start).astype(kept), note
    flat = spaces.MultiBinary(math.prod(shape))
    return flat, lambda a: a.reshape(-1, *shape).astype(dtype), f"action: {space}, one probability a bit"


def _fit_box(space: spaces.Box) -> tuple[spaces.Space, Callable, str]:
    """Bounded dimensions are scaled from [-1, 1]; the others keep their scale and are clipped at +-UNBOUNDED_LIMIT."""
    bounded = space.bounded_below & space.bounded_above
    low = _inward(np.where(bounded, space.low, np.maximum(space.low, -UNBOUNDED_LIMIT)), np.inf)
    high = _inward(np.where(bounded, space.high, np.minimum(space.high, UNBOUNDED_LIMIT)), -np.inf)
    if (low > high)[~bounded].any():
        raise SpaceError(
            f"the action space {space} is bounded on one side only, and lies beyond +-{UNBOUNDED_LIMIT:g}: "
            "give it both bounds, for example with gymnasium.wrappers.TransformAction"
        )
    centre = np.where(bounded, low / 2 + high / 2, 0).astype(np.float32)
    scale = np.where(bounded, high / 2 - low / 2, 1).astype(np.float32)
    shape, dtype, whole = space.shape, space.dtype, np.issubdtype(space.dtype, np.integer)

    def decode(action: Any) -> Any:
        action = (action.reshape(-1, *shape) * scale + centre).clip(low, high)
        return (action.round() if whole else action).astype(dtype)

    note = f"action: {space}, scaled from [-1, 1] and clipped"
    if not bounded.all():
        warnings.warn(
            f"the action space {space} has no bounds in {int((~bounded).sum())} of {bounded.size} dimensions: "
            f"actions there are not scaled, and clipped at +-{UNBOUNDED_LIMIT:g}",
            stacklevel=2,
        )
        note = f"action: {space}, scaled where bounded, clipped at +-{UNBOUNDED_LIMIT:g} elsewhere"
    return spaces.Box(-1, 1, (math.prod(shape),), np.float32), decode, note


def _inward(bound: np.ndarray, towards: float) -> np.ndarray:
    """Round to the float32 that is still within bounds: clipped actions would else lie outside the space."""
    single = bound.astype(np.float32)
    beyond = single < bound if towards > 0 else single > bound
    return np.where(beyond, np.nextafter(single, np.float32(towards)), single)


def _words(kinds: frozenset[str]) -> str:
    return ", ".join(sorted(kinds))
