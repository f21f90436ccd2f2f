"""A folder that holds everything about one training run.

    settings.json      what was run: the caller's settings, versions, git state, machine, start time, command line
    episodes.csv       step, env, return, length, seconds: a row for each training episode that ended
    metrics.csv        step, then whatever the learner measured
    evaluations.csv    step, mean, std, min, max, length, episodes
    scores.csv         the same, of evaluations after the training (`renshu evaluate RUN`)
    events.out.tfevents.*                     the same for TensorBoard
    checkpoints/step_000050000.safetensors    written by others, as are best.safetensors, agent.safetensors, curve.png

`step` counts valid environment steps over all environments together. `seconds` are counted from the call of learn.
"""

from __future__ import annotations

import math
import platform
import re
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self, SupportsFloat

import numpy as np

from renshu.errors import RenshuError
from renshu.files.replacing import remove_leftovers
from renshu.tracking.curves import EPISODES, EVALUATIONS
from renshu.tracking.lock import FolderLock
from renshu.tracking.provenance import read_settings, write_settings, writing
from renshu.tracking.recent import MOST, Recent
from renshu.tracking.scores import evaluation_row
from renshu.tracking.tables import Table

if TYPE_CHECKING:
    from numpy.typing import ArrayLike
    from tensorboardX import RecordWriter

DELETE = (
    "Where no training is at work there it ended too early: delete the folder (rm -r {path}), or choose another, and "
    "train anew"
)
"""Advice on a run without a checkpoint."""


