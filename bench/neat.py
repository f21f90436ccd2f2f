"""NEAT: the exclusive or, classic control, one generation beside neat-python's, and a walker.

    python -m bench.neat --part xor --seeds 20
    python -m bench.neat --part classic --seeds 3
    python -m bench.neat --part speed          # needs neat-python: pip install neat-python
    python -m bench.neat --part walk --run runs/walker --minutes 60     # goes on from its checkpoint

Parts are kept in docs/benchmarks/neat.json: what is not measured now stays on the page as it was.
"""

from __future__ import annotations

import argparse
import json
import math
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gymnasium
import jax
import jax.numpy as jnp
import numpy as np
from gymnasium import spaces

import renshu
from bench.report import DOCS, publish, revision, table
from renshu import NEAT, Agent
from renshu.envs.device import DeviceEnv, Step
from renshu.networks.graph import NONE, Genome

KEPT = DOCS / "neat.json"
MACHINES = "Measured on 2026-11-27: Intel Xeon, 2 cores, Python 3.11.7, jax 0.10.2, gymnasium 1.3.0."
CASES = jnp.array([[0, 0], [0, 1], [1, 0], [1, 1]], jnp.float32)
CLASSIC = {"CartPole-v1": 500.0, "MountainCar-v0": -110.0}
MEMBERS, LENGTH, REPEATS = 1_000, 500, 7
WALKER, SHORT = "BipedalWalker-v3", 500


class XOR(DeviceEnv):
    """The four cases one after the other; 1 less the square error for each. No linear network gets more than 3."""

    observation_space = spaces.Box(0.0, 1.0, (2,), np.float32)
    action_space = spaces.Box(0.0, 1.0, (1,), np.float32)
    max_episode_steps = 4

    def reset(self, key):
        return jnp.int32(0), CASES[0]

    def step(self, state, action, key):
        wanted = jnp.abs(CASES[state, 0] - CASES[state, 1])
        after = (state + 1) % 4
        return Step(after, CASES[after], 1.0 - (action[0] - wanted) ** 2, jnp.bool_(False))


def xor(seed: int) -> dict[str, Any]:
    """Train until the best answers all four with a square error of 0.1 in all, at most 300 generations."""
    growing = {"node_add_prob": 0.2, "conn_add_prob": 0.3}
    agent = NEAT(population_size=150, max_hidden=4, compatibility_threshold=2.0, **growing).on(XOR(), seed=seed)
    began = time.perf_counter()
    solved = {"progress": False, "stop_at": None, "callbacks": lambda _, metrics: metrics["fitness_max"] < 3.9}
    agent.learn(150 * 4 * 300, **solved)
    best: Genome = agent.state.params
    return {
        "seed": seed,
        "fitness": agent.evaluate(1).mean,
        "generations": int(agent.state.counters.updates),
        "hidden": int((best.hidden != NONE).sum()),
        "connections": int(best.enabled.sum()),
        "seconds": time.perf_counter() - began,
    }


def classic(environment: str, seed: int) -> dict[str, Any]:
    """Train by the preset and evaluate 100 episodes."""
    preset = renshu.preset("neat", environment)
    began = time.perf_counter()
    agent = preset.algorithm.on(environment.replace("MountainCar", "renshu/MountainCar").replace("Cart", "renshu/Cart"),
                                seed=seed, **preset.options)  # fmt: skip
    agent.learn(preset.total_steps, progress=False)
    seconds, found = time.perf_counter() - began, agent.evaluate(100)
    row = {"environment": environment, "seed": seed, "steps": agent.steps, "seconds": seconds}
    return row | {"mean": found.mean, "std": found.std, "hidden": int((agent.state.params.hidden != NONE).sum())}


# --- speed ------------------------------------------------------------------------------------------------------------


def speed() -> dict[str, Any]:
    """Time one generation of as many genomes: playing, species, reproduction; of all balanced, and of new ones."""
    agent = NEAT(population_size=MEMBERS).on("renshu/CartPole-v1", seed=0)
    fresh = jax.tree.map(jnp.copy, agent.state)
    agent.learn(3_000_000, progress=False, stop_at=None)
    best = agent.state.params
    alike = jax.tree.map(lambda x: jnp.repeat(x[None], MEMBERS, axis=0), best)
    search = fresh.search._replace(genomes=alike, place=jnp.zeros(MEMBERS, jnp.int32))
    found: dict[str, Any] = {"hidden": int((best.hidden != NONE).sum()), "connections": int(best.enabled.sum())}
    for name, state in (("balanced", fresh._replace(search=search)), ("fresh", fresh)):
        seconds, steps = zip(*(_ours(agent, state) for _ in range(REPEATS)), strict=True)
        genomes = [jax.tree.map(lambda x, i=i: np.asarray(x[i]), state.search.genomes) for i in range(MEMBERS)]
        row = {"ours": statistics.median(seconds), "steps": int(statistics.median(steps))}
        for env, play in (("Gymnasium", _gymnasium), ("plain Python", _plain)):
            theirs = [_theirs(genomes, play) for _ in range(3 if env == "plain Python" else 2)]
            row[env] = statistics.median(seconds for seconds, _ in theirs)
            row[f"{env} steps"] = int(statistics.median(steps for _, steps in theirs))
        found[name] = row
        print(name, row, flush=True)
    return found


