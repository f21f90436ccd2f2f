"""Time PPO of Stable-Baselines3 on CartPole in this process and print JSON. Argument: what to time, as JSON.

Runs in .venv-peers, so it imports nothing of Renshu.
"""

import json
import sys
import time

from stable_baselines3 import PPO
from stable_baselines3.common.env_util import make_vec_env


def train(settings: dict, network: list, learning_rate: float, num_envs: int, steps: int) -> dict:
    """Time the training of one seed, after a short learn."""
    model = PPO(
        "MlpPolicy",
        make_vec_env("CartPole-v1", num_envs, seed=0),
        **settings,
        learning_rate=lambda left: left * learning_rate,
        policy_kwargs={"net_arch": network},
        seed=0,
        device="cpu",
    )
    model.learn(settings["n_steps"] * num_envs)
    began = time.perf_counter()
    model.learn(steps)
    return {"seconds": time.perf_counter() - began}


if __name__ == "__main__":
    print(json.dumps(train(**json.loads(sys.argv[1]))))
