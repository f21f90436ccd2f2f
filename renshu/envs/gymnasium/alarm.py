"""Environments of this process that are interrupted where they hang."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from renshu.envs.gymnasium.vector import HostEnvs
from renshu.errors import EnvironmentFault
from renshu.types import Array, PyTree


class LimitedEnvs(HostEnvs):
    """Environments of this process whose steps may take `timeout` seconds each, within `limited`."""

    def reset(self, seed: int | list[int] | None = None) -> PyTree:
        """Begin an episode in every environment."""
        signal.setitimer(signal.ITIMER_REAL, self._timeout)
        return super().reset(seed)

    def step(self, actions: PyTree) -> tuple[PyTree, Array, Array, Array]:
        """Step every environment once."""
        signal.setitimer(signal.ITIMER_REAL, self._timeout)
        return super().step(actions)


@contextmanager
def limited(name: str, timeout: float) -> Iterator[bool]:
    """Enter a block in which an alarm raises EnvironmentFault. Yields False in other threads than the main one.

    `LimitedEnvs` set the alarm anew with each step: one call of the system, whose time is a fraction of a microsecond.
    """

    def stop(*_: Any) -> None:
        raise EnvironmentFault(f"{name} did not answer for {timeout:g} s")

    if threading.current_thread() is not threading.main_thread():
        yield False
        return
    before = signal.signal(signal.SIGALRM, stop)
    try:
        yield True
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
