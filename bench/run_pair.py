"""Time one case of `bench.before_after` in this process and print JSON. Argument: the case.

Uses the public names of the library alone, so that it runs on an older version too, with PYTHONPATH set to that.
"""

import json
import resource
import sys
import time

began = time.perf_counter()
import renshu  # noqa: E402

CARTPOLE, PENDULUM = "CartPole-v1", "Pendulum-v1"
PPO = {"n_steps": 32, "batch_size": 256, "n_epochs": 20, "gamma": 0.98, "gae_lambda": 0.8}
DQN = {"learning_rate": 2.3e-3, "batch_size": 64, "buffer_size": 100_000, "learning_starts": 1_000, "train_freq": 256}
DQN |= {"gradient_steps": 128, "target_update_interval": 10, "net_arch": [256, 256]}
DQN_EACH = {**DQN, "train_freq": 1, "gradient_steps": 1, "target_update_interval": 1_000, "net_arch": [64, 64]}
SAC = {"learning_rate": 1e-3, "batch_size": 256, "net_arch": [256, 256]}
CASES = {
    "ppo": ("PPO", PPO, CARTPOLE, 8, 512, 100_000),
    "a2c": ("A2C", {}, CARTPOLE, 8, 80, 200_000),
    "dqn": ("DQN", DQN, CARTPOLE, 1, 2_000, 12_000),
    "sac": ("SAC", SAC, PENDULUM, 1, 300, 1_200),
    "td3": ("TD3", SAC, PENDULUM, 1, 300, 1_500),
    "ppo compiled": ("PPO", PPO, f"renshu/{CARTPOLE}", 8, 512, 200_000),
    "dqn compiled": ("DQN", DQN_EACH, f"renshu/{CARTPOLE}", 4, 2_000, 100_000),
    "sac compiled": ("SAC", SAC, f"renshu/{PENDULUM}", 1, 300, 1_500),
}
"""Name: algorithm, hyperparameters, environment, number of environments, steps of the first learn, of the timed one."""


def main(case: str) -> None:
    """Time imports, the first learn (which compiles) and a second one."""
    name, hyperparameters, environment, num_envs, first, steps = CASES[case]
    agent = getattr(renshu, name)(**hyperparameters).on(environment, num_envs=num_envs, seed=0)
    ready = time.perf_counter()
    agent.learn(first, progress=False)
    compiled = time.perf_counter()
    agent.learn(steps, progress=False)
    found = {
        "start": ready - began,
        "first learn": compiled - ready,
        "learn": time.perf_counter() - compiled,
        "memory": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
    }
    print(json.dumps(found))


if __name__ == "__main__":
    main(sys.argv[1])
