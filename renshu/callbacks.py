"""What can happen while an agent trains. A callback is any function of (agent, metrics), or a subclass of Callback."""

from __future__ import annotations

import math
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from renshu.errors import HyperparameterError

if TYPE_CHECKING:
    from renshu.agent import Agent
    from renshu.evaluation import Evaluation


class Callback:
    """Called by `agent.learn`. Override what you need."""

    def on_start(self, agent: Agent) -> None:
        """Training begins."""

    def on_update(self, agent: Agent, metrics: dict[str, float]) -> bool | None:
        """An update was made; `metrics` holds its numbers, `steps`, and `return_mean` of the last 100 episodes.

        Return False to stop training.
        """

    def on_end(self, agent: Agent) -> None:
        """Training has ended, for whatever reason."""


class Every(Callback):
    """Base of callbacks that act every so many environment steps."""

    def __init__(self, every: int) -> None:
        if every < 1:
            raise HyperparameterError(f"{type(self).__name__}: every must be at least 1 step, not {every}")
        self.every = every
        self._next = 0

    def on_start(self, agent: Agent) -> None:
        """Count from the step at which training starts."""
        self._next = agent.steps + self.every

    def on_update(self, agent: Agent, metrics: dict[str, float]) -> bool | None:
        """Act when `every` steps have passed since the last time."""
        if agent.steps < self._next:
            return None
        self._next += self.every * ((agent.steps - self._next) // self.every + 1)
        return self.act(agent, metrics)

    def act(self, agent: Agent, metrics: dict[str, float]) -> bool | None:
        """What to do; return False to stop training."""


class Evaluate(Every):
    """Evaluate every so many steps and keep the best agent.

    every: environment steps. episodes: of each evaluation. path: where the best agent is saved; by default
    `best.safetensors` in the run folder, if there is one. stop_at: stop training when an evaluation's mean reaches
    this. patience: stop when that many evaluations in a row brought nothing better.
    """

    def __init__(
        self,
        every: int,
        episodes: int = 10,
        *,
        path: str | Path | None = None,
        stop_at: float | None = None,
        patience: int | None = None,
    ) -> None:
        super().__init__(every)
        self.episodes, self.path, self.stop_at, self.patience = episodes, path, stop_at, patience
        self.history: list[tuple[int, Evaluation]] = []
        self.best = -math.inf
        self._without_gain = 0

    def act(self, agent: Agent, metrics: dict[str, float]) -> bool | None:
        """Evaluate, keep the best, and say whether to stop."""
        result = agent.evaluate(self.episodes)
        self.history.append((agent.steps, result))
        if agent.run is not None:
            agent.run.log_evaluation(agent.steps, result.returns, result.lengths)
        self._without_gain += 1
        if result.mean > self.best:
            self.best, self._without_gain = result.mean, 0
            path = self.path or (agent.run.best_path if agent.run is not None else None)
            if path is not None:
                agent.save(path)
        reached = self.stop_at is not None and result.mean >= self.stop_at
        stuck = self.patience is not None and self._without_gain >= self.patience
        return False if reached or stuck else None


class Checkpoint(Every):
    """Save the whole training state every so many steps.

    path: a folder; by default `checkpoints` in the run folder. keep: how many of the newest stay.
    """

    def __init__(self, every: int, *, path: str | Path | None = None, keep: int = 3) -> None:
        super().__init__(every)
        self.path, self.keep = path, keep
        self._written: list[Path] = []

    def on_start(self, agent: Agent) -> None:
        """Refuse to train where nothing would be kept."""
        super().on_start(agent)
        if self.path is None and agent.run is None:
            raise HyperparameterError("Checkpoint: give it path=FOLDER, or give learn a run folder, as in run='runs/a'")

    def act(self, agent: Agent, metrics: dict[str, float]) -> None:
        """Save, and delete what is older than the newest `keep`."""
        if self.path is None:
            agent.checkpoint(self.keep)
            return
        path = Path(self.path) / f"step_{agent.steps:09d}.safetensors"
        agent.save(path)
        self._written.append(path)
        while len(self._written) > self.keep:
            self._written.pop(0).unlink(missing_ok=True)


class StopAtReturn(Callback):
    """Stop when the mean return of the last 100 training episodes reaches `threshold`.

    Raises HyperparameterError where `threshold` is "threshold" and the environment has none registered.
    """

    def __init__(self, threshold: float | str) -> None:
        self.threshold = threshold

    def on_start(self, agent: Agent) -> None:
        """Look the environment's own threshold up."""
        if self.threshold == "threshold":
            if agent.spec.reward_threshold is None:
                raise HyperparameterError(
                    f"{agent.name} has no registered reward threshold: give a number, as in stop_at=200"
                )
            self.threshold = agent.spec.reward_threshold
        self.threshold = float(self.threshold)

    def on_update(self, agent: Agent, metrics: dict[str, float]) -> bool | None:
        """Stop at the threshold."""
        enough = len(agent.recent_returns) == agent.recent_returns.maxlen
        return False if enough and metrics["return_mean"] >= float(self.threshold) else None


class StopWithoutImprovement(Callback):
    """Stop when the mean return of the last 100 episodes has not risen by `least` for `steps` environment steps."""

    def __init__(self, steps: int, least: float = 0.0) -> None:
        if steps < 1:
            raise HyperparameterError(f"StopWithoutImprovement: steps must be at least 1, not {steps}")
        self.steps, self.least = steps, least
        self._best, self._since = -math.inf, 0

    def on_start(self, agent: Agent) -> None:
        """Forget earlier training."""
        self._best, self._since = -math.inf, agent.steps

    def on_update(self, agent: Agent, metrics: dict[str, float]) -> bool | None:
        """Stop when nothing improves."""
        mean = metrics.get("return_mean", math.nan)
        if mean > self._best + self.least:
            self._best, self._since = mean, agent.steps
        return False if agent.steps - self._since >= self.steps else None


class Progress(Callback):
    """A progress bar: steps, steps per second, mean return of the last 100 episodes, time left.

    Where the output is no terminal it prints a line for every tenth of the training instead.
    """

    def __init__(self, total: int, start: int) -> None:
        self.total, self.start = total, start
        self._bar: Any = None

    def on_start(self, agent: Agent) -> None:
        """Draw the bar."""
        from rich.console import Console
        from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

        console = Console(stderr=True)
        self._lines = not console.is_terminal
        self._next_line, self._next_update = 0.1, 0.0
        self._bar = Progress(
            TextColumn("[bold]{task.description}"),
            BarColumn(bar_width=30),
            TextColumn("{task.completed:>9,.0f}/{task.total:,.0f} steps"),
            TextColumn("{task.fields[speed]}"),
            TextColumn("[green]{task.fields[returns]}"),
            TimeRemainingColumn(elapsed_when_finished=True),
            console=console,
            refresh_per_second=4,
            disable=self._lines,
        )
        self._console = console
        self._task = self._bar.add_task(agent.title, total=self.total, speed="", returns="")
        self._bar.start()

    def on_update(self, agent: Agent, metrics: dict[str, float]) -> None:
        """Move the bar."""
        done, now = agent.steps - self.start, time.monotonic()
        if now < self._next_update and done < self.total:
            return
        self._next_update = now + 0.1
        if self._lines:
            if done >= self._next_line * self.total:
                self._next_line = math.floor(10 * done / self.total) / 10 + 0.1
                self._console.print(
                    f"{agent.title}: {done:,} of {self.total:,} steps{_words(metrics)}", highlight=False
                )
            return
        self._bar.update(
            self._task,
            completed=min(done, self.total),
            speed=f"{metrics['steps_per_second']:,.0f}/s",
            returns=f"return {metrics['return_mean']:.1f}" if "return_mean" in metrics else "",
        )

    def on_end(self, agent: Agent) -> None:
        """Leave the finished bar on the screen."""
        self._bar.stop()


def _words(metrics: dict[str, float]) -> str:
    words = f", {metrics['steps_per_second']:,.0f} a second"
    return words + (f", mean return {metrics['return_mean']:.1f}" if "return_mean" in metrics else "")
