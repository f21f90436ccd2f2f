"""Scores of evolution strategies and ARS by their presets, and what a generation costs.

    python -m bench.evolution --part scores [--case ars:Pendulum-v1] [--seeds 3]    # walkers go on in runs/
    python -m bench.evolution --part values     # of evosax itself, and of pycma (pip install cma), on functions
    python -m bench.evolution --part cost       # of a generation, by population and network
    python -m bench.evolution --part curves     # beside PPO's, by steps and by time
    python -m bench.evolution --part rocket     # brought to rest, beside a regulator

Parts are kept in docs/benchmarks/evolution.json: a case that is not selected stays on the page as it was measured.
"""

from __future__ import annotations

import argparse
import json
import resource
import time
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import renshu
from bench import walkers
from bench.controllers import LQR
from bench.report import DOCS, publish, revision, table
from bench.rocket_control import DT, LAST, fly, policy_of, settled
from renshu import ES
from renshu.algorithms.evolution.es import Evosax
from renshu.envs.builtin.rocket import Rocket
from renshu.tracking.figures import colour_and_dashes

KEPT = DOCS / "evolution.json"
CASES = {  # algorithm, environment: seeds, goal for the mean of all seeds; ARS: RL Zoo's
    ("ars", "CartPole-v1"): (3, 500.0),
    ("ars", "MountainCarContinuous-v0"): (3, 96.0),
    ("ars", "Pendulum-v1"): (3, -212.0),
    ("ars", "LunarLanderContinuous-v3"): (3, 168.0),
    ("ars", "Swimmer-v5"): (3, 355.0),
    ("ars", "Hopper-v5"): (1, 3344.0),
    ("ars", "HalfCheetah-v5"): (1, 4815.0),
    ("es", "CartPole-v1"): (3, 500.0),
    ("es", "renshu/Acrobot-v1"): (3, -100.0),
    ("es", "Pendulum-v1"): (3, -200.0),
    ("es", "LunarLanderContinuous-v3"): (3, 250.0),
    ("es", "BipedalWalker-v3"): (1, 250.0),
}
WALKER = ("es", "BipedalWalker-v3")
EPISODES, DIMENSIONS, GENERATIONS, MEMBERS, RUNS = 100, 10, 200, 16, 20
FUNCTIONS = {
    "sphere": lambda x: (x**2).sum(axis=-1),
    "rastrigin": lambda x: 10 * x.shape[-1] + (x**2 - 10 * jnp.cos(2 * jnp.pi * x)).sum(axis=-1),
}
MACHINES = (
    "Measured from 2026-11-26 to 28, Python 3.11.7, jax 0.10.2, gymnasium 1.4.0: scores and functions on an AMD EPYC, "
    "the rocket on an Intel Xeon, 2 cores each; those of walkers and MuJoCo on one core, beside other work."
)
CURVES, POINTS = ("ppo", "es", "ars"), 25
POPULATIONS, NETWORKS = (64, 256, 1024, 4096, 16384), ([], [16], [64, 64])


def score(algorithm: str, environment: str, seed: int) -> dict[str, Any]:
    """Train one seed by the preset and evaluate what it plays in 100 episodes."""
    preset = renshu.preset(algorithm, environment)
    # Gymnasium's environments of our own making are the same in numbers, and compile.
    name = {"Pendulum-v1": "renshu/Pendulum-v1", "CartPole-v1": "renshu/CartPole-v1"}.get(environment, environment)
    name = {"MountainCarContinuous-v0": "renshu/MountainCarContinuous-v0"}.get(name, name)
    began = time.perf_counter()
    with preset.algorithm.on(name, num_envs=preset.num_envs, seed=seed, **preset.options) as agent:
        agent.learn(preset.total_steps, progress=False)
        seconds = time.perf_counter() - began
        return walkers.row(algorithm, environment, seed, agent.steps, agent.evaluate(EPISODES), seconds)


