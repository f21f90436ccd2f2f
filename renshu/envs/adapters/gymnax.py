"""Environments of gymnax."""

from __future__ import annotations

import dataclasses
from typing import Any

import jax.numpy as jnp
import numpy as np
from gymnasium import spaces

from renshu.envs.adapters.base import Adapter, check_name, load
from renshu.envs.device import Step
from renshu.errors import HyperparameterError, SpaceError
from renshu.types import Array, PyTree

_LARGEST = 2**31 - 1
_BOARDS = "-MinAtar"


class Gymnax(Adapter):
    """An environment of gymnax. Boards of MinAtar are images of 0 and 1, uint8, so that networks convolve them.

    env: its name ("CartPole-v1", "Breakout-MinAtar") or the object. params: its parameters, of which
    `max_steps_in_episode` is the time limit; None for the defaults.
    Raises UnknownNameError for a name that gymnax does not know, EnvironmentFault when gymnax is not installed,
    SpaceError for spaces without a counterpart in Gymnasium.
    """

    def __init__(self, env: Any, params: Any = None) -> None:
        self._title = env if isinstance(env, str) else env.name
        if isinstance(env, str):
            library = load("gymnax", "jax-envs")
            check_name(env, library.registered_envs, "gymnax")
            env = library.make(env)[0]
        self.params = env.default_params if params is None else params
        limit = getattr(self.params, "max_steps_in_episode", None)
        # Before gymnax 1.0, reaching the limit counted as termination; with a limit out of reach it never does.
        self._no_limit = self.params
        if limit is not None and not hasattr(env, "is_truncated"):
            self._no_limit = self.params.replace(max_steps_in_episode=_LARGEST)
        space, actions = _gymnax(env.observation_space(self.params)), _gymnax(env.action_space(self.params))
        self._board = self._title.endswith(_BOARDS) and isinstance(space, spaces.Box) and len(space.shape) == 3
        if self._board:
            space = spaces.Box(0, 1, space.shape, np.uint8)
        super().__init__("gymnax", env, space, actions, None if limit is None else int(limit))

    @property
    def name(self) -> str:
        """Name of the library and its name for the environment."""
        return f"gymnax:{self._title}"

    def _reset(self, key: Array) -> tuple[PyTree, PyTree]:
        obs, state = self.env.reset_env(key, self.params)
        return state, self._seen(obs)

    def _seen(self, obs: PyTree) -> PyTree:
        return jnp.asarray(obs, jnp.uint8) if self._board else obs

    def _step(self, state: PyTree, action: PyTree, key: Array) -> Step:
        obs, after, reward, terminated, _ = self.env.step_env(key, state, action, self.params)
        obs = self._seen(obs)
        if self._no_limit is not self.params:
            # Only the end is taken from here, so that the compiler merges it with the step above.
            terminated = self.env.step_env(key, state, action, self._no_limit)[3]
            return Step(after, obs, reward, terminated)
        truncated = False if self.max_episode_steps is None else self.env.is_truncated(after, self.params)
        return Step(after, obs, reward, terminated, truncated)


def by_name(name: str, **params: Any) -> Gymnax:
    """Make an environment by its name in gymnax, its time limit counted by Renshu alone, so that it can be changed.

    params: fields of its parameters to change, but for the time limit.
    Raises HyperparameterError for other fields, and what Gymnax raises.
    """
    usual = Gymnax(name)
    fields = [field.name for field in dataclasses.fields(usual.params) if field.name != "max_steps_in_episode"]
    for field in params:
        if field not in fields:
            known = ", ".join([*fields, "max_episode_steps"])
            raise HyperparameterError(f"{usual.name} has no setting {field!r}. Its settings: {known}")
    if usual.max_episode_steps is None:
        made = Gymnax(name, usual.params.replace(**params))
    else:
        made = Gymnax(name, usual.params.replace(**params, max_steps_in_episode=_LARGEST))
        made.max_episode_steps = usual.max_episode_steps
    return made


def _gymnax(space: Any) -> spaces.Space:
    """Convert a space of gymnax to one of Gymnasium."""
    match type(space).__name__:
        case "Discrete":
            return spaces.Discrete(int(space.n))
        case "Box":
            dtype = np.dtype(space.dtype).type
            low, high = (np.broadcast_to(np.asarray(b), space.shape).astype(dtype) for b in (space.low, space.high))
            return spaces.Box(low, high, tuple(space.shape), dtype)
        case "Dict":
            return spaces.Dict({key: _gymnax(part) for key, part in space.spaces.items()})
        case "Tuple":
            return spaces.Tuple([_gymnax(part) for part in space.spaces])
    raise SpaceError(f"{space} is a space of gymnax that Gymnasium has not; expected Discrete, Box, Dict or Tuple")
