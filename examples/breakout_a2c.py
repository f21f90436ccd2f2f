"""Breakout learned by A2C: 16 games at once, 5-step returns, RMSprop, rewards as they are.

A line every 100 updates, the weights every 12,500. What was interrupted goes on when it is started again:

    pip install -e ".[atari]"
    python examples/breakout_a2c.py
"""

import argparse
from pathlib import Path
from typing import Any

import numpy as np

from renshu import A2C, Agent, callbacks

SETTINGS = {"n_steps": 5, "learning_rate": 7e-4, "rms_prop_eps": 1e-5, "ent_coef": 0.01, "vf_coef": 0.5}


class Line(callbacks.Callback):
    """Print steps and the scores of the recent games every `every` updates; save the weights every `save_every`."""

    def __init__(self, folder: Path, every: int = 100, save_every: int = 12_500) -> None:
        self.folder, self.every, self.save_every = folder, every, save_every

    def on_update(self, agent: Agent, metrics: dict[str, float]) -> None:
        """Look at the agent after each update."""
        updates, scores = int(agent.state.counters.updates), agent.recent_returns
        if updates % self.every == 0 and scores:
            mean, median = np.mean(scores), np.median(scores)
            print(
                f"{agent.steps:>10,} steps   mean {mean:6.1f}   median {median:6.1f}   min {min(scores):4.0f}   "
                f"max {max(scores):4.0f}   {metrics['steps_per_second']:,.0f} steps/s"
            )
        if updates % self.save_every == 0:
            agent.save(self.folder / f"weights_{updates:06d}.safetensors")


def main(
    steps: int = 10_000_000,
    run: str = "runs/breakout-a2c",
    every: int = 100,
    save_every: int = 12_500,
    **settings: Any,
) -> Agent:
    """Train for so many steps of the agents, each of four frames; what was begun in the folder `run` goes on to them.

    settings: further hyperparameters of A2C.
    """
    folder = Path(run)
    how = {"callbacks": [Line(folder, every, save_every)], "checkpoint_every": max(1, steps // 50), "progress": False}
    if any((folder / "checkpoints").glob("*.safetensors")):
        agent = Agent.resume(folder)
        return agent.learn(steps - agent.steps, **how) if agent.steps < steps else agent
    agent = A2C(**{**SETTINGS, **settings}).on("BreakoutNoFrameskip-v4", num_envs=16, seed=0)
    agent.summary()
    return agent.learn(steps, run=folder, **how)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=10_000_000)
    parser.add_argument("--run", default="runs/breakout-a2c")
    given = parser.parse_args()
    main(given.steps, given.run)
