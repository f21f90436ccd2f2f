"""Time Renshu's compiled loop in this process and print JSON. Argument: what to time, as JSON (see bench.compiled)."""

import json
import sys
import time
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import renshu
from renshu.envs.builtin.classic import CartPole, Pendulum
from renshu.envs.device import DeviceEnvs
from renshu.loops.programs import compiler_options, single_threaded


def train(
    settings: dict, network: Any, learning_rate: float, num_envs: int, seeds: int, steps: int, options: object = None
) -> dict:
    """Time PPO on CartPole: one seed by `learn`, several by `renshu.experiment`; compilation separately."""
    algorithm = renshu.PPO(**settings, net_arch=network, learning_rate=renshu.Linear(learning_rate))
    if seeds > 1:
        found = renshu.experiment(
            algorithm, "renshu/CartPole-v1", seeds=seeds, steps=steps, num_envs=num_envs, progress=False
        )
        last = float(np.nanmean(found.curves[0].returns[:, -5:]))
        return {"seconds": found.seconds, "compile": found.compile_seconds, "return": last}
    began = time.perf_counter()
    agent = algorithm.on("renshu/CartPole-v1", num_envs=num_envs, seed=0)
    agent.learn(settings["n_steps"] * num_envs, progress=False)
    compiling, began = time.perf_counter() - began, time.perf_counter()
    agent.learn(steps, progress=False)
    seconds = time.perf_counter() - began
    return {"seconds": seconds, "compile": compiling, "return": float(np.mean(agent.recent_returns))}


def env(environment: str, num_envs: int, steps: int, calls: int, options: object = None) -> dict:
    """Time each call of one program that steps environments by random actions; everything observed is summed up."""
    envs = DeviceEnvs({"CartPole": CartPole, "Pendulum": Pendulum}[environment](), num_envs)

    def random_actions(key: jax.Array) -> jax.Array:
        if environment == "CartPole":
            return jax.random.randint(key, (num_envs,), 0, 2)
        return jax.random.uniform(key, (num_envs, 1), minval=-2, maxval=2)

    def step(carry: tuple, key: jax.Array) -> tuple:
        state, total = carry
        state, seen = envs.step(state, random_actions(key))
        ended = jnp.logical_or(seen.terminated, seen.truncated)
        return (state, total + seen.obs.sum() + seen.reward.sum() + ended.sum()), None

    def run(key: jax.Array) -> jax.Array:
        state, _ = envs.reset(key)
        return jax.lax.scan(step, (state, jnp.float32(0)), jax.random.split(key, steps))[0][1]

    program = jax.jit(run, compiler_options=compiler_options() | single_threaded())
    program(jax.random.key(0)).block_until_ready()
    seconds = []
    for call in range(calls):
        began = time.perf_counter()
        program(jax.random.key(call)).block_until_ready()
        seconds.append(time.perf_counter() - began)
    return {"seconds": seconds}


if __name__ == "__main__":
    wanted = json.loads(sys.argv[1])
    print(json.dumps({"train": train, "env": env}[wanted.pop("what")](**wanted)))
