"""One call of `learn`: a loop is advanced until the steps are done, with callbacks, run folder and checkpoints."""

from __future__ import annotations

import dataclasses
import sys
import time
import warnings
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from keyword import iskeyword
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from renshu.agent.callbacks import Callback, Checkpoint, Evaluate, Every, StopAtReturn
from renshu.agent.opponents import OPPONENT
from renshu.agent.pictures import save_pictures
from renshu.agent.progress import Progress
from renshu.algorithms.hyperparameters import kind_of
from renshu.envs.spec import kwargs_to_json
from renshu.errors import HyperparameterError
from renshu.loops.evaluation import SUCCESS
from renshu.loops.interruption import Interruptions, Terminated
from renshu.loops.report import Pace
from renshu.tracking.curves import plot_runs
from renshu.tracking.run import Run
from renshu.tracking.workers import write_workers

if TYPE_CHECKING:
    from renshu.agent.agent import Agent
    from renshu.agent.trainer import Loop, Trainer
    from renshu.loops.report import Report

LOGGED_ROWS = 500
"""Rows of metrics that a call of learn writes, about."""
REPORTS = 100
"""Reports of a compiled loop in a call of learn, at least about, where its rollouts allow it."""


class Function(Callback):
    """A user's function of (agent, metrics) as a callback."""

    def __init__(self, function: Callable[[Agent, dict[str, float]], bool | None]) -> None:
        self.function = function
        self.stopped_because = f"{getattr(function, '__name__', type(function).__name__)} returned False"

    def on_update(self, agent: Agent, metrics: dict[str, float]) -> bool | None:
        """Call it."""
        return self.function(agent, metrics)


def callbacks_for(
    agent: Agent,
    total: int,
    *,
    progress: bool,
    callbacks: Callback | Callable | Iterable[Callback | Callable],
    stop_at: float | str | None,
    eval_every: int | None,
    eval_episodes: int,
    checkpoint_every: int | None,
) -> list[Callback]:
    """Make the callbacks of one call of learn, the user's own first.

    Raises HyperparameterError for what is no callback and for what cannot be done, before a run folder is made.
    """
    given = list(callbacks) if isinstance(callbacks, Iterable) else [callbacks]
    for callback in given:
        if isinstance(callback, type) or not (callable(callback) or isinstance(callback, Callback)):
            raise HyperparameterError(f"a callback is a function of (agent, metrics) or a Callback, not {callback!r}")
    chosen = [callback if isinstance(callback, Callback) else Function(callback) for callback in given]
    if eval_every is not None:
        chosen.append(Evaluate(eval_every, eval_episodes))
    if checkpoint_every is not None:
        chosen.append(Checkpoint(checkpoint_every))
    if stop_at is not None:
        stop = StopAtReturn(stop_at)
        stop.value(agent)
        chosen.append(stop)
    if progress:
        chosen.append(Progress(total, agent.steps))
    return chosen


def learn(agent: Agent, total_steps: int | None, *, run: Any, restart_schedules: bool, **options: Any) -> None:
    """Do the work of `agent.learn`: set the target, open the run folder, train, keep the result, draw the curve.

    options: those of `callbacks_for`.
    """
    target = agent.trainer.target_after(total_steps)
    callbacks = callbacks_for(agent, target - agent.steps, **options)
    kept = {name: options[name] for name in ("stop_at", "eval_every", "eval_episodes", "checkpoint_every")}
    trainer = agent.trainer
    folder = run_folder(run, agent, {**settings(agent), "total_steps": target, **kept}) or trainer.run
    if folder is not None:
        folder.lock()
    trainer.run = folder
    if options["progress"] and restart_schedules and total_steps is not None and agent.steps and has_schedules(agent):
        print(
            f"{agent.title}: schedules begin again at step {agent.steps:,}; learn(..., restart_schedules=False) lets "
            "them go on",
            file=sys.stderr,
        )
    trainer.set_target(total_steps, restart_schedules)  # only now: what is refused changes nothing
    _warn_of_waiting(trainer, target)
    try:
        train(agent, target, callbacks)
    except BaseException as error:
        _leave_run(agent, error)
        if isinstance(error, SystemExit):
            # Python ends without a word, and notes of this exception are never printed.
            print("\n".join(["stopped", *getattr(error, "__notes__", [])]), file=sys.stderr)
        raise
    _leave_run(agent, None)


