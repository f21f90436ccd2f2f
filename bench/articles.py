"""Three figures that articles on reinforcement learning report, measured here.

    python -m bench.articles [--part angle|pendulum|rocket] [--seeds 5] [--page]

angle: DQN on CartPole-v0 that sees only the pole's angle and remembers good episodes. pendulum: TD3 on Pendulum-v1 over
100,000 steps. rocket: TD3 on the rocket against a PID controller and a linear-quadratic regulator.
Rows are kept in docs/benchmarks/articles_PART.csv: a part that is not selected stays on the page as it was measured.
"""

from __future__ import annotations

import argparse
import csv
import tempfile
import time
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
from gymnasium import spaces

from bench import rocket_control
from bench.report import DOCS, publish, revision, table
from renshu import DQN, TD3, Agent, Linear, Step
from renshu.agent.callbacks import Callback
from renshu.agent.training import VISITS
from renshu.envs.builtin.classic import THETA_LIMIT, CartPole
from renshu.tracking.curves import read_episodes, read_evaluations
from renshu.tracking.figures import colour_and_dashes, finish_axes, new_figure, save_figure

Rows = list[dict[str, str]]
"""Rows of a csv file; all have the same column names."""

# --- the angle of the pole --------------------------------------------------------------------------------------------

SOLVED = 195.0
ANGLE_STEPS, ANGLE_EPISODES = 40_000, 100
ANGLE: dict[str, Any] = {
    "buffer_size": 30_000,
    "elite_episodes": True,
    "elite_count": 100,
    "non_elite_fraction": 0.01,
    "learning_rate": Linear(1e-3, 0.0),
    "batch_size": 64,
    "gamma": 0.98,
    "learning_starts": 500,
    "train_freq": 1,
    "n_steps": 5,
    "double": True,
    "target_update_interval": 1,
    "tau": 0.02,
    "exploration_by": "episodes",
    "exploration_initial_eps": 1.0,
    "exploration_final_eps": 0.0,
}


class AngleOnly(CartPole):
    """CartPole that shows only the angle of its pole, [1] float32, with CartPole-v0's limit of 200 steps."""

    id = None
    max_episode_steps = 200
    observation_space = spaces.Box(-2 * THETA_LIMIT, 2 * THETA_LIMIT, (1,), np.float32)

    def reset(self, key: Any) -> tuple[Any, Any]:
        """Begin an episode."""
        state, obs = super().reset(key)
        return state, obs[2:3]

    def step(self, state: Any, action: Any, key: Any) -> Step:
        """Advance by one action."""
        out = super().step(state, action, key)
        return out._replace(obs=out.obs[2:3])


class FirstPass(Callback):
    """Callback that records the greedy score once an episode's return has reached SOLVED for the first time."""

    def __init__(self) -> None:
        self.greedy: float | None = None

    def on_update(self, agent: Agent, metrics: dict[str, float]) -> None:
        """Check the episodes so far."""
        if self.greedy is None and max(agent.recent_returns, default=0.0) >= SOLVED:
            self.greedy = agent.evaluate(ANGLE_EPISODES).mean


def angle(seeds: int) -> None:
    """Train until the mean return of 100 episodes reaches SOLVED, and record the first episode that did."""
    rows = []
    for seed in range(seeds):
        began, first = time.perf_counter(), FirstPass()
        agent = DQN(**ANGLE).on(AngleOnly(), frame_stack=4, seed=seed)
        with tempfile.TemporaryDirectory() as folder:
            run = Path(folder) / "run"
            agent.learn(ANGLE_STEPS, progress=False, run=run, callbacks=first, stop_at=SOLVED)
            episodes = read_episodes(run)
        passed = np.flatnonzero(episodes["return"] >= SOLVED)
        rows.append(
            {
                "seed": str(seed),
                "episode": str(passed[0] + 1) if len(passed) else "",
                "step": str(episodes["step"][passed[0]]) if len(passed) else "",
                "greedy_then": "" if first.greedy is None else f"{first.greedy:.1f}",
                "episodes": str(len(episodes["return"])),
                "steps": str(agent.steps),
                "mean": f"{np.mean(agent.recent_returns):.1f}",
                "greedy": f"{agent.evaluate(ANGLE_EPISODES).mean:.1f}",
                "seconds": f"{time.perf_counter() - began:.1f}",
                "code": revision(),
            }
        )
        print(" ".join(rows[-1].values()), flush=True)
    keep("angle", rows)


