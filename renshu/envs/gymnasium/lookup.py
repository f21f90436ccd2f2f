"""Lookup of environments by Gymnasium id, with near matches for a wrong id and hints on what to install."""

from __future__ import annotations

import copy
import difflib
import importlib
import importlib.util
import re
from collections.abc import Callable
from typing import Any

import gymnasium
from gymnasium.envs.registration import EnvSpec as GymSpec

from renshu.envs.gymnasium import retro
from renshu.envs.gymnasium.registration import GYMNAX, register_gymnax
from renshu.errors import EnvironmentFault, RenshuError, UnknownNameError

_EXTRAS = {"gymnasium.envs.box2d": "box2d", "gymnasium.envs.mujoco": "mujoco", "ale_py": "atari"}
_OF_GYMNAX = ("-MinAtar", "-bsuite", "-misc")
"""Endings that only names in gymnax have."""


def find(given: str) -> GymSpec:
    """Find the registered spec of an id.

    Raises UnknownNameError with near matches, EnvironmentFault for a console game without its ROM, or where
    gymnax is not installed.
    """
    module, _, name = given.rpartition(":")
    if module:
        try:
            importlib.import_module(module)
        except Exception as error:
            raise UnknownNameError(
                f"cannot import {module!r}, which {given!r} asks for ({type(error).__name__}: {error}). "
                "Before the colon stands the module that registers the environment"
            ) from error
    spec = _registered(name)
    if spec is None and (name.startswith("ALE/") or "NoFrameskip" in name):
        try:
            importlib.import_module("ale_py")  # registers them, and nothing else does
        except ModuleNotFoundError as error:
            raise UnknownNameError(_needs(name, "atari")) from error
        spec = _registered(name)
    if spec is None and name.startswith(retro.PREFIX):
        retro.register(name)
        spec = _registered(name)
    if spec is None and name.startswith(GYMNAX):
        register_gymnax(name)
        spec = _registered(name)
    if spec is None:
        retro.register_playable()  # so that its games are among the similar ones
        if importlib.util.find_spec("ale_py") is not None:
            importlib.import_module("ale_py")
        similar = [GYMNAX + name] if name.endswith(_OF_GYMNAX) else _similar_ids(name)
        hint = f"Did you mean {' or '.join(similar)}?" if similar else "No registered name is like it."
        raise UnknownNameError(
            f"no environment is registered as {name!r}. {hint} One from another package is named 'module:{name}', or "
            "its class can be passed itself"
        )
    return spec


def _registered(name: str) -> GymSpec | None:
    versions = [spec for spec in gymnasium.registry.values() if _stem(spec.id) == name]
    return gymnasium.registry.get(name) or max(versions, key=lambda spec: spec.version or 0, default=None)


def _similar_ids(name: str) -> list[str]:
    versions = [spec for spec in gymnasium.registry.values() if _stem(spec.id).lower() == _stem(name).lower()]
    newest = [spec.id for spec in sorted(versions, key=lambda spec: -(spec.version or 0))]
    by_lower = {known.lower(): known for known in gymnasium.registry}
    similar = [by_lower[match] for match in difflib.get_close_matches(name.lower(), by_lower, n=3)]
    return list(dict.fromkeys(newest + similar))[:3]


def registered_as(spec: GymSpec) -> GymSpec | None:
    """Return the registered spec under whose name this one can be made again, wrappers included, or None."""
    registered = gymnasium.registry.get(spec.id)
    return registered if registered and registered.additional_wrappers == spec.additional_wrappers else None


def portable(spec: GymSpec) -> GymSpec:
    """Return a copy that makes the same environment in any process, and without a window."""
    spec = copy.copy(spec)
    spec.kwargs = {name: value for name, value in spec.kwargs.items() if name != "render_mode"}
    if isinstance(spec.entry_point, str) and spec.entry_point.startswith("__main__:"):
        spec.entry_point = getattr(importlib.import_module("__main__"), spec.entry_point.partition(":")[2])
    return spec


def explained(name: str, spec: GymSpec | None, make: Callable[[], Any]) -> Any:
    """Call `make`, turning what it raises into an EnvironmentFault that says what to install where that helps."""
    try:
        return make()
    except RenshuError:
        raise  # which says what to do already
    except Exception as error:
        if spec and isinstance(error, gymnasium.error.DependencyNotInstalled | ModuleNotFoundError):
            for module, extra in _EXTRAS.items():
                if str(spec.entry_point).startswith(module):
                    raise EnvironmentFault(_needs(name, extra)) from error
        advice = f". {retro.ONE_EACH}" if retro.is_second(error) else ""
        raise EnvironmentFault(f"{name} raised while it was made: {type(error).__name__}: {error}{advice}") from error


def _needs(name: str, extra: str) -> str:
    return f'{name} needs packages that are not installed: pip install "renshu[{extra}]"'


def _stem(name: str) -> str:
    return re.sub(r"-v\d+$", "", name)
