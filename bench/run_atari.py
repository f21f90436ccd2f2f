"""Time Renshu on Breakout in this process and print JSON. Arguments: part (collect, a2c or ppo), N, steps, engine."""

import json
import sys
import time

import numpy as np

import renshu
from renshu.envs.source import EnvSource

ENV = "BreakoutNoFrameskip-v4"


def collect(num_envs: int, steps: int, engine: str) -> dict:
    """Step games at random."""
    envs = EnvSource.of(ENV, {"engine": engine}).vector(num_envs)
    envs.reset(seed=0)
    actions = np.random.default_rng(0).integers(4, size=(steps // num_envs + 50, num_envs))
    for row in actions[:50]:
        envs.step(row)
    began = time.perf_counter()
    for row in actions[50:]:
        envs.step(row)
    return {"seconds": time.perf_counter() - began}


def train(algorithm: str, num_envs: int, steps: int, engine: str) -> dict:
    """Time a learn by the preset, after a short one."""
    preset = renshu.preset(algorithm, ENV)
    agent = preset.algorithm.on(ENV, num_envs=num_envs, seed=0, env_kwargs={"engine": engine})
    agent.learn(2 * num_envs * agent.trainer.learner.needs.steps, progress=False)
    agent.trainer.clock.reset()
    began = time.perf_counter()
    agent.learn(steps, progress=False)
    return {"seconds": time.perf_counter() - began, "shares": agent.trainer.clock.shares()}


if __name__ == "__main__":
    part, num_envs, steps, engine = sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), sys.argv[4]
    found = collect(num_envs, steps, engine) if part == "collect" else train(part, num_envs, steps, engine)
    print(json.dumps(found))
