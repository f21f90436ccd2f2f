"""Time Stable-Baselines3 on Breakout in this process and print JSON. Arguments: part (collect, a2c or ppo), N, steps.

Runs in .venv-peers, so it imports nothing of Renshu.
"""

import json
import sys
import time

import ale_py  # noqa: F401  registers the games
import numpy as np
from stable_baselines3 import A2C, PPO
from stable_baselines3.common.env_util import make_atari_env
from stable_baselines3.common.sb2_compat.rmsprop_tf_like import RMSpropTFLike
from stable_baselines3.common.vec_env import VecFrameStack

ENV = "BreakoutNoFrameskip-v4"


def collect(num_envs: int, steps: int) -> float:
    """Step games at random; returns seconds."""
    envs = VecFrameStack(make_atari_env(ENV, num_envs, seed=0), 4)
    envs.reset()
    rng = np.random.default_rng(0)
    actions = rng.integers(envs.action_space.n, size=(steps // num_envs + 50, num_envs))
    for row in actions[:50]:
        envs.step(row)
    began = time.perf_counter()
    for row in actions[50:]:
        envs.step(row)
    return time.perf_counter() - began


def train(algorithm: str, num_envs: int, steps: int) -> float:
    """Time a learn by RL Zoo's settings, after a short one; returns seconds."""
    envs = VecFrameStack(make_atari_env(ENV, num_envs, seed=0), 4)
    if algorithm == "a2c":
        options = {"optimizer_class": RMSpropTFLike, "optimizer_kwargs": {"eps": 1e-5}}
        model = A2C("CnnPolicy", envs, ent_coef=0.01, vf_coef=0.25, policy_kwargs=options, seed=0, device="cpu")
    else:
        settings = {"n_steps": 128, "n_epochs": 4, "batch_size": 256, "ent_coef": 0.01}
        settings |= {"learning_rate": lambda left: 2.5e-4 * left, "clip_range": lambda left: 0.1 * left}
        model = PPO("CnnPolicy", envs, **settings, seed=0, device="cpu")
    model.learn(model.n_steps * num_envs)
    began = time.perf_counter()
    model.learn(steps)
    return time.perf_counter() - began


if __name__ == "__main__":
    part, num_envs, steps = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
    seconds = collect(num_envs, steps) if part == "collect" else train(part, num_envs, steps)
    print(json.dumps({"seconds": seconds}))
