"""Evaluations as rows of tables, and the table of those that were made after the training: scores.csv."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from renshu.errors import RenshuError
from renshu.tracking.curves import EVALUATIONS
from renshu.tracking.provenance import read_settings
from renshu.tracking.tables import Table

if TYPE_CHECKING:
    from numpy.typing import ArrayLike


def evaluation_row(step: int, returns: ArrayLike, lengths: ArrayLike) -> list[float]:
    """Make a row of the table of evaluations: step, mean, std (divisor E), min, max, mean length, E.

    step: of the training. returns: [E] sums of raw rewards. lengths: [E] steps.
    Raises RenshuError when the two are not of one length, 1 or more.
    """
    scores, steps = np.asarray(returns, np.float64), np.asarray(lengths, np.float64)
    if scores.ndim != 1 or scores.shape != steps.shape or not scores.size:
        raise RenshuError(
            "an evaluation wants the returns and lengths of one or more episodes, "
            f"got the shapes {scores.shape} and {steps.shape}."
        )
    with np.errstate(invalid="ignore"):
        numbers = [function(scores).item() for function in (np.mean, np.std, np.min, np.max)]
    return [int(step), *numbers, steps.mean().item(), scores.size]


def note_score(run: Path | str, step: int, returns: ArrayLike, lengths: ArrayLike) -> Path:
    """Add an evaluation of greedy episodes to scores.csv in the folder of a run, and return that file.

    Raises UnknownNameError when the folder holds no run, RenshuError as `evaluation_row` and when it cannot be written.
    """
    read_settings(run)
    path = Path(run) / "scores.csv"
    table = Table(path, EVALUATIONS)
    try:
        table.append([evaluation_row(step, returns, lengths)])
    finally:
        table.close()
    return path
