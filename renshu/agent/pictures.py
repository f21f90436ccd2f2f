"""Pictures that an algorithm has to show of what it has learned."""

from __future__ import annotations

from pathlib import Path

from renshu.agent.trainer import Trainer
from renshu.tracking.figures import COLOURS, INK, new_figure, save_figure


def save_pictures(trainer: Trainer, folder: Path) -> list[Path]:
    """Draw them to NAME.png each; see `Agent.pictures`."""
    from matplotlib.text import Text

    paths = []
    for name, draw in trainer.learner.pictures(trainer.held).items():
        figure, axes = new_figure()
        draw(axes, COLOURS)
        axes.set_title(axes.get_title(), loc="left", size=12, weight="bold")
        axes.set_title("")
        for text in axes.findobj(Text):
            text.set_color(INK)
        axes.spines[["top", "right"]].set_visible(False)
        paths.append(folder / f"{name}.png")
        save_figure(figure, paths[-1])
    return paths
