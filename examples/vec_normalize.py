"""Normalised observations and rewards: their running statistics are a part of the agent, and of its file.

A robot's arm reaches for a point. Angles, speeds and distances have different scales, so each is normalised by its mean
and deviation so far. An agent that is loaded would act on nonsense without them:

    pip install -e ".[mujoco]"
    python examples/vec_normalize.py
"""

import tempfile
from pathlib import Path
from typing import Any

import numpy as np

import renshu
from renshu import PPO, Agent

ENV = "Reacher-v5"


def main(steps: int = 100_000, episodes: int = 20, folder: str | None = None, **settings: Any) -> tuple[Agent, Agent]:
    """Train, save, load, and evaluate both on the same episodes. settings: further hyperparameters of PPO."""
    rollouts = {"n_steps": 512, "batch_size": 128, "gamma": 0.9, "gae_lambda": 0.9, "learning_rate": 1e-3}
    algorithm = PPO(norm_obs=True, norm_reward=True, **{**rollouts, **settings})
    agent = algorithm.on(ENV, num_envs=4, seed=0)
    print("before training:", agent.evaluate(episodes))
    agent.learn(steps)

    with tempfile.TemporaryDirectory() as temporary:
        path = agent.save(Path(folder or temporary) / "reacher.safetensors")
        loaded = renshu.load(path)

    statistics = loaded.state.obs_stats
    print("mean of each observation:     ", np.round(statistics.mean, 2))
    print("deviation of each observation:", np.round(np.sqrt(statistics.var), 2))
    # Rewards are normalised for the learner alone: scores are always those of the environment.
    print("as trained:", agent.evaluate(episodes))
    print("as loaded: ", loaded.evaluate(episodes))
    return agent, loaded


if __name__ == "__main__":
    main()
