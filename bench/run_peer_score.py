"""Train TD3 of a peer on Pendulum-v1 and print its mean of greedy episodes. Argument: settings as JSON."""

import json
import sys


def main(given: str) -> None:
    """Train and evaluate. given: peer (sb3 or sbx), seed, steps, episodes, and hyperparameters."""
    import gymnasium
    from stable_baselines3 import TD3
    from stable_baselines3.common.evaluation import evaluate_policy
    from stable_baselines3.common.monitor import Monitor

    settings = json.loads(given)
    peer, seed, steps, episodes = (settings.pop(name) for name in ("peer", "seed", "steps", "episodes"))
    if peer == "sbx":
        from sbx import TD3
    policy = {"policy_kwargs": {"net_arch": settings.pop("net_arch")}}
    model = TD3("MlpPolicy", gymnasium.make("Pendulum-v1"), **settings, **policy, seed=seed)
    model.learn(steps)
    env = Monitor(gymnasium.make("Pendulum-v1"))
    env.reset(seed=seed)
    print(float(evaluate_policy(model, env, n_eval_episodes=episodes)[0]))


if __name__ == "__main__":
    main(*sys.argv[1:])
