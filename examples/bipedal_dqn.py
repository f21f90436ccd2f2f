"""BipedalWalkerHardcore by deep Q-learning: four torques that are -1, 0 or 1 each, so 81 actions.

It is a hard task for so plain a method: single episodes look like noise, and only the mean of 100 of them shows that
something is learned at all. That curve is drawn beside everything else about the run:

    pip install -e ".[box2d]"
    python examples/bipedal_dqn.py --steps 1_000_000 --set learning_rate=5e-4 n_steps=3
    renshu plot runs/dqn-* --window 100         # several of them on one picture
"""

import argparse
from pathlib import Path
from typing import Any

from renshu import DQN, Agent
from renshu.tracking.curves import moving_average, plot_runs, read_episodes

ENV = "BipedalWalkerHardcore-v3"
SETTINGS = {
    "learning_rate": 5e-4,
    "buffer_size": 200_000,
    "learning_starts": 10_000,
    "batch_size": 128,
    "target_update_interval": 2_000,
    "exploration_fraction": 0.2,
    "net_arch": [256, 256],
    "double": True,
    "n_steps": 3,
}


def main(steps: int = 500_000, run: str | None = None, bins: int = 3, window: int = 100, **settings: Any) -> Agent:
    """Train, and draw every episode with the mean of the last `window`. settings: hyperparameters of DQN."""
    agent = DQN(**{**SETTINGS, **settings}).on(ENV, bins=bins, seed=0)
    agent.summary()
    agent.learn(steps, run=run or True)

    folder = agent.last_run.path
    mean = moving_average(read_episodes(folder)["return"], window)[window - 1 :]  # of full windows alone
    if len(mean):
        print(f"mean return of {window} episodes: at first {mean[0]:.1f}, best {mean.max():.1f}, now {mean[-1]:.1f}")
    plot_runs([folder], folder / "curve.png", window=window)
    print("curve:", folder / "curve.png")
    return agent


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=500_000)
    parser.add_argument("--run", type=Path, help="a new folder; otherwise runs/dqn-NAME-1, -2, ...")
    parser.add_argument("--bins", type=int, default=3, help="torques to choose from for each joint")
    parser.add_argument("--window", type=int, default=100, help="episodes of the moving average")
    parser.add_argument("--set", nargs="*", default=[], metavar="NAME=VALUE", help="hyperparameters of DQN")
    given = parser.parse_args()
    changed = DQN.parse(dict(assignment.split("=", 1) for assignment in given.set))
    main(given.steps, given.run, given.bins, given.window, **changed)