def _leave_run(agent: Agent, error: BaseException | None) -> None:
    trainer = agent.trainer
    if trainer.run is not None:
        trainer.run, trainer.last_run = None, trainer.run
        finish(trainer.last_run, error)
        _draw(trainer, trainer.last_run, error)


def has_schedules(agent: Agent) -> bool:
    """Tell whether a hyperparameter changes over the training."""
    scheduled = (f.name for f in dataclasses.fields(agent.algorithm) if getattr(kind_of(f), "scheduled", False))
    return any(callable(getattr(agent.algorithm, name)) for name in scheduled)


def settings(agent: Agent) -> dict[str, Any]:
    """Collect the settings of an agent for its run folder."""
    return {
        "algorithm": type(agent.algorithm).__name__,
        "hyperparameters": agent.algorithm.to_json(),
        "environment": agent.name,
        "environment_id": agent.spec.id,
        "env_kwargs": dict(agent.spec.kwargs),
        "num_envs": agent.spec.num_envs,
        "spaces": agent.trainer.space_config.to_json(),
        "processes": agent.trainer.processes,
        "seed": agent.seed,
        "loop": agent.trainer.backend.loop_name,
        "reward_threshold": agent.spec.reward_threshold,
    }


def train(agent: Agent, target: int, callbacks: list[Callback]) -> None:
    """Advance the agent's loop until it has `target` steps or a callback returns False; then save it in its run.

    Whatever ends training early (Ctrl-C, SIGTERM, a fault of the environment, NaN, an error in a callback): the agent
    keeps its last good state, and with a run folder it is saved there before the exception goes on.
    """
    acting = agent.trainer.acting
    with Interruptions() as interruptions, acting.training():
        try:
            with acting.changing():  # a loop on a data set learns from it as it begins
                loop = agent.trainer.start_loop(interruptions.deferred)
            with ExitStack() as ends:
                for callback in callbacks:
                    callback.on_start(agent)
                    ends.enter_context(_ended(callback, agent))
                _advance_until(target, agent, loop, callbacks, interruptions)
                if newer := agent.trainer.settle():
                    _log_metrics(agent, newer)
            agent.trainer.note_environments()
            if agent.run is not None:
                with interruptions.deferred():
                    agent.checkpoint()
                    agent.save(agent.run.agent_path)
        except BaseException as error:
            with interruptions.deferred():
                _rescue(agent, error)
            raise


def _warn_of_waiting(trainer: Trainer, target: int) -> None:
    """Say where a memory that is in no file has to be filled anew, for longer than the training."""
    if trainer.dataset is not None or getattr(trainer.state, "memory", None) != ():
        return
    try:
        trainer.learner.check_steps(0, target - trainer.steps)
    except HyperparameterError:
        warnings.warn(
            "the file of this agent holds no memory: nothing is learned before it has learning_starts steps again, and "
            "this training ends before. Train longer, give a smaller learning_starts, or save with memory=True",
            stacklevel=4,
        )


@contextmanager
def _ended(callback: Callback, agent: Agent) -> Iterator[None]:
    """Call `on_end` behind the block; where the block raised, that is the error to report."""
    try:
        yield
    except BaseException as error:
        agent.trainer.failure = type(error)
        try:
            callback.on_end(agent)
        except Exception as failure:
            error.add_note(f"{type(callback).__name__}.on_end raised too: {type(failure).__name__}: {failure}")
        raise
    callback.on_end(agent)


