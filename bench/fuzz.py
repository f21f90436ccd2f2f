"""Break files, processes and trainings on purpose, and count what is lost: `python -m bench.fuzz`.

Files: damaged bytes, hostile headers and arrays, data sets, edited run folders; each loads or is refused by name, in
seconds and without much memory. Kills: trainings that are ended by SIGKILL; each run is resumed, with whole files and
rows in order. Worker faults: environments that raise, exit, crash, hang in __init__, reset, step or close; training
ends with one EnvironmentFault that names it, or goes on, and leaves no process behind.
"""

from __future__ import annotations

import argparse
import os
import random
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import warnings
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from bench import damage
from bench.report import publish, table

SECONDS, MEGABYTES = 10.0, 1000.0
"""More than this for one file is counted as lost."""
ADDRESSES = 8 * 2**30
"""Bytes that the process, and each that it starts, may address at most."""
ROOT = Path(__file__).parent.parent
TRAIN = """
import sys
from renshu import PPO, DQN, Agent
run, kind = sys.argv[1:3]
options = dict(progress=False, checkpoint_every=40)
if kind == "resume":
    Agent.resume(run).learn(10**7, **options)
algorithm = PPO(n_steps=8, batch_size=16, n_epochs=1, net_arch=[8])
algorithm.on("CartPole-v1" if kind == "host" else "renshu/CartPole-v1", num_envs=2).learn(10**7, run=run, **options)
"""
FAULTS = ("raise", "exit", "_exit", "segfault", "hang", "nonsense")
PLACES = ("init", "reset", "step", "close")
FAULTY = """
import multiprocessing, os, signal, sys, time
import gymnasium
from renshu import PPO
from renshu.errors import EnvironmentFault
fault, place = sys.argv[1:3]
training = os.getpid()
def fail():
    if os.getpid() == training:
        return
    if fault == "raise":
        raise ValueError("on purpose")
    if fault == "exit":
        sys.exit(3)
    if fault == "_exit":
        os._exit(3)
    if fault == "segfault":
        os.kill(os.getpid(), signal.SIGSEGV)
    if fault == "hang":
        time.sleep(600)
    return "nonsense"
class Faulty(gymnasium.Env):
    observation_space = gymnasium.spaces.Box(-1, 1, (2,))
    action_space = gymnasium.spaces.Discrete(2)
    def __init__(self):
        self.steps = 0
        if place == "init" and fail():
            self.observation_space = "nonsense"
    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        return (place == "reset" and fail()) or (self.observation_space.sample(), {})
    def step(self, action):
        self.steps += 1
        bad = place == "step" and self.steps == 5 and fail()
        return bad or (self.observation_space.sample(), 1.0, self.steps % 7 == 0, False, {})
    def close(self):
        if place == "close":
            fail()
try:
    agent = PPO(n_steps=8, batch_size=16, n_epochs=1, net_arch=[8]).on(Faulty, num_envs=2, processes=True, timeout=8)
    agent.learn(32, progress=False)
    agent.close()
    print("went on")
except Exception as error:
    print("named" if "Faulty" in str(error) else f"unnamed {error}")
print(len(multiprocessing.active_children()), "left")
"""


