"""Environments as they are made: one by what a user named, and the rules that vector environments must keep."""

from __future__ import annotations

import copy
import inspect
from collections.abc import Callable, Mapping, Sequence
from types import GeneratorType
from typing import Any

import gymnasium
from gymnasium import spaces
from gymnasium.envs.registration import EnvSpec as GymSpec
from gymnasium.vector import AsyncVectorEnv, AutoresetMode, VectorEnv
from gymnasium.wrappers import TimeLimit

from renshu.envs.checks import lineage, no_env_hint
from renshu.envs.gymnasium import atari
from renshu.envs.gymnasium.lookup import explained
from renshu.errors import HyperparameterError, SpaceError


def make_one(
    how: GymSpec | Callable[..., Any], name: str, kwargs: Mapping[str, Any], limit: int | None
) -> gymnasium.Env:
    """Make one environment. Raises EnvironmentFault where that fails, SpaceError for what is none."""
    if isinstance(how, GymSpec):
        env = explained(name, how, lambda: atari.make(how, **kwargs))
    else:
        env = explained(name, None, lambda: how(**kwargs))
    if ("pettingzoo", "AECEnv") in lineage(env):
        from renshu.envs.adapters import adapt

        env = adapt(env)
    if not isinstance(env, gymnasium.Env):
        hint = ". Pass the vector environment itself" if isinstance(env, VectorEnv) else ""
        hint = hint or no_env_hint(env)
        raise SpaceError(f"{name} made a {type(env).__module__}.{type(env).__qualname__}, not a gymnasium.Env{hint}")
    for attribute in ("observation_space", "action_space"):
        if not isinstance(getattr(env, attribute, None), spaces.Space):
            raise SpaceError(f"{name} has no {attribute}: set it in __init__ to a space from gymnasium.spaces")
    return env if limit is None or isinstance(how, GymSpec) else TimeLimit(env, limit)


def limit_in(vector_env: VectorEnv) -> int | None:
    """Return the time limit of environments that step in this process, by their TimeLimit; None where none is seen."""
    env = next(iter(getattr(vector_env.unwrapped, "envs", ())), None)
    while isinstance(env, gymnasium.Wrapper):
        if isinstance(env, TimeLimit):
            return env._max_episode_steps
        env = env.env
    return None


def next_step(env: VectorEnv) -> VectorEnv:
    """Return a vector environment. Raises SpaceError where it resets by another rule, or steps one in two places."""
    mode = env.metadata.get("autoreset_mode")
    if mode != AutoresetMode.NEXT_STEP:
        raise SpaceError(
            f"{env} has metadata['autoreset_mode'] = {mode}; expected AutoresetMode.NEXT_STEP: an environment whose "
            "episode ended resets in the next step. Make it with autoreset_mode=AutoresetMode.NEXT_STEP (from "
            "gymnasium.vector), or let a class of your own do so and say it in its metadata"
        )
    envs = getattr(env.unwrapped, "envs", None)
    if isinstance(envs, Sequence) and len({id(getattr(one, "unwrapped", one)) for one in envs}) < len(envs):
        raise SpaceError(
            f"{env} steps one environment in several places, so that no episode of it is whole: make a new one for each"
        )
    return env


def at_once(processes: int | bool, num_envs: int) -> int | None:
    """Return how many processes may work at a time, None for all. Raises HyperparameterError where that cannot be."""
    if processes is True or processes >= num_envs:
        return None
    if "max_concurrency" not in inspect.signature(AsyncVectorEnv).parameters:
        raise HyperparameterError(
            f"processes={processes} for num_envs={num_envs} needs gymnasium >= 1.4 (this is {gymnasium.__version__}): "
            "update it, or use processes=True"
        )
    return processes


def takes(function: Callable[..., Any], name: str) -> bool:
    """Tell whether a function takes an argument of that name."""
    try:
        parameters = inspect.signature(function).parameters
    except ValueError:  # some built-in callables have no signature
        return False
    return name in parameters or any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters.values())


def copied(env: Any) -> Any:
    """Copy an environment as it is now. Raises what its parts raise that cannot be copied."""
    parts = getattr(env.unwrapped, "__dict__", {}).values()
    # Vector environments of Gymnasium 1.3 keep a generator that has ended, which cannot be copied and need not be.
    ended = {id(part): part for part in parts if isinstance(part, GeneratorType) and part.gi_frame is None}
    return copy.deepcopy(env, ended)
