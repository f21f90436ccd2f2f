"""Processes killed at any time while they write: whole files, rows in order, nothing left behind."""

import os
import subprocess
import sys

import pytest

SCRIPT = """
import os, random, signal, sys, time
from pathlib import Path
import numpy as np
from renshu.files.checkpoint import load_tree, save_tree
from renshu.tracking import Run, read_episodes

folder, rng = Path(sys.argv[1]), random.Random(0)
Run.create(folder / "run", {"algorithm": "PPO"}).close()

def write(start):
    run = Run.open(folder / "run")
    run.truncate(start)
    run.lock()
    step = start
    while True:
        step += 1
        run.log_episodes([step], [0], [1.0], [1], [0.5])
        run.flush()
        save_tree(run.checkpoint_path(step), {"a": np.full(50_000, step)}, {"step": step})
        run.keep_checkpoints(2)

start = 0
for kill in range(10):
    pid = os.fork()
    if pid == 0:
        write(start)
    while Run.open(folder / "run").latest_checkpoint in (None, Run.open(folder / "run").checkpoint_path(start)):
        time.sleep(0.001)
    time.sleep(rng.uniform(0.0, 0.1))
    os.kill(pid, signal.SIGKILL)
    assert os.waitpid(pid, 0)[1] == signal.SIGKILL, "it ended by itself"
    run = Run.open(folder / "run")
    header, leaves = load_tree(run.latest_checkpoint)
    assert (leaves["a"] == header["step"]).all()
    assert header["step"] > start, "nothing that was saved is lost"
    start = header["step"]
    run.truncate(start)
    assert read_episodes(run.path)["step"].tolist() == list(range(1, start + 1))
    names = {path.name for path in run.path.rglob("*")} - {path.name for path in run.checkpoints}
    assert names == {"settings.json", "episodes.csv", "checkpoints"}, names
print("survived", start)
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork and SIGKILL")
def test_ten_kills_while_a_run_is_written_lose_nothing(tmp_path):
    done = subprocess.run([sys.executable, "-c", SCRIPT, str(tmp_path)], capture_output=True, text=True, timeout=60)
    assert done.stdout.startswith("survived"), done.stderr