def values() -> list[dict[str, Any]]:
    """Minimise functions of ten numbers by our strategies, by evosax alone with the same keys, and by pycma."""
    import evosax

    rows = []
    for function, cost in FUNCTIONS.items():
        for strategy, kind in (("cma_es", "CMA_ES"), ("sep_cma_es", "Sep_CMA_ES"), ("snes", "SNES")):
            start = 3.0 * jnp.ones(DIMENSIONS)
            ours = Evosax(ES(strategy=strategy, population_size=MEMBERS, sigma=1.0), DIMENSIONS)
            theirs = getattr(evosax.algorithms, kind)(population_size=MEMBERS, solution=start)
            params = theirs.default_params.replace(std_init=jnp.asarray(1.0))
            mine, other = ours.init(jax.random.key(0), start), theirs.init(jax.random.key(0), start, params)
            for i in range(GENERATIONS):
                key_ask, key_tell = jax.random.split(jax.random.key(i))
                members, mine = ours.ask(key_ask, mine)
                mine = ours.tell(key_tell, members, -cost(members), mine, jnp.float32(1.0))
                members, other = theirs.ask(key_ask, other, params)
                other, _ = theirs.tell(key_tell, members, cost(members), other, params)
            found = [float(mine.best_fitness), float(other.best_fitness)]
            rows.append({"function": function, "strategy": strategy, "ours": found[0], "evosax": found[1]})
            if strategy == "cma_es":
                rows[-1] |= {"median": by_seed(ours, cost, start), "pycma": of_pycma(cost)}
            print(rows[-1], flush=True)
    return rows


def by_seed(search: Evosax, cost: Any, start: jax.Array) -> float:
    """Return the median over seeds of the best values of our strategy."""

    def best(key: jax.Array) -> jax.Array:
        def generation(state: Any, key: jax.Array) -> tuple[Any, None]:
            members, state = search.ask(key, state)
            return search.tell(key, members, -cost(members), state, jnp.float32(1.0)), None

        keys = jax.random.split(key, GENERATIONS)
        return jax.lax.scan(generation, search.init(key, start), keys)[0].best_fitness

    run = jax.jit(best)
    return float(np.median([run(jax.random.key(seed)) for seed in range(RUNS)]))


def of_pycma(cost: Any) -> float | None:
    """Return the median over seeds of pycma's best values after as many generations; None where it is not installed."""
    try:
        import cma
    except ImportError:
        return None
    found = []
    for seed in range(1, RUNS + 1):
        options = {"popsize": MEMBERS, "seed": seed, "verbose": -9, "tolfun": 0, "tolfunhist": 0, "tolx": 0}
        search = cma.CMAEvolutionStrategy(DIMENSIONS * [3.0], 1.0, options)
        for _ in range(GENERATIONS):
            members = search.ask()
            search.tell(members, np.asarray(cost(jnp.asarray(members))).tolist())
        found.append(float(search.result.fbest))
    return float(np.median(found))


def cost_of_generations() -> list[dict[str, Any]]:
    """Time a generation of CartPole, whole episodes of at most 500 steps, and read the memory that the process took."""
    rows = []
    for net_arch in NETWORKS:
        for population in POPULATIONS:
            agent = ES(population_size=population, net_arch=net_arch, sigma=0.3).on("renshu/CartPole-v1", seed=0)
            agent.learn(3 * 500 * population, progress=False)
            began, generations, steps = time.perf_counter(), agent.trainer.iteration, agent.steps
            agent.learn(5 * 500 * population, progress=False)
            seconds, count = time.perf_counter() - began, agent.trainer.iteration - generations
            rows.append(
                {
                    "weights": int(agent.trainer.learner.policy.size),
                    "population": population,
                    "seconds": seconds / count,
                    "steps": (agent.steps - steps) / seconds,
                    "memory": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
                }
            )
            print(rows[-1], flush=True)
    return rows


def curve(algorithm: str, environment: str, seed: int) -> dict[str, Any]:
    """Train one seed by the preset; evaluate what it plays greedily on the way, whose time does not count."""
    preset, points = renshu.preset(algorithm, environment), []
    clock = {"began": 0.0, "next": 0.0}

    def look(agent: renshu.Agent, metrics: dict[str, float]) -> None:
        now = time.perf_counter()
        # Compiling ends with the first update.
        clock["began"] = clock["began"] or now
        if agent.steps >= clock["next"]:
            points.append([agent.steps, now - clock["began"], agent.evaluate(10).mean])
            clock["next"] = agent.steps + preset.total_steps / POINTS
            clock["began"] += time.perf_counter() - now

    name = f"renshu/{environment}"
    with preset.algorithm.on(name, num_envs=preset.num_envs, seed=seed, loop="compiled", **preset.options) as agent:
        agent.learn(preset.total_steps, progress=False, stop_at=None, callbacks=look)
    return {"algorithm": algorithm, "environment": environment, "seed": seed, "points": points}


