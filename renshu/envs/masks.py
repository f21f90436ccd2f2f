"""Action masks of Gymnasium environments, moved from `info["action_mask"]` into the observation."""

from __future__ import annotations

from typing import Any

import gymnasium
import numpy as np
from gymnasium import spaces
from gymnasium.vector import VectorEnv, VectorWrapper
from gymnasium.vector.utils import batch_space

from renshu.errors import EnvironmentFault
from renshu.types import MASK, OBSERVATION, Array, PyTree


def has_mask(observation_space: spaces.Space, action_space: spaces.Space) -> bool:
    """Tell whether observations are exactly {MASK: [n], OBSERVATION: ...} and actions are Discrete(n)."""
    if not isinstance(observation_space, spaces.Dict) or not isinstance(action_space, spaces.Discrete):
        return False
    mask: Any = observation_space.spaces.get(MASK)
    whole = isinstance(mask, spaces.MultiBinary | spaces.Box) and np.dtype(mask.dtype).kind in "biu"
    return set(observation_space.spaces) == {MASK, OBSERVATION} and whole and mask.shape == (action_space.n,)


def may_take_mask(observation_space: spaces.Space, action_space: spaces.Space) -> bool:
    """Tell whether a mask from `info` can go into the observation: actions are Discrete, and it holds no mask yet."""
    return isinstance(action_space, spaces.Discrete) and not has_mask(observation_space, action_space)


def with_mask(observation_space: spaces.Space, actions: int) -> spaces.Dict:
    """Return the space of observations that come with a mask over `actions` actions."""
    return spaces.Dict({MASK: spaces.MultiBinary(actions), OBSERVATION: observation_space})


class MaskInObservation(gymnasium.Wrapper):
    """One environment whose observations are {MASK: [n] int8, OBSERVATION: its own}.

    Where `info` lacks a mask, all actions are allowed. Raises EnvironmentFault for a mask of the wrong shape or type.
    """

    def __init__(self, env: gymnasium.Env) -> None:
        super().__init__(env)
        self._shape: tuple[int, ...] = (int(env.action_space.n),)  # type: ignore[attr-defined]
        self.observation_space = with_mask(env.observation_space, *self._shape)

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        """Reset the environment."""
        obs, info = self.env.reset(seed=seed, options=options)
        return self._joined(obs, info), info

    def step(self, action: Any) -> tuple[Any, Any, bool, bool, dict[str, Any]]:
        """Step the environment."""
        obs, reward, terminated, truncated, info = self.env.step(action)
        return self._joined(obs, info), reward, terminated, truncated, info

    def _joined(self, obs: PyTree, info: dict[str, Any]) -> dict[str, PyTree]:
        mask = checked(info[MASK], self._shape) if MASK in info else np.ones(self._shape, np.int8)
        return {MASK: mask, OBSERVATION: obs}


class MasksInObservations(VectorWrapper):
    """A vector environment whose observations hold the masks `[N, n]` that Gymnasium gathers in `infos`.

    vector_env: an environment with Discrete single actions. certain: False while it is not known whether it gives
    masks at all; `HostEnvs` finds out.
    """

    def __init__(self, vector_env: VectorEnv, certain: bool) -> None:
        super().__init__(vector_env)
        self.certain = certain
        n = int(vector_env.single_action_space.n)  # type: ignore[attr-defined]
        self.single_observation_space = with_mask(vector_env.single_observation_space, n)
        self.observation_space = batch_space(self.single_observation_space, vector_env.num_envs)
        self._shape = (vector_env.num_envs, n)

    def reset(self, *, seed: Any = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        """Reset the environments."""
        obs, infos = self.env.reset(seed=seed, options=options)
        return self.joined(obs, infos), infos

    def step(self, actions: Any) -> tuple[Any, Array, Array, Array, dict[str, Any]]:
        """Step the environments."""
        obs, reward, terminated, truncated, infos = self.env.step(actions)
        return self.joined(obs, infos), reward, terminated, truncated, infos

    def joined(self, obs: PyTree, infos: dict[str, Any]) -> dict[str, PyTree]:
        """Return observations `[N, ...]` with their masks. Where an environment gave none, all actions are allowed."""
        if MASK not in infos:
            return {MASK: np.ones(self._shape, np.int8), OBSERVATION: obs}
        mask = checked(infos[MASK], self._shape)
        given = infos.get(f"_{MASK}")  # may be missing where a vector environment makes `infos` itself
        if given is not None and not given.all():
            mask[~given] = 1
        return {MASK: mask, OBSERVATION: obs}


def checked(mask: Any, shape: tuple[int, ...]) -> Array:
    """Convert a mask to a new int8 array of 0 and 1. Raises EnvironmentFault unless it is bools or ints of `shape`."""
    array = np.asarray(mask)
    if array.shape != shape or array.dtype.kind not in "biu":
        raise EnvironmentFault(
            f"an action mask must be bools or whole numbers of shape {shape}, one for each action, not {array.dtype} "
            f"of shape {array.shape}: fix info[{MASK!r}], or leave masks out with masks=False"
        )
    return (array != 0).astype(np.int8)
