"""Accounts of the cluster loop: whereabouts of every rollout, and what is known of each actor."""

from __future__ import annotations

from dataclasses import dataclass, field
from time import perf_counter
from typing import Any

from renshu.loops.report import Clock, Episodes


@dataclass
class Account:
    """Whereabouts of all rollouts that were asked for: `requested = learned + stale + lost + in_flight`."""

    requested: int = 0
    learned: int = 0
    stale: int = 0
    lost: int = 0
    steps_learned: int = 0
    steps_stale: int = 0

    @property
    def in_flight(self) -> int:
        """Rollouts that were asked for and are nowhere else yet."""
        return self.requested - self.learned - self.stale - self.lost

    def metrics(self) -> dict[str, float]:
        """Return the numbers by the names of metrics."""
        return {f"cluster/{name}": float(x) for name, x in {**vars(self), "in_flight": self.in_flight}.items()}


@dataclass
class Group:
    """Environments of one actor, as the learner knows them."""

    episodes: Episodes
    asked: int = 0  # rollouts
    waiting: int = 0  # of these, for an answer
    follows: int = -1  # number of the rollout that goes on where the last one that was learned from ended
    faults: int = 0  # in a row
    lost: int = 0
    last_fault: str = ""
    place: tuple[str, int] | None = None
    leaving: bool = False
    steps: int = 0
    lag: int = 0
    began: float = field(default_factory=perf_counter)

    def row(self, number: int) -> dict[str, Any]:
        """Describe the worker for the table of workers."""
        host, pid = self.place or ("", 0)
        return {
            "worker": number,
            "host": host,
            "pid": pid,
            "steps": self.steps,
            "steps_per_second": self.steps / (perf_counter() - self.began),
            "lag": self.lag,
            "lost": self.lost,
            "last_fault": self.last_fault,
        }


@dataclass
class ClusterClock(Clock):
    """Seconds spent: waiting for rollouts (`env`), learning, publishing, and the whole."""

    publish: float = 0.0

    def reset(self) -> None:
        """Start again from zero."""
        super().reset()
        self.publish = 0.0

    def shares(self) -> dict[str, float]:
        """Return fractions of the whole; `rest` is Renshu's own bookkeeping."""
        whole = self.total or 1.0
        parts = {"wait": self.env / whole, "learn": self.learn / whole, "publish": self.publish / whole}
        return {**parts, "rest": 1.0 - sum(parts.values())}
