"""Provenance of a result: the settings, versions, code and machine that produced it, in settings.json."""

from __future__ import annotations

import difflib
import json
import math
import os
import platform
import re
import reprlib
import shlex
import subprocess
import sys
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np

from renshu.errors import CheckpointError, RenshuError, UnknownNameError
from renshu.files.replacing import replacing

_SETTINGS = "settings.json"
_PACKAGES = ("renshu", "jax", "jaxlib", "flax", "optax", "gymnasium", "numpy")
_GIT_SECONDS = 5.0
_KINDS: dict[str, tuple[tuple[type, ...], str]] = {
    **dict.fromkeys(("algorithm", "environment"), ((str,), "a text")),
    **dict.fromkeys(("reward_threshold", "stop_at"), ((int, float, str), "a number")),
    **dict.fromkeys(("eval_every", "eval_episodes", "checkpoint_every"), ((int,), "a whole number of at least 1")),
}
"""Settings that are read again, with their types; each may be null or missing."""


def versions() -> dict[str, str | None]:
    """Return the versions of Python and of the packages that affect a result; None for one that is not installed.

    Keys: python, renshu, jax, jaxlib, flax, optax, gymnasium, numpy. No package is imported.
    """
    found: dict[str, str | None] = {"python": platform.python_version()}
    for package in _PACKAGES:
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            found[package] = None
    return found


def git_state(path: Path | str = ".") -> dict[str, Any] | None:
    """Return the git state of the folder `path`, which identifies the code that was run.

    Returns {"commit": full hash or None before the first commit, "branch": name or None when detached, "dirty": bool}.
    Dirty means that a tracked file was changed; files that git does not track do not count, as in `git describe
    --dirty`. None when the folder is in no repository, git is not installed, or git gives no answer in 5 seconds.
    """
    command = ["git", "-C", str(path), "status", "--porcelain=v2", "--branch", "--untracked-files=no"]
    # Without this, `git status` may write the index and get in the way of a git command that the user runs.
    environment = {**os.environ, "GIT_OPTIONAL_LOCKS": "0"}
    try:
        answer = subprocess.run(
            command, env=environment, capture_output=True, text=True, errors="replace", timeout=_GIT_SECONDS
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    if answer.returncode != 0:
        return None
    lines = answer.stdout.splitlines()
    header = dict(line[2:].split(" ", 1) for line in lines if line.startswith("# "))
    commit, branch = header.get("branch.oid"), header.get("branch.head")
    return {
        "commit": None if commit == "(initial)" else commit,
        "branch": None if branch == "(detached)" else branch,
        "dirty": any(not line.startswith("# ") for line in lines),
    }


def machine() -> dict[str, Any]:
    """Describe the machine: {"system": name and version, "cpus": logical processors or None, "processor": name}."""
    return {"system": platform.platform(), "cpus": os.cpu_count(), "processor": _processor()}


def write_settings(path: Path, settings: Mapping[str, Any]) -> dict[str, Any]:
    """Write settings.json into the folder `path` atomically, and return its contents.

    Added to `settings`: "versions", "git", "machine", "started" (UTC, ISO 8601), "command". Values that JSON cannot
    hold, among them NaN and infinity, are written as text.
    Raises RenshuError, naming path and reason, when the file cannot be written.
    """
    provenance = {
        "versions": versions(),
        "git": git_state(),
        "machine": machine(),
        "started": datetime.now(UTC).isoformat(timespec="seconds"),
        "command": shlex.join(sys.argv),
    }
    plain = _plain({**settings, **provenance})
    write_atomically(path / _SETTINGS, [json.dumps(plain, indent=2, allow_nan=False).encode()])
    return plain


def read_settings(path: Path | str) -> dict[str, Any]:
    """Read the settings.json in the folder `path`.

    Raises UnknownNameError, with near matches, when the folder holds no run; CheckpointError when the file is damaged.
    """
    path = Path(path)
    file = path / _SETTINGS
    try:
        settings = json.loads(file.read_bytes())
    except (FileNotFoundError, NotADirectoryError) as error:
        raise UnknownNameError(f"{path} is not a run: it holds no {_SETTINGS}. {_near_runs(path)}") from error
    except (OSError, ValueError, RecursionError) as error:
        raise CheckpointError(f"cannot read {file}: {error}. Restore the file, or start a new run.") from error
    if not isinstance(settings, dict):
        raise CheckpointError(f"{file} holds a {type(settings).__name__}, not the settings of a run (an object).")
    for name, (kinds, expected) in _KINDS.items():
        value = settings.get(name)
        fits = isinstance(value, kinds) and not isinstance(value, bool)
        if value is not None and not (fits and (isinstance(value, str) or kinds != (int,) or value >= 1)):
            raise CheckpointError(
                f'{file} was changed: "{name}" is {reprlib.repr(value)}, expected {expected}. Put it back as it was'
            )
    return settings


def write_atomically(path: Path, chunks: Iterable[bytes]) -> None:
    """Write a file atomically: at any time, even after a crash, `path` holds the old file or the whole new one.

    Raises RenshuError, naming path and reason, when the file cannot be written; the old one stays.
    """
    with writing(path):
        path.parent.stat()  # a folder that was deleted is not made anew
        with replacing(path) as temporary, open(temporary, "wb") as file:
            file.writelines(chunks)


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Turn an OSError raised while writing to `path` into a RenshuError that names path and reason."""
    try:
        yield
    except OSError as error:
        raise RenshuError(
            f"cannot write {path}: {error.strerror or error}. Make room on the disk, or choose a folder that you may "
            "write to."
        ) from error


def _processor() -> str:
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists() and (name := re.search(r"^model name\s*:\s*(.+)$", cpuinfo.read_text(), re.MULTILINE)):
        return name[1].strip()
    return platform.processor() or platform.machine()


def _plain(value: Any) -> Any:
    """Convert a value to the types of JSON."""
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [_plain(item) for item in value]
    if isinstance(value, np.generic | np.ndarray):
        return _plain(value.tolist())
    if isinstance(value, float):
        return value if math.isfinite(value) else str(value)
    if value is None or isinstance(value, str | int):
        return value
    if isinstance(value, Path):
        return str(value)
    return getattr(value, "__qualname__", None) or repr(value)


def _near_runs(path: Path) -> str:
    folder = path.absolute().parent
    names = sorted(file.parent.name for file in folder.glob(f"*/{_SETTINGS}"))
    near = difflib.get_close_matches(path.name, names, n=5, cutoff=0.4)
    return f"Did you mean {', '.join(near)}?" if near else f"No run in {folder} has a name like it."
