"""Accounts of the cluster loop: whereabouts of every rollout, and what is known of each actor."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
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
    collecting: float = 0.0  # seconds of the actor
    began: float = field(default_factory=perf_counter)

    def row(self, number: int) -> dict[str, Any]:
        """Describe the worker for the table of workers."""
        host, pid = self.place or ("", 0)
        seconds = perf_counter() - self.began
        return {
            "worker": number,
            "host": host,
            "pid": pid,
            "steps": self.steps,
            "steps_per_second": self.steps / seconds,
            "collecting": self.collecting / seconds,
            "lag": self.lag,
            "lost": self.lost,
            "last_fault": self.last_fault,
        }


@dataclass
class ClusterClock(Clock):
    """Seconds spent: waiting for rollouts (`env`), bringing them here, learning, publishing, and the whole.

    Each second is in one part alone: a part within another one is taken out of the outer.
    """

    transfer: float = 0.0
    publish: float = 0.0

    def reset(self) -> None:
        """Start again from zero."""
        super().reset()
        self.transfer = self.publish = 0.0

    @contextmanager
    def timed(self, part: str) -> Iterator[None]:
        """Enter a block whose seconds belong to a part, but for those of parts within it."""
        began, inner = perf_counter(), self.counted
        yield
        self.add(part, perf_counter() - began - (self.counted - inner))

    def add(self, part: str, seconds: float) -> None:
        """Add seconds to a part."""
        setattr(self, part, getattr(self, part) + seconds)

    @property
    def counted(self) -> float:
        """Seconds in all parts."""
        return self.env + self.transfer + self.learn + self.publish

    def shares(self) -> dict[str, float]:
        """Return fractions of the whole; `rest` is Renshu's own bookkeeping."""
        whole = self.total or 1.0
        named = {"wait": self.env, "transfer": self.transfer, "learn": self.learn, "publish": self.publish}
        parts = {name: seconds / whole for name, seconds in named.items()}
        return {**parts, "rest": 1.0 - sum(parts.values())}