def _ours(agent: Agent, state: Any) -> tuple[float, int]:
    trainer = agent.trainer
    counters = trainer.state.counters
    trainer.state = jax.tree.map(jnp.copy, state._replace(counters=counters))
    before, began = agent.steps, time.perf_counter()
    agent.learn(1, progress=False, stop_at=None)
    jax.block_until_ready(trainer.state)
    return time.perf_counter() - began, agent.steps - before


def _theirs(genomes: list[Genome], play: Callable[[Any], tuple[float, int]]) -> tuple[float, int]:
    import neat

    from tests.algorithms.evolution import genes

    with tempfile.TemporaryDirectory() as folder:
        config = NEAT(population_size=MEMBERS)
        made = genes.configuration(Path(folder) / "config", config, inputs=4, outputs=2, population=MEMBERS)
    population = neat.Population(made)
    numbers = list(population.population)
    population.population = {
        number: genes.theirs(genome, made, number, inputs=4) for number, genome in zip(numbers, genomes, strict=True)
    }
    population.species.speciate(made, population.population, 0)
    steps = 0

    def evaluate(members: Any, config: Any) -> None:
        nonlocal steps
        for _, genome in members:
            genome.fitness, count = play(neat.nn.FeedForwardNetwork.create(genome, config))
            steps += count

    began = time.perf_counter()
    population.run(evaluate, 1)
    return time.perf_counter() - began, steps


def _gymnasium(network: Any) -> tuple[float, int]:
    env = _gymnasium.__dict__.setdefault("env", gymnasium.make("CartPole-v1"))
    obs, _ = env.reset(seed=0)
    total, over = 0.0, False
    while not over:
        left, right = network.activate(obs.tolist())
        obs, reward, terminated, truncated, _ = env.step(int(right > left))
        total, over = total + reward, terminated or truncated
    return total, int(total)


def _plain(network: Any) -> tuple[float, int]:
    """Play CartPole in Python's own numbers: nothing that neat-python could be faster with."""
    x, speed, angle, turn = (0.04, -0.02, 0.01, 0.03)
    for step in range(LENGTH):
        left, right = network.activate((x, speed, angle, turn))
        cosine, sine = math.cos(angle), math.sin(angle)
        pushed = ((10.0 if right > left else -10.0) + 0.05 * turn * turn * sine) / 1.1
        bent = (9.8 * sine - cosine * pushed) / (0.5 * (4.0 / 3.0 - 0.1 * cosine * cosine / 1.1))
        x, speed = x + 0.02 * speed, speed + 0.02 * (pushed - 0.05 * bent * cosine / 1.1)
        angle, turn = angle + 0.02 * turn, turn + 0.02 * bent
        if abs(x) > 2.4 or abs(angle) > 0.2094395:
            return step + 1.0, step + 1
    return float(LENGTH), LENGTH


# --- walking ----------------------------------------------------------------------------------------------------------


def walk(folder: Path, minutes: float, seed: int) -> dict[str, Any]:
    """Train the walker for so long, in a run folder, in episodes of SHORT steps; evaluate it in whole ones."""
    preset = renshu.preset("neat", WALKER)
    until = time.monotonic() + 60 * minutes
    begun = folder.exists()
    agent = renshu.resume(folder) if begun else preset.algorithm.on(WALKER, seed=seed, max_episode_steps=SHORT)
    whole: dict[str, Any] = {} if begun else {"total_steps": preset.total_steps, "run": folder}

    def in_time(agent: Agent, metrics: dict[str, float]) -> bool:
        if time.monotonic() < until:
            return True
        agent.checkpoint()
        return False

    with agent:
        if minutes:
            agent.learn(
                **whole,
                checkpoint_every=1_000_000,
                progress=False,
                callbacks=in_time,
            )
        found = agent.evaluate(20, env=WALKER)
        paths = agent.pictures(DOCS / "neat")
        print(*paths, sep="\n")
        agent.record(DOCS / "neat" / "walk.mp4", env=gymnasium.make(WALKER, render_mode="rgb_array"))
        best: Genome = agent.state.params
        return {
            "seed": seed,
            "steps": agent.steps,
            "generations": int(agent.state.counters.updates),
            "mean": found.mean,
            "std": found.std,
            "returns": [float(x) for x in found.returns],
            "hidden": int((best.hidden != NONE).sum()),
            "connections": int(best.enabled.sum()),
        }


# --- page -------------------------------------------------------------------------------------------------------------