def curves_picture(runs: list[dict[str, Any]]) -> None:
    """Draw returns by steps at the left and by seconds at the right, a row for each environment."""
    from matplotlib.figure import Figure

    names = list(dict.fromkeys(run["environment"] for run in runs))
    figure = Figure(figsize=(10, 3.4 * len(names)), layout="constrained")
    rows = figure.subplots(len(names), 2, squeeze=False)
    for (left, right), name in zip(rows, names, strict=True):
        for run in (run for run in runs if run["environment"] == name):
            colour, dashes = colour_and_dashes(CURVES.index(run["algorithm"]))
            steps, seconds, returns = zip(*run["points"], strict=True)
            label = run["algorithm"] if run["seed"] == 0 else None
            left.plot(steps, returns, dashes, color=colour, label=label, alpha=0.8)
            right.plot(np.maximum(seconds, 1e-2), returns, dashes, color=colour, alpha=0.8)
        left.set(xscale="log", xlabel="environment steps", ylabel="greedy return", title=name)
        right.set(xscale="log", xlabel="seconds after compiling", title=name)
        left.legend(frameon=False)
    figure.savefig(DOCS / "evolution_curves.png", dpi=110)


def rocket() -> list[dict[str, Any]]:
    """Bring the rocket to rest by CMA-ES over a small network, and by the linear-quadratic regulator."""
    rows = []
    for seed in range(3):
        search = ES(strategy="cma_es", population_size=32, n_eval_episodes=4, net_arch=[8], sigma=0.5)
        began = time.perf_counter()
        agent = search.on(Rocket(goal=False, reward="rest"), seed=seed).learn(4_000_000, progress=False)
        seconds = time.perf_counter() - began
        rows.append(
            {"name": f"CMA-ES, seed {seed}", "steps": agent.steps, "seconds": seconds, **flown(policy_of(agent))}
        )
    return [*rows, {"name": "linear-quadratic regulator", "steps": 0, "seconds": 0.0, **flown(LQR(dt=DT))}]


def flown(policy: Any) -> dict[str, Any]:
    """Return when a flight from (1, 0) comes to rest, how near it stays, and its cost; see bench/rocket_control.py."""
    path, thrusts = fly(policy)
    x, v = (float(value) for value in np.abs(path[-LAST:]).max(axis=0))
    cost = path[1:, 0] ** 2 + 0.1 * path[1:, 1] ** 2 + 0.001 * thrusts**2
    return {"settled": settled(path), "x": x, "v": v, "cost": float(cost.sum())}


