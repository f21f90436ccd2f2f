"""Common part of all adapters: fixed shapes and dtypes, spaces, and clear messages about what is missing."""

from __future__ import annotations

import difflib
import importlib
from abc import abstractmethod
from collections.abc import Iterable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from gymnasium import spaces

from renshu import runtime
from renshu.envs.device import DeviceEnv, Step
from renshu.errors import EnvironmentFault, SpaceError, UnknownNameError
from renshu.types import Array, Key, PyTree


class Adapter(DeviceEnv):
    """Base of all adapters: states, observations and rewards get fixed shapes and dtypes, whatever a library gives.

    env: the library's environment. Raises SpaceError when it is not a single environment with the spaces it declares,
    EnvironmentFault when it cannot be traced or its states change their structure between steps.
    """

    def __init__(
        self,
        library: str,
        env: Any,
        observation_space: spaces.Space,
        action_space: spaces.Space,
        max_episode_steps: int | None,
    ) -> None:
        self.library, self.env = library, env
        self.observation_space, self.action_space = observation_space, action_space
        self.max_episode_steps = max_episode_steps
        self._settle()

    @property
    def name(self) -> str:
        """Name of the library and of the environment's class."""
        return f"{self.library}:{type(self.env).__name__}"

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.name})"

    def reset(self, key: Key) -> tuple[PyTree, PyTree]:
        """Begin an episode."""
        state, obs = self._reset(jax.random.key_data(key))
        return _fix(self._state, state), _fix(self._obs, obs)

    def step(self, state: PyTree, action: PyTree, key: Key) -> Step:
        """Advance by one action."""
        after = self._step(state, action, jax.random.key_data(key))
        reward = jnp.asarray(after.reward, jnp.float32)
        terminated, truncated = (jnp.asarray(end, jnp.bool_) for end in (after.terminated, after.truncated))
        return Step(_fix(self._state, after.state), _fix(self._obs, after.obs), reward, terminated, truncated)

    @abstractmethod
    def _reset(self, key: Array) -> tuple[PyTree, PyTree]:
        """Begin an episode as the library does."""

    @abstractmethod
    def _step(self, state: PyTree, action: PyTree, key: Array) -> Step:
        """Step as the library does."""

    def _settle(self) -> None:
        """Find the shapes and dtypes of states after a step, which those of a reset must have too."""
        key = jax.ShapeDtypeStruct((2,), jnp.uint32)
        action = jax.eval_shape(lambda: jax.tree.map(jnp.asarray, self.action_space.sample()))
        try:
            begun, obs = jax.eval_shape(self._reset, key)
            after = jax.eval_shape(self._step, begun, action, key)
        except Exception as error:
            raise EnvironmentFault(
                f"{self.name} cannot be compiled as one environment ({type(error).__name__}: {error}). It must be pure "
                "functions of JAX arrays, without wrappers that batch it"
            ) from error
        if jax.tree.structure(begun) != jax.tree.structure(after.state):
            raise EnvironmentFault(
                f"{self.name} begins with a state of {jax.tree.structure(begun)} and goes on with one of "
                f"{jax.tree.structure(after.state)}: make both the same, or it cannot be compiled"
            )
        self._state, self._obs = after.state, _like(self.observation_space)
        given, wanted = (jax.tree.map(lambda x: x.shape, tree) for tree in (after.obs, self._obs))
        same_structure = jax.tree.structure((obs, after.obs)) == jax.tree.structure((self._obs, self._obs))
        paid = () if self.players == 1 else (self.players,)
        if not same_structure or given != wanted or after.reward.shape != paid:
            raise SpaceError(
                f"{self.name} gives observations of shape {given} and rewards of shape {after.reward.shape}; "
                f"its space {self.observation_space} says {wanted}, and one environment has rewards of shape {paid}. "
                "Give it as its library makes it, without wrappers that batch or change it"
            )


def space_like(obs: PyTree) -> spaces.Space:
    """Return the space of observations that are known by shape and dtype only. Anything but bool becomes float32."""
    if isinstance(obs, Mapping):
        return spaces.Dict({key: space_like(part) for key, part in obs.items()})
    if obs.dtype == jnp.bool_:
        return spaces.MultiBinary(obs.shape)
    return spaces.Box(-np.inf, np.inf, obs.shape, np.float32)


def load(module: str, extra: str) -> Any:
    """Import a library that an extra installs. Raises EnvironmentFault, naming the extra, when it is missing."""
    library = module.partition(".")[0]
    runtime.prepare()  # before the library makes arrays: then it is too late for some settings of JAX
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        raise EnvironmentFault(
            f'{library} needs packages that are not installed ({error}): pip install "renshu[{extra}]"'
        ) from error


def check_name(name: str, names: Iterable[str], library: str) -> None:
    """Raise UnknownNameError, with near matches, unless a library knows the name."""
    names = sorted(names)
    if name not in names:
        near = difflib.get_close_matches(name, names, n=3)
        hint = f"Did you mean {' or '.join(near)}?" if near else f"It has {', '.join(names)}."
        raise UnknownNameError(f"{library} has no environment {name!r}. {hint}")


def _fix(like: PyTree, tree: PyTree) -> PyTree:
    """Give a tree the shapes and dtypes of another."""
    return jax.tree.map(lambda a, x: jnp.broadcast_to(jnp.asarray(x, a.dtype), a.shape), like, tree)


def _like(space: spaces.Space) -> PyTree:
    """Return the shapes and dtypes that a space's values have in JAX."""
    return jax.eval_shape(lambda: jax.tree.map(jnp.asarray, space.sample()))
