"""Tables on the terminal and in docs/benchmarks/, with the machine they were measured on."""

from __future__ import annotations

import datetime
from collections.abc import Sequence
from pathlib import Path

from renshu.tracking.provenance import machine, versions

DOCS = Path(__file__).parent.parent / "docs" / "benchmarks"


def table(header: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    """A Markdown table."""
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join("| " + " | ".join(str(cell) for cell in line) + " |" for line in lines)


def measured_on() -> str:
    """One line: machine, versions, day."""
    here, packages = machine(), versions()
    return (
        f"Measured on {datetime.date.today()}: {here['processor']}, {here['cpus']} cores, "
        f"Python {packages['python']}, jax {packages['jax']}, gymnasium {packages['gymnasium']}."
    )


def publish(name: str, title: str, command: str, body: str) -> None:
    """Print the figures and write them to docs/benchmarks/NAME.md."""
    text = f"# {title}\n\n{measured_on()} Command: `{command}`.\n\n{body}\n"
    DOCS.mkdir(parents=True, exist_ok=True)
    (DOCS / f"{name}.md").write_text(text, encoding="utf-8")
    print(f"\n{text}\nwritten to docs/benchmarks/{name}.md")
