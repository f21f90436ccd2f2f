"""Results as notebooks show them: tables, pictures beside them, and a bar while one waits."""

from __future__ import annotations

import base64
import html
import io
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

_EVERY = 0.2
"""Seconds between two drawings of a bar."""
_LARGEST = 20 << 20
"""Bytes of a file that is put into a notebook."""
_FORMS = {".mp4": ("video/mp4", "video"), ".gif": ("image/gif", "img"), ".png": ("image/png", "img")}


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


class Shown(type(Path())):
    """A path which a notebook shows as the picture or video that it leads to; everywhere else it is a path."""

    def _repr_html_(self) -> str | None:
        form = _FORMS.get(self.suffix.lower())
        if form is None or not self.is_file() or self.stat().st_size > _LARGEST:
            return None
        kind, tag = form
        address = f"data:{kind};base64,{base64.b64encode(self.read_bytes()).decode()}"
        options = "controls loop muted" if tag == "video" else f'alt="{html.escape(self.name)}"'
        return f'<{tag} {options} style="max-width: 100%" src="{address}"></{tag}>'.replace("</img>", "")


def in_notebook() -> bool:
    """Tell whether what is displayed is shown by a kernel of Jupyter, which is not a terminal but draws HTML."""
    ipython = sys.modules.get("IPython")
    shell = ipython.get_ipython() if ipython is not None else None
    return getattr(shell, "kernel", None) is not None


class Bar:
    """A bar in a notebook: title, steps, speed, returns, and the time left. One output, replaced as it moves."""

    def __init__(self, title: str, total: int, completed: int) -> None:
        self._title, self._total, self._first, self._began = title, total, completed, time.monotonic()
        self._output: Any = None
        self._next = 0.0
        self.show(completed, "compiling", "")

    def show(self, completed: int, speed: str, returns: str) -> None:
        """Move the bar."""
        from IPython.display import HTML, display

        now = time.monotonic()
        if now < self._next and completed < self._total:
            return
        self._next = now + _EVERY
        words = [f"{completed:,}/{self._total:,} steps", speed, returns, self._left(completed)]
        text = html.escape(" · ".join(word for word in words if word))
        page = f'<progress value="{completed}" max="{self._total}"></progress> <b>{html.escape(self._title)}</b> {text}'
        if self._output is None:
            self._output = display(HTML(page), display_id=True)
        else:
            self._output.update(HTML(page))

    def stop(self) -> None:
        """Leave the bar as it is."""

    def _left(self, completed: int) -> str:
        done = completed - self._first
        if not done:
            return ""
        seconds = round((time.monotonic() - self._began) * (self._total - completed) / done)
        minutes, seconds = divmod(seconds, 60)
        hours, minutes = divmod(minutes, 60)
        return f"{hours}:{minutes:02}:{seconds:02} left" if completed < self._total else ""
