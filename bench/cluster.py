"""The cluster loop measured on one machine: `python -m bench.cluster [--part scaling] [--part broadcast] ...`

scaling: an environment that sleeps 5 ms a step, with 1 to 16 workers; steps/s, and where the time goes.
broadcast: weights of 10 MB to 16 actors, 1,000 versions; time of one, and memory.
scores: seconds until CartPole and LunarLander are solved by IMPALA and APPO, beside RLlib's.
faults: four nodes of Ray on this machine, one killed each minute, actors killed, environments that raise and hang.
drivers: 20 kill -9 of a training, each resumed.
soak: memory of driver, actors and object store over an hour.

Each part writes its section of docs/benchmarks/cluster.md; those that are not asked for stay as they were.
"""

from __future__ import annotations

import argparse
import json
import os
import time
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np

from bench import cluster_faults, cluster_scores
from bench.report import DOCS, publish, table

SLEEP = 0.005
WORKERS = (1, 2, 4, 8, 16)
SECTIONS = DOCS / "cluster.json"


class Sleeper(gymnasium.Env):
    """An environment that takes its time and no core."""

    observation_space = gymnasium.spaces.Box(-1.0, 1.0, (8,), np.float32)
    action_space = gymnasium.spaces.Discrete(4)

    def __init__(self, seconds: float = SLEEP) -> None:
        self.seconds, self.t = seconds, 0

    def reset(self, *, seed: int | None = None, options: dict | None = None) -> tuple[np.ndarray, dict]:
        """Begin an episode of 200 steps."""
        super().reset(seed=seed)
        self.t = 0
        return self.observation_space.sample(), {}

    def step(self, action: Any) -> tuple[np.ndarray, float, bool, bool, dict]:
        """Sleep."""
        time.sleep(self.seconds)
        self.t += 1
        return np.full(8, 0.1, np.float32), float(action == 2), False, self.t >= 200, {}


class Window:
    """A callback that times the steps from the moment at which all workers have delivered, for some seconds."""

    def __init__(self, workers: int, seconds: float) -> None:
        self.workers, self.seconds, self.began, self.rate = workers, seconds, None, 0.0
        self.shares: dict[str, float] = {}
        self.collected: dict[int, float] = {}
        self.collecting = 0.0

    def __call__(self, agent: Any, metrics: dict[str, float]) -> bool | None:
        """Look, and stop when the time is over."""
        loop, now = agent.trainer._loop, time.perf_counter()
        if self.began is None:
            if len(loop.groups) == self.workers and all(group.asked > 3 for group in loop.groups.values()):
                self.began = now, agent.steps
                self.collected = {number: group.collecting for number, group in loop.groups.items()}
                loop.clock.reset()
            return None
        self.rate = (agent.steps - self.began[1]) / (now - self.began[0])
        self.shares = loop.clock.shares()
        spent = [loop.groups[number].collecting - before for number, before in self.collected.items()]
        self.collecting = float(np.mean(spent)) / (now - self.began[0])
        return False if now - self.began[0] > self.seconds else None


