"""Agents that remember: CartPole and Pendulum without their velocities, and the memory task.

    python -m bench.recurrent [--seeds 3] [--case "PPO lstm, CartPole"]

The environments are ours, step for step Gymnasium's, with the velocities left out of the observation; they train in the
compiled loop. Without a memory the same settings are run too, for comparison.
"""

from __future__ import annotations

import argparse
import time
from dataclasses import dataclass, replace
from typing import Any

import jax.numpy as jnp
import numpy as np
from gymnasium import spaces

from bench.report import publish, table
from renshu import A2C, DQN, PPO, R2D2, Linear
from renshu.envs.builtin.classic import CartPole, Pendulum
from renshu.envs.builtin.memory import Memory
from renshu.envs.device import DeviceEnv, Step

EPISODES = 100


@dataclass(frozen=True)
class Masked(DeviceEnv):
    """An environment of which only some numbers of the observation are seen. kept: their places."""

    env: Any
    kept: tuple[int, ...]

    def __post_init__(self) -> None:
        """Describe what is left of the observation."""
        space, kept = self.env.observation_space, np.array(self.kept)
        object.__setattr__(self, "observation_space", spaces.Box(space.low[kept], space.high[kept]))
        object.__setattr__(self, "action_space", self.env.action_space)
        object.__setattr__(self, "max_episode_steps", self.env.max_episode_steps)

    def reset(self, key: Any) -> tuple[Any, Any]:
        """Begin an episode."""
        state, obs = self.env.reset(key)
        return state, obs[jnp.array(self.kept)]

    def step(self, state: Any, action: Any, key: Any) -> Step:
        """Advance by one action."""
        done = self.env.step(state, action, key)
        return done._replace(obs=done.obs[jnp.array(self.kept)])


CARTPOLE, PENDULUM = Masked(CartPole(), (0, 2)), Masked(Pendulum(), (0, 1))
# Chosen on seeds 10 to 15. RL Zoo's, with rollouts of 32 steps and a gamma of 0.98, come to 500 on one seed of three.
POLE = {"norm_obs": True, "norm_reward": True, "n_steps": 128, "gae_lambda": 0.95, "gamma": 0.99}
POLE |= {"n_epochs": 20, "batch_size": 512, "learning_rate": Linear(2e-3), "clip_range": Linear(0.2)}
SWING = {"norm_reward": True, "n_steps": 128, "gae_lambda": 0.9, "gamma": 0.9}
SWING |= {"n_epochs": 10, "batch_size": 256, "learning_rate": Linear(2e-3), "use_sde": True, "sde_sample_freq": 4}
CORRIDOR = {"n_steps": 32, "batch_size": 128, "n_epochs": 4, "learning_rate": Linear(1e-3)}
VALUES = {"learning_rate": Linear(1e-3), "train_freq": 16, "burn_in": 16, "sequence_length": 32, "batch_size": 32}
VALUES |= {"gradient_steps": 4, "target_update_interval": 100, "gamma": 0.98, "recurrent_size": 64}
SHORT = {**VALUES, "train_freq": 11, "burn_in": 0, "sequence_length": 11, "learning_starts": 500}


@dataclass(frozen=True)
class Case:
    """A training: algorithm, environment, steps, environments at once, and the score it should come to."""

    algorithm: Any
    env: DeviceEnv
    steps: int
    num_envs: int
    goal: float


CASES: dict[str, Case] = {}
for kind in ("lstm", "gru", "mingru"):
    small = {"recurrent": kind, "recurrent_size": 32}
    CASES[f"PPO {kind}, CartPole"] = Case(PPO(**POLE, **small), CARTPOLE, 100_000, 8, 500.0)
    CASES[f"PPO {kind}, Memory"] = Case(PPO(**CORRIDOR, **small), Memory(), 200_000, 8, 1.0)
    long = {"n_steps": 32, "learning_rate": Linear(3e-3), "ent_coef": 0.01, "recurrent": kind, "recurrent_size": 32}
    CASES[f"A2C {kind}, Memory"] = Case(A2C(**long), Memory(), 500_000, 16, 1.0)
CASES["PPO lstm, Pendulum"] = Case(PPO(**SWING, recurrent="lstm", recurrent_size=64), PENDULUM, 100_000, 8, -218.0)
CASES["R2D2 lstm, CartPole"] = Case(R2D2(**VALUES), CARTPOLE, 200_000, 8, 500.0)
CASES["R2D2 lstm, Memory"] = Case(R2D2(**SHORT), Memory(), 200_000, 8, 1.0)
CASES["R2D2 gru, Memory"] = Case(R2D2(**SHORT, recurrent="gru"), Memory(), 200_000, 8, 1.0)
CASES["PPO without, CartPole"] = Case(PPO(**POLE), CARTPOLE, 100_000, 8, np.nan)
CASES["PPO without, Pendulum"] = Case(PPO(**SWING), PENDULUM, 100_000, 8, np.nan)
CASES["PPO without, Memory"] = Case(PPO(**CORRIDOR), Memory(), 200_000, 8, np.nan)
CASES["DQN without, Memory"] = Case(DQN(learning_rate=1e-3, learning_starts=500), Memory(), 100_000, 8, np.nan)


def main() -> None:
    """Train, evaluate, publish."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--first", type=int, default=0, help="the first seed")
    parser.add_argument("--case", choices=list(CASES), action="append")
    given = parser.parse_args()
    rows = []
    for name in given.case or CASES:
        case, scores, seconds = CASES[name], [], []
        for seed in range(given.first, given.first + given.seeds):
            agent = replace(case.algorithm).on(case.env, num_envs=case.num_envs, seed=seed)
            began = time.perf_counter()
            agent.learn(case.steps, progress=False)
            seconds.append(time.perf_counter() - began)
            scores.append(agent.evaluate(EPISODES).mean)
            print(f"{name:<24} seed {seed}  {scores[-1]:8.2f}  {seconds[-1]:.0f} s", flush=True)
        goal = "" if np.isnan(case.goal) else f"{case.goal:g}"
        told = ", ".join(f"{score:.2f}" if abs(score) < 10 else f"{score:.0f}" for score in scores)
        rows.append([name, f"{case.steps:,}", told, goal, f"{np.median(seconds):.0f} s"])
    if given.case is None and given.first == 0:
        body = table(["", "steps", f"mean of {EPISODES} greedy episodes, seed by seed", "goal", "training"], rows)
        publish("recurrent", "Agents that remember", "python -m bench.recurrent", body)


if __name__ == "__main__":
    main()
