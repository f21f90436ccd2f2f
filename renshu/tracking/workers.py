"""The table of a cluster's workers in a run folder: workers.json, replaced while training goes on."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from renshu.files.replacing import replacing
from renshu.tracking.provenance import writing

COLUMNS = ("worker", "host", "pid", "steps", "steps_per_second", "collecting", "lag", "lost", "last_fault")


def write_workers(folder: Path, rows: Sequence[dict[str, Any]], account: dict[str, float]) -> None:
    """Write the table. rows: one for each worker, with COLUMNS as keys. account: numbers of rollouts and steps.

    Raises RenshuError where that is not possible.
    """
    path = folder / "workers.json"
    with writing(path), replacing(path) as temporary:
        temporary.write_text(json.dumps({"time": time.time(), "account": account, "workers": list(rows)}))


def read_workers(folder: Path) -> dict[str, Any] | None:
    """Read the table: "time" in seconds since 1970, "account" and "workers"; None where there is none."""
    path = folder / "workers.json"
    try:
        found = json.loads(path.read_text())
    except (OSError, ValueError):
        return None
    whole = (
        isinstance(found, dict) and isinstance(found.get("workers"), list) and isinstance(found.get("account"), dict)
    )
    return found if whole else None
