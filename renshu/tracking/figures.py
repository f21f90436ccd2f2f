"""Common parts of all plots of learning curves: size, colours, labels, and the PNG file."""

from __future__ import annotations

import io
import textwrap
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from renshu.tracking.provenance import write_atomically

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

COLOURS = ("#2563c9", "#d9542b", "#2a9161", "#8455c6", "#c98a00", "#0f98ad", "#c93d78", "#667085")
INK = "#344054"
"""Colour of text, and of lines that are not curves."""

_DASHES = ("-", "--", ":", "-.")
_GRID, _FRAME = "#e4e7ec", "#98a2b3"
_MAX_POINTS = 2000
_LETTERS = 78


def new_figure() -> tuple[Figure, Axes]:
    """Make an empty figure of 1200 x 675 pixels."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 4.5), layout="constrained")
    FigureCanvasAgg(figure)
    return figure, figure.add_subplot()


def save_figure(figure: Figure, path: Path) -> None:
    """Write a figure to the PNG file `path` atomically. Raises RenshuError when that is not possible."""
    picture = io.BytesIO()
    figure.savefig(picture, format="png", dpi=150)
    write_atomically(path, [picture.getvalue()])


def colour_and_dashes(number: int) -> tuple[str, str]:
    """Return the colour and dashes of the curve with that number among several; the first 24 all differ.

    From the fourth on dashes help those to whom blue and violet, or orange and ochre, are one colour.
    """
    return COLOURS[number % len(COLOURS)], _DASHES[number // 3 % len(_DASHES)]


def lone_marker(step: np.ndarray) -> str | None:
    """Return the marker that makes a line of a single point visible; None for any other line."""
    return "o" if step.size == 1 else None


def thinned(size: int) -> np.ndarray:
    """Choose at most 2,000 evenly spaced indices below `size`, both ends included: a plotted line shows no more."""
    return np.unique(np.linspace(0, max(size - 1, 0), min(size, _MAX_POINTS)).astype(np.int64))


def say_empty(axes: Axes) -> None:
    """Say that there is nothing to draw yet."""
    axes.text(0.5, 0.5, "no finished episode yet", transform=axes.transAxes, ha="center", color=INK, size=12)
    axes.set(xticks=[], yticks=[])


def wrapped(title: str) -> str:
    """Break a title into at most two lines that a figure is wide enough for; what is longer ends with dots."""
    return "\n".join(textwrap.wrap(title, _LETTERS, max_lines=2, placeholder=" ...", break_on_hyphens=False))


def finish_axes(figure: Figure, axes: Axes, title: str, ylabel: str = "return", *, legend_inside: bool = False) -> None:
    """Give axes over environment steps their title, labels, grid and legend, after the curves are drawn.

    legend_inside: of a panel among others; otherwise it is below, where it can never cover a curve.
    """
    from matplotlib.ticker import EngFormatter, FuncFormatter

    # A name may hold a dollar sign, which would otherwise begin a formula.
    axes.set_title(wrapped(title), loc="left", size=12, weight="bold", color=INK, pad=10, parse_math=False)
    axes.set_xlabel("environment steps", color=INK)
    axes.set_ylabel(ylabel, color=INK)
    axes.xaxis.set_major_formatter(EngFormatter(sep=""))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.10g}"))
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color(_FRAME)
    axes.tick_params(colors=INK, labelsize=9, length=3)
    axes.grid(color=_GRID, linewidth=0.8)
    axes.set_axisbelow(True)
    axes.set_xlim(left=0)
    handles, labels = axes.get_legend_handles_labels()
    if handles:
        columns = 4 if max(map(len, labels)) <= 24 else 2
        if legend_inside:
            legend = axes.legend(handles, labels, loc="best", frameon=False, fontsize=9)
        else:
            place = "outside lower center"
            legend = figure.legend(handles, labels, loc=place, ncols=columns, frameon=False, fontsize=9)
        for handle, text in zip(legend.legend_handles, legend.get_texts(), strict=True):
            if handle is not None:
                handle.set_alpha(1)
            text.set_color(INK)
            text.set_parse_math(False)
