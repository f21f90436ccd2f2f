"""Train RLlib's IMPALA or APPO to a score, in its own virtual environment: one JSON line. Not part of the package.

python bench/run_rllib.py impala CartPole-v1 475 600 '{"lr": 0.0005, ...}'
"""

import json
import sys
import time

import ray
from ray.rllib.algorithms.appo import APPOConfig
from ray.rllib.algorithms.impala import IMPALAConfig
from ray.rllib.core.rl_module.default_model_config import DefaultModelConfig

EPISODES = 20
"""Episodes of the mean that has to reach the score."""


def main() -> None:
    """Train, and print seconds and steps."""
    name, environment, goal, limit, settings = sys.argv[1:6]
    s = json.loads(settings)
    ray.init(num_cpus=8, include_dashboard=False, logging_level="error", log_to_driver=False)
    began = time.perf_counter()
    config = {"impala": IMPALAConfig, "appo": APPOConfig}[name]()
    config = (
        config.environment(environment)
        .env_runners(
            num_env_runners=s["runners"],
            num_envs_per_env_runner=s["num_envs"],
            rollout_fragment_length=s["n_steps"],
        )
        .learners(num_learners=0)
        .training(
            lr=s["learning_rate"],
            gamma=s["gamma"],
            train_batch_size_per_learner=s["n_steps"] * s["num_envs"] * s["batch_workers"],
            grad_clip=s["max_grad_norm"],
            grad_clip_by="global_norm",
            vf_loss_coeff=s["vf_coef"],
            entropy_coeff=s["ent_coef"],
        )
        .rl_module(model_config=DefaultModelConfig(fcnet_hiddens=s["net_arch"], vf_share_layers=s["share"]))
        .debugging(seed=s["seed"])
    )
    config = config.reporting(min_time_s_per_iteration=0, min_sample_timesteps_per_iteration=0)
    algorithm = config.build_algo()
    mean, steps = float("-inf"), 0
    recent: list[float] = []  # an iteration's mean for each of its episodes
    while not mean >= float(goal) and time.perf_counter() - began < float(limit):
        found = algorithm.train()
        runners = found.get("env_runners", {})
        count, newest = runners.get("num_episodes", 0), runners.get("episode_return_mean", float("nan"))
        if count == count and newest == newest:
            recent = [*recent, *[float(newest)] * int(count)][-EPISODES:]
        mean = sum(recent) / EPISODES if len(recent) == EPISODES else float("-inf")
        steps = int(runners.get("num_env_steps_sampled_lifetime", steps))
    seconds = time.perf_counter() - began
    print(
        json.dumps({"seconds": seconds, "steps": steps, "mean": float(mean), "reached": bool(mean >= float(goal))}),
        flush=True,
    )
    algorithm.stop()
    ray.shutdown()


if __name__ == "__main__":
    main()