def keep(part: str, found: Any) -> None:
    """Keep the result of a part beside those of others."""
    kept = json.loads(KEPT.read_text()) if KEPT.exists() else {}
    KEPT.write_text(json.dumps(kept | {part: {"found": found, "revision": revision()}}, indent=1))


def page() -> None:
    """Write the page of all parts that were measured."""
    measured = json.loads(KEPT.read_text())
    kept, body = {part: value["found"] for part, value in measured.items()}, []
    if "xor" in kept:
        runs = kept["xor"]
        solved = [run for run in runs if run["fitness"] >= 3.9]
        generations = [run["generations"] for run in runs]
        hidden = [run["hidden"] for run in solved]
        body.append(
            f"## Exclusive or\n\n150 genomes, at most 4 hidden nodes: {len(solved)} of {len(runs)} seeds answer all "
            f"four cases (fitness of at least 3.9 of 4) after {min(generations)} to {max(generations)} generations, "
            f"median {statistics.median(generations):.0f}, with {min(hidden)} to {max(hidden)} hidden nodes, median "
            f"{statistics.median(hidden):.0f}."
        )
    if "classic" in kept:
        cells = []
        for environment, goal in CLASSIC.items():
            runs = [run for run in kept["classic"] if run["environment"] == environment]
            means = ", ".join(f"{run['mean']:.1f} ± {run['std']:.1f}" for run in runs)
            steps, seconds = (statistics.median(run[x] for run in runs) for x in ("steps", "seconds"))
            cells.append([environment, f"{steps:,.0f}", means, f"{goal:g}", f"{seconds:.0f} s"])
        head = ["environment", "steps", "each seed, 100 episodes", "goal", "time"]
        body.append(
            "## Classic control\n\nBy the presets; time includes compiling. CartPole's was given twice the steps "
            "and episodes after a first measurement on the same seeds (500, 500, 498.5 after 200,000 steps).\n\n"
            + table(head, cells)
        )
    if "speed" in kept:
        found, cells = kept["speed"], []
        for name in ("balanced", "fresh"):
            row = found[name]
            for env in ("Gymnasium", "plain Python"):
                cells.append(
                    [
                        {"balanced": "all balance 500 steps", "fresh": "new genomes"}[name],
                        f"{row['ours']:.3f} s",
                        f"{row['steps']:,}",
                        f"neat-python, {env}",
                        f"{row[env]:.2f} s",
                        f"{row[f'{env} steps']:,}",
                        f"{row[env] / row['ours']:.0f}x",
                    ]
                )
        head = ["generation", "Renshu", "steps", "beside", "time", "steps", "ratio"]
        body.append(
            f"## One generation of {MEMBERS:,} genomes\n\nPlaying CartPole, sharing, reproduction, mutation and "
            f"speciation; compilation apart, medians. The genome that balances has {found['hidden']} hidden nodes and "
            f"{found['connections']} connections; neat-python has the same genomes.\n\n" + table(head, cells)
        )
    if "walk" in kept:
        found = kept["walk"]
        ends = sum(value > 200 for value in found["returns"])
        body.append(
            f"## {WALKER}\n\n{found['steps']:,} steps, {found['generations']:,} generations of episodes cut at {SHORT} "
            f"steps; one seed ({found['seed']}), "
            f"settings from two short tries on another; revision {measured['walk']['revision']}. "
            f"Over 20 whole ones {found['mean']:.1f} ± {found['std']:.1f}, {ends} of them above 200. The best "
            f"network, {found['hidden']} hidden nodes and {found['connections']} connections, and the species:\n\n"
            "![network](neat/network.png)\n\n![species](neat/species.png)\n\n[The walk](neat/walk.mp4)"
        )
    publish("neat", "NEAT", "python -m bench.neat", "\n\n".join(body), MACHINES)


def main() -> None:
    """Measure a part, and write the page."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--part", choices=["xor", "classic", "speed", "walk", "page"], default="page")
    parser.add_argument("--case", choices=list(CLASSIC), action="append")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--first", type=int, default=0, help="the first seed; settings are chosen on 10 and above")
    parser.add_argument("--run", type=Path, default=Path("runs/walker"))
    parser.add_argument("--minutes", type=float, default=60.0)
    options = parser.parse_args()
    seeds = range(options.first, options.first + options.seeds)
    found: Any = None
    if options.part == "xor":
        found = [xor(seed) for seed in seeds]
    elif options.part == "classic":
        found = [classic(name, seed) for name in options.case or CLASSIC for seed in seeds]
    elif options.part == "speed":
        found = speed()
    elif options.part == "walk":
        found = walk(options.run, options.minutes, options.first)
    if found is not None:
        print(*(found if isinstance(found, list) else [found]), sep="\n")
        if options.first < 10:
            keep(options.part, found)
    if KEPT.exists() and options.first < 10:
        page()


if __name__ == "__main__":
    main()
