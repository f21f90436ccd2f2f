"""Checks on one environment: whatever it does wrong is caught at once and reported in plain words."""

from __future__ import annotations

import hashlib
import pickle
import random
import re
from collections.abc import Mapping
from typing import Any, NoReturn

import gymnasium
import numpy as np
from gymnasium import spaces

from renshu.errors import EnvironmentFault
from renshu.types import MASK

_SHIMMY = 'Or wrap an old environment: shimmy.GymV21CompatibilityV0(env=OldEnv()), after pip install "shimmy[gym-v21]"'
OLD_RESET = f". Write def reset(self, *, seed=None, options=None), which returns observation, {{}}. {_SHIMMY}"
OLD_STEP = (
    ". Four values are those of old Gym: write return observation, reward, done, False, info, or where done came from "
    f"a time limit False, True in place of done, False. {_SHIMMY}"
)
"""Advice on environments made for Gym before version 0.26."""
_NUMBERS = (bool, int, float, np.bool_, np.integer, np.floating)
_BOOLS = (bool, np.bool_)


def fingerprint(env: Any) -> bytes | None:
    """Digest the numbers, arrays and random generators that an environment holds, with those of its wrappers.

    env: an environment or a vector environment. None where it holds none of these, so that nothing can be told.
    """
    held: list[Any] = []
    ahead, known = [env], set()
    while ahead:
        one = ahead.pop()
        if id(one) in known:
            continue
        known.add(id(one))
        parts = getattr(one, "__dict__", {})
        held.append({name: value for name, value in sorted(parts.items()) if _is_plain(value)})
        held += [value.bit_generator.state for value in parts.values() if isinstance(value, np.random.Generator)]
        ahead += [value for value in parts.values() if isinstance(value, gymnasium.Env | gymnasium.vector.VectorEnv)]
        ahead += [
            one
            for value in parts.values()
            if isinstance(value, list)
            for one in value
            if isinstance(one, gymnasium.Env)
        ]
    return hashlib.sha256(pickle.dumps(held)).digest() if any(held) else None


def _is_plain(value: Any) -> bool:
    if isinstance(value, tuple | list):
        return len(value) < 10_000 and all(map(_is_plain, value))
    return isinstance(value, int | float | str | bytes | np.generic) or (
        isinstance(value, np.ndarray) and value.dtype != object
    )


