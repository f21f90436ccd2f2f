"""Time rejax or gymnax in this process and print JSON. Argument: what to time, as JSON (see bench.compiled).

Runs in .venv-rejax, so it imports nothing of Renshu.
"""

import json
import sys
import time

import gymnax
import jax
import jax.numpy as jnp
import optax
import rejax
from rejax.evaluate import evaluate


def train(
    settings: dict, network: list, learning_rate: float, num_envs: int, seeds: int, steps: int, options: dict
) -> dict:
    """Time PPO on CartPole, all seeds by vmap over `train`, without evaluation, which is done afterwards, untimed."""
    size = settings["n_steps"] * num_envs
    minibatches = size // settings["batch_size"]
    gradient_steps = -(-steps // size) * settings["n_epochs"] * minibatches
    algorithm = rejax.PPO.create(
        env="CartPole-v1",
        agent_kwargs={"activation": "tanh", "hidden_layer_sizes": network},
        num_envs=num_envs,
        num_steps=settings["n_steps"],
        num_epochs=settings["n_epochs"],
        num_minibatches=minibatches,
        total_timesteps=steps,
        eval_freq=steps,
        skip_initial_evaluation=True,
        learning_rate=optax.linear_schedule(learning_rate, 0.0, gradient_steps),
        gamma=settings["gamma"],
        gae_lambda=settings["gae_lambda"],
        clip_eps=settings["clip_range"],
        ent_coef=settings["ent_coef"],
        vf_coef=settings["vf_coef"],
        max_grad_norm=settings["max_grad_norm"],
    ).replace(eval_callback=lambda algorithm, state, key: ())
    key = jax.random.key(0) if seeds == 1 else jax.random.split(jax.random.key(0), seeds)
    one = algorithm.train if seeds == 1 else jax.vmap(algorithm.train)
    began = time.perf_counter()
    program = jax.jit(one, compiler_options=options).lower(key).compile()
    compiling, began = time.perf_counter() - began, time.perf_counter()
    state, _ = jax.block_until_ready(program(key))
    seconds = time.perf_counter() - began

    def test(state: object) -> jax.Array:
        act = algorithm.make_act(state)
        return evaluate(act, jax.random.key(1), algorithm.env, algorithm.env_params, 20, 500)[1].mean()

    returns = test(state) if seeds == 1 else jax.vmap(test)(state)
    return {"seconds": seconds, "compile": compiling, "return": float(returns.mean())}


def env(environment: str, num_envs: int, steps: int, calls: int, options: dict) -> dict:
    """Time each call of one program that steps environments by random actions; everything observed is summed up."""
    made, params = gymnax.make({"CartPole": "CartPole-v1", "Pendulum": "Pendulum-v1"}[environment])

    def random_actions(key: jax.Array) -> jax.Array:
        if environment == "CartPole":
            return jax.random.randint(key, (num_envs,), 0, 2)
        return jax.random.uniform(key, (num_envs,), minval=-2, maxval=2)

    def step(carry: tuple, key: jax.Array) -> tuple:
        state, total = carry
        key_act, key_step = jax.random.split(key)
        keys = jax.random.split(key_step, num_envs)
        seen = jax.vmap(made.step, (0, 0, 0, None))(keys, state, random_actions(key_act), params)
        obs, state, reward, done, _ = seen
        return (state, total + obs.sum() + reward.sum() + done.sum()), None

    def run(key: jax.Array) -> jax.Array:
        _, state = jax.vmap(made.reset, (0, None))(jax.random.split(key, num_envs), params)
        return jax.lax.scan(step, (state, jnp.float32(0)), jax.random.split(key, steps))[0][1]

    program = jax.jit(run, compiler_options=options)
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