class Run:
    """One training run on disk. Made by `Run.create` or `Run.open`; a context manager that closes its files.

    Rows are buffered: they are on disk after `flush` or `close`. Call `flush` at log intervals, not at each row.
    Every method that writes raises RenshuError, naming path and reason, when the disk is full or the folder forbids it.
    """

    def __init__(self, path: Path, settings: dict[str, Any]):
        self._path = path
        self._settings = settings
        self._episodes = Table(path / "episodes.csv", EPISODES)
        self._metrics = Table(path / "metrics.csv", ("step",))
        self._evaluations = Table(path / "evaluations.csv", EVALUATIONS)
        self._events = _Events(path)
        self._recent = {"return": Recent(), "length": Recent()}
        self._lock = FolderLock(path)
        self._seen: list[tuple[str, int]] | None = None

    @classmethod
    def create(cls, path: Path | str, settings: Mapping[str, Any]) -> Self:
        """Start a run in the folder `path`, which is made if it does not exist.

        settings: of the run. Plots use "algorithm", "environment" and "reward_threshold" if they are present.
            Added: "versions", "git", "machine", "started" (UTC, ISO 8601), "command". Values that JSON cannot hold,
            among them NaN and infinity, are written as text.
        Raises RenshuError when the folder already holds a run, or cannot be written.
        """
        path = Path(path)
        checkpoints = path / "checkpoints"
        with writing(path):
            path.mkdir(parents=True, exist_ok=True)
            try:
                # If two runs start in one folder at once, only one of them gets it: mkdir is atomic everywhere.
                checkpoints.mkdir()
            except FileExistsError as error:
                raise RenshuError(f"{path} already holds a run{_way_on(path)}") from error
        try:
            return cls(path, write_settings(path, settings))
        except BaseException:
            checkpoints.rmdir()
            raise

    @classmethod
    def open(cls, path: Path | str) -> Self:
        """Open the run in the folder `path`, to read it or to continue it. Nothing is changed.

        Raises UnknownNameError, with near matches, when there is no run; CheckpointError when settings.json is damaged.
        """
        return cls(Path(path), read_settings(path))

    @staticmethod
    def new_path(root: Path | str, name: str) -> Path:
        """Make and return the first free folder of root/name-1, root/name-2, ...; each caller gets its own.

        Characters of `name` that do not belong in a folder's name become "-": ALE/Pong-v5 gives ALE-Pong-v5-1.
        """
        root, name = Path(root), re.sub(r"[^\w.-]+", "-", name)
        number = 1
        with writing(root):
            root.mkdir(parents=True, exist_ok=True)
            while True:
                path = root / f"{name}-{number}"
                try:
                    path.mkdir()
                except FileExistsError:
                    number += 1
                else:
                    return path

    @property
    def path(self) -> Path:
        """Folder of the run."""
        return self._path

    @property
    def settings(self) -> dict[str, Any]:
        """Contents of settings.json."""
        return self._settings

    @property
    def checkpoints(self) -> list[Path]:
        """Existing checkpoints, oldest (fewest steps) first."""
        found = (path for path in (self._path / "checkpoints").glob("step_*.safetensors") if path.stem[5:].isdecimal())
        return sorted(found, key=lambda path: int(path.stem[5:]))

    @property
    def latest_checkpoint(self) -> Path | None:
        """Checkpoint with the most steps, or None."""
        return next(reversed(self.checkpoints), None)

    @property
    def best_path(self) -> Path:
        """Path for the agent with the best evaluation."""
        return self._path / "best.safetensors"

    @property
    def agent_path(self) -> Path:
        """Path for the agent at the end of training."""
        return self._path / "agent.safetensors"

    @property
    def curve_path(self) -> Path:
        """Path for the plot of the returns."""
        return self._path / "curve.png"

    def checkpoint_path(self, step: int) -> Path:
        """Return the path for the checkpoint after `step` environment steps."""
        return self._path / "checkpoints" / f"step_{step:09d}.safetensors"

    def keep_checkpoints(self, n: int) -> None:
        """Delete all checkpoints but the `n` newest. best.safetensors and agent.safetensors stay."""
        if n < 0:
            raise RenshuError(f"keep_checkpoints({n}): the number to keep must be 0 or more.")
        checkpoints = self.checkpoints
        for path in checkpoints[: max(0, len(checkpoints) - n)]:
            with writing(path):
                path.unlink(missing_ok=True)

    def log_episodes(
        self,
        steps: ArrayLike,
        envs: ArrayLike,
        returns: ArrayLike,
        lengths: ArrayLike,
        seconds: ArrayLike,
    ) -> None:
        """Record K finished training episodes, oldest first; every argument has length K, which may be 0.

        steps: valid environment steps so far. envs: index of the environment. returns: sum of raw rewards.
        lengths: steps of the episode. seconds: since training began; rounded to milliseconds.
        """
        columns = [
            np.asarray(steps, np.int64),
            np.asarray(envs, np.int64),
            np.asarray(returns, np.float64),
            np.asarray(lengths, np.int64),
            np.round(np.asarray(seconds, np.float64), 3),
        ]
        if len({column.shape for column in columns}) != 1 or columns[0].ndim != 1:
            shapes = ", ".join(str(column.shape) for column in columns)
            raise RenshuError(f"log_episodes wants five sequences of one length, got the shapes {shapes}.")
        rows = list(zip(*(column.tolist() for column in columns), strict=True))
        if rows:
            self._episodes.append(rows)
            self._note(rows)

    def log_metrics(self, step: int, metrics: Mapping[str, SupportsFloat]) -> None:
        """Record the learner's measurements; a metric that is missing from a row reads as NaN.

        TensorBoard gets them as train/<name>, together with rollout/return_mean and rollout/length_mean: the means of
        the recent training episodes.
        Raises RenshuError when a value is not one number, or a name is "step".
        """
        values = {name: _number(name, value) for name, value in metrics.items()}
        if "step" in values:
            raise RenshuError('a metric must not be named "step": that column holds the environment steps. Rename it.')
        self._metrics.add_columns(values)
        self._metrics.append([[int(step), *(values.get(name, math.nan) for name in self._metrics.columns[1:])]])
        scalars = {f"train/{name}": value for name, value in values.items()}
        for name, recent in self._recent.items():
            recent.add([], [], int(step))
            if recent.values:
                with np.errstate(invalid="ignore"):
                    scalars[f"rollout/{name}_mean"] = float(np.mean(recent.values))
        self._events.write(int(step), scalars)

    def log_evaluation(self, step: int, returns: ArrayLike, lengths: ArrayLike) -> None:
        """Record an evaluation of E >= 1 episodes after `step` training steps; std is that of these E (divisor E).

        returns: [E] sums of raw rewards. lengths: [E] steps; the table keeps their mean. TensorBoard gets eval/mean.
        """
        row = evaluation_row(step, returns, lengths)
        self.check()
        self._evaluations.append([row])
        self._events.write(int(step), {"eval/mean": row[1]})

    def truncate(self, step: int) -> None:
        """Forget what was logged beyond `step`. Call it before training continues from a checkpoint.

        Table rows with a larger step are dropped, atomically for each file, and an event makes TensorBoard hide such
        points, so that nothing counts twice. Checkpoints stay; what killed processes left of others is removed.
        Raises CheckpointError when a table is damaged, RenshuError while another training writes to the folder.
        """
        held = self._lock.held
        self._lock.acquire()
        try:
            self._close_files()
            for table in (self._episodes, self._metrics, self._evaluations):
                table.truncate(step)
            for folder in (self._path, self._path / "checkpoints"):
                remove_leftovers(folder)
            self._events.purge_step = step + 1
            self._recent = {name: Recent() for name in self._recent}
            self._note(self._episodes.tail(MOST))
            self._seen = self._contents()
        finally:
            if not held:
                self._lock.release()

    def _note(self, rows: Sequence[Sequence[float]]) -> None:
        """Count rows of the table of episodes among the recent ones."""
        for place, recent in zip((2, 3), self._recent.values(), strict=True):
            recent.add([row[place] for row in rows], [int(row[0]) for row in rows], int(rows[-1][0]) if rows else 0)

    def lock(self) -> None:
        """Keep all others from writing to the folder until `close`, or until the process ends.

        Raises RenshuError, with the process, where another training has it, and where one has gone on since `truncate`.
        """
        self._lock.acquire()
        if self._seen is not None and self._seen != self._contents():
            self._lock.release()
            raise RenshuError(
                f"{self._path} has gone on elsewhere since it was resumed here. Resume it again: "
                f'Agent.resume("{self._path}")'
            )
        self._seen = None

    def check(self) -> None:
        """Raise RenshuError where the folder was deleted or moved: what is written now would be lost, or half a run."""
        if not (self._path / "settings.json").exists():
            raise RenshuError(
                f"{self._path} is gone: it was deleted or moved while it was written to. Leave a run where it is until "
                "its training has ended"
            )

    def flush(self) -> None:
        """Write all buffered rows to the files; takes milliseconds, since it waits for the disk."""
        self.check()
        for file in self._files:
            file.flush()

    def close(self) -> None:
        """Flush and close the files, and let others write to the folder. Further logging opens them again."""
        try:
            self._close_files()
        finally:
            self._lock.release()

    @property
    def _files(self) -> tuple[Table | _Events, ...]:
        return self._episodes, self._metrics, self._evaluations, self._events

    def _close_files(self) -> None:
        with ExitStack() as stack:
            for file in self._files:
                stack.callback(file.close)

    def _contents(self) -> list[tuple[str, int]]:
        """Names and sizes of what a training adds to."""
        files = [*self._path.glob("*.csv"), *self.checkpoints]
        return sorted((file.name, file.stat().st_size) for file in files)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"Run({str(self._path)!r})"


