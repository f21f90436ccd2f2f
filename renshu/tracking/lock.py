"""A lock of a folder: one process at a time writes there. The system lets go of it when the process ends."""

from __future__ import annotations

import contextlib
import errno
import os
import platform
import stat
import warnings
from pathlib import Path
from typing import IO

from renshu.errors import RenshuError
from renshu.files.replacing import is_alive
from renshu.tracking.provenance import writing

_BEYOND = 2**20  # Windows keeps others from reading what is locked, so it locks a byte behind all
_TAKEN = (errno.EACCES, errno.EAGAIN, errno.EDEADLK)


class FolderLock:
    """Lock of the folder `folder`, as a file in it that names the process which holds it."""

    def __init__(self, folder: Path) -> None:
        self._folder, self._path = folder, folder / "lock"
        self._file: IO[bytes] | None = None

    @property
    def held(self) -> bool:
        """The state of this object: True while it holds the lock."""
        return self._file is not None

    def acquire(self) -> None:
        """Take the lock; a process that died has left it. Raises RenshuError, with the process, where another holds it.

        On a disk without locks nothing is locked, which a warning says.
        """
        while self._file is None:
            with writing(self._path):
                file = open(self._path, "a+b")  # noqa: SIM115 - it stays open as long as the lock is held
            try:
                _lock(file)
            except OSError as error:
                if error.errno in _TAKEN:
                    self._refuse(file)
                    continue
                warnings.warn(f"{self._folder} cannot be locked ({error}): start no other training there", stacklevel=4)
            if self._is_current(file):
                self._file = file
                self._sign(file)
            else:  # its holder removed it between our opening and our locking
                file.close()

    def release(self) -> None:
        """Let others take the lock. Does nothing where it is not held."""
        file, self._file = self._file, None
        if file is None:
            return
        if os.name == "posix":
            # Removed while it is held: whoever opened it meanwhile sees that it is no longer there, and tries again.
            self._remove(file)
            file.close()
        else:
            file.close()
            with contextlib.suppress(OSError):  # another has opened it, and removes it in turn
                self._path.unlink()

    def _refuse(self, file: IO[bytes]) -> None:
        """Raise RenshuError, unless the process that took the lock is dead and only a child of it is left."""
        with file:
            file.seek(0)
            pid, _, node = file.read(200).decode("utf-8", "replace").strip().partition(" ")
            if pid.isdecimal() and node == platform.node() and not is_alive(int(pid)):
                self._remove(file)
                return
        here = "this process, in another call of learn" if pid == str(os.getpid()) else f"process {pid or '(unknown)'}"
        where = f" on {node}" if node and node != platform.node() else ""
        raise RenshuError(
            f"{self._folder} is being written to by {here}{where}; two trainings in one folder would mix their rows. "
            f"Wait until it has ended, or stop it{f' (kill {pid})' if pid.isdecimal() and not where else ''}"
        )

    def _sign(self, file: IO[bytes]) -> None:
        with writing(self._path):
            file.truncate(0)
            file.write(f"{os.getpid()} {platform.node()}".encode())
            file.flush()

    def _is_current(self, file: IO[bytes]) -> bool:
        try:
            return os.path.samestat(os.fstat(file.fileno()), os.stat(self._path))
        except FileNotFoundError:
            return False

    def _remove(self, file: IO[bytes]) -> None:
        with contextlib.suppress(OSError):  # the folder was deleted, or somebody was faster
            if self._is_current(file):
                self._path.unlink()


def holder(folder: Path) -> str | None:
    """Name the process that writes to a folder, as "1234 on host"; None where none does. Only reads.

    Of a process on another machine it is not known whether it still runs: it counts as if it did.
    """
    path = folder / "lock"
    try:
        if not stat.S_ISREG(os.lstat(path).st_mode):
            return None
        content = path.read_bytes()[:200].decode("utf-8", "replace").strip()
    except OSError:
        return None
    pid, _, node = content.partition(" ")
    if not pid.isdecimal() or (node == platform.node() and not is_alive(int(pid))):
        return None
    return f"{pid} on {node}"


def _lock(file: IO[bytes]) -> None:
    if os.name == "posix":
        import fcntl

        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    else:
        import msvcrt

        file.seek(_BEYOND)
        msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)  # type: ignore[attr-defined]