def picture(rows: list[dict[str, Any]]) -> None:
    """Draw seconds of a generation against the population, a line for each network."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6, 4), layout="constrained")
    axes = figure.subplots()
    for style, weights in zip(("-", "--", ":"), sorted({row["weights"] for row in rows}), strict=True):
        line = [row for row in rows if row["weights"] == weights]
        axes.plot(
            [row["population"] for row in line],
            [row["seconds"] for row in line],
            style,
            marker="o",
            label=f"{weights:,} weights",
        )
    axes.set(xscale="log", yscale="log", xlabel="members", ylabel="seconds a generation", title="CartPole, compiled")
    axes.legend(frameon=False)
    figure.savefig(DOCS / "evolution_cost.png", dpi=120)


def keep(part: str, result: Any) -> None:
    """Keep the result of a part beside those of others."""
    kept = json.loads(KEPT.read_text()) if KEPT.exists() else {}
    KEPT.write_text(json.dumps(kept | {part: result}, indent=1))


def page() -> None:
    """Write the page of all parts that were measured."""
    kept, body = json.loads(KEPT.read_text()), []
    rows = []
    for (algorithm, environment), (_, goal) in CASES.items():
        runs = [x for x in kept.get("scores", []) if (x["algorithm"], x["environment"]) == (algorithm, environment)]
        if runs:
            means = ", ".join(f"{run['mean']:.1f} ± {run['std']:.1f}" for run in runs)
            whole = np.mean([run["mean"] for run in runs])
            verdict = "yes" if whole >= goal else "no"
            seconds = np.median([run["seconds"] for run in runs])
            steps = f"{max(run['steps'] for run in runs):,}"
            rows.append(
                [algorithm, environment, steps, means, f"{whole:.1f}", f"{goal:g}", verdict, f"{seconds:.0f} s"]
            )
    if rows:
        begun = walkers.STAGES[WALKER][0]
        head = ["algorithm", "environment", "steps", "each seed", "mean", "goal", "reached", "median time"]
        body.append(
            f"## Scores\n\nBy the presets, seeds 0 and up, {EPISODES} greedy episodes each; goals of ARS are RL Zoo's "
            "scores, one run each. Time includes compiling. "
            f"BipedalWalker trains for {renshu.preset(*WALKER).total_steps:,} steps on episodes cut after {begun.cut} "
            f"steps, in which a fall costs {-begun.least:g}, and then on whole ones, in which it costs 100: with that "
            "from the start, a first try learned to stand still.\n\n" + table(head, rows)
        )
        long = [x for x in kept["scores"] if "points" in x]
        if long:
            body.append(
                "## On the way\n\nMeans of 10 greedy episodes as in training, so that BipedalWalker's are cut until "
                f"step {renshu.preset(*WALKER).total_steps:,}; dotted: the goals.\n\n![curves](evolution_walkers.png)"
            )
            walkers.picture(long, {case: goal for case, (_, goal) in CASES.items()})
    if "values" in kept:
        found = kept["values"]["found"]
        cells = [
            [*(row.get(x, "") for x in ("function", "strategy", "ours", "evosax", "median", "pycma"))] for row in found
        ]
        body.append(
            f"## Functions of {DIMENSIONS} numbers\n\nBest value after {GENERATIONS} generations of {MEMBERS}, from 3 "
            "in each number with deviation 1. The same keys were given to ours and to evosax alone.\n\n"
            + table(
                ["function", "strategy", "ours", "evosax alone", f"ours, median of {RUNS} seeds", "pycma, the same"],
                cells,
            )
        )
    if "cost" in kept:
        found = kept["cost"]["found"]
        cells = [
            [
                f"{r['weights']:,}",
                f"{r['population']:,}",
                f"{r['seconds']:.3f}",
                f"{r['steps']:,.0f}",
                f"{r['memory']:.0f}",
            ]
            for r in found
        ]
        head = ["weights", "members", "seconds a generation", "steps/s", "most memory so far, MB"]
        body.append(
            "## Cost of a generation\n\nOpenAI's strategy on the compiled CartPole, on one core: whole episodes of up "
            "to 500 steps, one program a generation. Nothing but returns leaves it.\n\n![cost](evolution_cost.png)\n\n"
            + table(head, cells)
        )
        picture(found)
    if "rocket" in kept:
        cells = [
            [
                r["name"],
                f"{r['steps']:,}",
                "never" if r["settled"] is None else f"{r['settled']:.2f} s",
                f"{r['x']:.4f}",
                f"{r['v']:.4f}",
                f"{r['cost']:.1f}",
                f"{r['seconds']:.0f} s",
            ]
            for r in kept["rocket"]["found"]
        ]
        head = ["controller", "steps", "at rest after", "\\|x\\| at the end", "\\|v\\|", "cost", "training"]
        body.append(
            "## The rocket\n\nCMA-ES, 32 members of 4 episodes, 8 hidden nodes, reward of the regulator, "
            "settings not tuned; flights from "
            "(1, 0) as on [the articles' page](articles.md).\n\n" + table(head, cells)
        )
    if "curves" in kept:
        body.append(
            "## Beside PPO\n\nPresets, compiled loop, one core, three seeds each, ten greedy episodes a point; "
            "compiling and evaluating do not count.\n\n![curves](evolution_curves.png)"
        )
        curves_picture(kept["curves"]["found"])
    publish("evolution", "Evolution", "python -m bench.evolution", "\n\n".join(body), MACHINES)


def main() -> None:
    """Measure a part, and write the page."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--part", choices=["scores", "values", "cost", "curves", "rocket", "page"], default="page")
    parser.add_argument("--case", action="append", help="algorithm:environment; default all")
    parser.add_argument("--seeds", type=int)
    parser.add_argument("--first", type=int, default=0, help="the first seed; settings are chosen on 10 and above")
    options = parser.parse_args()
    if options.part == "scores":
        chosen = [tuple(case.split(":")) for case in options.case] if options.case else list(CASES)
        for case in chosen:
            for seed in range(options.first, options.first + (options.seeds or CASES.get(case, (1, 0))[0])):
                row = (walkers.score if case in walkers.STAGES else score)(*case, seed)
                print(row, flush=True)
                if options.first < 10:
                    others = json.loads(KEPT.read_text()).get("scores", []) if KEPT.exists() else []
                    place = [row[x] for x in ("algorithm", "environment", "seed")]
                    others = [x for x in others if [x["algorithm"], x["environment"], x["seed"]] != place]
                    keep("scores", [*others, row])
    elif options.part == "values":
        keep("values", {"found": values(), "revision": revision()})
    elif options.part == "cost":
        keep("cost", {"found": cost_of_generations(), "revision": revision()})
    elif options.part == "curves":
        cases = [(a, e, s) for e in ("CartPole-v1", "Pendulum-v1") for a in CURVES for s in range(3)]
        keep("curves", {"found": [curve(*case) for case in cases], "revision": revision()})
    elif options.part == "rocket":
        found = rocket()
        print(*found, sep="\n")
        keep("rocket", {"found": found, "revision": revision()})
    if KEPT.exists() and options.first < 10:
        page()


if __name__ == "__main__":
    main()
