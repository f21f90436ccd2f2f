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
    if module_name in _modules():
        module = importlib.import_module(f"{__name__}.{module_name}")
        for candidate, value in vars(module).items():
            if candidate.lower() == module_name:
                return value
    raise UnknownNameError(f"there is no algorithm {name!r}. There are: {', '.join(sorted(algorithms()))}")


def algorithms() -> dict[str, type[Algorithm]]:
    """All algorithms by name."""
    from renshu.algorithms.base import Algorithm

    found = {}
    for module_name in _modules():
        module = importlib.import_module(f"{__name__}.{module_name}")
        for name, value in vars(module).items():
            if name.lower() == module_name and isinstance(value, type) and issubclass(value, Algorithm):
                found[name] = value
    return found


def _modules() -> list[str]:
    return [module.name for module in pkgutil.iter_modules([str(Path(__file__).parent)])]
