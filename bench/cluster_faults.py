"""Faults of a cluster, on purpose: nodes, actors and environments that fail, drivers that are killed."""

from __future__ import annotations

import gc
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np

from bench.report import table

ROOT = Path(__file__).parent.parent
NODES, WORKERS_OF_NODE = 4, 3
LOOK_EVERY = 20
"""Steps between two looks of an environment for what it is told to do."""


class Fragile(gymnasium.Wrapper):
    """An environment that sleeps a little, and raises or hangs when a file in `folder` says so."""

    def __init__(self, folder: str, id: str = "CartPole-v1", seconds: float = 0.001) -> None:
        super().__init__(gymnasium.make(id))
        self.folder, self.seconds, self.looked = Path(folder), seconds, 0

    def step(self, action: Any) -> Any:
        """Step, after a look at the folder: whoever can delete a file there does what it says."""
        time.sleep(self.seconds)
        self.looked += 1
        if self.looked % LOOK_EVERY == 0:
            for kind in ("raise", "hang"):
                try:
                    (self.folder / kind).unlink()
                except OSError:
                    continue
                if kind == "raise":
                    raise RuntimeError("on purpose")
                time.sleep(600)
        return self.env.step(action)


def processes(text: str) -> list[str]:
    """Command lines of running processes that contain a text."""
    found = subprocess.run(["ps", "-ewwo", "pid,args"], capture_output=True, text=True, check=True).stdout
    return [line for line in found.splitlines() if text in line and "ps -ewwo" not in line]


class Chaos:
    """Kills something every few seconds: a node each minute, otherwise an actor or an environment."""

    def __init__(self, cluster: Any, loop: Any, folder: Path, kills: int, every: float, seed: int) -> None:
        self.cluster, self.loop, self.folder, self.kills, self.every = cluster, loop, folder, kills, every
        self.random, self.done = random.Random(seed), Counter()
        self.next, self.last_node = time.monotonic() + every, time.monotonic()

    @property
    def over(self) -> bool:
        """True when all kills are done."""
        return sum(self.done.values()) >= self.kills

    def look(self) -> None:
        """Kill something, if it is time. In the main thread, as Ray wants it."""
        now = time.monotonic()
        if self.over or now < self.next:
            return
        self.next = now + self.every * self.random.uniform(0.5, 1.5)
        kind = "node" if now - self.last_node > 60 else self.random.choice(["actor", "raise", "hang"])
        if kind == "node":
            self.last_node = now
            node = self.random.choice(sorted(self.cluster.worker_nodes, key=str))
            self.cluster.remove_node(node, allow_graceful=False)
            self.cluster.add_node(num_cpus=WORKERS_OF_NODE + 1)
        elif kind == "actor":
            pids = [group.place[1] for group in self.loop.groups.values() if group.place]
            try:
                os.kill(self.random.choice(pids), signal.SIGKILL)
            except ProcessLookupError:
                return
        else:
            (self.folder / kind).touch()
        self.done[kind] += 1
        print(f"{sum(self.done.values())}: {kind}", flush=True)


def faults(kills: int, every: float = 6.0) -> str:
    """Train on four nodes of this machine while things are killed; the score must come all the same."""
    import ray
    from ray.cluster_utils import Cluster as Nodes

    from renshu import IMPALA, Cluster

    nodes = Nodes(initialize_head=True, head_node_args={"num_cpus": 2, "include_dashboard": False})
    for _ in range(NODES - 1):
        nodes.add_node(num_cpus=WORKERS_OF_NODE + 1)
    folder = Path(tempfile.mkdtemp(prefix="renshu-chaos-"))
    began = time.monotonic()
    session = ""
    try:
        ray.init(address=nodes.address, logging_level="error", log_to_driver=False)
        session = ray._private.worker._global_node.get_session_dir_path()  # type: ignore[attr-defined]
        settings = Cluster(workers=8, max_workers=8, batch_workers=2)
        algorithm = IMPALA(
            n_steps=20, learning_rate=1e-3, ent_coef=0.01, gae_lambda=0.95, net_arch=[64, 64], max_lag=20
        )
        make = lambda: Fragile(str(folder))  # noqa: E731 - sent to other processes by value
        with algorithm.on(make, num_envs=4, seed=0, cluster=settings, timeout=10.0, max_episode_steps=500) as agent:
            chaos: list[Chaos] = []

            def look(agent: Any, metrics: dict[str, float]) -> bool | None:
                loop = agent.trainer._loop
                if not chaos:
                    chaos.append(Chaos(nodes, loop, folder, kills, every, 0))
                chaos[0].look()
                account = loop.account
                assert account.requested == account.learned + account.stale + account.lost + account.in_flight
                assert account.steps_learned == agent.steps
                over = chaos[0].over and metrics.get("return_mean", 0.0) >= 475
                return False if over or time.monotonic() - began > 3600 else None

            agent.learn(10**8, progress=False, callbacks=look)
            account, mean = agent.trainer._loop.account, float(np.mean(agent.recent_returns))
            evaluated = agent.evaluate(20, env="CartPole-v1")
            steps = agent.steps
    finally:
        ray.shutdown()
        nodes.shutdown()
    time.sleep(3)
    left = processes(Path(session).name)
    for path in folder.iterdir():
        path.unlink()
    folder.rmdir()
    done = chaos[0].done
    rows = [[kind, done[kind]] for kind in ("node", "actor", "raise", "hang")]
    exact = account.requested == account.learned + account.stale + account.lost and account.in_flight == 0
    return (
        f"IMPALA, 8 workers with 4 environments each on {NODES} nodes, CartPole-v1 with a sleep of 1 ms in each step; "
        f"a node killed each minute (another takes its place), between them actors (SIGKILL), environments that raise "
        f"and that hang (10 s).\n\n{table(['killed', 'times'], rows)}\n\n"
        f"After {steps:,} steps and {time.monotonic() - began:,.0f} s: mean return {mean:.0f} in training, {evaluated} "
        f"of 20 greedy episodes. Rollouts: {account.requested:,} requested = {account.learned:,} learned from + "
        f"{account.stale:,} refused as stale + {account.lost:,} lost ({'exact' if exact else 'NOT EXACT'}, 0 in "
        f"flight). Processes left behind: {len(left)}."
    )


