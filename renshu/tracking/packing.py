"""A run folder in one file, for another person's board. Like a saved agent's file it holds nothing that can run.

The file is a plain zip, RUN.renshu.zip: the settings, the tables, the best and the last agent, pictures, videos. When
it is unpacked it is taken for hostile: names, sizes and contents are checked before a folder appears.
"""

from __future__ import annotations

import os
import re
import reprlib
import stat
import struct
import tempfile
import warnings
import zipfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from renshu.errors import CheckpointError, RenshuError
from renshu.files.checkpoint import read_header
from renshu.files.replacing import replacing
from renshu.tracking.curves import read_episodes, read_evaluations, read_metrics, read_scores
from renshu.tracking.pictures import ENOUGH, SUFFIXES, suffix_of
from renshu.tracking.provenance import read_settings, writing
from renshu.tracking.run import Run

SUFFIX = ".renshu.zip"
MOST_FILES = 200
MOST_BYTES = 2**30
"""Bytes of all files of a packed run together, when they are unpacked."""
MOST_SETTINGS = 2**20
MOST_TABLE, MOST_ROWS, MOST_LINE = 2**27, 2**22, 2**16
"""Bytes and rows of a table, bytes of a line: short rows would take twenty times their size while they are read."""

_READERS = {
    "episodes.csv": read_episodes,
    "metrics.csv": read_metrics,
    "evaluations.csv": read_evaluations,
    "scores.csv": read_scores,
}
_CONTENTS = "settings.json, tables, agents, and pictures and videos with plain names"
_DATE = (1980, 1, 1, 0, 0, 0)  # the earliest that a zip can have; a real one would make each packed file another
_CHUNK = 2**20
_END = struct.Struct("<4s8xL4xH")
"""Last 22 bytes of a zip without a comment: signature, size of the table of contents, length of the comment."""
_LOCATOR_BYTES = 20


def pack(run: Path | str, out: Path | str | None = None, *, checkpoints: bool = False) -> Path:
    """Write one file with what another person needs of a run, completely or not at all, and return its path.

    It may be packed while it trains. Links in the folder are not followed. The same run makes the same bytes.

    run: its folder. out: the file, which ends in .renshu.zip and is replaced if it exists; by default the folder's name
    in the current folder. checkpoints: take the newest checkpoint along, so that training can go on elsewhere.

    Raises UnknownNameError when the folder holds no run, CheckpointError when a file of it is damaged or too large, and
    RenshuError when `out` has another suffix or cannot be written.
    """
    run = Path(run)
    opened = Run.open(run)
    out = Path(f"{run.resolve().name}{SUFFIX}" if out is None else out)
    if not out.name.endswith(SUFFIX):
        raise RenshuError(f"cannot pack a run into {out}: the name must end in {SUFFIX}")
    names = _names_in(opened, checkpoints)
    with writing(out), replacing(out) as temporary:
        # Copies are checked and packed, not the files: a training may replace those at any time.
        staged = temporary.with_name("run")
        staged.mkdir()
        left = MOST_BYTES
        for name in names:
            with _reading(run / name), open(run / name, "rb", opener=_not_through_links) as source:
                left -= _copy(source, run / name, _place(staged, name), _kind(name), left)
        for name in _READERS.keys() & set(names):
            _cut_to_lines(staged / name)
        _check(staged, names, run)
        _write_zip(temporary, staged, names)
    return out


def unpack(file: Path | str, folder: Path | str | None = None) -> Path:
    """Make a run folder of a file that `pack` wrote, completely or not at all, and return its path. Nothing in it runs.

    file: of any origin. folder: must not exist; by default it has the file's name, and is in the current folder.

    Raises CheckpointError when the file is missing, damaged, or holds anything but the files of a run; RenshuError when
    `folder` exists already or cannot be written.
    """
    file = Path(file)
    target = Path(file.name.removesuffix(SUFFIX) if file.name.endswith(SUFFIX) else file.stem)
    target = target if folder is None else Path(folder)
    if os.path.lexists(target):
        raise RenshuError(f"{target} exists already, and unpacking never writes over anything: name another folder")
    with _reading(file), _opened(file) as archive:
        entries = _entries(file, archive)
        with writing(target), tempfile.TemporaryDirectory(prefix=".renshu-unpack-", dir=target.parent) as temporary:
            # A folder in the temporary one, which only its owner may open.
            staged = Path(temporary) / "run"
            # A folder without it would pass for one in which a new run can begin.
            (staged / "checkpoints").mkdir(parents=True)
            left = MOST_BYTES
            for name, entry in entries.items():
                with _reading(file), archive.open(entry) as source:
                    left -= _copy(source, file / name, _place(staged, name), _kind(name), left)
            _check(staged, list(entries), file)
            if os.path.lexists(target):  # a system's rename would replace an empty folder
                raise RenshuError(f"{target} was made by another program meanwhile: name another folder")
            staged.rename(target)
    return target


