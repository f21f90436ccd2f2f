"""The run folder: what one training run was, what it measured, and pictures of it."""

from renshu.tracking.curves import moving_average, plot_runs, read_episodes, read_evaluations, read_metrics
from renshu.tracking.provenance import git_state, machine, versions
from renshu.tracking.run import Run

__all__ = [
    "Run",
    "git_state",
    "machine",
    "moving_average",
    "plot_runs",
    "read_episodes",
    "read_evaluations",
    "read_metrics",
    "versions",
]