DRIVER = """
import sys
from renshu import Agent, Cluster, DQN
if __name__ == "__main__":
    run, kind = sys.argv[1:3]
    if kind == "resume":
        agent = Agent.resume(run)
    else:
        agent = DQN(train_freq=16, gradient_steps=2, learning_starts=500, net_arch=[32]).on(
            "CartPole-v1", num_envs=2, seed=0, cluster=Cluster(workers=2, max_workers=2))
    agent.learn(10**7, progress=False, run=None if kind == "resume" else run, checkpoint_every=1000)
"""


def drivers(kills: int) -> str:
    """Kill the driver of a training again and again; each time it goes on from its newest checkpoint."""
    from renshu import Agent
    from renshu.tracking import Run, read_episodes, read_metrics

    generator, resumed, behind = random.Random(0), 0, 0
    with tempfile.TemporaryDirectory(prefix="rd", dir="/tmp") as name:
        run, temporary = Path(name) / "run", Path(name) / "t"
        temporary.mkdir()
        at: list[int] = []
        for i in range(kills + 1):
            environment = {**os.environ, "PYTHONPATH": str(ROOT), "TMPDIR": str(temporary)}
            command = [sys.executable, "-c", DRIVER, str(run), "resume" if i else "new"]
            with open(Path(name) / "log", "w") as log:
                process = subprocess.Popen(command, env=environment, stdout=log, stderr=log)
            before, until = set(run.glob("checkpoints/step_*")), time.monotonic() + 120
            while not set(run.glob("checkpoints/step_*")) - before and time.monotonic() < until:
                assert process.poll() is None, (Path(name) / "log").read_text()
                time.sleep(0.05)
            time.sleep(generator.uniform(0.0, 3.0))
            process.kill()
            process.wait()
            newest = Run.open(run).latest_checkpoint
            assert newest is not None
            agent = Agent.resume(run)
            counted, episodes, metrics = int(agent.state.counters.steps), read_episodes(run), read_metrics(run)
            assert agent.steps == counted == int(newest.stem[5:])
            assert (np.diff(episodes["step"]) >= 0).all()
            assert episodes["step"].max(initial=0) <= counted
            # No step twice: episodes are of other steps, so their lengths are no more than the steps there were.
            assert episodes["length"].sum() <= counted
            learned = metrics.get("cluster/steps_learned", [])
            assert len(learned) == 0 or learned[-1] <= counted
            assert not at or counted > at[-1]
            held = agent.state.memory.ring.size
            assert int(held.sum()) > 0
            at.append(counted)
            resumed += 1
            time.sleep(2)
            behind += len(processes(str(temporary)))
            print(i, counted, flush=True)
            del agent
            gc.collect()
    return (
        f"{kills} times `kill -9` of the driver of DQN with 2 workers, at any time after a checkpoint, and resumed "
        f"from it: {resumed - 1} of {kills} went on, memory included, with the counters of the checkpoint; {at[-1]:,} "
        f"steps at the end, none learned twice. Processes left behind by the {kills + 1} drivers: {behind}."
    )
