"""Pictures and videos in the folders of runs, told apart by how their files begin."""

from __future__ import annotations

ENOUGH = 12
"""Bytes from the beginning of a file that tell what it is."""
_BEGINNINGS = {".png": (b"\x89PNG\r\n\x1a\n", 0), ".gif": (b"GIF8", 0), ".mp4": (b"ftyp", 4)}
SUFFIXES = tuple(_BEGINNINGS)


def suffix_of(first: bytes) -> str | None:
    """Return the suffix, one of SUFFIXES, that a file should have by its first bytes; None for another kind of file."""
    for suffix, (beginning, at) in _BEGINNINGS.items():
        if first[at:].startswith(beginning):
            return suffix
    return None
