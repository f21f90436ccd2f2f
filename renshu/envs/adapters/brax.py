"""Environments of Brax and of MuJoCo Playground, which kept its interface."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from gymnasium import spaces

from renshu.envs.adapters.base import Adapter, check_name, load, space_like
from renshu.envs.device import Step
from renshu.errors import HyperparameterError, SpaceError
from renshu.types import Array, PyTree


class Brax(Adapter):
    """An environment of Brax. Actions are within [-1, 1], as Brax's own learners give them.

    env: its name ("ant", "halfcheetah") or the object, without wrappers that batch. An AutoResetWrapper around it is
    taken off; the truncations of an EpisodeWrapper are distinguished from terminations.
    max_episode_steps: the time limit; Brax trains with 1,000. The shorter of it and an EpisodeWrapper's limit counts.
    kwargs: arguments for a name (`backend="spring"`).
    Raises UnknownNameError for a name that Brax does not know, EnvironmentFault when Brax is not installed,
    HyperparameterError for kwargs with an object, SpaceError for an object that is several environments.
    """

    def __init__(self, env: Any, *, max_episode_steps: int | None = 1000, **kwargs: Any) -> None:
        if isinstance(env, str):
            library = load("brax.envs", "jax-envs")
            check_name(env, library._envs, "Brax")
            env = library.get_environment(env, **kwargs)
        elif kwargs:
            raise HyperparameterError(_made(env, kwargs))
        env = _without_resets(env)
        length = getattr(env, "episode_length", None)
        if length is not None:
            length = -(-int(length) // int(env.action_repeat))
            max_episode_steps = length if max_episode_steps is None else min(length, max_episode_steps)
        super().__init__("brax", env, space_like(_first(env).obs), _unit_box(env.action_size), max_episode_steps)

    @property
    def name(self) -> str:
        """Name of the library and of the environment's class."""
        return f"brax:{type(self.env.unwrapped).__name__}"

    def render(self, state: PyTree) -> np.ndarray:
        """Draw a state with MuJoCo's renderer: [240, 320, 3] uint8. Needs OpenGL (MUJOCO_GL=egl without a screen)."""
        return np.asarray(self.env.unwrapped.render([state.pipeline_state])[0])

    def _reset(self, key: Array) -> tuple[PyTree, PyTree]:
        state = self.env.reset(key)
        return state, state.obs

    def _step(self, state: PyTree, action: PyTree, key: Array) -> Step:
        return _brax_step(self.env, state, action)


class Playground(Adapter):
    """An environment of MuJoCo Playground. Actions are within [-1, 1], as its own learners give them.

    env: its name ("CartpoleBalance", "Go1JoystickFlatTerrain") or the object, without wrappers that batch. A wrapper
    that resets automatically is taken off. The time limit is `episode_length` of its configuration.
    config, config_overrides: arguments for a name; `config_overrides={"impl": "jax"}` compiles faster on a CPU.
    Raises UnknownNameError for a name that it does not know, EnvironmentFault when it is not installed,
    HyperparameterError for a configuration with an object, SpaceError for an object that is several environments.
    """

    def __init__(self, env: Any, config: Any = None, config_overrides: Mapping[str, Any] | None = None) -> None:
        if isinstance(env, str):
            registry = load("mujoco_playground", "playground").registry
            check_name(env, registry.ALL_ENVS, "MuJoCo Playground")
            overrides = None if config_overrides is None else dict(config_overrides)
            env = registry.load(env, config=config, config_overrides=overrides)
        elif config is not None or config_overrides is not None:
            raise HyperparameterError(_made(env, ["config", "config_overrides"]))
        env = _without_resets(env)
        limit = env.unwrapped._config.get("episode_length")  # the configuration has no public name
        super().__init__("playground", env, space_like(_first(env).obs), _unit_box(env.action_size), limit)

    @property
    def name(self) -> str:
        """Name of the library and of the environment's class."""
        return f"playground:{type(self.env.unwrapped).__name__}"

    def render(self, state: PyTree) -> np.ndarray:
        """Draw a state with MuJoCo's renderer: [240, 320, 3] uint8. Needs OpenGL (MUJOCO_GL=egl without a screen)."""
        return np.asarray(self.env.unwrapped.render(state))

    def _reset(self, key: Array) -> tuple[PyTree, PyTree]:
        state = self.env.reset(key)
        return state, state.obs

    def _step(self, state: PyTree, action: PyTree, key: Array) -> Step:
        return _brax_step(self.env, state, action)


def _brax_step(env: Any, state: Any, action: Array) -> Step:
    """Step as Brax and MuJoCo Playground do: an end is a truncation where an EpisodeWrapper says so."""
    after = env.step(state, action)
    cut = jnp.asarray(after.info.get("truncation", 0.0), jnp.bool_)
    return Step(after, after.obs, after.reward, jnp.asarray(after.done, jnp.bool_) & ~cut, cut)


def _first(env: Any) -> Any:
    return jax.eval_shape(env.reset, jax.ShapeDtypeStruct((2,), jnp.uint32))


def _unit_box(size: int) -> spaces.Box:
    return spaces.Box(-1.0, 1.0, (size,), np.float32)


def _without_resets(env: Any) -> Any:
    """Return an environment of Brax or Playground without the outer wrappers that reset it."""
    while type(env).__name__.endswith("AutoResetWrapper"):
        env = env.env
    inner = env
    while "env" in vars(inner):
        if type(inner).__name__.endswith(("AutoResetWrapper", "VmapWrapper")):
            raise SpaceError(
                f"{type(env.unwrapped).__name__} is wrapped in {type(inner).__name__}, which batches or resets it: "
                "Renshu does both. Give the environment without it"
            )
        inner = inner.env
    return env


def _made(env: Any, options: Iterable[str]) -> str:
    return f"{type(env).__name__} is made already: give it {', '.join(options)} where you make it, or give its name"
