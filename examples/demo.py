"""What `make demo` runs: train PPO on CartPole-v1 until it is solved, and look at the result."""

from pathlib import Path

import renshu


def main() -> None:
    """Train, evaluate, draw the learning curve, record a video, and say where they are."""
    preset = renshu.preset("ppo", "CartPole-v1")
    agent = preset.algorithm.on("CartPole-v1", num_envs=preset.num_envs, seed=1)
    agent.learn(preset.total_steps, run=Path("demo"), stop_at="threshold")
    print(f"evaluation      {agent.evaluate(20)} over 20 episodes (solved at {agent.spec.reward_threshold:g})")
    print(f"learning curve  {agent.last_run.curve_path}")
    print(f"video           {agent.record('demo/cartpole.mp4')}")
    print(f"agent           {agent.last_run.agent_path}")
    print("next            .venv/bin/renshu train a2c CartPole-v1, or your own environment: see README.md")


if __name__ == "__main__":
    main()
