"""Tables of numbers in csv files, which survive a crash in the middle of a line."""

from __future__ import annotations

import csv
import io
import math
import os
import reprlib
import warnings
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import TextIO

import numpy as np

from renshu.errors import CheckpointError
from renshu.tracking.provenance import write_atomically, writing


class Table:
    """A csv file of numbers that grows by rows; the first column is `step`.

    A line without its newline was cut short by a crash, and is dropped at the next append. Rows are buffered until
    `flush` or `close`; an append after `close` opens the file again.
    Writing raises RenshuError, naming path and reason; a damaged line raises CheckpointError.
    """

    def __init__(self, path: Path, columns: Iterable[str]):
        self.path = path
        self.columns = list(columns)
        self._own = tuple(self.columns)
        self._file: TextIO | None = None
        self._empty = True

    def append(self, rows: Iterable[Sequence[float]]) -> None:
        """Add rows, each with a number for every one of `columns`."""
        file = self._open()
        with writing(self.path):
            if self._empty:
                file.write(_csv_line(self.columns))
                self._empty = False
            csv.writer(file, lineterminator="\n").writerows(rows)

    def add_columns(self, names: Iterable[str]) -> None:
        """Add the columns that are new. Earlier rows read as NaN there."""
        self._open()
        if new := [name for name in names if name not in self.columns]:
            self.columns += new
            if not self._empty:
                self.close()
                write_atomically(self.path, self._widened(len(new)))

    def truncate(self, step: int) -> None:
        """Drop the rows beyond `step`, atomically."""
        self.close()
        if self.path.exists():
            write_atomically(self.path, self._until(step))

    def tail(self, n: int) -> list[list[float]]:
        """Read the last `n` rows."""
        if not self.path.exists():
            return []
        with open(self.path, "rb") as file:
            lines = deque(islice(file, 1, None), maxlen=n)
        return [[float(field) for field in line.split(b",")] for line in lines]

    def flush(self) -> None:
        """Write the buffered rows."""
        if self._file is not None:
            with writing(self.path):
                self._file.flush()

    def close(self) -> None:
        """Write the buffered rows and close the file."""
        file, self._file = self._file, None
        if file is not None:
            with writing(self.path):
                file.close()

    def _open(self) -> TextIO:
        if self._file is None:
            with writing(self.path):
                self._empty = not _cut_to_lines(self.path)
                if not self._empty:
                    with open(self.path, encoding="utf-8", errors="replace", newline="") as file:
                        self.columns = _header(self.path, file.readline(), self._own)
                self._file = open(self.path, "a", encoding="utf-8", newline="", buffering=1 << 16)  # noqa: SIM115
        return self._file

    def _widened(self, extra: int) -> Iterator[bytes]:
        with open(self.path, "rb") as file:
            next(file)
            yield _csv_line(self.columns).encode()
            for line in file:
                yield line[:-1] + b",nan" * extra + b"\n"

    def _until(self, step: int) -> Iterator[bytes]:
        with open(self.path, "rb") as file:
            header = next(file, b"")
            if not header.endswith(b"\n"):
                return
            yield header
            width = len(_header(self.path, header.decode("utf-8", "replace"), self._own))
            for number, line in enumerate(file, start=2):
                if not line.endswith(b"\n"):
                    return
                row = _numbers(line)
                if len(row) != width or not math.isfinite(row[0]):
                    raise _damaged(self.path, number, line, width)
                if row[0] <= step:
                    yield line


def read_table(file: Path, columns: Sequence[str], *, integers: Sequence[str]) -> dict[str, np.ndarray]:
    """Read a table of numbers, by the names of its columns; a last line that a crash cut short is left out.

    columns: that it begins with. integers: those of them that are returned as int64, the others are float64.
    Raises CheckpointError, naming file and line, for what `Table` did not write.
    """
    try:
        data = file.read_bytes() if file.exists() else b""
    except OSError as error:
        raise CheckpointError(f"cannot read {file}: {error}") from error
    lines = data.split(b"\n")[:-1]
    names = _header(file, lines[0].decode("utf-8", "replace"), columns) if lines else list(columns)
    rows = np.zeros((0, len(names)))
    if len(lines) > 1:
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("error")  # of lines that are all empty
                rows = np.loadtxt(lines[1:], delimiter=",", comments=None, ndmin=2, encoding="utf-8")
        except (ValueError, UserWarning):
            rows = rows[:0]  # the search below says which line it was
    exact = [names.index(name) for name in integers]
    whole = rows[:, exact] if rows.shape[1] == len(names) else rows[:0]
    if rows.shape != (max(0, len(lines) - 1), len(names)) or not (np.abs(whole) < 2**53).all():
        raise _first_fault(file, lines, len(names), exact)
    table = dict(zip(names, rows.T, strict=True))
    return {key: column.astype(np.int64) if key in integers else column for key, column in table.items()}


def _header(file: Path, line: str, columns: Sequence[str]) -> list[str]:
    """Return the names in the first line of a table. Raises CheckpointError where they are not its own."""
    try:
        names = next(csv.reader([line.rstrip("\r\n")]), [])
    except csv.Error:
        names = []  # none of a table's
    # Metrics grow by columns; the other tables have those that they have.
    own = names[: len(columns)] if len(columns) == 1 else names
    if own != list(columns) or len(set(names)) < len(names):
        more = ", ..." if len(columns) == 1 else ""
        raise CheckpointError(
            f"line 1 of {file} does not name the columns {','.join(columns)}{more}: {reprlib.repr(line)}. The file was "
            "changed or damaged: put that line back, or delete the file"
        )
    return names


def _numbers(line: bytes) -> list[float]:
    try:
        return [float(field) for field in line.split(b",")]
    except ValueError:
        return []


def _damaged(file: Path, number: int, line: bytes, width: int) -> CheckpointError:
    return CheckpointError(
        f"line {number} of {file} is not a row of {width} numbers: {line[:60]!r}. "
        "The file was changed or damaged: fix or delete that line."
    )


def _first_fault(file: Path, lines: list[bytes], width: int, whole: Sequence[int]) -> CheckpointError:
    """Find the first line of a table that is not a row of it. whole: the columns of whole numbers."""
    for number, line in enumerate(lines[1:], start=2):
        row = _numbers(line)
        if len(row) != width or not all(abs(row[i]) < 2**53 for i in whole):
            return _damaged(file, number, line, width)
    return CheckpointError(f"{file} was changed or damaged: it does not read as rows of {width} numbers")


def _cut_to_lines(path: Path) -> int:
    """Cut off a last line that a crash left without its end; return the size of the file, 0 if it is missing."""
    if not path.exists():
        return 0
    with open(path, "r+b") as file:
        size = file.seek(0, os.SEEK_END)
        start = file.seek(max(0, size - (1 << 16)))
        end = start + file.read(size - start).rfind(b"\n") + 1
        if end < size:
            file.truncate(end)
    return end


def _csv_line(fields: Sequence[str]) -> str:
    line = io.StringIO()
    csv.writer(line, lineterminator="\n").writerow(fields)
    return line.getvalue()
