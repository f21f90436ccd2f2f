"""Reports of a loop on one stretch of training, and the bookkeeping of episodes that all loops share."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from time import perf_counter
from typing import Any, NamedTuple

import numpy as np

from renshu import runtime
from renshu.types import LIFE_LOST, MASK


class Finished(NamedTuple):
    """Episodes that ended in a rollout, in the order in which they ended."""

    steps: np.ndarray  # [E] int64    valid environment steps of the whole training when the episode ended
    envs: np.ndarray  # [E] int64    which environment
    returns: np.ndarray  # [E] float64  sum of raw rewards
    lengths: np.ndarray  # [E] int64    steps
    info: Mapping[str, np.ndarray]  # [E] float64  numbers of their last steps' `info`; NaN where one gave none


NONE_FINISHED = Finished(np.zeros(0, np.int64), np.zeros(0, np.int64), np.zeros(0), np.zeros(0, np.int64), {})


def info_numbers(infos: Mapping[str, Any], env: int) -> dict[str, float]:
    """Return the numbers in the `info` of one environment, by name; bools as 0 and 1. All but numbers is left out.

    infos: of a vector environment, as Gymnasium gathers them: name to `[N]`, with "_name" to say who gave it.
    """
    found = {}
    for name, values in infos.items():
        given = infos.get(f"_{name}")
        if name.startswith("_") or name in (MASK, LIFE_LOST) or not isinstance(values, np.ndarray) or values.ndim != 1:
            continue
        value = values[env]
        if (given is None or given[env]) and isinstance(
            value, bool | int | float | np.bool_ | np.integer | np.floating
        ):
            found[name] = float(value)
    return found


def info_columns(infos: Sequence[Mapping[str, float]]) -> dict[str, np.ndarray]:
    """Turn the numbers of E episodes into columns: name to `[E]` float64, NaN where an episode gave none."""
    names = {name: None for info in infos for name in info}
    return {name: np.array([info.get(name, np.nan) for info in infos], np.float64) for name in names}


def merged(parts: Sequence[Finished]) -> Finished:
    """Put the episodes of several rollouts together."""
    if len(parts) == 1:
        return parts[0]
    steps, envs, returns, lengths = (
        np.concatenate([getattr(part, name) for part in parts]) for name in ("steps", "envs", "returns", "lengths")
    )
    nothing = {name: np.nan for part in parts for name in part.info}
    info = {
        name: np.concatenate([part.info.get(name, np.full(len(part.steps), value)) for part in parts])
        for name, value in nothing.items()
    }
    return Finished(steps, envs, returns, lengths, info)


@dataclass(frozen=True)
class Report:
    """One advance of a loop: `iterations` rollouts, `steps` valid environment steps, the last update's metrics."""

    iterations: int
    steps: int
    metrics: dict[str, float]
    finished: Finished


@dataclass
class Clock:
    """Seconds spent: act (choosing actions), env (stepping), learn, and the whole."""

    act: float = 0.0
    env: float = 0.0
    learn: float = 0.0
    total: float = 0.0

    def reset(self) -> None:
        """Start again from zero."""
        self.act = self.env = self.learn = self.total = 0.0

    def shares(self) -> dict[str, float]:
        """Return fractions of the whole; `rest` is Renshu's own bookkeeping."""
        whole = self.total or 1.0
        parts = {"act": self.act / whole, "env": self.env / whole, "learn": self.learn / whole}
        return {**parts, "rest": 1.0 - sum(parts.values())}


class Pace:
    """Rate of a training, without the stretches in which something was compiled. steps: where it begins."""

    def __init__(self, steps: int) -> None:
        self._began = self._time = perf_counter()
        self._first = self._steps = steps
        self._compiled = runtime.compilations()
        self._counted, self._seconds = 0, 0.0

    def mark(self, steps: int) -> None:
        """Note that training has come to `steps`."""
        now, compiled = perf_counter(), runtime.compilations()
        if compiled == self._compiled:
            self._counted += steps - self._steps
            self._seconds += now - self._time
        self._time, self._steps, self._compiled = now, steps, compiled

    @property
    def seconds(self) -> float:
        """Seconds until the latest mark, compilation included."""
        return self._time - self._began

    @property
    def steps(self) -> int:
        """Steps until the latest mark."""
        return self._steps - self._first

    @property
    def per_second(self) -> float:
        """Steps per second; of the whole, where something was compiled in every stretch."""
        return self._counted / self._seconds if self._seconds else self.steps / (self.seconds or 1.0)


