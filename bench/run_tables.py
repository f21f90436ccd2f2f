"""One part of bench.tables: the table, the curves and the panels of an experiment, in the version that is imported."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
from rich.console import Console

import renshu
from renshu import A2C, PPO
from renshu.tracking import Run, plot_runs


def made_up_runs(folder: Path) -> list[Path]:
    """Write runs of two environments whose returns are drawn, so that every version has the same ones."""
    rng, paths = np.random.default_rng(0), []
    for algorithm, environment in (("PPO", "CartPole-v1"), ("A2C", "CartPole-v1"), ("PPO", "Pendulum-v1")):
        path = folder / f"{algorithm.lower()}-{environment}"
        with Run.create(path, {"algorithm": algorithm, "environment": environment}) as run:
            step = np.arange(1, 200) * 100
            run.log_episodes(step, step % 4, rng.normal(step / 40, 20), step // 200, step / 1000)
        paths.append(path)
    return paths


def main() -> None:
    """Train, and write table.txt, grid.png, algorithms.png and runs.png."""
    out = Path(sys.argv[1])
    common = {"seeds": 5, "num_envs": 4, "progress": False}
    rates = {"learning_rate": [1e-3, 3e-4], "ent_coef": [0.0, 0.01]}
    grid = renshu.experiment(PPO(n_steps=128), "renshu/CartPole-v1", grid=rates, steps=60_000, **common)
    with (out / "table.txt").open("w") as file:
        Console(file=file, width=80).print(grid.table())
    grid.plot(out / "grid.png")
    several = {f"{kind.__name__}, net_arch {size}": kind(net_arch=[size]) for kind in (PPO, A2C) for size in (16, 64)}
    renshu.experiment(several, "renshu/CartPole-v1", steps=40_000, **common).plot(out / "algorithms.png")
    plot_runs(made_up_runs(out / "runs"), out / "runs.png")


if __name__ == "__main__":
    main()
