"""`renshu list`."""

from __future__ import annotations

from typing import Annotated

import typer


def list_(
    what: Annotated[
        str | None, typer.Argument(help="algorithms, environments, presets, or an algorithm's name for its settings")
    ] = None,
) -> None:
    """List algorithms, environments and presets, or the hyperparameters of an algorithm."""
    sections = {"algorithms": _algorithms, "presets": _presets, "environments": _environments}
    if what is None:
        for name, section in sections.items():
            print(f"{name}:")
            section()
    elif what in sections:
        sections[what]()
    else:
        _hyperparameters(what)


def _algorithms() -> None:
    from renshu.algorithms import algorithms

    for name, kind in sorted(algorithms().items()):
        print(f"  {name.lower():<10} {(kind.__doc__ or '').splitlines()[0]}")


def _presets() -> None:
    from renshu.presets import presets

    for name, environments in presets().items():
        for environment, data in environments.items():
            print(f"  {name:<10} {environment:<28} {data['num_envs']:>3} environments {data['total_steps']:>12,} steps")


def _environments() -> None:
    import gymnasium

    for name in sorted(gymnasium.registry):
        print(f"  {name}")


def _hyperparameters(name: str) -> None:
    import dataclasses

    from renshu.algorithms import algorithm
    from renshu.algorithms.hyperparameters import kind_of

    kind = algorithm(name)
    for field in dataclasses.fields(kind):
        print(f"  {field.name:<26} {getattr(kind(), field.name)!s:<22} {kind_of(field).doc}")