def _advance_until(
    target: int, agent: Agent, loop: Loop, callbacks: list[Callback], interruptions: Interruptions
) -> None:
    begin_time, begin_steps = time.perf_counter(), agent.steps
    pace, trainer = Pace(begin_steps), agent.trainer
    trainer.pace, trainer.outcome, trainer.failure = pace, "", None
    every = max(1, (target - begin_steps) // LOGGED_ROWS)
    most = max(1, (target - begin_steps) // REPORTS)
    most = min([most, *(callback.every for callback in callbacks if isinstance(callback, Every))])
    next_log = begin_steps + every
    going = agent.steps < target
    while going:
        report = _advance(agent, loop, min(most, target - agent.steps), interruptions, begin_time)
        pace.mark(agent.steps)
        going = agent.steps < target
        log = agent.run is not None and (agent.steps >= next_log or not going)
        metrics: dict[str, float] = {}
        if log or callbacks:
            metrics = summary(agent, report, pace.per_second)
        if log:
            next_log = agent.steps + every
            _log_metrics(agent, metrics)
        for callback in callbacks:
            if _stops(callback.on_update(agent, metrics)):
                going, trainer.outcome = False, trainer.outcome or callback.stopped_because
                trainer.outcome = trainer.outcome or f"{type(callback).__name__} returned False"
    trainer.outcome = trainer.outcome or "all steps are done"


def _advance(agent: Agent, loop: Loop, most_steps: int, interruptions: Interruptions, begin_time: float) -> Report:
    """Advance the loop once and log its episodes. From the update on, Ctrl-C waits until they are.

    Otherwise it would find an agent that has learned from steps which nobody counted.
    """
    with ExitStack() as noted:

        def uninterrupted() -> AbstractContextManager[None]:
            noted.enter_context(interruptions.deferred())
            return agent.trainer.acting.changing()

        loop.uninterrupted = uninterrupted
        report = loop.advance(most_steps)
        finished = report.finished
        agent.trainer.note(finished)
        if agent.run is not None and len(finished.steps):
            seconds = [time.perf_counter() - begin_time] * len(finished.steps)
            agent.run.log_episodes(finished.steps, finished.envs, finished.returns, finished.lengths, seconds)
    return report


def _stops(answer: Any) -> bool:
    """Tell whether to stop: only a False does, Python's, NumPy's or JAX's; many functions return it by accident."""
    flag = isinstance(answer, bool) or (getattr(answer, "dtype", None) == np.bool_ and np.ndim(answer) == 0)
    return flag and not answer


def summary(agent: Agent, report: Report, steps_per_second: float) -> dict[str, float]:
    """Collect the metrics that callbacks get: the learner's own, and the progress of training."""
    metrics = {**report.metrics, "steps": agent.steps, "steps_per_second": steps_per_second}
    if agent.recent_returns:
        metrics["return_mean"] = float(np.mean(agent.recent_returns))
        metrics["length_mean"] = float(np.mean(agent.recent_lengths))
    for name, numbers in agent.recent_info.items():
        if numbers:
            metrics["success_rate" if name == SUCCESS else f"info/{name}"] = float(np.mean(numbers))
    return metrics


def _log_metrics(agent: Agent, metrics: dict[str, float]) -> None:
    if agent.run is not None:
        agent.run.log_metrics(agent.steps, {name: value for name, value in metrics.items() if name != "steps"})
        agent.run.flush()
        if (loop := agent.trainer.cluster_loop) and (rows := loop.workers_table()):
            account = {name: value for name, value in metrics.items() if name.startswith("cluster/")}
            write_workers(agent.run.path, rows, account)


def _rescue(agent: Agent, error: BaseException) -> None:
    """Save what can be saved, and say where; then let go of environments that may be in the middle of a step.

    Nothing that fails here takes the place of the error that brought us here: all of it becomes notes.
    """
    if agent.run is not None:
        _save(agent, agent.run, error)
    elif isinstance(error, Terminated):
        error.add_note(f"Nothing was saved at step {agent.steps:,}: there is no run folder, as in learn(run='runs/a')")
    try:
        agent.trainer.reset_environments()
    except Exception as failure:
        error.add_note(f"The environments could not be closed: {failure}")


def _way_on(agent: Agent, path: Path) -> str:
    """Return the line that resumes a run: one for the shell, if the environment can be named there."""
    algorithm, id = type(agent.algorithm).__name__.lower(), agent.spec.id
    if agent.trainer.dataset is not None:
        return f'renshu.Agent.resume("{path}", env=data).learn(), with the same data'
    if lost := [name for name in kwargs_to_json(agent.spec.kwargs)[1] if name != OPPONENT]:
        told = ", ".join(f"{name}=..." for name in lost)
        return f'renshu.Agent.resume("{path}", env=...).learn(), with an environment that is given {told}'
    if id is not None:
        return f"renshu train --resume {path}" if ":" not in id else f"renshu train {algorithm} {id} --resume {path}"
    given = agent.trainer.backend.source.given
    module, name = getattr(given, "__module__", None), getattr(given, "__qualname__", "<object>")
    mine = agent.name if agent.name.isidentifier() and not iskeyword(agent.name) else "MyEnv"
    python = f'renshu.Agent.resume("{path}", env={mine}).learn()'
    named = name.isidentifier() and module not in ("__main__", None)
    return python + (f"\n  or, from a shell: renshu train {algorithm} {module}:{name} --resume {path}" if named else "")


def _save(agent: Agent, run: Run, error: BaseException) -> None:
    """Save the agent in its run, or else beside it, and note where."""
    try:
        path = agent.checkpoint()
    except Exception as failure:
        error.add_note(f"The agent could not be saved in {run.path}: {failure}")
        elsewhere = run.path.with_name(f"{run.path.name}-step_{agent.steps:09d}.safetensors")
        try:
            agent.save(elsewhere, memory=True)
        except Exception as second:
            error.add_note(f"Nor in {elsewhere}: {second}")
            return
        error.add_note(f"The agent as of step {agent.steps:,} is saved in {elsewhere}: renshu.load('{elsewhere}')")
        return
    error.add_note(f"The agent as of step {agent.steps:,} is saved in {path}")
    error.add_note(f"Go on from there with: {_way_on(agent, run.path)}")
    try:
        run.flush()
    except Exception as failure:
        error.add_note(f"The latest rows of its tables could not be written: {failure}")


def run_folder(run: Any, agent: Agent, settings: dict[str, Any]) -> Any:
    """Return the run to write to: a new folder for a path or True, the one given for a Run, none for None or False."""
    if run is None or run is False:
        return None
    if isinstance(run, Run):
        return run
    path = Run.new_path("runs", agent.title) if run is True else Path(run)
    return Run.create(path, settings)


def finish(run: Run, error: BaseException | None = None) -> None:
    """Close the run's files and draw its learning curve.

    error: with which training ended; what fails here is noted there. Without one, a curve that cannot be drawn is a
    warning, since nothing else is lost, and rows that cannot be written are an error.
    """
    try:
        run.close()
    except Exception as failure:
        if error is None:
            raise
        error.add_note(f"The latest rows of its tables could not be written: {failure}")
    try:
        plot_runs([run.path], run.curve_path)
    except Exception as failure:
        why = f"{type(failure).__name__}: {failure}"
        _mention(f"The learning curve could not be drawn ({why}): renshu plot {run.path}", error)


def _draw(trainer: Trainer, run: Run, error: BaseException | None) -> None:
    """Draw what the algorithm has to show besides."""
    try:
        save_pictures(trainer, run.path)
    except Exception as failure:
        _mention(f"The algorithm's pictures could not be drawn ({type(failure).__name__}: {failure})", error)


def _mention(told: str, error: BaseException | None) -> None:
    if error is None:
        warnings.warn(told, stacklevel=6)
    else:
        error.add_note(told)
