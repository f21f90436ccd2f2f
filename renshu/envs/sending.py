"""Environments on their way to other processes."""

from __future__ import annotations

import weakref
from typing import Any

from renshu.errors import SpaceError


def pickled(content: Any, env: Any, name: str) -> bytes:
    """Turn something into bytes for other processes. env: the environment in it, as a user gave it; name: its name.

    Raises SpaceError naming the part of the environment that cannot be sent.
    """
    import cloudpickle

    try:
        return cloudpickle.dumps(content)
    except Exception as error:
        place = f"of {name}" if (at_fault := _at_fault(env)) is None else f"of {name}: {at_fault}"
        raise SpaceError(
            f"the environment cannot be sent to other processes, because of a part {place} ({type(error).__name__}: "
            f"{error}). Make it inside the function that makes the environment, and pass that"
        ) from error


def _at_fault(given: Any) -> str | None:
    """Name what cannot be pickled in a function or an object."""
    import cloudpickle

    parts: dict[str, Any] = dict(getattr(given, "__dict__", {}))
    if code := getattr(given, "__code__", None):
        cells = (cell.cell_contents for cell in given.__closure__ or ())
        parts |= dict(zip(code.co_freevars, cells, strict=False))
        parts |= {name: given.__globals__[name] for name in code.co_names if name in given.__globals__}
    for name, value in parts.items():
        try:
            cloudpickle.dumps(value)
        except Exception:
            return f"{name} = {value!r}"
    return None


class Made:
    """Environments that were made, by identity: they may say that they equal each other, or have no hash.

    Another process that it is sent to has made none.
    """

    def __init__(self) -> None:
        self._known: weakref.WeakValueDictionary[int, Any] = weakref.WeakValueDictionary()

    def add(self, env: Any) -> None:
        """Add an environment."""
        self._known[id(env)] = env

    def __contains__(self, env: object) -> bool:
        return self._known.get(id(env)) is env

    def __reduce__(self) -> tuple[type[Made], tuple[()]]:
        return Made, ()
