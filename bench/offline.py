"""Agents that learn from data sets alone: from the memory of a half-trained agent, in a folder, as Minari keeps it.

    python -m bench.offline [--seeds 3] [--first-seed 0] [--updates 20000]

For each seed an agent of the presets is trained (Pendulum-v1 20,000 steps, CartPole-v1 50,000), its whole memory
becomes a data set, and another agent with another seed learns from that alone. Scores are means of 100 greedy episodes.
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import gymnasium
import jax
import numpy as np

from bench.report import publish, table
from renshu import DQN, TD3, Agent, Dataset, Linear, preset
from renshu.agent.callbacks import Evaluate
from renshu.ops.rollouts import joined

EPISODES = 100
EVALUATIONS = 8
LEARNER_SEED = 1000
"""Added to the seed of the agent whose memory it is."""


@dataclass(frozen=True)
class Task:
    """A data set of an agent's own, and who learns from it. goal: the score to reach. steps: of the agent."""

    env: str
    teacher: str
    steps: int
    learner: Any
    goal: float


TASKS = [
    Task("Pendulum-v1", "td3", 20_000, TD3(gamma=0.98), -200.0),
    Task(
        "CartPole-v1",
        "dqn",
        50_000,
        DQN(
            learning_rate=Linear(1e-3, 0.0),
            batch_size=128,
            target_update_interval=100,
            net_arch=[256, 256],
            double=True,
            n_steps=3,
        ),
        400.0,
    ),
]


def memory_of_an_agent(task: Task, seed: int) -> tuple[Agent, Dataset]:
    """Train an agent by its preset, and take its memory."""
    known = preset(task.teacher, task.env)
    agent = known.algorithm.on(task.env, num_envs=known.num_envs, seed=seed).learn(task.steps, progress=False)
    return agent, agent.dataset()


@dataclass
class Result:
    """One training from data: score of the learner, gradient steps until the goal, seconds."""

    agent: Agent
    score: float
    reached: int | None
    seconds: float


def learned(task: Task, dataset: Dataset, seed: int, updates: int, **changes: Any) -> Result:
    """Learn from a data set, and look every eighth of the training."""
    looks = Evaluate(updates // EVALUATIONS, 20)
    began = time.perf_counter()
    agent = replace(task.learner, **changes).on(dataset, seed=LEARNER_SEED + seed)
    agent.learn(updates, progress=False, callbacks=looks)
    seconds = time.perf_counter() - began
    reached = next((steps for steps, found in looks.history if found.mean >= task.goal), None)
    return Result(agent, agent.evaluate(EPISODES).mean, reached, seconds)


def in_minari(dataset: Dataset, env: str, root: Path) -> Dataset:
    """Let Minari's own library write the data, episode by episode, and open what it wrote."""
    os.environ["MINARI_DATASETS_PATH"] = str(root)
    import minari
    from minari.data_collector import EpisodeBuffer

    whole = joined(list(dataset.chunks()))
    ends = np.append(np.flatnonzero(whole.first[1:, 0]), len(whole.reward))
    buffers, start = [], 0
    for number, end in enumerate(ends.tolist()):
        if end > start:
            terminated = whole.terminated[start:end, 0]
            # An episode that the end of the memory cuts is truncated there.
            truncated = (np.arange(start, end) == end - 1) & ~terminated
            parts = (whole.obs[start : end + 1, 0], whole.action[start:end, 0], whole.reward[start:end, 0])
            columns = dict(zip(("observations", "actions", "rewards"), parts, strict=True))
            buffers.append(
                EpisodeBuffer(id=number, **columns, terminations=terminated, truncations=truncated, infos={})
            )
        start = end + 1
    name = f"{env.lower().removesuffix('-v1')}/memory-v0"
    minari.create_dataset_from_buffers(
        name,
        buffers,
        env=gymnasium.spec(env),
        observation_space=dataset.spec.observation_space,
        action_space=dataset.spec.action_space,
    )
    return Dataset.open(f"minari:{name}")


def same(a: Any, b: Any) -> bool:
    """Tell whether two states are equal to the bit."""
    return jax.tree.all(jax.tree.map(np.array_equal, a, b))


def row(task: Task, seed: int, kind: str, dataset: Dataset, teacher: float, result: Result) -> list[Any]:
    """Make a line of the table."""
    reached = "never" if result.reached is None else f"{result.reached:,}"
    learner = f"{type(task.learner).__name__} on {task.env}"
    scores = f"{teacher:.0f}", f"{result.score:.0f}"
    return [learner, seed, kind, f"{dataset.steps:,}", *scores, f"{task.goal:g}", reached, f"{result.seconds:.0f} s"]


def measured(task: Task, seed: int, updates: int, folder: Path) -> tuple[list[list[Any]], str]:
    """Learn from the memory of one agent in all ways: lines of the table, and whether a repetition was the same."""
    agent, dataset = memory_of_an_agent(task, seed)
    teacher = agent.evaluate(EPISODES).mean
    kinds: dict[str, tuple[Dataset, dict[str, Any]]] = {"memory": (dataset, {})}
    if seed == 0:
        kinds["folder"] = Dataset.open(dataset.save(folder / "own")), {}
        kinds["Minari"] = in_minari(dataset, task.env, folder), {}
        kinds["folder, read in turn into a quarter"] = kinds["folder"][0], {"buffer_size": dataset.rows // 4}
    rows, results = [], {}
    for kind, (data, changes) in kinds.items():
        results[kind] = learned(task, data, seed, updates, **changes)
        rows.append(row(task, seed, kind, data, teacher, results[kind]))
        print(" | ".join(map(str, rows[-1])), flush=True)
    repeated = ""
    if "folder" in results:
        equal = same(results["memory"].agent.state, results["folder"].agent.state)
        repeated = f"{task.env}: memory and folder, the same seed: states equal to the bit: {equal}."
    return rows, repeated


def main(argv: list[str] | None = None, show: Callable[..., None] = publish) -> None:
    """Measure and publish."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--first-seed", type=int, default=0)
    parser.add_argument("--updates", type=int, default=20_000)
    parser.add_argument("--only", help="the environment to measure, and nothing is written then")
    args = parser.parse_args(argv)
    rows, notes = [], []
    for task in TASKS:
        for seed in range(args.first_seed, args.first_seed + args.seeds):
            if args.only in (None, task.env):
                with tempfile.TemporaryDirectory() as folder:
                    found, note = measured(task, seed, args.updates, Path(folder))
                rows += found
                notes += [note] if note else []
    header = ["learner", "seed", "data", "steps", "agent whose memory it is", "learned from it", "goal"]
    body = table([*header, f"gradient steps until there (of {args.updates:,})", "time"], rows)
    settings = "\n".join(f"- {task.env}: `{task.learner}`" for task in TASKS)
    text = f"{body}\n\n{' '.join(notes)}\n\nSettings were chosen on seeds 100 and 101:\n\n{settings}"
    if args.only is None:
        show("offline", "Learning from data sets", "python -m bench.offline", text)


if __name__ == "__main__":
    main()
