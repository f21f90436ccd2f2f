"""Files that are replaced whole or not at all, and what a killed process left of one."""

from __future__ import annotations

import contextlib
import os
import platform
import re
import shutil
import stat
import time
import uuid
import zlib
from collections.abc import Iterator
from pathlib import Path

OLD = 86_400.0
"""Seconds after which a temporary folder is left over, whoever made it."""
_NODE = f"{zlib.crc32(platform.node().encode()):08x}"
_PATTERN = re.compile(r"\.renshu-([0-9a-f]{8})-([0-9]{1,9})-[0-9a-f]{8}\.tmp")


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yield a temporary path on the same disk; the file written there replaces `path` when the block ends.

    When the block raises, `path` stays as it was and the temporary file is removed, as are those that killed processes
    left in this folder. Missing folders are made. Raises OSError.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    remove_leftovers(path.parent)
    # A folder, so that temporary files of whoever writes there can be found again too.
    folder = path.parent / f".renshu-{_NODE}-{os.getpid()}-{uuid.uuid4().hex[:8]}.tmp"
    temporary = folder / path.name
    folder.mkdir()
    try:
        temporary.touch(exist_ok=False)
        # A writer may put a file of its own in this one's place, readable by its owner only.
        mode = stat.S_IMODE(temporary.stat().st_mode)
        yield temporary
        temporary.chmod(mode)
        with temporary.open("r+b") as file:
            os.fsync(file.fileno())
        os.replace(temporary, path)
    finally:
        # When even this fails, the error that brought us here is the one to report.
        shutil.rmtree(folder, ignore_errors=True)


def remove_leftovers(folder: Path) -> None:
    """Remove the temporary folders of `replacing` in a folder whose process has died, or that are a day old."""
    try:
        with os.scandir(folder) as entries:
            found = [Path(entry.path) for entry in entries if _PATTERN.fullmatch(entry.name)]
        for path in found:
            if _is_left_over(path):
                shutil.rmtree(path, ignore_errors=True)
    except OSError:
        # Cleaning up must not stop what the caller came for: writing says itself what is wrong with the folder.
        return


def is_alive(pid: int) -> bool:
    """Tell whether a process of this machine runs; True where that cannot be found out."""
    if os.name != "posix":
        return True
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except (PermissionError, OverflowError):
        return True
    return True


def _is_left_over(path: Path) -> bool:
    match = _PATTERN.fullmatch(path.name)
    assert match is not None
    return (match[1] == _NODE and not is_alive(int(match[2]))) or time.time() - path.stat().st_mtime > OLD
