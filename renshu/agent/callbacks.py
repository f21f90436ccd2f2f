"""Callbacks of training: any function of (agent, metrics), or a subclass of Callback."""

from __future__ import annotations

import math
import numbers
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from renshu.agent.evaluating import Later, evaluate_later
from renshu.errors import HyperparameterError
from renshu.files.replacing import replacing
from renshu.tracking.curves import read_evaluations

if TYPE_CHECKING:
    from renshu.agent.agent import Agent
    from renshu.loops.evaluation import Evaluation


class Callback:
    """Base of callbacks, which `agent.learn` calls. Override the methods that you need.

    stopped_because: reason for a False that it returned, in the line at the end of training.
    """

    stopped_because = ""

    def on_start(self, agent: Agent) -> None:
        """Handle the start of training."""

    def on_update(self, agent: Agent, metrics: dict[str, float]) -> bool | None:
        """Handle an update; `metrics` holds its numbers, `steps`, and `return_mean` of the recent episodes.

        Return False to stop training.
        """

    def on_end(self, agent: Agent) -> None:
        """Handle the end of training, whatever the reason."""


class Every(Callback):
    """Base of callbacks that act every `every` environment steps."""

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
        """Act; return False to stop training."""


class Evaluate(Every):
    """Evaluation every `every` steps, which keeps the best agent.

    every: environment steps. episodes: of each evaluation. path: where the best agent is saved; by default
    `best.safetensors` in the run folder, if there is one. stop_at: stop training when an evaluation's mean reaches
    this. patience: stop when that many evaluations in a row brought nothing better. `history` holds the pairs of steps
    and Evaluation, `best` the highest mean; both go on over several calls of learn, so give each agent its own.

    Raises HyperparameterError for numbers out of range.
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
        if episodes < 1 or (patience is not None and patience < 1):
            raise HyperparameterError(f"Evaluate: episodes={episodes}, patience={patience}: each must be at least 1")
        self.episodes, self.path, self.stop_at, self.patience = episodes, path, stop_at, patience
        self.history: list[tuple[int, Evaluation]] = []
        self.best = -math.inf
        self._without_gain = 0
        self._under_way: list[Later] = []

    def on_start(self, agent: Agent) -> None:
        """Count from here. A run that is resumed keeps its best agent until there is a better one."""
        super().on_start(agent)
        self._without_gain = 0
        if self.path is None and agent.run is not None and agent.run.best_path.exists():
            self.best = max([self.best, *read_evaluations(agent.run.path)["mean"]])

    def on_update(self, agent: Agent, metrics: dict[str, float]) -> bool | None:
        """Evaluate when it is time, and look at what is there."""
        going = super().on_update(agent, metrics)
        while self._under_way and self._under_way[0].ready():
            going = False if self._judge_first(agent) is False else going
        return going

    def on_end(self, agent: Agent) -> None:
        """Await the evaluations that are under way elsewhere, unless training ended by an error, as Ctrl-C is."""
        if agent.trainer.failure is not None:
            self._under_way = []
        while self._under_way:
            self._judge_first(agent)

    def act(self, agent: Agent, metrics: dict[str, float]) -> bool | None:
        """Evaluate, keep the best, and return False to stop. Where a cluster trains, the result comes later."""
        later = evaluate_later(agent, self.episodes)
        if later is None:
            return self._judge(agent, agent.steps, agent.evaluate(self.episodes), agent.save)
        self._under_way.append(later)
        return None

    def _judge_first(self, agent: Agent) -> bool | None:
        later = self._under_way.pop(0)

        def save(path: str | Path) -> None:
            with replacing(Path(path)) as temporary:
                temporary.write_bytes(later.content)

        return self._judge(agent, later.steps, later.result(), save)

    def _judge(self, agent: Agent, steps: int, result: Evaluation, save: Callable[[Any], Any]) -> bool | None:
        self.history.append((steps, result))
        if agent.run is not None:
            agent.run.log_evaluation(steps, result.returns, result.lengths)
        self._without_gain += 1
        if result.mean > self.best:
            self.best, self._without_gain = result.mean, 0
            path = self.path or (agent.run.best_path if agent.run is not None else None)
            if path is not None:
                save(path)
        reached = self.stop_at is not None and result.mean >= self.stop_at
        stuck = self.patience is not None and self._without_gain >= self.patience
        self.stopped_because = (
            f"an evaluation reached {result}" if reached else f"{self._without_gain} evaluations brought no gain"
        )
        return False if reached or stuck else None


class Checkpoint(Every):
    """Checkpoint of the whole training state every `every` steps.

    path: a folder; by default `checkpoints` in the run folder. keep: how many of the newest stay.

    Raises HyperparameterError for numbers below 1, and when training starts with neither a path nor a run folder.
    """

    def __init__(self, every: int, *, path: str | Path | None = None, keep: int = 3) -> None:
        super().__init__(every)
        if keep < 1:
            raise HyperparameterError(f"Checkpoint: keep must be at least 1, not {keep}")
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
        agent.save(path, memory=True)
        self._written.append(path)
        while len(self._written) > self.keep:
            self._written.pop(0).unlink(missing_ok=True)


class StopAtReturn(Callback):
    """Stop of training when the mean return of the recent episodes reaches `threshold`.

    Recent are those of the last 10,000 steps, at least 20 and at most 100; while there are fewer it does not stop.

    threshold: a number, or "threshold" for the one that the environment is registered with.

    Raises HyperparameterError for anything else, and when training starts where none is registered.
    """

    def __init__(self, threshold: float | str) -> None:
        number = isinstance(threshold, numbers.Real) and math.isfinite(threshold)
        if not number and threshold != "threshold":
            raise HyperparameterError(f'the return to stop at must be a number or "threshold", not {threshold!r}')
        self.threshold = threshold

    def value(self, agent: Agent) -> float:
        """Return the threshold as a number, looked up where it is the environment's own."""
        if self.threshold != "threshold":
            return float(self.threshold)
        if agent.spec.reward_threshold is None:
            raise HyperparameterError(
                f"{agent.name} has no registered reward threshold: give a number, as in stop_at=200"
            )
        return float(agent.spec.reward_threshold)

    def on_start(self, agent: Agent) -> None:
        """Look the environment's own threshold up."""
        self.value(agent)

    def on_update(self, agent: Agent, metrics: dict[str, float]) -> bool | None:
        """Stop at the threshold."""
        self.stopped_because = f"the mean return of the recent episodes reached {self.value(agent):g}"
        return False if agent.trainer.recent_returns.full and metrics["return_mean"] >= self.value(agent) else None


class StopWithoutImprovement(Callback):
    """Stop of training when the mean return of the recent episodes has not risen by `least` for `steps` steps."""

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
        self.stopped_because = f"the mean return has not risen for {self.steps:,} steps"
        return False if agent.steps - self._since >= self.steps else None