class CheckedEnv(gymnasium.Wrapper):
    """Wrapper that checks everything an environment returns from reset and step.

    env: one environment. index: its number among those that step together. name: the environment's name in messages.

    Raises EnvironmentFault, its cause the original exception, when the environment raises or calls sys.exit, and when
    it returns something other than Gymnasium's two or five values, an observation whose shape or type its space does
    not allow, a reward that is not a real number, or an end flag that is not a bool. Numbers of another precision are
    allowed, and integers where the space has floats; the bounds of a Box are not checked, and neither is NaN.

    Only "action_mask" is passed on from `info`, and the numbers of an episode's last step: gathering all from many
    environments can cost more than the steps.
    """

    def __init__(self, env: gymnasium.Env, index: int, name: str) -> None:
        super().__init__(env)
        self._name = f"environment {index} ({name})"
        self._episode = 0
        self._step = 0
        self._last: Any = None
        self._resting = False
        self._space = space = env.observation_space
        self._shape = space.shape if isinstance(space, spaces.Box) else None
        self._dtype = space.dtype

    @property
    def spec(self) -> Any:
        """The environment's own spec, since the checks do not make it a different environment."""
        return self.env.spec

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        """Reset the environment. Raises EnvironmentFault as described for the class."""
        if self._resting:
            return self._last, {}
        self._episode += 1
        self._step = 0
        try:
            result = self.env.reset(seed=seed, options=options)
        except (Exception, SystemExit) as error:
            self._raised(error)
        if not isinstance(result, tuple) or len(result) != 2:
            self._returned(
                f"{_describe(result)}; reset must return (observation, info): write return observation, {{}}"
            )
        obs, info = result
        self._check_observation(obs)
        return obs, self._kept(info)

    def step(self, action: Any) -> tuple[Any, Any, bool, bool, dict[str, Any]]:
        """Step the environment. Raises EnvironmentFault as described for the class."""
        if self._resting:
            return self._last, 0.0, False, False, {}
        self._step += 1
        try:
            result = self.env.step(action)
        except (Exception, SystemExit) as error:
            self._raised(error)
        if not isinstance(result, tuple) or len(result) != 5:
            old = OLD_STEP if isinstance(result, tuple) and len(result) == 4 else ""
            wanted = "step must return (observation, reward, terminated, truncated, info)"
            self._returned(f"{_describe(result)}; {wanted}{old}")
        obs, reward, terminated, truncated, info = result
        if type(obs) is not np.ndarray or obs.dtype is not self._dtype or obs.shape != self._shape:
            self._check_observation(obs)
        if type(reward) is not float and (problem := _number_problem(reward)):
            self._returned(f"{problem} as reward; a reward is one real number: return float(reward)")
        if type(terminated) is not bool or type(truncated) is not bool:
            self._check_flags(terminated, truncated)
        kept = self._kept(info)
        if terminated or truncated:
            self._last = obs
            kept = {**_numbers(info), **kept}
        return obs, reward, terminated, truncated, kept

    def rest(self, resting: bool = True) -> None:
        """Wait, after the end of an episode: steps and resets do nothing until `rest(False)`."""
        self._resting = resting

    def _kept(self, info: Any) -> dict[str, Any]:
        if not isinstance(info, dict):
            self._returned(f"{_describe(info)} as info; it must be a dict, {{}} if there is nothing to say")
        if MASK not in info:
            return {}
        try:
            return {MASK: np.asarray(info[MASK])}  # as an array, or Gymnasium would gather objects
        except ValueError as error:
            self._returned(f"info[{MASK!r}], which is no array ({error}); it must say of each action if it is allowed")

    def _check_flags(self, terminated: Any, truncated: Any) -> None:
        for flag, name in ((terminated, "terminated"), (truncated, "truncated")):
            if not isinstance(flag, _BOOLS) and not (np.ndim(flag) == 0 and np.asarray(flag).dtype == np.bool_):
                self._returned(f"{_describe(flag)} as {name}; it must be a bool: return bool({name})")

    def _check_observation(self, obs: Any) -> None:
        problem = observation_problem(self._space, obs)
        if problem:
            self._returned(f"{problem}. Return what observation_space says, or change observation_space")
        if self._shape is not None and isinstance(obs, np.ndarray):
            self._dtype = obs.dtype  # of another precision, but allowed: from now on this one takes the fast path

    def _where(self) -> str:
        return f"step {self._step} of episode {self._episode}" if self._step else f"reset of episode {self._episode}"

    def _raised(self, error: BaseException) -> NoReturn:
        if isinstance(error, SystemExit) and type(error) is not SystemExit:
            raise error  # not from sys.exit in the environment, but from a signal that ends this process
        message = f"{self._name} raised in {self._where()}: {type(error).__name__}: {error}"
        if isinstance(error, TypeError) and re.search(r"reset\(\) got an unexpected keyword argument", str(error)):
            message += OLD_RESET
        raise EnvironmentFault(message) from error

    def _returned(self, problem: str) -> NoReturn:
        raise EnvironmentFault(f"{self._name} returned in {self._where()}: {problem}") from None


def _numbers(info: dict[str, Any]) -> dict[str, Any]:
    """Return the entries that are one number or bool each."""
    scalars = {
        name: value[()] if isinstance(value, np.ndarray) and not value.ndim else value for name, value in info.items()
    }
    return {name: value for name, value in scalars.items() if isinstance(value, _NUMBERS)}


def lineage(env: Any) -> list[tuple[str, str]]:
    """List the classes of an object as (top package, name): it tells what another library's is, importing nothing."""
    return [(kind.__module__.partition(".")[0], kind.__name__) for kind in type(env).__mro__]


def no_env_hint(env: Any) -> str:
    """Say what makes a Gymnasium environment of an object that has reset and step, but is none; "" for others."""
    if not (hasattr(env, "reset") and hasattr(env, "step")):
        return ""
    kinds = lineage(env)
    if ("pettingzoo", "ParallelEnv") in kinds:
        return ". Agents in parallel are rows: pass the environment itself, as in on(make(), num_envs=ROWS)"
    old = any(module == "gym" for module, _ in kinds)
    return f". {_SHIMMY}" if old else f". Let it be one: class {type(env).__name__}(gymnasium.Env)"


