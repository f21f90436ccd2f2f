"""Growth of the cost of PPO on CartPole with the number of environments and with the number of seeds at once.

python -m bench.growth
"""

from __future__ import annotations

import os
import statistics
import time

import renshu
from bench.compiled import PPO, SETTINGS
from bench.report import DOCS, publish, revision, table

ENVIRONMENTS = (1, 4, 16, 64, 256, 1024, 4096)
SEEDS = (1, 4, 16, 64, 256)
LEAST_UPDATES = 4
CALLS = 3
GRADIENT_STEPS = SETTINGS["n_epochs"] * 4
"""Gradient steps of each update: 4 epochs of 4 minibatches, however large."""

Growth = list[tuple[int, float, float]]
"""Tuples of a count of environments or seeds, milliseconds per update, and environment steps per second."""


def algorithm(num_envs: int) -> renshu.PPO:
    """Return PPO whose rollouts of 128 steps are cut into 4 minibatches."""
    settings = {**SETTINGS, "batch_size": SETTINGS["n_steps"] * num_envs // 4}
    rate = renshu.Linear(PPO["learning_rate"])
    return renshu.PPO(**settings, net_arch=PPO["network"], learning_rate=rate)


def by_environments() -> Growth:
    """Measure one seed by `learn`: the median of some calls, after one that compiles."""
    found = []
    for n in ENVIRONMENTS:
        agent = algorithm(n).on("renshu/CartPole-v1", num_envs=n, seed=0)
        rollout = SETTINGS["n_steps"] * n
        agent.learn(rollout, progress=False)
        updates_ms, rates = [], []
        for _ in range(CALLS if n < 1024 else 1):
            steps, updates, began = agent.steps, int(agent.state.counters.updates), time.perf_counter()
            agent.learn(max(LEAST_UPDATES, 512 // n) * rollout, progress=False)
            seconds = time.perf_counter() - began
            updates = (int(agent.state.counters.updates) - updates) // GRADIENT_STEPS
            updates_ms.append(1000 * seconds / updates)
            rates.append((agent.steps - steps) / seconds)
        found.append((n, statistics.median(updates_ms), statistics.median(rates)))
        print(f"{n} environments: {found[-1][1]:.2f} ms an update, {found[-1][2]:,.0f} steps/s", flush=True)
    return found


def by_seeds() -> Growth:
    """Measure seeds of 4 environments at once by `renshu.experiment`, without compilation."""
    found, n = [], PPO["num_envs"]
    for seeds in SEEDS:
        steps = max(LEAST_UPDATES, 256 // seeds) * SETTINGS["n_steps"] * n
        trained = renshu.experiment(
            algorithm(n), "renshu/CartPole-v1", seeds=seeds, steps=steps, num_envs=n, progress=False
        )
        updates = int(trained.agents[0].state.counters.updates) // GRADIENT_STEPS
        rate = seeds * int(trained.curves[0].steps[-1]) / trained.seconds
        found.append((seeds, 1000 * trained.seconds / updates, rate))
        print(f"{seeds} seeds: {found[-1][1]:.2f} ms an update of all, {rate:,.0f} steps/s", flush=True)
    return found


def draw(panels: dict[str, Growth]) -> None:
    """Plot milliseconds per update against the count, a panel each, both axes logarithmic; dotted: in proportion."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    figure, axes = plt.subplots(1, len(panels), figsize=(10, 4.2), sharey=True, layout="constrained")
    for axis, (name, growth) in zip(axes, panels.items(), strict=True):
        counts, times, _ = zip(*growth, strict=True)
        axis.plot(counts, times, "o-", label="measured")
        axis.plot(counts, [times[0] * count / counts[0] for count in counts], ":", color="grey", label="in proportion")
        for count, milliseconds, rate in growth:
            label = f"{rate / 1000:.0f}k steps/s"
            axis.annotate(label, (count, milliseconds), (6, -10), textcoords="offset points", fontsize=7)
        axis.set_xscale("log", base=4)
        axis.set_yscale("log")
        axis.set_xticks(counts, [str(count) for count in counts])
        axis.set_xlim(counts[0] / 2, counts[-1] * 8)
        axis.set_xlabel(name)
        axis.grid(alpha=0.3)
    axes[0].set_ylabel("milliseconds an update")
    axes[0].legend(frameon=False)
    DOCS.mkdir(parents=True, exist_ok=True)
    figure.savefig(DOCS / "growth.png", dpi=120)
    plt.close(figure)


def main() -> None:
    """Measure, draw and publish."""
    load, code = os.getloadavg()[0], revision()
    panels = {"environments (one seed)": by_environments(), "seeds at once (4 environments each)": by_seeds()}
    draw(panels)
    parts = [
        table([name, "an update", "steps/s"], [[n, f"{ms:.2f} ms", f"{rate:,.0f}"] for n, ms, rate in growth])
        for name, growth in panels.items()
    ]
    words = (
        "PPO on `renshu/CartPole-v1` by the compiled loop, compilation apart: 128 steps of every environment, then 4 "
        "epochs of 4 minibatches, which grow with the environments. Other settings: [compiled.md](compiled.md). An "
        "update of many seeds is one of every seed. Dotted: in proportion to how many. "
        f"Code: {code}. Load of the machine as this began: {load:.1f}.\n\n![Time of an update](growth.png)"
    )
    publish("growth", "How the cost grows", "python -m bench.growth", "\n\n".join([words, *parts]))


if __name__ == "__main__":
    main()