def angle_page() -> str:
    """Describe the rows of the angle of the pole."""
    rows = kept("angle")
    if not rows:
        return ""
    header = [
        "seed",
        "first episode of at least 195",
        "after steps",
        "greedy mean then",
        "training went on to episode",
        "after steps",
        "mean of its last 100 episodes",
        "greedy mean",
        "time",
        "code",
    ]
    names = ("seed", "episode", "step", "greedy_then", "episodes", "steps", "mean", "greedy", "seconds", "code")
    units = {"seconds": " s"}
    lines = [[row[name] + units.get(name, "") for name in names] for row in rows]
    stopped = sum(bool(row["greedy_then"]) and float(row["greedy_then"]) >= SOLVED for row in rows)
    stricter = sum(float(row["mean"]) >= SOLVED for row in rows)
    return f"""## DQN that sees the angle of the pole

The article's rule: training stops when an episode's return passes 195. Here {stopped} of {len(rows)} agents that this
rule stops also have a greedy mean of at least 195 over {ANGLE_EPISODES} episodes (the compiled loop looks every
{ANGLE_STEPS // VISITS} steps, so they are evaluated up to that many steps after that episode). Training then went on
to a stricter
rule, a mean of 195 over the last 100 episodes, for {ANGLE_STEPS:,} steps at the most: {stricter} of {len(rows)} seeds
reached it, the others ended below. So what was learned when the article's rule stops it is good, but does not last by
itself: the memory soon holds next to no falls, and the cart's position, which ends episodes too, is not seen.

{table(header, lines)}

CartPole-v0's limit of 200 steps; the only observation is the pole's angle, the last 4 of them at once
(`frame_stack=4`). {settings_of("DQN", ANGLE)}"""


# --- the pendulum -----------------------------------------------------------------------------------------------------

PENDULUM_GOAL = -160.0
PENDULUM: dict[str, Any] = {
    "learning_rate": 3e-4,
    "learning_starts": 25_000,
    "batch_size": 256,
    "tau": 0.005,
    "gamma": 0.99,
    "action_noise": "normal",
    "action_noise_std": 0.1,
    "target_policy_noise": 0.2,
    "target_noise_clip": 0.5,
    "policy_delay": 2,
    "net_arch": [256, 256],
    "buffer_size": 100_000,
}
PENDULUM_STEPS, EVAL_EVERY, EVAL_EPISODES, MANY_EPISODES = 100_000, 5_000, 10, 100
STEADY = 50
"""Steps at the end of an episode in which the pendulum should stand still."""


def pendulum(seeds: int) -> None:
    """Train, keep the series of evaluations, and plot it."""
    series, ends = [], []
    for seed in range(seeds):
        began = time.perf_counter()
        with tempfile.TemporaryDirectory() as folder, TD3(**PENDULUM).on("Pendulum-v1", seed=seed) as agent:
            run = Path(folder) / "run"
            agent.learn(PENDULUM_STEPS, progress=False, run=run, eval_every=EVAL_EVERY, eval_episodes=EVAL_EPISODES)
            seconds = time.perf_counter() - began
            found = read_evaluations(run)
            many = agent.evaluate(MANY_EPISODES, seed=1_000 + seed)
            errors = np.degrees(steady_angles(agent))
        for step, *scores in zip(*(found[name] for name in ("step", "mean", "std", "min", "max")), strict=True):
            names = ("mean", "std", "min", "max")
            scored = {name: f"{score:.1f}" for name, score in zip(names, scores, strict=True)}
            series.append({"seed": str(seed), "step": str(step), **scored})
        ends.append(
            {
                "seed": str(seed),
                "steps": str(agent.steps),
                "last": f"{found['mean'][-1]:.1f}",
                "best": f"{found['mean'].max():.1f}",
                "many": str(many),
                "angle": f"{np.median(errors):.2f}",
                "worst": f"{errors.max():.2f}",
                "seconds": f"{seconds:.0f}",
                "code": revision(),
            }
        )
        print(" ".join(ends[-1].values()), flush=True)
        keep("pendulum", series)
        keep("pendulum_end", ends)
    draw_pendulum()


def steady_angles(agent: Agent) -> np.ndarray:
    """Measure the mean angle from upright over the last STEADY steps of 20 greedy episodes: [20] radians."""
    env, policy, errors = gymnasium.make("Pendulum-v1"), agent.player(), []
    for episode in range(20):
        obs, _ = env.reset(seed=episode)
        angles, first, over = [], True, False
        while not over:
            obs, _, terminated, truncated, _ = env.step(policy(obs, first))
            first, over = False, terminated or truncated
            angles.append(np.arctan2(obs[1], obs[0]))
        errors.append(abs(np.mean(angles[-STEADY:])))
    env.close()
    return np.array(errors)


