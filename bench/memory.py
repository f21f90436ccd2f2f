"""Room of a replay memory of Atari frames: what it takes, what a checkpoint and going on from it take beside it.

    python -m bench.memory [--frames 100000]

Every step is of a process of its own, so that its peak is its own.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import jax

from bench.report import publish, table
from renshu import DQN, Agent
from renshu.agent.loading import save_checkpoint
from renshu.tracking.run import Run

ENV = "BreakoutNoFrameskip-v4"


def peak() -> float:
    """Return the most memory that this process has had, in GB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6


def part(name: str, frames: int, folder: str) -> dict:
    """Do one part in this process."""
    if name == "resume":
        began = time.perf_counter()
        agent = Agent.resume(folder)
        return {"peak": peak(), "seconds": time.perf_counter() - began, "steps": agent.steps}
    algorithm = DQN(buffer_size=frames, learning_starts=frames, reward_clipping=True)
    agent = algorithm.on(ENV, num_envs=8, seed=0)
    held = sum(x.nbytes for x in jax.tree.leaves(agent.state.memory)) / 1e9
    agent.collect(frames)
    found = {"held": held, "peak": peak()}
    if name == "checkpoint":
        agent.trainer.run = Run.create(folder, {})
        began = time.perf_counter()
        save_checkpoint(agent.trainer, 3)
        found |= {"seconds": time.perf_counter() - began, "peak": peak()}
        found["file"] = (Path(folder) / "checkpoints" / "memory.safetensors").stat().st_size / 1e9
    return found


def run(name: str, frames: int, folder: str) -> dict:
    """Do one part in a process of its own."""
    command = [sys.executable, "-m", "bench.memory", "--part", name, "--frames", str(frames), "--folder", folder]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"{' '.join(command)} failed:\n{done.stderr}")
    return json.loads(done.stdout.splitlines()[-1])


def main() -> None:
    """Measure and publish."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--frames", type=int, default=100_000)
    parser.add_argument("--part")
    parser.add_argument("--folder")
    given = parser.parse_args()
    if given.part:
        print(json.dumps(part(given.part, given.frames, given.folder)))
        return
    with tempfile.TemporaryDirectory() as folder:
        filled = run("fill", given.frames, f"{folder}/a")
        saved = run("checkpoint", given.frames, f"{folder}/b")
        resumed = run("resume", given.frames, f"{folder}/b")
    rows = [
        [f"memory of {given.frames:,} frames", f"{filled['held']:.2f} GB", ""],
        ["... of a million, by proportion", f"{filled['held'] * 1e6 / given.frames:.2f} GB", ""],
        ["process that has filled it, at most", f"{filled['peak']:.2f} GB", ""],
        ["... and has written a checkpoint, at most", f"{saved['peak']:.2f} GB", f"{saved['seconds']:.1f} s"],
        ["process that goes on from it, at most", f"{resumed['peak']:.2f} GB", f"{resumed['seconds']:.1f} s"],
        ["file of the memory", f"{saved['file']:.2f} GB", ""],
    ]
    publish("memory", "Replay memory of Atari frames", "python -m bench.memory", table(["", "room", "time"], rows))


if __name__ == "__main__":
    main()
