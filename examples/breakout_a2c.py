"""Breakout learned by A2C: 16 games at once, 5-step returns, RMSprop, rewards as they are.

A line every 100 updates, the weights every 12,500. What was interrupted goes on when it is started again:

    pip install -e ".[atari]"
    python examples/breakout_a2c.py
"""

import argparse
from pathlib import Path

import numpy as np

from renshu import A2C, Agent, callbacks

NUM_ENVS, N_STEPS = 16, 5


class Line(callbacks.Callback):
    """Print steps and the scores of the recent games every `every` updates; save the weights every `save_every`."""

    def __init__(self, folder: Path, every: int = 100, save_every: int = 12_500) -> None:
        self.folder, self.every, self.save_every = folder, every, save_every

    def on_update(self, agent: Agent, metrics: dict[str, float]) -> None:
        """Look at the agent after each update."""
        updates, scores = agent.steps // (NUM_ENVS * N_STEPS), list(agent.recent_returns)
        if updates % self.every == 0 and scores:
            mean, median = np.mean(scores), np.median(scores)
            print(
                f"{agent.steps:>10,} steps   mean {mean:6.1f}   median {median:6.1f}   min {min(scores):4.0f}   "
                f"max {max(scores):4.0f}   {metrics['steps_per_second']:,.0f} steps/s"
            )
        if updates % self.save_every == 0:
            agent.save(self.folder / f"weights_{updates:06d}.safetensors")


def main(steps: int = 10_000_000, run: str = "runs/breakout-a2c", every: int = 100, save_every: int = 12_500) -> Agent:
    """Train for so many steps of the agents, each of four frames, or go on with what was begun."""
    folder = Path(run)
    if (folder / "checkpoints").is_dir():
        agent = Agent.resume(folder)
        left = {}
    else:
        algorithm = A2C(n_steps=N_STEPS, learning_rate=7e-4, rms_prop_eps=1e-5, ent_coef=0.01, vf_coef=0.5)
        agent = algorithm.on("BreakoutNoFrameskip-v4", num_envs=NUM_ENVS, seed=0)
        left = {"total_steps": steps, "run": folder}
        agent.summary()
    line = Line(folder, every, save_every)
    return agent.learn(**left, callbacks=[line], checkpoint_every=steps // 50, progress=False)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=10_000_000)
    parser.add_argument("--run", default="runs/breakout-a2c")
    given = parser.parse_args()
    main(given.steps, given.run)
