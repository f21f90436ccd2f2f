"""One part of bench.gpu in this process, as lines of JSON.

Arguments: part (stepping, speed or training), algorithm (- for stepping), games at once, seconds; for a training, in
place of the seconds, the time at which all must be over (as of time.time()), the folder to save in, the seconds before
the end that are kept for evaluations, and the games of each evaluation.
"""

from __future__ import annotations

import json
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import numpy as np

import renshu
from renshu.envs.source import EnvSource
from renshu.ops.schedules import Linear

ENV = "BreakoutNoFrameskip-v4"
GOAL = 10_000_000


def tell(**numbers: Any) -> None:
    """Print numbers as a line of JSON."""
    print(json.dumps(numbers), flush=True)


def gpu_reader() -> Callable[[], float]:
    """Return a function that reads the GPU's utilisation in percent, by NVML or else by nvidia-smi."""
    try:
        import pynvml

        pynvml.nvmlInit()
        gpu = pynvml.nvmlDeviceGetHandleByIndex(0)
        pynvml.nvmlDeviceGetUtilizationRates(gpu)
        return lambda: float(pynvml.nvmlDeviceGetUtilizationRates(gpu).gpu)
    except Exception:
        command = ["nvidia-smi", "-i", "0", "--query-gpu=utilization.gpu", "--format=csv,noheader,nounits"]
        return lambda: float(subprocess.check_output(command, text=True, timeout=5))


class Idle:
    """Idle share of the GPU while a block runs, read five times a second; None where there is no GPU."""

    def __enter__(self) -> Idle:
        self.readings: list[float] = []
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._read, daemon=True)
        if jax.default_backend() == "gpu":
            self._thread.start()
        return self

    def _read(self) -> None:
        try:
            read = gpu_reader()
            while not self._over.wait(0.2):
                self.readings.append(read())
        except Exception as error:
            print(f"utilisation not read: {type(error).__name__}: {error}", flush=True)

    def __exit__(self, *_: object) -> None:
        self._over.set()
        if self._thread.is_alive():
            self._thread.join(6)

    @property
    def share(self) -> float | None:
        """Mean of 1 - utilisation."""
        return 1.0 - sum(self.readings) / len(self.readings) / 100 if self.readings else None


def stepping(games: int, seconds: float) -> None:
    """Time games at random, without an agent."""
    envs = EnvSource.of(ENV).vector(games)
    envs.reset(seed=0)
    actions = np.random.default_rng(0).integers(4, size=(1000, games))
    for row in actions[:50]:
        envs.step(row)
    began, steps = time.perf_counter(), 0
    while time.perf_counter() - began < seconds:
        envs.step(actions[steps % 1000])
        steps += 1
    tell(rate=steps * games / (time.perf_counter() - began))


def timed(agent: renshu.Agent, seconds: float) -> dict[str, Any]:
    """Time a training that lasts a number of seconds, and where they went."""
    agent.trainer.clock.reset()
    began, first = time.perf_counter(), agent.steps
    with Idle() as idle:
        agent.learn(GOAL, progress=False, callbacks=lambda *_: time.perf_counter() - began < seconds)
    rate = (agent.steps - first) / (time.perf_counter() - began)
    return {"rate": rate, "shares": agent.trainer.clock.shares(), "idle": idle.share}


def compiled(algorithm: Any, games: int) -> renshu.Agent:
    """Make an agent that has compiled all it needs for training, by two updates."""
    agent = algorithm.on(ENV, num_envs=games, seed=0)
    agent.learn(2 * games * agent.trainer.learner.needs.steps, progress=False)
    tell(device=jax.devices()[0].device_kind)
    return agent


def speed(name: str, games: int, seconds: float) -> None:
    """Time training by the preset."""
    tell(**timed(compiled(renshu.preset(name, ENV).algorithm, games), seconds))


def fitted(name: str, games: int) -> Any:
    """Return the preset with larger minibatches, and a step size for them that falls to 0.

    It grows with the square root of the minibatch, of 256 steps in PPO's preset and of 16 games in A2C's.
    """
    if name == "a2c":
        return renshu.preset(name, ENV, learning_rate=Linear(7e-4 * (games / 16) ** 0.5)).algorithm
    size = max(256, 8 * games)
    rate = Linear(2.5e-4 * (size / 256) ** 0.5)
    return renshu.preset(name, ENV, batch_size=size, learning_rate=rate).algorithm


class Watch:
    """Callback that keeps the curve, tells of it, saves the agent every minute, and stops when the time is over."""

    def __init__(self, seconds: float, path: Path) -> None:
        self.began = time.perf_counter()
        self.seconds, self.path = seconds, path
        self.curve: list[tuple[int, float, float]] = []
        self.next_point, self.next_line, self.next_save = 0.0, 5.0, 60.0

    def __call__(self, agent: renshu.Agent, metrics: dict[str, float]) -> bool:
        """Look at the time after an update."""
        now = time.perf_counter() - self.began
        if now >= self.next_point and "return_mean" in metrics:
            self.next_point = now + 1.0
            self.curve.append((agent.steps, round(now, 1), round(metrics["return_mean"], 1)))
        if now >= self.next_line and self.curve:
            self.next_line = now + 15.0
            tell(steps=agent.steps, seconds=now, curve=self.curve)
            print(f"{agent.steps:,} steps in {now:.0f} s, mean return {self.curve[-1][2]}", flush=True)
        if now >= self.next_save:
            self.next_save = now + 60.0
            agent.save(self.path)
        return now < self.seconds


def training(name: str, games: int, over: float, folder: str, kept: float, episodes: int) -> None:
    """Train for most of the time, toward GOAL steps, and evaluate in what is kept of it, sampled actions first."""
    agent = compiled(fitted(name, games), games)
    tell(settings=agent.algorithm.to_json(), games=games)
    measured = timed(agent, min(5.0, 0.05 * (over - time.time())))
    left = max(1.0, over - kept - time.time())
    total = min(GOAL - agent.steps, int(0.95 * measured["rate"] * left))
    print(f"{measured['rate']:,.0f} steps/s; schedules for {total:,} steps in {left:.0f} s", flush=True)
    path, first = Path(folder) / f"{name}.safetensors", agent.steps
    agent.trainer.clock.reset()
    watch = Watch(left, path)
    with Idle() as idle:
        agent.learn(total, progress=False, callbacks=watch)
    spent = time.perf_counter() - watch.began
    tell(steps=agent.steps, planned=total, seconds=spent, rate=(agent.steps - first) / spent, curve=watch.curve)
    tell(shares=agent.trainer.clock.shares(), idle=idle.share, outcome=agent.trainer.outcome)
    agent.save(path)
    for how in ("sampled", "greedy"):
        began = time.perf_counter()
        score = agent.evaluate(episodes, deterministic=how == "greedy", num_envs=episodes)
        took = time.perf_counter() - began
        tell(**{how: {"returns": score.returns, "lengths": score.lengths, "seconds": took}})
        print(f"{episodes} games, {how}: {score}, longest {max(score.lengths):,} steps, in {took:.1f} s", flush=True)


if __name__ == "__main__":
    part, name, games, seconds = sys.argv[1], sys.argv[2], int(sys.argv[3]), float(sys.argv[4])
    if part == "stepping":
        stepping(games, seconds)
    elif part == "speed":
        speed(name, games, seconds)
    else:
        training(name, games, seconds, sys.argv[5], float(sys.argv[6]), int(sys.argv[7]))
