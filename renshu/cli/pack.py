"""The commands `renshu pack` and `renshu unpack`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def pack(
    run: Annotated[Path, typer.Argument(help="run folder")],
    out: Annotated[
        Path | None, typer.Option(help="the file, NAME.renshu.zip; by default named as the run, in this folder")
    ] = None,
    checkpoints: Annotated[
        bool, typer.Option("--checkpoints", help="with the newest checkpoint, to go on training from")
    ] = False,
) -> None:
    """Make one file of a run, for another person's board."""
    from renshu.tracking.packing import pack

    file = pack(run, out, checkpoints=checkpoints)
    print(f"packed       {file} ({file.stat().st_size / 1e6:,.1f} MB)")


def unpack(
    file: Annotated[Path, typer.Argument(help="what renshu pack wrote")],
    to: Annotated[Path | None, typer.Option(help="the new run folder; by default named as the file, here")] = None,
) -> None:
    """Make a run folder of a packed run. The file is checked first, and nothing in it can run."""
    from renshu.tracking.packing import unpack

    print(f"run folder   {unpack(file, to)}")