def main() -> None:
    """Break what the command line asks for, and publish the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--files", type=int, default=5000)
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--faults", type=int, default=30)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    lost: list[str] = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        # A file that asks for more is lost by its name, instead of the whole process without a word.
        resource.setrlimit(resource.RLIMIT_AS, (ADDRESSES, ADDRESSES))
        rows = [
            *break_files(folder, args.files, args.seed, lost),
            kill_trainings(folder, args.kills, args.seed, lost),
            break_workers(args.faults, lost),
        ]
    header = ["broken", "tried", "survived", "of these refused by name", "lost"]
    text = table(header, rows) + "\n\n" + ("\n".join(f"- lost: {line}" for line in lost) or "Nothing was lost.")
    options = f" --files {args.files} --kills {args.kills} --faults {args.faults} --seed {args.seed}"
    publish("fuzz", "Files, processes and trainings broken on purpose", f"python -m bench.fuzz{options}", text)
    sys.exit(1 if lost else 0)


def break_files(folder: Path, count: int, seed: int, lost: list[str]) -> list[list[object]]:
    """Damage agents (two thirds), data sets and run folders; a row of the table for each kind."""
    whole = make_files(folder / "whole")
    tries: dict[str, tuple[int, Callable[[random.Random, Path], None]]] = {
        "agents": (count * 2 // 3, lambda rng, path: try_agent(rng.choice(whole["agents"]), path, rng)),
        "data sets": (count // 6, lambda rng, path: try_dataset(whole["data"][0], path, rng)),
        "run folders": (count - count * 2 // 3 - count // 6, lambda rng, path: try_run(whole["run"][0], path, rng)),
    }
    rows: list[list[object]] = []
    for kind, (number, attempt) in tries.items():
        found: Counter[str] = Counter()
        for i in range(number):
            path = folder / "broken"
            outcome = outcome_of(attempt, random.Random(f"{seed} {kind} {i}"), path)
            found["lost" if outcome.startswith("lost") else outcome] += 1
            if outcome.startswith("lost"):
                lost.append(f"{kind}, seed {seed} {kind} {i}: {outcome[5:]}")
                print(lost[-1], flush=True)
            shutil.rmtree(path, ignore_errors=True)
        rows.append([kind, number, number - found["lost"], found["refused"], found["lost"]])
    return rows


def outcome_of(attempt: Callable[[random.Random, Path], None], rng: random.Random, path: Path) -> str:
    """Try one broken thing in the folder `path`: "loaded", "refused", or "lost" and why."""
    from renshu.errors import CheckpointError, UnknownNameError

    path.mkdir()
    began, before = time.monotonic(), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    try:
        attempt(rng, path)
        outcome = "loaded"
    except (CheckpointError, UnknownNameError) as error:
        outcome = "refused" if str(path) in str(error) else f"lost an error that names no file: {error}"
    except Exception as error:
        outcome = f"lost {type(error).__name__}: {str(error)[:200]}"
    seconds = time.monotonic() - began
    megabytes = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024
    return f"lost {seconds:.0f} s, {megabytes:.0f} MB" if seconds > SECONDS or megabytes > MEGABYTES else outcome


def make_files(folder: Path) -> dict[str, list[Path]]:
    """Make whole agents, a data set and a run folder."""
    from renshu import DQN, PPO, SAC, QLearning, Rainbow

    folder.mkdir()
    small: dict[str, Any] = {"buffer_size": 64, "batch_size": 8, "learning_starts": 8, "net_arch": [8]}
    ppo = PPO(n_steps=16, batch_size=16, net_arch=[8], norm_obs=True, norm_reward=True)
    made = [
        ppo.on("renshu/CartPole-v1", seed=0).learn(
            64, progress=False, run=folder / "run", eval_every=32, eval_episodes=2
        ),
        DQN(**small).on("MountainCarContinuous-v0", seed=0, bins=3, frame_stack=2),
        SAC(**small).on("Pendulum-v1", seed=0),
        Rainbow(**small).on("CartPole-v1", seed=0),
        QLearning().on("FrozenLake-v1", seed=0),
    ]
    agents = [agent.save(folder / f"{i}.safetensors") for i, agent in enumerate(made)]
    made[1].collect(40, to=folder / "data")
    return {"agents": agents, "data": [folder / "data"], "run": [folder / "run"]}


def try_agent(source: Path, path: Path, rng: random.Random) -> None:
    """Load a damaged agent."""
    from renshu import load

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        damage.file_of(source, path / "agent.safetensors", rng)
        load(path / "agent.safetensors")


def try_dataset(source: Path, path: Path, rng: random.Random) -> None:
    """Open and read a damaged data set."""
    from renshu import Dataset

    shutil.copytree(source, path, dirs_exist_ok=True)
    (chunk,) = path.glob("*.safetensors")
    if rng.random() < 0.5:
        damage.text_of(path / "spec.json", rng)
    else:
        damage.file_of(chunk, chunk, rng)
    for _ in Dataset.open(path).chunks():
        pass


def try_run(source: Path, path: Path, rng: random.Random) -> None:
    """Read an edited run folder, cut it, and write to it again."""
    from renshu.tracking import Run, read_episodes, read_evaluations, read_metrics

    shutil.copytree(source, path, dirs_exist_ok=True)
    damage.text_of(rng.choice([path / "settings.json", *sorted(path.glob("*.csv"))]), rng)
    with Run.open(path) as run:
        for read in (read_episodes, read_evaluations, read_metrics):
            read(path)
        run.truncate(32)
        run.log_episodes([10**6], [0], [1.0], [1], [1.0])
        run.log_metrics(10**6, {"policy_loss": 1.0})
    read_episodes(path)


def kill_trainings(folder: Path, count: int, seed: int, lost: list[str]) -> list[object]:
    """Kill trainings at any time, resume what they left; one row of the table."""
    rng, survived = random.Random(f"{seed} kills"), 0
    for i in range(count):
        run = folder / f"run{i % 4}"
        kind = "resume" if run.exists() and rng.random() < 0.7 else rng.choice(["host", "compiled"])
        if kind != "resume":
            shutil.rmtree(run, ignore_errors=True)
        code = killed(run, kind, rng.uniform(0.0, 2.0))
        problem = f"it ended by itself with {code}" if code != -signal.SIGKILL else problem_of(run)
        if problem:
            lost.append(f"kill {i} ({kind}): {problem}")
            shutil.rmtree(run, ignore_errors=True)
        survived += not problem
    return ["trainings, by SIGKILL", count, survived, 0, count - survived]


def killed(run: Path, kind: str, wait: float) -> int:
    """Train in a process of its own until its first checkpoint and `wait` seconds more, then kill it."""
    process = subprocess.Popen(
        [sys.executable, "-c", TRAIN, str(run), kind],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    deadline = time.monotonic() + 120
    begun = set(run.glob("checkpoints/step_*"))
    while time.monotonic() < deadline and process.poll() is None:
        if set(run.glob("checkpoints/step_*")) - begun:
            break
        time.sleep(0.01)
    time.sleep(wait)
    process.kill()
    return process.wait()


def problem_of(run: Path) -> str:
    """Say what was lost in a run that was killed; nothing is "": the newest checkpoint loads, rows are in order."""
    from renshu import Agent, load
    from renshu.tracking import Run, read_episodes, read_metrics

    try:
        newest = Run.open(run).latest_checkpoint
        assert newest is not None, "no checkpoint"
        steps = load(newest).steps
        agent = Agent.resume(run)
        assert agent.steps == steps, f"resumed at {agent.steps}, its newest checkpoint is {steps}"
        for read in (read_episodes, read_metrics):
            found = read(run)["step"]
            assert (np.diff(found) >= 0).all(), "rows out of order"
            assert found.max(initial=0) <= steps, "rows beyond the checkpoint"
        left = [path.name for path in run.rglob(".renshu-*")]
        assert not left, f"temporary files {left}"
    except Exception as error:
        return f"{type(error).__name__}: {error}"
    return ""


def break_workers(count: int, lost: list[str]) -> list[object]:
    """Let environments in worker processes fail in every way and place; one row of the table."""
    survived = named = 0
    cases = [(fault, place) for fault in FAULTS for place in PLACES]
    for i in range(count):
        fault, place = cases[i % len(cases)]
        problem, answer = "", ""
        try:
            done = subprocess.run(
                [sys.executable, "-c", FAULTY, fault, place],
                cwd=ROOT,
                env={**os.environ, "PYTHONPATH": str(ROOT)},
                capture_output=True,
                text=True,
                timeout=120,
            )
            answer = done.stdout
            expected = ("went on",) if place == "close" else ("named",)
            if done.returncode or "0 left" not in answer or not answer.startswith((*expected, "named")):
                problem = f"code {done.returncode}, {answer.strip()!r}, {done.stderr[-300:]!r}"
        except subprocess.TimeoutExpired:
            problem = "it hung"
        survived += not problem
        named += answer.startswith("named")
        if problem:
            lost.append(f"worker, {fault} in {place}: {problem}")
    return ["worker processes", count, survived, named, count - survived]


if __name__ == "__main__":
    main()
