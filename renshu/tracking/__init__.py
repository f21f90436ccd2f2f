"""The run folder: settings and measurements of one training run, and plots of them."""

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
