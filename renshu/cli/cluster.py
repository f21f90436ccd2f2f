"""The command `renshu cluster`."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from rich.console import RenderableType


def cluster(
    run: Annotated[Path | None, typer.Argument(help="run folder of a training: a table of its workers")] = None,
    address: Annotated[str | None, typer.Option(help="of a Ray cluster; by default the one that runs here")] = None,
    once: Annotated[bool, typer.Option("--once", help="show the table as it is, and do not follow it")] = False,
) -> None:
    """Show the machines of a Ray cluster, or the workers of a training, live."""
    from rich.console import Console

    console = Console()
    if run is None:
        console.print(machines(address or "auto"))
        return
    from renshu.errors import UnknownNameError
    from renshu.tracking.run import Run
    from renshu.tracking.workers import read_workers

    path = Run.open(run).path
    if read_workers(path) is None:
        raise UnknownNameError(
            f"{path} has no workers: it was not trained by a cluster, as renshu train ... --workers 4"
        )
    if once or not console.is_terminal:
        console.print(workers(path))
        return
    from rich.live import Live

    with Live(workers(path), console=console, refresh_per_second=2) as live:
        while True:
            time.sleep(0.5)
            live.update(workers(path))


def machines(address: str) -> RenderableType:
    """Make a table of the nodes of a Ray cluster. Raises HyperparameterError where none answers."""
    from renshu.loops.ray_actors import session

    rows = []
    with session(address, 0) as ray:
        for node in ray.nodes():
            has, state = node["Resources"], "alive" if node["Alive"] else "dead"
            place = [node["NodeManagerHostname"], node["NodeManagerAddress"], state]
            numbers = [f"{has.get(name, 0):g}" for name in ("CPU", "GPU")]
            rows.append([*place, *numbers, f"{has.get('memory', 0) / 2**30:.1f} GiB"])
    return _table(["machine", "address", "state", "CPUs", "GPUs", "memory"], rows)


def workers(path: Path) -> RenderableType:
    """Make a table of the workers of a run."""
    from rich.console import Group
    from rich.text import Text

    from renshu.tracking.workers import read_workers

    found = read_workers(path) or {"time": 0.0, "account": {}, "workers": []}
    rows = [
        [
            str(row.get("worker")),
            f"{row.get('host')}:{row.get('pid')}",
            f"{row.get('steps', 0):,}",
            f"{row.get('steps_per_second', 0):,.0f}",
            f"{row.get('collecting', 0):.0%}",
            str(row.get("lag")),
            str(row.get("lost")),
            str(row.get("last_fault") or ""),
        ]
        for row in found["workers"]
    ]
    account = {name.removeprefix("cluster/"): number for name, number in found["account"].items()}
    numbers = ", ".join(f"{name.replace('_', ' ')} {number:,.0f}" for name, number in account.items())
    age = Text(f"{numbers}\n{time.time() - found['time']:.0f} s ago", style="dim")
    return Group(
        _table(["worker", "process", "steps", "steps/s", "collecting", "lag", "lost", "last fault"], rows), age
    )


def _table(header: list[str], rows: list[list[Any]]) -> RenderableType:
    from rich.table import Table

    table = Table(box=None, pad_edge=False)
    for name in header:
        table.add_column(name, justify="left" if name in ("machine", "process", "last fault", "address") else "right")
    for row in rows:
        table.add_row(*row)
    return table
