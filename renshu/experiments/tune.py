"""Search for hyperparameters: trials of a study that processes share; the best is trained again on fresh seeds."""

from __future__ import annotations

import gc
import math
import sys
import textwrap
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

import jax
import numpy as np

from renshu.agent.agent import Agent
from renshu.agent.options import refuse_unknown
from renshu.algorithms.base import Algorithm
from renshu.errors import HyperparameterError, RenshuError
from renshu.experiments.halving import train_batch
from renshu.experiments.plan import EVALUATION, Plan, begun, resumed
from renshu.experiments.study import POINTS, Record, Score, Study, alone, import_optuna
from renshu.experiments.tuned import Tuning, counted, tried, values_of, write_preset, write_trials
from renshu.presets import Preset
from renshu.tracking.provenance import write_settings, writing
from renshu.tracking.run import Run

if TYPE_CHECKING:
    import optuna

_OPTIONS = ("ranges", "trials", "steps", "timeout", "seeds", "num_envs", "bins", "frame_stack", "masks", "env_kwargs")
_OPTIONS += ("sampler", "pruner", "batch", "eval_episodes", "run", "resume", "progress")
FAILURES = 5
"""Trials that may fail in a row."""
REFUSALS = 100
"""Trials in a row whose values may not go together."""
WAIT = 1.0
"""Seconds between two looks at what other processes do."""
CLEARED = 20
"""Trials after which compiled programs are let go of: each makes its own, and a process may hold only so many."""


_ORDER = ("complete", "pruned", "refused", "failed")


class _Pruned(Exception):
    """The pruner gives a trial up."""


def tune(
    algorithm: str | Algorithm | Preset | None = None,
    env: Any = None,
    *,
    ranges: Mapping[str, Any] | None = None,
    trials: int | None = None,
    steps: int | None = None,
    timeout: float | None = None,
    seeds: int | Sequence[int] | None = None,
    num_envs: int | None = None,
    bins: int | Sequence[int] | None = None,
    frame_stack: int | None = None,
    masks: bool | None = None,
    env_kwargs: dict[str, Any] | None = None,
    sampler: str | None = None,
    pruner: str | None = None,
    batch: int | None = None,
    eval_episodes: int | None = None,
    run: str | Path | None = None,
    resume: str | Path | None = None,
    progress: bool = True,
    **unknown: Any,
) -> Tuning:
    """Search for hyperparameters with Optuna, and write what came out as a preset. Needs `renshu[tune]`.

    The first trial is the algorithm as it is: its preset or defaults, or as given. At the end it and the best trial
    are trained again on seeds by which nothing was chosen; the better one there is the result.

    algorithm: its name, or an algorithm with the values to begin at. env: as for Agent, but made anew for each
    training: an id, a class, a function, or a DeviceEnv. ranges: {"learning_rate": "1e-5..1e-2"} or (low, high), on a
    logarithmic scale where both are above 0; lists of choices; None: those that the algorithm declares. A schedule
    keeps its form, and its highest number is searched. trials: 100 by default. steps: of each training; by default the
    preset's, or 100,000. timeout: seconds after which no trial begins. seeds: of each trial, how many (3 by default) or
    which; the score is the mean of `eval_episodes` greedy episodes (20) of each. sampler: tpe, random, qmc, cmaes or
    gp. pruner: median, halving, hyperband or none; it compares mean returns of training. batch: trials that train
    together, for a DeviceEnv: those that differ in traceable numbers alone (learning_rate, gamma, ...) are one program,
    so other values are drawn once for 16 of them; the worse half is given up after 1/8, 1/4 and 1/2 of the steps. run:
    folder, by default runs/tune-1, -2, ... Other options: as for Agent.

    resume: the folder of a search to go on with, after a crash or while others are at it: processes share its trials.
    The settings are those it has; `trials` may be raised.

    Raises UnknownNameError, HyperparameterError, SpaceError before anything is trained; RenshuError after five failed
    trials in a row, or when none was completed.
    """
    refuse_unknown("tune(...)", unknown, _OPTIONS, {})
    import_optuna()
    if timeout is not None and not timeout > 0:
        raise HyperparameterError(f"timeout={timeout!r}: expected seconds, more than 0")
    given = {"ranges": ranges, "trials": trials, "steps": steps, "seeds": seeds, "num_envs": num_envs, "bins": bins}
    given |= {"frame_stack": frame_stack, "masks": masks, "env_kwargs": env_kwargs, "sampler": sampler}
    given |= {"pruner": pruner, "eval_episodes": eval_episodes, "batch": batch}
    if resume is not None:
        if run is not None:
            raise HyperparameterError("tune: run= is for a new search, and resume= goes on with one: give one of them")
        folder = Path(resume)
        plan = resumed(folder, algorithm, env, given)
    elif algorithm is None or env is None:
        raise HyperparameterError('tune wants an algorithm and an environment, as in tune("ppo", "CartPole-v1")')
    else:
        plan = begun(algorithm, env, given)
        folder = _new_folder(run, plan)
    study = Study(folder, plan.space, plan.sampler, plan.pruner, plan.seeds[0])
    try:
        return Search(plan, folder, study, timeout, progress).run()
    except BaseException as error:
        error.add_note(f"The search is in {folder}: {counted(study.records())}. Go on with: {_way_on(plan, folder)}")
        raise
    finally:
        study.close()


