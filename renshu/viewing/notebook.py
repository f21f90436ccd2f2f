"""Results as notebooks show them: tables, and pictures beside them."""

from __future__ import annotations

import base64
import io
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any


def html_of(table: Any, draw: Callable[[Path], Any] | None = None) -> str:
    """Make HTML of a table of rich and of a picture. draw: writes it to the PNG file that it is given."""
    from rich.console import Console

    console = Console(record=True, width=100, file=io.StringIO())
    console.print(table)
    page = console.export_html(inline_styles=True, code_format='<pre style="line-height: 1.2">{code}</pre>')
    if draw is None:
        return page
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "picture.png"
        draw(path)
        content = base64.b64encode(path.read_bytes()).decode()
    return (
        f'{page}<img alt="learning curves" style="max-width: 100%; width: 720px" src="data:image/png;base64,{content}">'
    )
