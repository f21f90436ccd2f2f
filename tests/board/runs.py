"""Runs on disk without a training: what `Run` writes, of curves that are made up."""

from pathlib import Path

import numpy as np

from renshu.tracking.run import Run

ENVIRONMENTS = ("CartPole-v1", "Acrobot-v1", "Pendulum-v1", "MountainCar-v0", "LunarLander-v3", "ALE/Pong-v5")


def write_run(
    path: Path,
    *,
    algorithm: str = "PPO",
    environment: str = "CartPole-v1",
    seed: int = 0,
    level: float = 100.0,
    episodes: int = 60,
    evaluated: int = 100,
    ended: bool = True,
    **settings: object,
) -> Path:
    """Write a run whose training returns rise to `level`; evaluated: episodes of each of three evaluations."""
    given = {
        "algorithm": algorithm,
        "hyperparameters": {"learning_rate": 3e-4, "gamma": 0.99},
        "environment": environment,
        "num_envs": 2,
        "seed": seed,
        "total_steps": 10 * episodes,
        "reward_threshold": 90.0,
        "eval_every": 100,
    }
    with Run.create(path, given | settings) as run:
        steps = 10 * np.arange(1, episodes + 1)
        returns = level * np.linspace(0, 1, episodes)
        run.log_episodes(steps, steps % 2, returns, np.full(episodes, 10), steps / 100)
        for step in steps[:: max(1, episodes // 3)].tolist():
            run.log_metrics(step, {"loss": 1 / step, "entropy": 0.5})
            if evaluated:
                share = level * step / steps[-1]
                run.log_evaluation(step, share + np.tile([-1.0, 1.0], evaluated // 2), np.full(evaluated, 10))
    if ended:
        (path / "agent.safetensors").write_bytes(b"")
    return path