@dataclass(frozen=True)
class _Kind:
    """Files of one kind: their names in a run folder, the most bytes of one, and a check of (folder, name)."""

    pattern: str
    most: int
    check: Callable[[Path, str], object]


def _check_table(folder: Path, name: str) -> None:
    with open(folder / name, "rb") as file:
        for number, line in enumerate(file, start=1):
            if number > MOST_ROWS or len(line) > MOST_LINE:
                raise CheckpointError(
                    f"line {number} of {folder / name} is one too many or too long: a packed table has at most "
                    f"{MOST_ROWS:,} lines of {MOST_LINE:,} bytes"
                )
    _READERS[name](folder)


def _check_agent(folder: Path, name: str) -> None:
    header = read_header(folder / name)
    if not isinstance(header.get("algorithm"), str):
        raise CheckpointError(f"{folder / name} holds no agent: its header names no algorithm")
    if header.get("memory") == "beside":
        raise CheckpointError(
            f"{folder / name} needs the replay memory beside it, which is too large to pack: pack without checkpoints"
        )


def _check_picture(folder: Path, name: str) -> None:
    suffix = Path(name).suffix
    with open(folder / name, "rb") as file:
        begin = file.read(ENOUGH)
    if suffix_of(begin) != suffix:
        raise CheckpointError(f"{folder / name} is no {suffix} file: it begins with {begin!r}")


# Names that are plain on every system: to Windows con.png is the console, whatever its suffix.
_PLAIN = r"(?!(?i:con|prn|aux|nul|com\d|lpt\d)\.)[A-Za-z0-9_][A-Za-z0-9_ .+=@()-]{0,99}"
_KINDS = (
    _Kind(r"settings\.json", MOST_SETTINGS, lambda folder, _: read_settings(folder)),
    _Kind("|".join(map(re.escape, _READERS)), MOST_TABLE, _check_table),
    _Kind(r"(best|agent|checkpoints/step_[0-9]{1,18})\.safetensors", MOST_BYTES, _check_agent),
    _Kind(rf"{_PLAIN}\.(png|gif|mp4)", MOST_BYTES, _check_picture),
)


def _is_packed(name: str) -> bool:
    return any(re.fullmatch(kind.pattern, name) for kind in _KINDS)


def _kind(name: str) -> _Kind:
    return next(kind for kind in _KINDS if re.fullmatch(kind.pattern, name))


def _check(staged: Path, names: Sequence[str], shown: Path) -> None:
    """Raise CheckpointError where copied files are not those of a run. shown: where they came from, for messages."""
    try:
        for name in names:
            _kind(name).check(staged, name)
    except RenshuError as error:
        raise CheckpointError(str(error).replace(str(staged), str(shown))) from error


def _names_in(run: Run, checkpoints: bool) -> list[str]:
    """List the files of a run folder that are packed. Warns of those that somebody may miss."""
    names, seen = [], {}
    with os.scandir(run.path) as entries:
        for entry in sorted(entries, key=lambda entry: entry.name):
            fits = _is_packed(entry.name)
            if fits and entry.is_symlink():
                warnings.warn(f"left out: {run.path / entry.name} is a link, which is not followed", stacklevel=3)
            elif fits and entry.is_file():
                names.append(entry.name)
            elif not fits and entry.name.lower().endswith(SUFFIXES):
                warnings.warn(
                    f"left out: {entry.name!r} in {run.path}; rename it to English letters, digits and _ - . with a "
                    f"suffix in small letters, one of {', '.join(SUFFIXES)}",
                    stacklevel=3,
                )
    if "settings.json" not in names:
        raise RenshuError(f"settings.json of {run.path} is no plain file: put a copy of it there, and pack again")
    if checkpoints:
        names.append(_newest_checkpoint(run))
    for name in names:
        if (twin := seen.setdefault(name.lower(), name)) != name:
            raise RenshuError(f"{twin} and {name} in {run.path} are one file to some systems: rename one of them")
    if len(names) > MOST_FILES:
        raise RenshuError(
            f"{run.path} has {len(names)} files to pack, at most {MOST_FILES} are: move pictures elsewhere"
        )
    return sorted(names)


def _newest_checkpoint(run: Run) -> str:
    """Return the name of the checkpoint with the most steps. Raises RenshuError where there is none."""
    path = run.latest_checkpoint
    if path is None or path.is_symlink() or path.parent.is_symlink() or not path.is_file():
        raise RenshuError(f"{run.path} has no checkpoint that could be packed: pack it without checkpoints")
    return path.relative_to(run.path).as_posix()


def _not_through_links(path: str, flags: int) -> int:
    return os.open(path, flags | getattr(os, "O_NOFOLLOW", 0))


def _place(folder: Path, name: str) -> Path:
    path = folder / name
    path.parent.mkdir(exist_ok=True)
    return path


