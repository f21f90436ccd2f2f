"""Tiny algorithms, and what tests of the compiled loop share."""

from contextlib import nullcontext
from dataclasses import dataclass
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from gymnasium import spaces

from renshu import A2C, PPO, PQN
from renshu.envs.device import DeviceEnv, Step

SMALL = {"n_steps": 8, "net_arch": [8]}
TINY_PPO = PPO(**SMALL, batch_size=8, n_epochs=2)
NORMED_PPO = PPO(**SMALL, batch_size=8, n_epochs=2, norm_obs=True, norm_reward=True)
TINY_A2C = A2C(**SMALL)
NORMED_A2C = A2C(**SMALL, norm_obs=True, norm_reward=True)
TINY_PQN = PQN(**SMALL, batch_size=8)


def same(a, b):
    return jax.tree.structure(a) == jax.tree.structure(b) and jax.tree.all(jax.tree.map(np.array_equal, a, b))


def advanced(agent, iterations):
    """Train for so many updates; returns the finished episodes, one array a column; without their info."""
    agent.trainer.set_target(10**6)
    loop, size = agent.trainer.start_loop(nullcontext), agent.trainer.learner.needs.steps * agent.spec.num_envs
    found, goal = [], agent.trainer.iteration + iterations
    while agent.trainer.iteration < goal:
        found.append(loop.advance((goal - agent.trainer.iteration) * size).finished[:4])
    return [np.concatenate(column) for column in zip(*found, strict=True)]


def copied(tree):
    return jax.tree.map(np.array, tree)


def without_target(state):
    return state._replace(counters=state.counters._replace(start=0, target=0))


class FaultState(NamedTuple):
    t: jax.Array


@dataclass(frozen=True)
class Faulty(DeviceEnv):
    """One long episode; `what` of step `at` is `value`."""

    what: str = ""
    at: int = 20
    value: float = np.nan
    observation_space = spaces.Box(-np.inf, np.inf, (2,), np.float32)
    action_space = spaces.Discrete(2)

    def reset(self, key):
        return FaultState(jnp.int32(0)), jnp.zeros(2)

    def step(self, state, action, key):
        t = state.t + 1
        obs = jnp.stack([jnp.sin(t.astype(jnp.float32)), action.astype(jnp.float32)])
        bad, reward = t == self.at, jnp.cos(t.astype(jnp.float32))
        obs = jnp.where(bad & (self.what == "observation"), self.value, obs)
        reward = jnp.where(bad & (self.what == "reward"), self.value, reward)
        return Step(FaultState(t), obs, reward, jnp.bool_(False))
