"""Files of a run that the board hands out: pictures and videos, nothing else, and none that a link leads to."""

from __future__ import annotations

from pathlib import Path

from renshu.board.catalogue import regular
from renshu.tracking.pictures import ENOUGH, suffix_of

TYPES = {".png": "image/png", ".gif": "image/gif", ".mp4": "video/mp4"}
"""Endings of files that are handed out, and as what."""
_MOST = 24


def videos(run: Path) -> list[str]:
    """List the names of the pictures and videos in a run's folder, at most 24, videos first.

    The learning curve is left out: the page draws it.
    """
    try:
        names = sorted(path.name for path in run.iterdir() if path.suffix in TYPES and path.name != "curve.png")
    except OSError:
        return []
    found = [name for name in names if media(run, name) is not None]
    return sorted(found, key=lambda name: not name.endswith(".mp4"))[:_MOST]


def media(run: Path, name: str) -> Path | None:
    """Find a picture or video in a run's folder; None for anything else, for a link, and for what only has its name."""
    path = run / name
    if path.parent != run or path.name != name or path.suffix not in TYPES or not regular(path):
        return None
    try:
        with open(path, "rb") as file:
            first = file.read(ENOUGH)
    except OSError:
        return None
    return path if suffix_of(first) == path.suffix else None
