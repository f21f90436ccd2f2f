"""Picture of a population-based training."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from renshu.tracking.figures import COLOURS, finish_axes, new_figure, save_figure

if TYPE_CHECKING:
    from renshu.experiments.pbt import PBT

FAINT = "#b8c0cc"


def draw(found: PBT, path: Path) -> Path:
    """Draw returns and hyperparameters against steps, a panel each, 1200 pixels wide."""
    figure, axes = new_figure()
    figure.clear()
    count = 1 + len(found.values)
    figure.set_size_inches(8, 2.6 * count)
    panels = np.atleast_1d(figure.subplots(count, sharex=True))
    line, k = found.lineage(), np.arange(len(found.scores))
    for number, (axes, name) in enumerate(zip(panels, ["return", *found.values], strict=True)):
        numbers = found.scores if name == "return" else found.values[name]
        axes.plot(found.steps, numbers, color=FAINT, linewidth=0.8)
        axes.plot(found.steps[k, line], numbers[k, line], color=COLOURS[number % len(COLOURS)], linewidth=2)
        finish_axes(figure, axes, f"{found.title}; in colour the best and its past" if number == 0 else "", name)
        if name != "return" and (numbers > 0).all():
            axes.set_yscale("log")
        if number < count - 1:
            axes.set_xlabel("")
    save_figure(figure, path)
    return path
