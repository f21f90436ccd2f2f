"""Recent episodes: those of the last steps of training, over which it reports means, stops, and draws its curve."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable

import numpy as np

STEPS = 10_000
"""Steps of all environments together in which an episode has ended recently."""
LEAST, MOST = 20, 100
"""Episodes that count as recent at least, however long ago they ended, and at most."""


class Recent:
    """Numbers of the recent episodes, one of each. values: the numbers, oldest first.

    together: so many episodes begin at once and come in order of their length; a mean over a part of them would be that
    of the longest.
    """

    def __init__(self, together: int = 0) -> None:
        self.together, most = together, max(together, MOST)
        self.values: deque[float] = deque(maxlen=most)
        self._steps: deque[int] = deque(maxlen=most)
        self._dropped = False

    @property
    def full(self) -> bool:
        """Tell whether there are as many as there will be: a mean over fewer may be luck."""
        return len(self.values) == self.values.maxlen or self._dropped

    def add(self, values: Iterable[float], steps: Iterable[int], now: int) -> None:
        """Add the numbers of episodes that ended at `steps`, and drop those that are not recent any more at `now`."""
        self.values.extend(values)
        self._steps.extend(steps)
        while self._steps and len(self.values) > max(LEAST, self.together) and self._steps[0] <= now - STEPS:
            self.values.popleft()
            self._steps.popleft()
            self._dropped = True


def first_recent(steps: np.ndarray) -> np.ndarray:
    """For each episode, the place of the oldest that was recent when it ended. steps: [K], at which they ended."""
    place = np.arange(steps.size)
    oldest = np.searchsorted(steps, steps - STEPS, side="right")
    return np.clip(np.minimum(oldest, place - LEAST + 1), np.maximum(place - MOST + 1, 0), None)