def _new_folder(run: str | Path | None, plan: Plan) -> Path:
    """Make the folder of a search, with its study; the settings come last, since others join where they are."""
    folder = Run.new_path("runs", "tune") if run is None else Path(run)
    with writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
        if run is not None and any(folder.iterdir()):
            raise RenshuError(f"{folder} is not empty. To go on with a search there: resume={str(folder)!r}")
    Study.create(folder, plan.space)
    write_settings(folder, plan.settings())
    return folder


def _way_on(plan: Plan, folder: Path) -> str:
    if isinstance(plan.env, str) and ":" not in plan.env:
        return f"renshu tune --resume {folder} --trials {plan.trials}"
    return f"the same command and --resume {folder}, or renshu.tune(resume='{folder}', env=..., trials={plan.trials})"


class Search:
    """One process's part of a search."""

    def __init__(self, plan: Plan, folder: Path, study: Study, timeout: float | None, progress: bool) -> None:
        self.plan, self.folder, self.study, self.progress = plan, folder, study, progress
        self.end = math.inf if timeout is None else time.monotonic() + timeout
        self.error: Exception | None = None
        self.ended = self.failures = self.refusals = 0

    def run(self) -> Tuning:
        """Do trials until there are enough, those of other processes included, and train the best again."""
        if self.progress:
            print(f"{self.plan.title}: the search is in {self.folder}", file=sys.stderr, flush=True)
        while True:
            plan, over = self.plan, time.monotonic() >= self.end
            fixed = [name for name in plan.ranges if name not in plan.traceable]
            if trials := self.study.claim(plan.trials, over=over, count=plan.batch or 1, shared=fixed):
                self._try(trials)
            elif self.study.busy():
                time.sleep(WAIT)  # one of them may die, and leave its trial to us
            else:
                return self._result()

    def _try(self, trials: Sequence[optuna.Trial]) -> None:
        """Do trials and record how they ended; whatever interrupts them leaves them to be done again."""
        try:
            found = self._together(trials) if self.plan.batch is not None else [self._outcome(trials[0])]
        except BaseException:
            for trial in trials:
                self.study.end(trial, "lost")
            raise
        for trial, (state, reason) in zip(trials, found, strict=True):
            if state != "complete":
                self.study.end(trial, state, reason)
            self.ended += 1
            if self.plan.batch is None or state != "pruned":
                self._tell(trial.number)
        self._write_trials()
        # Trials of a batch share values, good or bad: together they are one.
        self._count(*min(found, key=lambda one: _ORDER.index(one[0])))
        if self.ended % CLEARED == 0 or self.plan.batch is not None:
            jax.clear_caches()
            gc.collect()

    def _write_trials(self) -> None:
        """Write the tables of all trials; processes do so one after the other, each with what is known by then."""
        with alone(self.folder / "tables"):
            write_trials(self.folder, self.study.records(), self.study.importances())

    def _count(self, state: str, reason: str) -> None:
        """Count failures in a row. Raises RenshuError where there are too many."""
        self.failures = self.failures + 1 if state == "failed" else 0
        self.refusals = self.refusals + 1 if state == "refused" else 0
        if self.failures == FAILURES or self.refusals == REFUSALS:
            kind = "failed" if self.failures else "had values that do not go together"
            raise RenshuError(
                f"{self.failures or self.refusals} trials in a row {kind}, the last one: {reason}"
            ) from self.error

    def _outcome(self, trial: optuna.Trial) -> tuple[str, str]:
        """Train and evaluate. Returns the state, and the reason of a failure."""

        def report(point: int, value: float) -> None:
            trial.report(value, point)
            if not trial.user_attrs.get("start") and trial.should_prune():
                raise _Pruned

        try:
            algorithm = self.plan.space.algorithm_of(trial.params)
            score = train_and_evaluate(self.plan, algorithm, self.plan.seeds, report)[0]
        except _Pruned:
            return "pruned", ""
        except HyperparameterError as error:
            return "refused", str(error)
        except Exception as error:  # of whatever kind: it is this trial's, recorded with its reason and shown
            self.error = error
            return "failed", f"{type(error).__name__}: {error}"
        if not math.isfinite(score.mean):
            return "failed", f"the returns are {score.returns}"
        self.study.complete(trial, score)
        return "complete", ""

    def _together(self, trials: Sequence[optuna.Trial]) -> list[tuple[str, str]]:
        """Train a batch, and evaluate those that are left at its end. Returns states, and reasons of failures."""
        algorithms, found = {}, {}
        for trial in trials:
            try:
                algorithms[trial.number] = self.plan.space.algorithm_of(trial.params)
            except HyperparameterError as error:
                found[trial.number] = "refused", str(error)
        kept = [trial.number for trial in trials if trial.user_attrs.get("start")]
        outcomes = train_batch(self.plan, algorithms, kept, self._say)
        for trial in trials:
            if (outcome := outcomes.get(trial.number)) is None:
                continue
            for rung, value in enumerate(outcome.reports, 1):
                if math.isfinite(value):
                    trial.report(value, rung)
            if outcome.score is not None and not math.isfinite(outcome.score.mean):
                outcome.state, outcome.reason = "failed", f"the returns are {outcome.score.returns}"
            if outcome.state == "complete" and outcome.score is not None:
                self.study.complete(trial, outcome.score)
            found[trial.number] = outcome.state, outcome.reason
        return [found[trial.number] for trial in trials]

    def _tell(self, number: int) -> None:
        if not self.progress:
            return
        records, best = {one.number: one for one in self.study.records()}, self.study.best()
        one = records[number]
        how = f"{one.score}" if one.score is not None else one.state + (f" ({one.reason})" if one.reason else "")
        known = f"; best {best.score} (trial {best.number})" if best is not None else ""
        self._say(f"trial {number}: {how}{known}; {tried(one)}")

    def _say(self, text: str) -> None:
        if self.progress:
            print(textwrap.fill(text, 80, subsequent_indent="    "), file=sys.stderr, flush=True)

    # --- the end --------------------------------------------------------------------------------------------------

    def _result(self) -> Tuning:
        """Train start and best on fresh seeds, in one of the processes, and write the preset."""
        plan = self.plan
        with alone(self.folder / "confirmation"):
            best, records = self.study.best(), self.study.records()
            self._write_trials()
            if best is None:
                reasons = "; ".join(dict.fromkeys(one.reason for one in records if one.reason))
                raise RenshuError(f"no trial was completed: {reasons or 'time was too short for one'}")
            final: dict[str, Any] = self.study.study.user_attrs.get("final", {})
            if final.get("trial") != best.number:  # never yet, or more trials found a better one
                final = self._confirmed(best, records)
            algorithm = plan.space.algorithm_of({} if best.start or not final["held"] else best.params)
            path = self.folder / f"{type(plan.start).__name__.lower()}.toml"
            write_preset(path, plan, algorithm, records, final, best)
        start = None if final["start"] is None else Score(tuple(final["start"]))
        number, score = best.number, Score(tuple(final["best"]))
        if not final["held"]:
            assert start is not None
            number, score = next(one.number for one in records if one.start and one.score), start
        values = values_of(plan, algorithm)
        return Tuning(algorithm, values, score, start, number, records, plan, self.folder, path)

    def _confirmed(self, best: Record, records: Sequence[Record]) -> dict[str, Any]:
        """Train start and best on fresh seeds; keep the scores in the study, and the better one's agent."""
        plan, seeds = self.plan, self.plan.fresh_seeds
        started = any(one.start and one.score is not None for one in records)
        start = train_and_evaluate(plan, plan.start, seeds) if started else None
        found = start
        if start is None or not best.start:
            found = train_and_evaluate(plan, plan.space.algorithm_of(best.params), seeds)
        assert found is not None
        held = start is None or found[0].mean >= start[0].mean
        before = "could not be trained" if start is None else str(start[0])
        self._say(f"on the fresh seeds {', '.join(map(str, seeds))}: {before} before, {found[0]} for the best")
        score, agents = found if held or start is None else start
        agents[int(np.argmax(score.returns))].save(self.folder / "best.safetensors")
        final = {"trial": best.number, "seeds": seeds, "best": list(found[0].returns), "held": bool(held)}
        final["start"] = None if start is None else list(start[0].returns)
        self.study.study.set_user_attr("final", final)
        return final


