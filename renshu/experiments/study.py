"""The study of a search for hyperparameters: its trials, in a file that several processes share.

The file is of SQLite: a change is in it whole or not at all, whenever a process is killed, and the system takes a dead
process's locks away. Optuna's journal holds half a line after a write that broke off, and cannot be read then.
"""

from __future__ import annotations

import math
import time
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from renshu.errors import HyperparameterError, RenshuError, UnknownNameError
from renshu.experiments.ranges import Space
from renshu.tracking.lock import FolderLock
from renshu.tracking.run import Run

if TYPE_CHECKING:
    import optuna

POINTS = 10
"""Times in a training at which a pruner looks at it."""
SAMPLERS: dict[str, tuple[str, dict[str, Any], str]] = {
    "tpe": ("TPESampler", {"constant_liar": True}, "optuna"),  # or processes would all try what is near the same best
    "random": ("RandomSampler", {}, "optuna"),
    "qmc": ("QMCSampler", {"warn_independent_sampling": False}, "scipy"),
    "cmaes": ("CmaEsSampler", {"warn_independent_sampling": False}, "cmaes"),
    "gp": ("GPSampler", {}, "torch"),
}
"""Samplers by name: Optuna's class, its arguments, and the package that it needs."""
PRUNERS: dict[str, tuple[str, dict[str, Any]]] = {
    "median": ("MedianPruner", {"n_startup_trials": 5, "n_warmup_steps": POINTS // 5}),
    "halving": ("SuccessiveHalvingPruner", {}),
    "hyperband": ("HyperbandPruner", {"max_resource": POINTS}),
    "none": ("NopPruner", {}),
}
"""Pruners by name: Optuna's class, and its arguments."""
SHARING = 16
"""Trials of a batch in a row that get the same values of what one program cannot vary."""
_NAME = "tune"
_PATIENCE = 60.0


def import_optuna() -> Any:
    """Import Optuna, with its log quiet. Raises HyperparameterError, naming the extra, where it is not installed."""
    try:
        import optuna
    except ImportError as error:
        raise HyperparameterError('tune needs Optuna, which is not installed: pip install "renshu[tune]"') from error
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    return optuna


def check_names(sampler: str, pruner: str) -> None:
    """Raise UnknownNameError for an unknown sampler or pruner, HyperparameterError where a package is missing."""
    for what, name, known in (("sampler", sampler, list(SAMPLERS)), ("pruner", pruner, list(PRUNERS))):
        if name not in known:
            raise UnknownNameError(f"tune: there is no {what} {name!r}. There are: {', '.join(known)}")
    package = SAMPLERS[sampler][2]
    if find_spec(package) is None:
        raise HyperparameterError(f"tune: the sampler {sampler!r} needs {package}: pip install {package}")


@dataclass(frozen=True)
class Score:
    """Mean returns of greedy episodes, one a seed; prints as `mean ± std`, over the seeds."""

    returns: tuple[float, ...]

    @property
    def mean(self) -> float:
        """Mean over the seeds."""
        return float(np.mean(self.returns))

    @property
    def std(self) -> float:
        """Standard deviation over the seeds."""
        return float(np.std(self.returns))

    def __str__(self) -> str:
        size = max(abs(self.mean), self.std, 1e-6)
        digits = 1 if size >= 10 else min(6, 2 - math.floor(math.log10(size)))
        return f"{self.mean:,.{digits}f} ± {self.std:,.{digits}f}"


@dataclass(frozen=True)
class Record:
    """A trial. state: running, waiting, complete, pruned, failed, refused (its values do not go together), or lost.

    params: as Optuna knows them. reason: of a failure. score: where it is complete. start: the algorithm's own values.
    """

    number: int
    state: str
    params: dict[str, Any]
    start: bool
    score: Score | None = None
    reason: str = ""
    worker: str = ""

    @property
    def counts(self) -> bool:
        """True for one of the trials that were asked for: neither lost nor refused, nor waiting."""
        return self.state in ("running", "complete", "pruned", "failed")


def _record(frozen: Any) -> Record:
    attrs, state = frozen.user_attrs, frozen.state.name.lower()
    state = "refused" if "refused" in attrs else state
    if state == "fail":
        state = "failed" if "reason" in attrs else "lost"
    score = Score(tuple(attrs["returns"])) if state == "complete" else None
    reason = attrs.get("reason", attrs.get("refused", ""))
    start, worker = attrs.get("start", False), attrs.get("worker", "")
    return Record(frozen.number, state, dict(frozen.params), start, score, reason, worker)


@contextmanager
def alone(folder: Path, patience: float = math.inf) -> Iterator[None]:
    """Enter a block that one process at a time is in. Raises RenshuError, naming the process, after `patience`."""
    folder.mkdir(parents=True, exist_ok=True)
    lock, began = FolderLock(folder), time.monotonic()
    while not lock.held:
        try:
            lock.acquire()
        except RenshuError as error:
            if error.__cause__ is not None or time.monotonic() - began > patience:  # the disk's fault, or too long
                raise
            time.sleep(0.05)
    try:
        yield
    finally:
        lock.release()


class Study:
    """The trials of a search, shared by processes. Each holds a lock as long as it lives, by which others know."""

    def __init__(self, folder: Path, space: Space, sampler: str, pruner: str, seed: int) -> None:
        optuna = import_optuna()
        self.folder, self.space = folder, space
        self.worker = Run.new_path(folder / "workers", "worker")
        self._life = FolderLock(self.worker)
        self._life.acquire()
        self._storage = _storage(folder)
        name, options, _ = SAMPLERS[sampler]
        # Each process draws its own numbers: with the same ones they would all try the same.
        own = int(np.random.SeedSequence([seed, int(self.worker.name.rpartition("-")[2])]).generate_state(1)[0])
        with _without_warnings(optuna):
            chosen = getattr(optuna.samplers, name)(seed=own, **options)
        stops, options = PRUNERS[pruner]
        self.study = optuna.load_study(
            study_name=_NAME, storage=self._storage, sampler=chosen, pruner=getattr(optuna.pruners, stops)(**options)
        )

    @staticmethod
    def create(folder: Path, space: Space) -> None:
        """Make the file, with the algorithm's own values as the first trial."""
        storage = _storage(folder)
        study = import_optuna().create_study(study_name=_NAME, storage=storage, direction="maximize")
        study.enqueue_trial(space.start(), user_attrs={"start": True})
        storage.engine.dispose()

    def close(self) -> None:
        """Let go of the file; trials that this process left running are lost then, and done again by others."""
        self._storage.engine.dispose()
        self._life.release()

    def records(self) -> list[Record]:
        """Return all trials, by their numbers."""
        return [_record(frozen) for frozen in self.study.get_trials(deepcopy=False)]

    def claim(
        self, trials: int, *, over: bool = False, count: int = 1, shared: Sequence[str] = ()
    ) -> list[optuna.Trial]:
        """Begin the next trials, `count` at most; none where there are as many as were asked for, or time is over.

        shared: parameters that are drawn once for `SHARING` trials in a row.
        """
        claimed: list[optuna.Trial] = []
        with alone(self.folder / "claims", _PATIENCE):
            self._requeue_lost()
            room = 0 if over else min(count, trials - sum(record.counts for record in self.records()))
            common: dict[str, Any] = {}
            waiting = import_optuna().trial.TrialState.WAITING
            for i in range(room):
                # Trials that wait, as lost ones do, come first: what is queued behind them would wait, too.
                if i % SHARING and common and not self.study.get_trials(deepcopy=False, states=(waiting,)):
                    self.study.enqueue_trial(common)
                claimed.append(self._ask())
                if not i % SHARING or not common:
                    common = {name: claimed[-1].params[name] for name in shared if name in claimed[-1].params}
        return claimed

    def _ask(self) -> optuna.Trial:
        trial = self.study.ask()
        trial.set_user_attr("worker", self.worker.name)
        # Of the start, values outside of a range are no parameters: the sampler could not tell what they mean.
        names = list(self.space.start() if trial.user_attrs.get("start") else self.space.ranges)
        self.space.suggest(trial, names)
        return trial

    def busy(self) -> bool:
        """Tell whether other processes have trials running."""
        return any(record.state == "running" for record in self.records())

    def complete(self, trial: optuna.Trial, score: Score) -> None:
        """Record the score of a trial."""
        trial.set_user_attr("returns", list(score.returns))
        self.study.tell(trial, score.mean)

    def end(self, trial: optuna.Trial, state: str, reason: str = "") -> None:
        """Record a trial without a score. state: pruned, failed, refused, or lost, which is done again."""
        states = import_optuna().trial.TrialState
        if state in ("failed", "refused"):
            trial.set_user_attr("reason" if state == "failed" else "refused", reason)
        if state == "lost":
            if self.records()[trial.number].state != "running":  # it had ended when the interruption came
                return
            self._enqueue(trial)
        # A refused one counts as pruned for the sampler, which then keeps away from such values.
        self.study.tell(trial, state=states.PRUNED if state in ("pruned", "refused") else states.FAIL)

    def best(self) -> Record | None:
        """Return the complete trial of the highest score, the first of equals; None before the first."""
        complete = [record for record in self.records() if record.score is not None]
        return max(complete, key=lambda one: (one.score.mean if one.score else 0, -one.number), default=None)

    def importances(self) -> dict[str, float]:
        """Estimate the share of each parameter in the differences of the scores; {} before there are enough trials.

        Source: Watanabe et al. 2023, "PED-ANOVA", arXiv:2304.10255, on the better tenth of the complete trials.
        """
        optuna = import_optuna()
        complete = sum(record.score is not None for record in self.records())
        if complete < 2 or len(self.space.ranges) < 2:
            return {}
        with _without_warnings(optuna), warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # of few trials, from which the shares are estimates
            found = optuna.importance.get_param_importances(
                self.study, evaluator=optuna.importance.PedAnovaImportanceEvaluator()
            )
        return {name: float(share) for name, share in found.items() if math.isfinite(share)}

    def _requeue_lost(self) -> None:
        """Mark trials as lost whose process is dead, and have them done again. Called by one process at a time."""
        states = import_optuna().trial.TrialState
        for frozen in self.study.get_trials(deepcopy=False, states=(states.RUNNING,)):
            worker = frozen.user_attrs.get("worker")
            if worker != self.worker.name and (worker is None or _is_dead(self.folder / "workers" / worker)):
                self._enqueue(frozen)  # first, so that it is rather done twice than never
                self.study.tell(frozen.number, state=states.FAIL)

    def _enqueue(self, trial: Any) -> None:
        self.study.enqueue_trial(trial.params, user_attrs={"start": True} if trial.user_attrs.get("start") else None)


def _storage(folder: Path) -> Any:
    # A process that waits for another's change does so for a minute instead of five seconds.
    return import_optuna().storages.RDBStorage(
        f"sqlite:///{(folder / 'study.db').resolve()}", engine_kwargs={"connect_args": {"timeout": _PATIENCE}}
    )


def _is_dead(worker: Path) -> bool:
    if not worker.is_dir():
        return True
    lock = FolderLock(worker)
    try:
        lock.acquire()
    except RenshuError as error:
        if error.__cause__ is not None:
            raise
        return False
    lock.release()
    return True


@contextmanager
def _without_warnings(optuna: Any) -> Iterator[None]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        yield
