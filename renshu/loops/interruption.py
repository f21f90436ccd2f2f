"""Ctrl-C and SIGTERM while training: at once where that is safe, after the update where it is not."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any


class Terminated(SystemExit):
    """SIGTERM arrived; leaves the process with exit code 143, as a shell expects."""

    def __init__(self) -> None:
        super().__init__(143)


class Interruptions:
    """While entered, SIGINT raises KeyboardInterrupt and SIGTERM raises Terminated, but never inside `deferred()`.

    Outside the main thread signals cannot be caught, and nothing changes. What is ignored stays ignored: a shell starts
    background jobs so, and Ctrl-C is not meant for them.
    """

    def __init__(self) -> None:
        self._depth = 0
        self._pending: int | None = None
        self._previous: dict[int, Any] = {}

    def __enter__(self) -> Interruptions:
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM):
                if signal.getsignal(number) not in (signal.SIG_IGN, None):
                    self._previous[number] = signal.signal(number, self._handle)
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)
        self._previous.clear()

    @contextmanager
    def deferred(self) -> Iterator[None]:
        """Enter a block that must not be interrupted: a signal waits for its end."""
        self._depth += 1
        try:
            yield
        finally:
            self._depth -= 1
            if not self._depth and self._pending is not None:
                number, self._pending = self._pending, None
                self._raise(number)

    def _handle(self, number: int, _frame: Any) -> None:
        if self._depth:
            self._pending = number
        else:
            self._raise(number)

    @staticmethod
    def _raise(number: int) -> None:
        if number == signal.SIGTERM:
            raise Terminated
        raise KeyboardInterrupt