def train_and_evaluate(
    plan: Plan, algorithm: Algorithm, seeds: Sequence[int], report: Callable[[int, float], None] | None = None
) -> tuple[Score, list[Agent]]:
    """Train an agent for each seed, side by side, and evaluate them.

    report: gets each point (1, 2, ...) of the training but the last, with the mean return of the episodes that ended
    since the one before; it may raise to end the training.
    """
    with ExitStack() as stack:
        agents = [stack.enter_context(plan.agent(algorithm, seed)) for seed in seeds]
        for agent in agents:
            agent.trainer.set_target(plan.steps)
        loops = [agent.trainer.start_loop(nullcontext) for agent in agents]
        for point in range(1, POINTS + 1):
            goal, means = plan.steps * point // POINTS, []
            for agent, loop in zip(agents, loops, strict=True):
                returns: list[float] = []
                while agent.steps < goal:
                    finished = loop.advance(goal - agent.steps).finished
                    agent.trainer.note(finished)
                    returns.extend(finished.returns)
                means += [np.mean(returns)] if returns else []
            if report is not None and means and point < POINTS:
                report(point, float(np.mean(means)))
        scores = [agent.evaluate(plan.eval_episodes, seed=EVALUATION + agent.seed).mean for agent in agents]
    return Score(tuple(scores)), agents
