"""Training in Renshu's own worlds by the compiled loop: the rocket brought to rest, and the Grid.

python -m bench.worlds
"""

from __future__ import annotations

import time
from pathlib import Path

import gymnasium
import numpy as np

from bench.report import DOCS, publish, table
from renshu import A2C, PPO
from renshu.envs.builtin.rocket import Rocket, can_be_caught

SEEDS = 3
STEPS = 500
HELD = 100
LIMIT = 0.05


def fly(agent, x: float, v: float) -> np.ndarray:
    """Fly once from (x, v) with greedy actions: [steps + 1, 2], shorter where the rocket left the track."""
    env = gymnasium.make("renshu/Rocket-v0", x=x, v=v, goal=False, reward="rest")
    obs, _ = env.reset(seed=0)
    path = [obs]
    for _ in range(STEPS):
        obs, _, terminated, truncated, _ = env.step(agent.predict(obs))
        path.append(obs)
        if terminated or truncated:
            break
    env.close()
    return np.array(path)


def rests(path: np.ndarray) -> bool:
    """Tell whether |x| and |v| stayed below the limit for the last steps of a whole flight."""
    return len(path) > STEPS and bool((np.abs(path[-HELD:]) < LIMIT).all())


def starts(count: int) -> list[tuple[float, float]]:
    """Draw random starts as the environment does, keeping those from which the rocket can be caught."""
    rng, found = np.random.default_rng(0), []
    while len(found) < count:
        x, v = rng.uniform(0.5, 1, 2) * rng.choice([-1, 1], 2)
        if can_be_caught(x, v):
            found.append((float(x), float(v)))
    return found


def draw(flights: list[tuple[str, np.ndarray]], path: Path) -> None:
    """Plot x and v over time."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 4), layout="constrained")
    for axes, column, name in zip(figure.subplots(1, 2), (0, 1), ("position x", "velocity v"), strict=True):
        for label, flight in flights:
            strong = label == "from (1, 0)"
            seconds = np.arange(len(flight)) * 0.01
            axes.plot(seconds, flight[:, column], color="C3" if strong else "0.7", lw=2 if strong else 0.8)
        axes.axhspan(-LIMIT, LIMIT, color="C2", alpha=0.3)
        axes.set(xlabel="seconds", title=name)
    figure.savefig(path, dpi=120)


def rocket() -> str:
    """Train PPO on the rocket, and fly from (1, 0) and from random starts."""
    rows = []
    for seed in range(SEEDS):
        began = time.perf_counter()
        settings = PPO(n_steps=128, n_epochs=4, learning_rate=1e-3)
        agent = settings.on(Rocket(goal=False, reward="rest"), num_envs=16, seed=seed).learn(400_000, progress=False)
        seconds = time.perf_counter() - began
        flights = [("from (1, 0)", fly(agent, 1.0, 0.0)), *(("", fly(agent, *start)) for start in starts(20))]
        held = [rests(flight) for _, flight in flights]
        where = "to rest" if held[0] else "not to rest"
        rows.append([seed, f"{agent.steps:,}", f"{seconds:.1f} s", where, f"{sum(held[1:])} of 20 to rest"])
        print(*rows[-1], flush=True)
        if seed == 0:
            draw(flights[::-1], DOCS / "rocket.png")
    return f"""## Rocket

{table(["seed", "steps", "time", "from (1, 0)", "random starts"], rows)}

To rest: |x| and |v| below {LIMIT} in each of the last {HELD} of {STEPS} steps, greedy. Starts are drawn as the
environment draws them. PPO, 16 environments, n_steps 128, 4 epochs, learning rate 1e-3, trained with
`Rocket(goal=False, reward="rest")`: in its first form the rocket's episode ends at the origin, so nothing is left to
hold there.

![Rocket: x and v over time](rocket.png)"""


def grid() -> str:
    """Train PPO and A2C on the Grid."""
    rows = []
    for algorithm in (PPO(n_steps=64, batch_size=128), A2C()):
        for seed in range(SEEDS):
            agent = algorithm.on("renshu/Grid-v0", num_envs=8, seed=seed).learn(60_000, progress=False)
            mean = agent.evaluate(1_000).mean
            rows.append([type(algorithm).__name__, seed, f"{agent.steps:,}", f"{mean:.3f}", ">= 0.65"])
            print(*rows[-1], flush=True)
    return "## Grid\n\n" + table(["algorithm", "seed", "steps", "mean of 1,000 greedy episodes", "goal"], rows)


def main() -> None:
    """Train, fly and write the page."""
    publish("worlds", "Renshu's own worlds", "python -m bench.worlds", f"{rocket()}\n\n{grid()}")


if __name__ == "__main__":
    main()
