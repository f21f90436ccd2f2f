"""The state that acting needs, shared with threads beside the one that trains, whose updates donate it."""

from __future__ import annotations

import threading
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Generic, NamedTuple, TypeVar

import jax
import jax.numpy as jnp

from renshu.types import PyTree

T = TypeVar("T")
_PATIENCE = 0.005  # seconds that a thread waits for the lock before it looks whether a copy was made meanwhile


class Copy(NamedTuple):
    """An actor state that stays as it is, and the environment steps that it has learned from."""

    steps: int
    actor_state: PyTree


class ActingState:
    """Actor state of a trainer, for whatever thread acts.

    read: returns steps and actor state as they are now, not copied.

    The thread that trains uses them as they are. Others use them so while nothing trains, which then waits to begin;
    while something does they get a copy, made after each update as long as somebody asks for it or watches.
    """

    def __init__(self, read: Callable[[], Copy]) -> None:
        self._read = read
        self._lock = threading.RLock()
        self._training: int | None = None
        self._copy: Copy | None = None
        self._asked = False
        self._watchers: weakref.WeakSet[Any] = weakref.WeakSet()

    @contextmanager
    def training(self) -> Iterator[None]:
        """Enter a block in which this thread trains."""
        with self._lock:
            self._training = threading.get_ident()
        try:
            yield
        finally:
            with self._lock:
                self._training = self._copy = None

    @contextmanager
    def changing(self) -> Iterator[None]:
        """Enter a block that donates the state and puts another in its place; no other thread reads it meanwhile."""
        with self._lock:
            yield
            # Without anybody who looked since the latest copy another would be made for nothing.
            self._copy = self._copied() if self._training and (self._asked or len(self._watchers)) else None
            self._asked = False

    @contextmanager
    def held(self) -> Iterator[None]:
        """Enter a block in which the whole state stays as it is."""
        with self._lock:
            yield

    @contextmanager
    def use(self) -> Iterator[PyTree]:
        """Enter a block of one short program on the actor state."""
        if self._training == threading.get_ident():
            yield self._read().actor_state
            return
        if self._training is None:
            with self._lock:
                # Training may have begun while this waited for the lock.
                if self._training is None:
                    yield self._read().actor_state
                    return
        yield self.copied().actor_state

    def copied(self) -> Copy:
        """Return an actor state that stays valid, whatever becomes of the trainer's."""
        while True:
            self._asked = True
            copy = self._copy
            if copy is not None:
                return copy
            # An update may hold the lock for long, and take it again at once: it leaves a copy then.
            if self._lock.acquire(timeout=_PATIENCE):
                try:
                    copy = self._copied()
                    if self._training is not None:
                        self._copy = copy
                    return copy
                finally:
                    self._lock.release()

    def watch(self, watcher: Any) -> None:
        """Make a copy after each update as long as `watcher` exists."""
        self._watchers.add(watcher)

    def _copied(self) -> Copy:
        steps, actor_state = self._read()
        return Copy(steps, jax.tree.map(jnp.copy, actor_state))


class Shared(Generic[T]):
    """Iterator that several threads may ask."""

    def __init__(self, iterator: Iterator[T]) -> None:
        self._iterator, self._lock = iterator, threading.Lock()

    def __next__(self) -> T:
        with self._lock:
            return next(self._iterator)