def observation_problem(space: spaces.Space, obs: Any, name: str = "observation") -> str | None:
    """Return one sentence that says what is wrong with an observation and what its space asks for, or None.

    Shapes and types are compared, and the ranges of discrete spaces, but not the bounds of a Box.
    """
    if isinstance(space, spaces.Dict):
        if not isinstance(obs, Mapping):
            return f"{_describe(obs)} as {name}, where the space says a dict with the keys {list(space.spaces)}"
        missing = [key for key in space.spaces if key not in obs]
        if missing:
            return f"an {name} without {missing}; it has the keys {list(obs)}"
        parts = [(part, obs[key], f"{name}[{key!r}]") for key, part in space.spaces.items()]
    elif isinstance(space, spaces.Tuple):
        if not isinstance(obs, tuple | list) or len(obs) != len(space.spaces):
            return f"{_describe(obs)} as {name}, where the space says {len(space.spaces)} values"
        parts = [(part, obs[i], f"{name}[{i}]") for i, part in enumerate(space.spaces)]
    elif isinstance(space, spaces.Box | spaces.Discrete | spaces.MultiDiscrete | spaces.MultiBinary):
        return _array_problem(space, obs, name)
    else:
        return None if space.contains(obs) else f"{_describe(obs)} as {name}, which is not in {space}"
    return next((problem for part in parts if (problem := observation_problem(*part))), None)


def _array_problem(
    space: spaces.Box | spaces.Discrete | spaces.MultiDiscrete | spaces.MultiBinary, obs: Any, name: str
) -> str | None:
    try:
        array = np.asarray(obs)
    except (TypeError, ValueError):  # a ragged list, or an object that only looks like an array
        return f"{_describe(obs)} as {name}, which does not make an array; the space says {space}"
    if array.dtype.kind not in "biuf":
        return f"{_describe(obs)} as {name}, where the space says numbers: {space}"
    if array.shape != space.shape:
        return f"{name} with shape {array.shape}, where the space says {space.shape}"
    if space.dtype is not None and not np.can_cast(array.dtype, space.dtype, "same_kind"):
        return f"{name} of {array.dtype}, where the space says {space.dtype}"
    low, count = _range(space)
    if low is not None and not np.all((array >= low) & (array < low + count)):
        return f"{name} {obs!r}, which is not in {space}"
    return None


def _range(space: spaces.Space) -> tuple[Any, Any]:
    if isinstance(space, spaces.Discrete):
        return space.start, space.n
    if isinstance(space, spaces.MultiDiscrete):
        return space.start, space.nvec
    return (0, 2) if isinstance(space, spaces.MultiBinary) else (None, None)


def _number_problem(value: Any) -> str | None:
    if isinstance(value, int | float | np.integer | np.floating):
        return None
    try:
        array = np.asarray(value)
    except (TypeError, ValueError):
        return _describe(value)
    return None if array.ndim == 0 and array.dtype.kind in "biuf" else _describe(value)


def _describe(value: Any) -> str:
    """Describe a value by what matters: its type, and its length or shape."""
    if value is None or isinstance(value, bool | int | float):
        return repr(value)
    shape = getattr(value, "shape", None)
    if shape is not None:
        return f"{type(value).__name__} of {getattr(value, 'dtype', 'unknown type')} with shape {tuple(shape)}"
    if isinstance(value, tuple | list):
        return f"{type(value).__name__} of {len(value)} values"
    if isinstance(value, str):
        return f"the text {value[:40]!r}"
    return type(value).__name__


class SeededEnv(gymnasium.Wrapper):
    """An environment in a process of its own, whose global random numbers go by the seed of its resets too."""

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        if seed is not None:
            seed_globals(seed)
        return self.env.reset(seed=seed, options=options)


def seed_globals(seed: int | None) -> None:
    """Seed the global random numbers of Python and NumPy; None: by the system's."""
    entropy = np.random.SeedSequence(seed).generate_state(2)
    random.seed(int(entropy[0]))
    np.random.seed(int(entropy[1]))  # noqa: NPY002 - the legacy generator is what such environments use
