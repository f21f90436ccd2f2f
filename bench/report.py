"""Tables on the terminal and in docs/benchmarks/, with the machine they were measured on."""

from __future__ import annotations

import datetime
import subprocess
from collections.abc import Sequence
from pathlib import Path

from renshu.tracking.provenance import machine, versions

DOCS = Path(__file__).parent.parent / "docs" / "benchmarks"


def table(header: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    """Format a Markdown table."""
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join("| " + " | ".join(str(cell) for cell in line) + " |" for line in lines)


def measured_on() -> str:
    """Describe machine, versions and day in one line."""
    here, packages = machine(), versions()
    return (
        f"Measured on {datetime.date.today()}: {here['processor']}, {here['cpus']} cores, "
        f"Python {packages['python']}, jax {packages['jax']}, gymnasium {packages['gymnasium']}."
    )


def publish(name: str, title: str, command: str, body: str, measured: str | None = None) -> None:
    """Print the figures and write them to docs/benchmarks/NAME.md. measured: where and when, if not here and now."""
    text = f"# {title}\n\n{measured or measured_on()} Command: `{command}`.\n\n{body}\n"
    DOCS.mkdir(parents=True, exist_ok=True)
    (DOCS / f"{name}.md").write_text(text, encoding="utf-8")
    print(f"\n{text}\nwritten to docs/benchmarks/{name}.md")


def revision() -> str:
    """Name the measured commit, and whether the library differs from it: parts may be measured on different days."""
    root = Path(__file__).parent.parent
    commit = subprocess.run(["git", "rev-parse", "--short", "HEAD"], cwd=root, capture_output=True, text=True)
    changed = subprocess.run(["git", "diff", "--quiet", "HEAD", "--", "renshu"], cwd=root)
    return (commit.stdout.strip() or "no git") + (" with changes" if changed.returncode else "")
