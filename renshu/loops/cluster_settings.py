"""Settings of the cluster loop."""

from __future__ import annotations

import math
from dataclasses import dataclass

from renshu.errors import HyperparameterError

MODES = ("synchronous", "lockstep", "asynchronous")


@dataclass(frozen=True)
class Cluster:
    """Settings of the cluster loop.

    workers: actors that collect, each in `num_envs` environments of its own. mode: "synchronous": all collect, then
    the learner learns; "lockstep": they collect by the state before the one that learns; "asynchronous": whoever is
    ready. None: asynchronous for learners that take older experience. max_workers: most that there will ever be; None:
    twice as many. batch_workers: rollouts in one update of an asynchronous learner on policy; None: a quarter of the
    workers. in_flight: rollouts asked of each actor at a time. address: of a running Ray cluster, "auto" for the one
    that this machine belongs to; None starts one on this machine.

    Raises HyperparameterError for settings that cannot be.
    """

    workers: int = 2
    mode: str | None = None
    max_workers: int | None = None
    batch_workers: int | None = None
    in_flight: int = 1
    address: str | None = None

    def __post_init__(self) -> None:
        for name in ("workers", "max_workers", "batch_workers", "in_flight"):
            value = getattr(self, name)
            optional = name in ("max_workers", "batch_workers") and value is None
            if not optional and (isinstance(value, bool) or not isinstance(value, int) or value < 1):
                raise HyperparameterError(f"Cluster: {name}={value!r}: a number of at least 1 is needed")
        if self.mode not in (None, *MODES):
            raise HyperparameterError(f"Cluster: mode={self.mode!r}: expected one of {', '.join(MODES)}")
        if self.room < self.workers:
            raise HyperparameterError(f"Cluster: max_workers={self.max_workers} is less than workers={self.workers}")

    @property
    def room(self) -> int:
        """Most workers that there may be."""
        return 2 * self.workers if self.max_workers is None else self.max_workers

    @property
    def batch(self) -> int:
        """Rollouts in one update of an asynchronous learner on policy."""
        return math.ceil(self.workers / 4) if self.batch_workers is None else self.batch_workers

    def mode_for(self, name: str, max_lag: int | None) -> str:
        """Return the mode for a learner. Raises HyperparameterError where it needs newer experience than that gives."""
        mode = self.mode or ("synchronous" if max_lag == 0 else "asynchronous")
        if max_lag == 0 and mode != "synchronous":
            raise HyperparameterError(
                f"{name} learns only from what its newest policy did (max_lag=0), and mode={mode!r} gives it older "
                'rollouts: take mode="synchronous", or an algorithm that corrects for them, as IMPALA or APPO'
            )
        return mode
