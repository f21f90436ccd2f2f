"""Training of seeds in processes of this machine, a core for each, where environments are stepped in Python.

A process is this module, run by Python with a file that says what to train: no script has to be written for it, and
classes of a script or a notebook arrive by value. It prints its steps, and ends when the process that began it does.
"""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import tempfile
import threading
import time
import traceback
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, cast

import numpy as np

from renshu.agent.agent import Agent
from renshu.envs.sending import pickled
from renshu.errors import RenshuError
from renshu.experiments.single import CHECKPOINTS, Setup, Tally, edges, opened, saved, train
from renshu.experiments.vmapped import Row, Trained
from renshu.tracking.curves import read_episodes

_TAIL = 2_000
_PATIENCE = 60.0
"""Seconds that a process may take to save what it has, when all are to end."""


def train_in_processes(
    setup: Setup, rows: list[Row], advance: Callable[[int], None], *, count: int, folder: Path | None
) -> Trained:
    """Train rows, `count` at a time. folder: for a run folder of each, "label-seed".

    Raises what a training raised, and SpaceError for an environment that cannot be sent to a process.
    """
    began, stop = time.perf_counter(), threading.Event()
    with tempfile.TemporaryDirectory(prefix="renshu-seeds-") as work:
        for i, row in enumerate(rows):
            run = None if folder is None else folder / run_name(row)
            content = pickled((setup, row, run), setup.env, "the environment")
            (Path(work) / f"{i}.row").write_bytes(content)

        def one(i: int) -> tuple[bytes, Tally]:
            try:
                return _trained(Path(work) / f"{i}.row", rows[i], advance, stop)
            except BaseException as error:
                errors.append(error)
                stop.set()
                raise

        errors: list[BaseException] = []
        with ThreadPoolExecutor(count, "renshu-seeds") as pool:
            try:
                found = list(pool.map(one, range(len(rows))))
            except Exception as error:
                raise errors[0] from error  # the others were ended because of it
            finally:
                stop.set()  # or Ctrl-C would wait for all of them
    curves = [tally.curve(setup.steps) for _, tally in found]
    agents = [lambda i=i, row=row: opened(found[i][0], setup, row) for i, row in enumerate(rows)]
    return Trained(curves, agents, time.perf_counter() - began, 0.0)


def run_name(row: Row) -> str:
    """Name the run folder of a row: letters, numbers, and signs that any file system takes."""
    label = re.sub(r"[^\w.=+-]+", "-", row.label).strip("-").lower()
    return f"{label}-{row.seed}"


def _trained(file: Path, row: Row, advance: Callable[[int], None], stop: threading.Event) -> tuple[bytes, Tally]:
    """Wait for the training of one row."""
    import cloudpickle

    if stop.is_set():
        raise RenshuError(f"{row.label}, seed {row.seed}, was not begun")
    path = os.pathsep.join(name or os.getcwd() for name in sys.path)
    with open(file.with_suffix(".errors"), "w+", errors="replace") as errors:
        process = subprocess.Popen(
            [sys.executable, "-m", __name__, str(file)],
            stdin=subprocess.PIPE,  # it is closed when this process ends, whatever ends it
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
            errors="replace",
            # Several on one GPU share its memory, of which JAX would take most for the first.
            env={"XLA_PYTHON_CLIENT_PREALLOCATE": "false", **os.environ, "PYTHONPATH": path},
        )
        watcher = threading.Thread(target=_end_at, args=(process, stop), daemon=True)
        watcher.start()
        with process:
            for line in cast(Any, process.stdout):
                if line.strip().isdecimal():
                    advance(int(line))
            process.wait()  # before its stdin is closed, at which it would end itself
        if process.returncode == 0:
            content = (found := file.with_suffix(".found")).read_bytes()
            found.unlink()
            return cloudpickle.loads(content)
        if (fault := file.with_suffix(".fault")).exists():
            error, words = cloudpickle.loads(fault.read_bytes())
            error.add_note(f"In the training of {row.label} with seed {row.seed}:\n{words}")
            raise error
        errors.seek(0)
        raise RenshuError(
            f"the process that trained {row.label} with seed {row.seed} is gone (exit code {process.returncode}). "
            f"{errors.read()[-_TAIL:]}"
        )


def _end_at(process: subprocess.Popen[str], stop: threading.Event) -> None:
    """End a process that still runs when all are to end; it saves a checkpoint first, if it has a run folder."""
    while process.poll() is None:
        if stop.wait(0.2):
            process.terminate()
            try:
                process.wait(_PATIENCE)
            except subprocess.TimeoutExpired:
                process.kill()
            return


# --- in the process ---------------------------------------------------------------------------------------------------


def main() -> None:
    """Train what a file says, and write what came of it beside it: `python -m renshu.experiments.processes FILE`."""
    import cloudpickle

    file = Path(sys.argv[1])
    # What an environment prints is no number of steps, and a server that it starts must not hold the pipe open.
    told = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    threading.Thread(target=_end_with_parent, daemon=True).start()
    setup, row, run = cloudpickle.loads(file.read_bytes())
    try:
        found = _train(setup, row, run, lambda steps: print(steps, file=told, flush=True))
    except Exception as error:
        file.with_suffix(".fault").write_bytes(_fault(error))
        raise
    file.with_suffix(".found").write_bytes(cloudpickle.dumps(found))


def _end_with_parent() -> None:
    sys.stdin.read()
    os.kill(os.getpid(), signal.SIGTERM)


def _fault(error: Exception) -> bytes:
    import cloudpickle

    words = traceback.format_exc()
    try:
        content = cloudpickle.dumps((error, words))
        cloudpickle.loads(content)
        return content
    except Exception:  # of a kind that no file can hold: its words alone
        return cloudpickle.dumps((RenshuError(f"{type(error).__name__}: {error}"), words))


def _train(setup: Setup, row: Row, run: Path | None, note: Callable[[int], None]) -> tuple[bytes, Tally]:
    tally = Tally.empty(setup.points)
    with Agent(row.algorithm, setup.env, seed=row.seed, **setup.options) as agent:
        if run is None:
            train(agent, setup, tally, note)
            return saved(agent), tally
        told = 0

        def tell(agent: Agent, metrics: dict[str, float]) -> None:
            nonlocal told
            note(agent.steps - told)
            told = agent.steps

        every = max(1, setup.steps // CHECKPOINTS)
        agent.learn(setup.steps, run=run, checkpoint_every=every, callbacks=[tell], progress=False)
        episodes = read_episodes(run)
        places = np.minimum(np.searchsorted(edges(setup.steps, setup.points), episodes["step"]), setup.points - 1)
        np.add.at(tally.total, places, episodes["return"])
        np.add.at(tally.count, places, 1)
        tally.steps = agent.steps
        return saved(agent), tally


if __name__ == "__main__":
    main()
