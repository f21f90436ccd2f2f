"""Train algorithms for some updates on fixed seeds and write the arrays of their states to a file.

    python bench/run_parameters.py OUT.npz [--updates 20] [--case NAME] [--weights]

Uses the public names of the library alone, and knows those that were renamed: so it runs on an older version too, with
PYTHONPATH set to that. `python -m bench.before_after` does so, and compares.
"""

from __future__ import annotations

import argparse
import dataclasses
import inspect
from typing import Any

import jax
import numpy as np

import renshu

EARLIER = {
    "elite_episodes": "good_episodes",
    "elite_count": "best_episodes",
    "non_elite_fraction": "other_episodes",
    "frame_stack": "history",
    "n_steps": "n_step",
}
"""Names of hyperparameters and options, and those that they had before."""
ON_POLICY = {"n_steps": 16, "net_arch": [16, 16]}
REPLAY = {"learning_starts": 16, "buffer_size": 500, "batch_size": 16, "net_arch": [16, 16]}
VALUES = {**REPLAY, "target_update_interval": 20}
CARTPOLE, PENDULUM, GRID = "renshu/CartPole-v1", "renshu/Pendulum-v1", "renshu/Grid-v0"

CASES: dict[str, tuple[str, dict[str, Any], str, dict[str, Any]]] = {
    "PPO": ("PPO", {**ON_POLICY, "batch_size": 16, "n_epochs": 2}, CARTPOLE, {}),
    "PPO, normalised": (
        "PPO",
        {**ON_POLICY, "batch_size": 16, "n_epochs": 2, "norm_obs": True, "norm_reward": True, "target_kl": 0.01},
        PENDULUM,
        {},
    ),
    "A2C": ("A2C", {"n_steps": 5, "net_arch": [16, 16]}, CARTPOLE, {}),
    "A2C, squashed": ("A2C", {"net_arch": [16], "squash_output": True, "norm_reward": True}, PENDULUM, {}),
    "PQN": ("PQN", {"n_steps": 16, "batch_size": 16, "net_arch": [16, 16]}, CARTPOLE, {"frame_stack": 2}),
    "DQN": ("DQN", VALUES, CARTPOLE, {}),
    "DQN, frames": ("DQN", {**VALUES, "gradient_steps": -1, "n_steps": 3}, CARTPOLE, {"frame_stack": 3}),
    "DQN, iqn": ("DQN", {**VALUES, "distributional": "iqn", "double": True, "value_rescaling": True}, CARTPOLE, {}),
    "DQN, munchausen": ("DQN", {**VALUES, "munchausen": True, "prioritized": True, "loss": "mse"}, CARTPOLE, {}),
    "DQN, elite": ("DQN", {**VALUES, "elite_episodes": True, "buffer_size": 2000}, CARTPOLE, {}),
    "DQN, bins": ("DQN", VALUES, PENDULUM, {"bins": 3}),
    "QRDQN": ("QRDQN", {**VALUES, "n_quantiles": 8}, CARTPOLE, {}),
    "Rainbow": ("Rainbow", {**VALUES, "v_min": 0.0, "v_max": 100.0}, CARTPOLE, {}),
    "DDPG": ("DDPG", REPLAY, PENDULUM, {}),
    "TD3": ("TD3", REPLAY, PENDULUM, {"frame_stack": 2}),
    "TD3, normal": ("TD3", {**REPLAY, "action_noise": "normal"}, PENDULUM, {}),
    "TD3, ou": ("TD3", {**REPLAY, "action_noise": "ou"}, PENDULUM, {}),
    "TD3, parameter": ("TD3", {**REPLAY, "action_noise": "parameter", "gradient_steps": 2}, PENDULUM, {}),
    "SAC": ("SAC", REPLAY, PENDULUM, {}),
    "SAC, discrete": ("SAC", REPLAY, CARTPOLE, {}),
    "SAC, sde": ("SAC", {**REPLAY, "use_sde": True, "ent_coef": 0.1}, PENDULUM, {}),
    "SAC, redq": ("SAC", {**REPLAY, "n_critics": 4, "n_target_critics": 2, "policy_delay": 2}, PENDULUM, {}),
    "SAC, droq": ("SAC", {**REPLAY, "dropout": 0.01, "layer_norm": True}, PENDULUM, {}),
    "TQC": ("TQC", {**REPLAY, "n_quantiles": 5}, PENDULUM, {}),
    "CrossQ": ("CrossQ", REPLAY, PENDULUM, {}),
    "QLearning": ("QLearning", {}, GRID, {}),
    "SARSA": ("SARSA", {"n_steps": 4}, GRID, {}),
    "ExpectedSARSA": ("ExpectedSARSA", {}, GRID, {}),
    "DynaQ": ("DynaQ", {"planning_steps": 3}, GRID, {}),
}
"""Name: algorithm, hyperparameters, environment, options of `on`. Every algorithm, and the branches of its code."""
LOOPS = ("host", "compiled")


def earlier_name(name: str, known: set[str]) -> str:
    """Return the name that this checkout has for a setting."""
    return name if name in known else EARLIER.get(name, name)


def state_after(case: str, loop: str, updates: int, weights: bool) -> list[np.ndarray]:
    """Train a case and return the leaves of its state, in order; or those of its weights alone."""
    name, hyperparameters, environment, options = CASES[case]
    kind = getattr(renshu, name)
    fields = {field.name for field in dataclasses.fields(kind)}
    known = set(inspect.signature(renshu.Agent.__init__).parameters)
    algorithm = kind(**{earlier_name(field, fields): value for field, value in hyperparameters.items()})
    options = {earlier_name(option, known): value for option, value in options.items()}
    agent = algorithm.on(environment, num_envs=2, seed=3, loop=loop, **options)
    rollout = getattr(algorithm, "train_freq", None) or algorithm.n_steps
    agent.learn(2 * rollout * updates + hyperparameters.get("learning_starts", 0), progress=False)
    state = agent.parameters if weights else agent.state
    agent.close()
    return [np.asarray(leaf) for leaf in jax.tree.leaves(state)]


def main() -> None:
    """Train every case in both loops and write the arrays."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out")
    parser.add_argument("--updates", type=int, default=20)
    parser.add_argument("--case", choices=list(CASES), action="append")
    parser.add_argument("--weights", action="store_true")
    options = parser.parse_args()
    arrays = {
        f"{case} | {loop} | {index}": leaf
        for case in options.case or CASES
        for loop in LOOPS
        for index, leaf in enumerate(state_after(case, loop, options.updates, options.weights))
    }
    np.savez(options.out, **arrays)


if __name__ == "__main__":
    main()
