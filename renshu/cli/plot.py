"""The command `renshu plot`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def plot(
    runs: Annotated[list[Path], typer.Argument(help="run folders")],
    out: Annotated[
        Path | None, typer.Option(help="the picture; by default curve.png in the run, or curves.png")
    ] = None,
    window: Annotated[
        int | None,
        typer.Option(help="episodes of the moving average; by default those of 10,000 steps, 20 to 100", min=1),
    ] = None,
) -> None:
    """Draw the learning curves of one run, or of several on one picture."""
    from renshu.tracking.curves import plot_runs
    from renshu.tracking.run import Run

    target = out or (Run.open(runs[0]).curve_path if len(runs) == 1 else Path("curves.png"))
    plot_runs(runs, target, window=window)
    print(f"curve        {target}")