def scaling(seconds: float) -> str:
    """Measure steps/s by the number of workers."""
    from renshu import IMPALA, Cluster

    rows, first = [], 0.0
    for workers in WORKERS:
        window = Window(workers, seconds)
        algorithm = IMPALA(n_steps=32, net_arch=[64, 64], max_lag=1000)
        settings = Cluster(workers=workers, batch_workers=max(1, workers // 4))
        with algorithm.on(Sleeper, seed=0, cluster=settings) as agent:
            agent.learn(10**8, progress=False, callbacks=window)
        first = first or window.rate
        where = ", ".join(f"{name} {share:.0%}" for name, share in window.shares.items())
        share = f"{window.rate / workers / first:.1%}"
        rows.append([workers, f"{window.rate:,.0f}", share, f"{window.collecting:.0%}", where])
        print(*rows[-1], flush=True)
    header = ["workers", "steps/s", "of proportional", "actors collect", "the learner's time"]
    return (
        f"One environment for each worker, which sleeps {SLEEP * 1e3:g} ms in a step ({1 / SLEEP:g} steps/s at most); "
        f"rollouts of 32 steps, asynchronous, {seconds:g} s each after all workers have begun.\n\n{table(header, rows)}"
    )


def memory(pid: int) -> float:
    """Return the resident memory of a process that no other shares, in MiB."""
    found = Path(f"/proc/{pid}/smaps_rollup").read_text()
    kinds = ("Private_Clean", "Private_Dirty")
    return sum(int(line.split()[1]) for line in found.splitlines() if line.startswith(kinds)) / 1024


def broadcast(versions: int) -> str:
    """Publish many versions of large weights; measure the time of each, and the memory."""
    import jax

    from renshu import IMPALA, Cluster

    algorithm = IMPALA(n_steps=4, net_arch=[1100, 1100], share_features_extractor=False, max_lag=1000)
    seen: list[tuple[int, float, float, float]] = []
    size = 0.0

    def look(agent: Any, metrics: dict[str, float]) -> bool | None:
        nonlocal size
        import ray

        loop = agent.trainer._loop
        size = sum(x.nbytes for x in jax.tree.leaves(agent.trainer.actor_state)) / 1e6
        if loop.version % (versions // 10) == 0 and (not seen or seen[-1][0] != loop.version):
            pids = [group.place[1] for group in loop.groups.values() if group.place]
            resources, free = ray.cluster_resources(), ray.available_resources()
            used = (resources["object_store_memory"] - free.get("object_store_memory", 0.0)) / 2**20
            seen.append((loop.version, memory(os.getpid()), float(np.mean([memory(pid) for pid in pids])), used))
            print(*seen[-1], flush=True)
        return False if loop.version >= versions else None

    with algorithm.on(Sleeper, seed=0, cluster=Cluster(workers=16, batch_workers=4)) as agent:
        agent.learn(10**8, progress=False, callbacks=look)
        loop = agent.trainer._loop
        each = loop.clock.publish / loop.version
    rows = [[f"{v:,}", f"{driver:,.0f}", f"{actors:,.0f}", f"{store:,.0f}"] for v, driver, actors, store in seen]
    header = ["versions", "driver, MiB", "an actor, MiB", "object store, MiB"]
    return (
        f"Weights of {size:.1f} MB to 16 actors: {each * 1e3:.1f} ms for each of {versions:,} versions (copied from "
        f"JAX and put into the store; actors read them in place).\n\n{table(header, rows)}"
    )


def soak(minutes: float) -> str:
    """Train for long; look at the memory of driver, actors and object store."""
    import ray

    from renshu import IMPALA, Cluster

    seen: list[list[object]] = []
    began, every = time.monotonic(), minutes * 60 / 10

    def look(agent: Any, metrics: dict[str, float]) -> bool | None:
        now = time.monotonic() - began
        if now < every * (len(seen) + 1):
            return None
        pids = [group.place[1] for group in agent.trainer._loop.groups.values() if group.place]
        free = ray.available_resources().get("object_store_memory", 0.0)
        used = (ray.cluster_resources()["object_store_memory"] - free) / 2**20
        actors = float(np.mean([memory(pid) for pid in pids]))
        cells = [f"{now / 60:.0f}", f"{agent.steps:,}", f"{memory(os.getpid()):,.0f}", f"{actors:,.0f}", f"{used:,.1f}"]
        seen.append(cells)
        print(*cells, flush=True)
        return False if len(seen) == 10 else None

    algorithm = IMPALA(n_steps=32, net_arch=[64, 64], max_lag=100)
    with algorithm.on(Sleeper, seed=0, cluster=Cluster(workers=8)) as agent:
        agent.learn(10**9, progress=False, callbacks=look)
        account = agent.trainer._loop.account
    header = ["minutes", "steps", "driver, MiB", "an actor, MiB", "object store, MiB"]
    return f"8 workers for {minutes:g} minutes, {account.learned:,} rollouts.\n\n{table(header, seen)}"


PARTS = {
    "scaling": "Workers",
    "broadcast": "Weights",
    "scores": "Time to a score, beside RLlib",
    "faults": "Nodes, actors and environments that fail",
    "drivers": "Drivers that are killed",
    "soak": "Memory over time",
}


def main() -> None:
    """Measure the parts that are asked for, and write the page."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--part", choices=list(PARTS), action="append")
    parser.add_argument("--seconds", type=float, default=15.0, help="of each measurement of scaling")
    parser.add_argument("--versions", type=int, default=1000, help="of broadcast")
    parser.add_argument("--seeds", type=int, default=3, help="of scores")
    parser.add_argument("--environment", action="append", help="of scores; by default all")
    parser.add_argument("--limit", type=float, default=900.0, help="seconds of a training of scores")
    parser.add_argument("--kills", type=int, default=30, help="of faults")
    parser.add_argument("--drivers", type=int, default=20, help="drivers that are killed")
    parser.add_argument("--minutes", type=float, default=60.0, help="of soak")
    options = parser.parse_args()
    sections = json.loads(SECTIONS.read_text()) if SECTIONS.exists() else {}
    for part in options.part or PARTS:
        if part == "scaling":
            sections[part] = scaling(options.seconds)
        if part == "broadcast":
            sections[part] = broadcast(options.versions)
        if part == "scores":
            found = cluster_scores.scores(options.seeds, options.environment, options.limit)
            sections["rows of scores"] = {**sections.get("rows of scores", {}), **found}
            sections[part] = cluster_scores.section(sections["rows of scores"])
        if part == "faults":
            sections[part] = cluster_faults.faults(options.kills)
        if part == "drivers":
            sections[part] = cluster_faults.drivers(options.drivers)
        if part == "soak":
            sections[part] = soak(options.minutes)
        SECTIONS.write_text(json.dumps(sections, indent=1))
    body = "\n\n".join(f"## {title}\n\n{sections[part]}" for part, title in PARTS.items() if part in sections)
    publish("cluster", "The cluster loop", "python -m bench.cluster", body)


if __name__ == "__main__":
    main()
