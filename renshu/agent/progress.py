"""Progress of training for the person who waits: a bar on a terminal and in a notebook, lines elsewhere."""

from __future__ import annotations

import math
import sys
import time
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from renshu.agent.callbacks import Callback
from renshu.viewing.notebook import Bar, in_notebook

if TYPE_CHECKING:
    from rich.console import Console

    from renshu.agent.agent import Agent


class TerminalBar:
    """A bar on a terminal: title, steps, speed, returns, and the time left."""

    def __init__(self, console: Console, title: str, total: int, completed: int) -> None:
        from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

        self._progress = Progress(
            TextColumn("[bold]{task.description}"),
            BarColumn(bar_width=30),
            TextColumn("{task.completed:>9,.0f}/{task.total:,.0f} steps"),
            TextColumn("{task.fields[speed]}"),
            TextColumn("[green]{task.fields[returns]}"),
            TimeRemainingColumn(elapsed_when_finished=True),
            console=console,
            refresh_per_second=4,
        )
        self._task = self._progress.add_task(title, total=total, completed=completed, speed="compiling", returns="")
        self._progress.start()

    def show(self, completed: int, speed: str, returns: str) -> None:
        """Move the bar."""
        self._progress.update(self._task, completed=completed, speed=speed, returns=returns)

    def stop(self) -> None:
        """Leave the bar as it is."""
        self._progress.stop()


class Progress(Callback):
    """A progress bar: steps, steps per second, mean return of the recent episodes, time left.

    Where the output is neither a terminal nor a notebook it prints a line for every tenth of the training instead. At
    the end, one line says how many steps it were, in what time, and why it ended.
    """

    def __init__(self, total: int, start: int) -> None:
        self.total, self.start = total, start
        self._bar: Any = None

    def on_start(self, agent: Agent) -> None:
        """Draw the bar."""
        from rich.console import Console

        console = Console(stderr=True)
        self._lines = not console.is_terminal and not in_notebook()
        self._next_line, self._next_update = 0.1, 0.0
        if note := rollouts_note(agent, self.total):
            print(note, file=sys.stderr, flush=True)
        if in_notebook():
            self._bar = Bar(agent.title, self.start + self.total, self.start)
        elif not self._lines:
            self._bar = TerminalBar(console, agent.title, self.start + self.total, self.start)

    def on_update(self, agent: Agent, metrics: dict[str, float]) -> None:
        """Move the bar."""
        done, now = agent.steps - self.start, time.monotonic()
        if self._lines:
            if done >= self._next_line * self.total:
                self._next_line = math.floor(10 * done / self.total) / 10 + 0.1
                counted = f"{agent.steps:,} of {self.start + self.total:,} steps"
                print(
                    f"{agent.title}: {counted}{_words(metrics)}{_account(metrics)}",
                    file=sys.stderr,
                    flush=True,
                )
            return
        if now < self._next_update and done < self.total:
            return
        self._next_update = now + 0.1
        words = _returns(metrics) + _account(metrics, ("stale", "lost"))
        self._bar.show(self.start + min(done, self.total), f"{metrics['steps_per_second']:,.0f}/s", words)

    def on_end(self, agent: Agent) -> None:
        """Leave the finished bar on the screen, and say how training went."""
        if self._bar is not None:
            self._bar.stop()
        pace, error = agent.trainer.pace, agent.trainer.failure
        why = error.__name__ if error is not None else agent.trainer.outcome
        rate = f"{pace.per_second:,.0f} a second without compilation"
        told = f"{agent.title}: {pace.steps:,} steps in {pace.seconds:.1f} s, {rate}; {why}"
        loop = agent.trainer.cluster_loop
        print(told + _account(loop.account.metrics() if loop else {}), file=sys.stderr, flush=True)


ACCOUNT = ("requested", "learned", "stale", "lost", "in_flight")
"""Numbers of the rollouts of a cluster: the first is the sum of the others."""


def _account(metrics: Mapping[str, float], names: Sequence[str] = ACCOUNT) -> str:
    """Say where the rollouts of a cluster are; "" where none trains."""
    numbers = {name: metrics[f"cluster/{name}"] for name in names if f"cluster/{name}" in metrics}
    words = [f"{n:,.0f} {name.replace('_', ' ')}" for name, n in numbers.items()]
    return f"; rollouts: {', '.join(words)}" if words else ""


def rollouts_note(agent: Agent, total: int) -> str:
    """Say how many steps it will be, where whole rollouts make clearly more than `total`; "" elsewhere."""
    needs, count = agent.trainer.learner.needs, agent.spec.rollout_envs or agent.spec.num_envs
    size = needs.steps * count
    whole = (total // size + 1) * size  # steps that only reset do not count, so that one more is needed
    if agent.trainer.dataset is not None or needs.fresh or whole <= 1.1 * total:
        return ""
    several = f" ({needs.steps:,} of each of {count} environments)" if count > 1 else ""
    return f"{agent.title} learns in rollouts of {size:,} steps{several}: it will make about {whole:,}, not {total:,}"


def _words(metrics: dict[str, float]) -> str:
    words = f", {metrics['steps_per_second']:,.0f} a second"
    return words + (f", mean {_returns(metrics)}" if "return_mean" in metrics else "")


def _returns(metrics: dict[str, float]) -> str:
    if "return_mean" not in metrics:
        return ""
    success = f", success {metrics['success_rate']:.0%}" if "success_rate" in metrics else ""
    return f"return {metrics['return_mean']:.1f}{success}"