def draw_pendulum() -> None:
    """Plot the series of evaluations."""
    figure, axes = new_figure()
    rows = kept("pendulum")
    for number, seed in enumerate(sorted({row["seed"] for row in rows})):
        own = [row for row in rows if row["seed"] == seed]
        step, mean, std = (np.array([float(row[name]) for row in own]) for name in ("step", "mean", "std"))
        colour, _ = colour_and_dashes(number)
        axes.plot(step, mean, "o-", color=colour, label=f"seed {seed}", markersize=4)
        axes.fill_between(step, mean - std, mean + std, color=colour, alpha=0.15, linewidth=0)
    axes.axhline(PENDULUM_GOAL, color="0.4", linestyle=(0, (5, 4)), linewidth=1, label=f"goal {PENDULUM_GOAL:g}")
    finish_axes(figure, axes, "TD3 on Pendulum-v1: 10 greedy episodes, mean ± deviation")
    save_figure(figure, DOCS / "articles_pendulum.png")


def pendulum_page() -> str:
    """Describe the rows of the pendulum."""
    series, ends = kept("pendulum"), kept("pendulum_end")
    if not ends:
        return ""
    header = ["seed", "steps", "last of the evaluations", "best", "100 other episodes", "goal"]
    header += ["degrees off upright, median", "most", "time", "code"]
    lines = []
    for row in ends:
        verdict = f"{PENDULUM_GOAL:g}: {'yes' if float(row['last']) >= PENDULUM_GOAL else 'no'}"
        lines.append([*(row[name] for name in ("seed", "steps", "last", "best", "many")), verdict])
        lines[-1] += [row["angle"], row["worst"], f"{row['seconds']} s", row["code"]]
    steps = sorted({int(row["step"]) for row in series})
    means = {(row["seed"], int(row["step"])): row["mean"] for row in series}
    evaluations = [[f"{step:,}", *(means[end["seed"], step] for end in ends)] for step in steps]
    return f"""## TD3 on Pendulum-v1

Gymnasium's Pendulum-v1 by the article's settings: 100,000 steps, the first 25,000 of them random, an evaluation of
{EVAL_EPISODES} greedy episodes every 5,000 steps. The goal is for the last of them.

{table(header, lines)}

Degrees off upright: the mean angle of the last {STEADY} steps, over 20 episodes.

![TD3 on Pendulum-v1](articles_pendulum.png)

{table(["steps", *(f"mean, seed {end['seed']}" for end in ends)], evaluations)}

{settings_of("TD3", PENDULUM)}"""


# --- the rocket -------------------------------------------------------------------------------------------------------


def rocket(seeds: int) -> None:
    """Train, fly and draw."""
    keep("rocket", rocket_control.measure(seeds, DOCS / "articles_rocket.png"))


def rocket_page() -> str:
    """Describe the rows of the rocket."""
    rows = kept("rocket")
    if not rows:
        return ""
    header = ["", "seed", "at rest after", "remaining x", "remaining v", "thrust used", "cost", "training", "code"]
    lines = []
    for row in rows:
        rest, trained = (f"{row[name]} s" if row[name] else "never" for name in ("settled", "seconds"))
        figures = [row[name] for name in ("x", "v", "thrust", "cost")]
        lines.append([row["controller"], row["seed"], rest, *figures, trained if row["seed"] else "", row["code"]])
    return f"""{rocket_control.about(rows)}

{table(header, lines)}

![Rocket: x and v over time](articles_rocket.png)

{settings_of("TD3", rocket_control.SETTINGS)}"""


# --- rows and page ----------------------------------------------------------------------------------------------------


def keep(name: str, rows: Rows) -> None:
    """Write the rows of a part."""
    DOCS.mkdir(parents=True, exist_ok=True)
    with (DOCS / f"articles_{name}.csv").open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)


def kept(name: str) -> Rows:
    """Return the rows of a part that were measured, now or before; none if there are none yet."""
    path = DOCS / f"articles_{name}.csv"
    if not path.exists():
        return []
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def settings_of(name: str, chosen: dict[str, Any]) -> str:
    """List the hyperparameters that were chosen."""
    return f"{name}: {', '.join(f'{key} {value}' for key, value in chosen.items())}; the rest are the defaults."


def main() -> None:
    """Measure the selected parts, and write the page of all that is kept."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--part", choices=list(PARTS), action="append", help="default all")
    parser.add_argument("--seeds", type=int, help="default 5 for angle, 2 for pendulum, 8 for rocket")
    parser.add_argument("--page", action="store_true", help="measure nothing, write the page of what is kept")
    options = parser.parse_args()
    for name in [] if options.page else options.part or list(PARTS):
        measure, seeds, _ = PARTS[name]
        measure(options.seeds or seeds)
    body = "\n\n".join(filter(None, (page() for _, _, page in PARTS.values())))
    publish("articles", "What articles have shown", "python -m bench.articles", body)


PARTS = {
    "angle": (angle, 5, angle_page),
    "pendulum": (pendulum, 2, pendulum_page),
    "rocket": (rocket, 8, rocket_page),
}

if __name__ == "__main__":
    main()