class Episodes:
    """Sums of rewards and counts of steps of each environment's running episode, a rollout at a time."""

    def __init__(self, num_envs: int, steps: int = 0) -> None:
        self.running_return = np.zeros(num_envs, np.float64)
        self.running_length = np.zeros(num_envs, np.int64)
        self.steps = steps

    def add(
        self,
        reward: np.ndarray,
        valid: np.ndarray,
        ended: np.ndarray,
        infos: Mapping[tuple[int, int], Mapping[str, float]],
    ) -> tuple[int, Finished]:
        """Add a rollout: reward, valid, ended, each `[T, N]`. Returns its valid steps and the episodes it ended.

        infos: numbers of the last steps' `info` by (t, n), where there are any.
        """
        reward = np.where(valid, reward, 0.0)
        if not ended.any():
            self.running_return += reward.sum(axis=0, dtype=np.float64)
            self.running_length += valid.sum(axis=0)
            return self._counted(int(valid.sum()), NONE_FINISHED)
        returns = self.running_return + np.cumsum(reward, axis=0, dtype=np.float64)
        lengths = self.running_length + np.cumsum(valid, axis=0, dtype=np.int64)
        count = np.cumsum(valid.sum(axis=1))
        when, who = np.nonzero(ended)
        found_returns, found_lengths = returns[when, who], lengths[when, who]
        # Each sum runs on over the ends before it in the same environment: take those off.
        before_return, before_length = np.zeros_like(self.running_return), np.zeros_like(self.running_length)
        with np.errstate(invalid="ignore"):
            for i, n in enumerate(who):
                total, length = found_returns[i], found_lengths[i]
                found_returns[i] -= before_return[n]
                found_lengths[i] -= before_length[n]
                before_return[n], before_length[n] = total, length
            self.running_return = np.nan_to_num(returns[-1] - before_return, posinf=0.0, neginf=0.0)
        self.running_length = lengths[-1] - before_length
        info = info_columns([infos.get((t, n), {}) for t, n in zip(when.tolist(), who.tolist(), strict=True)])
        found = Finished(self.steps + count[when], who, found_returns, found_lengths, info)
        return self._counted(int(count[-1]), _finite(found))

    def drop(self) -> None:
        """Forget running episodes, which were left."""
        self.running_return[:], self.running_length[:] = 0.0, 0

    def _counted(self, steps: int, finished: Finished) -> tuple[int, Finished]:
        self.steps += steps
        return steps, finished


class StepCount:
    """Count of steps, and the finished episodes in the statistics of a compiled loop, which sums rewards itself."""

    def __init__(self, steps: int = 0) -> None:
        self.steps = steps

    def add(self, stats: Any) -> tuple[int, Finished]:
        """Add rollouts: `steps` [K, T]; `ended`, `returns`, `lengths`, `info` [K, T, N]. Returns steps, episodes."""
        count = self.steps + np.cumsum(stats.steps.reshape(-1), dtype=np.int64)
        ended = stats.ended.reshape(len(count), -1)
        when, who = np.nonzero(ended)
        returns, lengths = (x.reshape(ended.shape)[when, who] for x in (stats.returns, stats.lengths))
        before, self.steps = self.steps, int(count[-1])
        info = {name: x.reshape(ended.shape)[when, who].astype(np.float64) for name, x in stats.info.items()}
        found = Finished(count[when], who, returns.astype(np.float64), lengths.astype(np.int64), info)
        return self.steps - before, _finite(found)


def _finite(found: Finished) -> Finished:
    """Leave out episodes whose return is no number; only learners to whom that says something come so far."""
    keep = np.isfinite(found.returns)
    if keep.all():
        return found
    info = {name: x[keep] for name, x in found.info.items()}
    return Finished(found.steps[keep], found.envs[keep], found.returns[keep], found.lengths[keep], info)
