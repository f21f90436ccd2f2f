"""Algorithms: one file each, found by their file's name. `ppo.py` holds `PPO`; a new file needs no entry anywhere."""

from __future__ import annotations

import importlib
import pkgutil
from pathlib import Path
from typing import TYPE_CHECKING

from renshu.errors import UnknownNameError

if TYPE_CHECKING:
    from renshu.algorithms.base import Algorithm


def algorithm(name: str) -> type[Algorithm]:
    """Return the algorithm of that name, in any case: "ppo" or "PPO". Raises UnknownNameError with the known ones."""
    module_name = name.lower()
    if module_name in _modules() and (found := _algorithm_in(module_name)) is not None:
        return found
    raise UnknownNameError(f"there is no algorithm {name!r}. There are: {', '.join(sorted(algorithms()))}")


def algorithms() -> dict[str, type[Algorithm]]:
    """All algorithms by name."""
    found = [_algorithm_in(module_name) for module_name in _modules()]
    return {kind.__name__: kind for kind in found if kind is not None}


def _algorithm_in(module_name: str) -> type[Algorithm] | None:
    """The algorithm that is called like its module; None for a module of something else."""
    from renshu.algorithms.base import Algorithm

    module = importlib.import_module(f"{__name__}.{module_name}")
    for name, value in vars(module).items():
        if name.lower() == module_name and isinstance(value, type) and issubclass(value, Algorithm):
            return value
    return None


def _modules() -> list[str]:
    return [module.name for module in pkgutil.iter_modules([str(Path(__file__).parent)])]