def _way_on(path: Path) -> str:
    """Say what can be done about a folder that holds a run already."""
    if any((path / "checkpoints").glob("step_*.safetensors")):
        return (
            f". Choose another folder (Run.new_path finds a free one), or go on with that run: "
            f"renshu train --resume {path}"
        )
    return f", which has no checkpoint yet that could be gone on from. {DELETE.format(path=path)}"


class _Events:
    """TensorBoard's event file, opened at the first scalar.

    Only the file format of tensorboardX is used. Its SummaryWriter writes in a thread that dies when the disk is full,
    and the training then waits for it forever; it also overwrites a file that was begun in the same second.
    """

    def __init__(self, folder: Path):
        self._path = folder
        self._folder = folder
        self._file: RecordWriter | None = None
        self.purge_step: int | None = None

    def write(self, step: int, scalars: Mapping[str, float]) -> None:
        from tensorboardX.proto.event_pb2 import Event  # pyright: ignore[reportAttributeAccessIssue]
        from tensorboardX.proto.summary_pb2 import Summary  # pyright: ignore[reportAttributeAccessIssue]

        values = [Summary.Value(tag=tag, simple_value=value) for tag, value in scalars.items()]
        if values:
            self._record(Event(wall_time=time.time(), step=step, summary=Summary(value=values)).SerializeToString())

    def flush(self) -> None:
        if self._file is not None:
            with writing(self._path):
                self._file.flush()

    def close(self) -> None:
        file, self._file = self._file, None
        if file is not None:
            with writing(self._path):
                file.close()

    def _record(self, event: bytes) -> None:
        with writing(self._path):
            if self._file is None:
                self._file = self._open()
            self._file.write(event)

    def _open(self) -> RecordWriter:
        from tensorboardX import RecordWriter
        from tensorboardX.proto.event_pb2 import Event, SessionLog  # pyright: ignore[reportAttributeAccessIssue]

        # TensorBoard reads the files of a folder in the order of their names.
        self._path = self._folder / f"events.out.tfevents.{time.time():.6f}.{platform.node()}"
        file = RecordWriter(str(self._path))
        file.write(Event(wall_time=time.time(), file_version="brain.Event:2").SerializeToString())
        if self.purge_step is not None:
            start = SessionLog(status=SessionLog.START)
            file.write(Event(wall_time=time.time(), step=self.purge_step, session_log=start).SerializeToString())
            self.purge_step = None
        return file


def _number(name: str, value: SupportsFloat) -> float:
    try:
        return float(value)
    except (TypeError, ValueError) as error:
        raise RenshuError(
            f"metric {name!r} must be one number, got {value!r}. Log its mean, or each part by itself."
        ) from error
