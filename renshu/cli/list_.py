"""The command `renshu list`."""

from __future__ import annotations

import shutil
import textwrap
from typing import Annotated

import typer

_INSTALL = {"box2d": ("Box2D", "box2d"), "mujoco": ("mujoco", "mujoco")}
"""Groups of Gymnasium's environments that need more packages: a module to look for, and the extra that installs it."""

_MANY = 30
"""Ids of a family that are written out."""


def list_(
    what: Annotated[
        str | None, typer.Argument(help="algorithms, environments, presets, or an algorithm's name for its settings")
    ] = None,
) -> None:
    """List algorithms, environments and presets, or the hyperparameters of an algorithm."""
    sections = {"algorithms": _algorithms, "presets": _presets, "environments": _environments}
    if what is None:
        for number, (name, section) in enumerate(sections.items()):
            print(f"\n{name}" if number else name)
            section()
    elif what in sections:
        sections[what]()
    else:
        _hyperparameters(what)


def _algorithms() -> None:
    from renshu.algorithms.registry import algorithms

    for name, kind in sorted(algorithms().items()):
        _row(f"  {name.lower():<14} ", (kind.__doc__ or "").splitlines()[0])
    print("  hyperparameters of one: renshu list ppo")


def _presets() -> None:
    from renshu.presets import preset, presets

    for name, environments in presets().items():
        for environment in environments:
            found = preset(name, environment)
            plural = "environment " if found.num_envs == 1 else "environments"
            print(f"  {name:<14} {environment:<26} {found.num_envs:>3} {plural} {found.total_steps:>12,} steps")


def _environments() -> None:
    """Print Gymnasium's own environments by family, the newest version of each; other registered ids work as well."""
    import importlib
    from importlib.util import find_spec

    import gymnasium

    if find_spec("ale_py"):
        importlib.import_module("ale_py")  # registers its games
    families: dict[str, dict[str, str]] = {}
    for spec in gymnasium.registry.values():
        # An entry point that is not text is a function that only says which package to install: Gymnasium keeps it for
        # old versions, as a hint.
        atari = spec.entry_point == "ale_py.env:AtariEnv"
        # Each game has a dozen ids, of which those of ALE are its own.
        if isinstance(spec.entry_point, str) and (spec.namespace == "ALE" or not atari):
            parts = spec.entry_point.split(".")
            family = parts[2] if parts[:2] == ["gymnasium", "envs"] else parts[0]
            newest = families.setdefault(family, {})
            stem = f"{spec.namespace}/{spec.name}" if spec.namespace else spec.name
            newest[stem] = max(newest.get(stem, spec.id), spec.id, key=_number)
    for family, newest in families.items():
        module, extra = _INSTALL.get(family, ("gymnasium", ""))
        missing = "" if find_spec(module) else f' (needs: pip install "renshu[{extra}]")'
        ids = sorted(newest.values())
        if len(ids) > _MANY:
            ids = [*ids[:_MANY], f"... ({len(ids)} in all)"]
        _row(f"  {family.replace('_', ' '):<16} ", ", ".join(ids) + missing)
    print("  and every other id that is registered; module:Name-v0 imports the module first")


def _number(name: str) -> int:
    version = name.rpartition("-v")[2]
    return int(version) if version.isdecimal() else -1


def _hyperparameters(name: str) -> None:
    import dataclasses

    from renshu.algorithms.hyperparameters import kind_of
    from renshu.algorithms.registry import algorithm, names
    from renshu.errors import UnknownNameError, did_you_mean

    try:
        kind = algorithm(name)
    except UnknownNameError:
        known = [*("algorithms", "presets", "environments"), *(one.lower() for one in names())]
        raise UnknownNameError(
            f"there is nothing called {name!r} to list.{did_you_mean(name.lower(), known)} `renshu list` alone lists "
            "everything"
        ) from None
    for field in dataclasses.fields(kind):
        default = list(field.default) if isinstance(field.default, tuple) else field.default
        _row(f"  {field.name:<25} {default!s:<9} ", kind_of(field).doc)
    print(f"set them with --set name=value, or {kind.__name__}(name=value)")


def _row(label: str, text: str) -> None:
    width = max(min(120, shutil.get_terminal_size((120, 24)).columns), len(label) + 20)
    wrapper = textwrap.TextWrapper(width, break_long_words=False, break_on_hyphens=False)
    wrapper.initial_indent, wrapper.subsequent_indent = label, " " * len(label)
    print(wrapper.fill(text))