def _copy(source: IO[bytes], shown: Path, to: Path, kind: _Kind, left: int) -> int:
    """Copy a file and return its size. shown: where it came from. left: bytes that the run may still have.

    Raises CheckpointError where it is too large.
    """
    with writing(to), open(to, "xb") as target:
        target.writelines(_chunks(source, shown, kind, left))
    return to.stat().st_size


def _chunks(source: IO[bytes], shown: Path, kind: _Kind, left: int) -> Iterator[bytes]:
    size = 0
    with _reading(shown):
        while chunk := source.read(_CHUNK):
            size += len(chunk)  # counted, since a zip's header may lie
            if size > min(kind.most, left):
                raise CheckpointError(
                    f"{shown} is too large: it may have {kind.most / 2**20:,.0f} MiB, and all files of a packed run "
                    f"together {MOST_BYTES / 2**20:,.0f} MiB. Move what is large out of the run folder, and pack again"
                )
            yield chunk


def _cut_to_lines(path: Path) -> None:
    """Cut off a last line that a training has written only a part of."""
    content = path.read_bytes()
    os.truncate(path, content.rfind(b"\n") + 1)


def _write_zip(path: Path, folder: Path, names: Sequence[str]) -> None:
    with zipfile.ZipFile(path, "w") as archive:
        for name in names:
            info = zipfile.ZipInfo(name, _DATE)
            info.compress_type, info.create_system, info.external_attr = zipfile.ZIP_DEFLATED, 3, 0o644 << 16
            with open(folder / name, "rb") as source, archive.open(info, "w") as target:
                while chunk := source.read(_CHUNK):
                    target.write(chunk)


@contextmanager
def _reading(path: Path) -> Iterator[None]:
    """Turn whatever goes wrong while `path` is read into a CheckpointError that names it."""
    try:
        yield
    except RenshuError:
        raise
    except OSError as error:
        raise CheckpointError(f"cannot read {path}: {error.strerror or error}") from error
    # Malicious bytes can raise nearly anything: zlib.error, EOFError, NotImplementedError, UnicodeDecodeError.
    except Exception as error:
        raise _refused(path, f"{type(error).__name__}: {error}") from error


@contextmanager
def _opened(file: Path) -> Iterator[zipfile.ZipFile]:
    """Open a zip for reading, unless its end shows that it is another file or has a large table of contents."""
    with open(file, "rb") as handle:
        size = os.fstat(handle.fileno()).st_size
        if handle.read(4) != b"PK\x03\x04":
            raise _refused(file, "it does not begin as a zip with files in it does")
        handle.seek(max(0, size - _LOCATOR_BYTES - _END.size))
        tail = handle.read()
        if len(tail) < _LOCATOR_BYTES + _END.size:
            raise _refused(file, "it is cut short")
        signature, contents, comment = _END.unpack(tail[_LOCATOR_BYTES:])
        # With a comment, or the locator of a second end, zipfile would look for a table of contents elsewhere.
        if signature != b"PK\x05\x06" or comment or tail.startswith(b"PK\x06\x07"):
            raise _refused(file, "it was cut short, or something was added at its end")
        if contents > MOST_FILES * 512:  # zipfile reads it all before anyone can count
            raise _refused(file, f"it lists more than {MOST_FILES} files, or such with long names")
        with zipfile.ZipFile(handle) as archive:
            yield archive


def _entries(file: Path, archive: zipfile.ZipFile) -> Mapping[str, zipfile.ZipInfo]:
    """Return the entries of a zip by name. Raises CheckpointError unless each is a plain file that a run has."""
    found: dict[str, zipfile.ZipInfo] = {}
    for entry in archive.infolist():
        name = entry.orig_filename  # ZipInfo.filename ends at a zero byte, and has other slashes on Windows
        if not _is_packed(name):
            raise _refused(file, f"it holds {reprlib.repr(name)}, and a packed run has only {_CONTENTS}")
        if name.lower() in found:
            raise _refused(file, f"it holds {name} twice")
        if stat.S_IFMT(entry.external_attr >> 16) not in (0, stat.S_IFREG):
            raise _refused(file, f"{name} in it is a link or another thing that is no plain file")
        if entry.flag_bits & 1:
            raise _refused(file, f"{name} in it is encrypted")
        # The other methods of zipfile unpack a chunk whole, however large it gets.
        if entry.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
            raise _refused(file, f"{name} in it is compressed by method {entry.compress_type}, not 0 or 8")
        found[name.lower()] = entry
    if "settings.json" not in found:
        raise _refused(file, "it holds no settings.json")
    if len(found) > MOST_FILES:
        raise _refused(file, f"it holds {len(found)} files, more than {MOST_FILES}")
    return {entry.orig_filename: entry for entry in found.values()}


def _refused(file: Path, reason: str) -> CheckpointError:
    return CheckpointError(
        f"{file} is no packed run, or it was damaged or changed: {reason}. Use another copy of what renshu pack wrote"
    )
