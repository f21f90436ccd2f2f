"""The demo that `make demo` runs: train PPO on CartPole-v1 until it is solved, and look at the result."""

import renshu
from renshu.tracking.run import Run


def main() -> None:
    """Train, evaluate, draw the learning curve, record a video, and say where they are."""
    run = Run.new_path("demo", "cartpole")
    preset = renshu.preset("ppo", "CartPole-v1")
    agent = preset.algorithm.on("CartPole-v1", num_envs=preset.num_envs, seed=1)
    # A mean of 475 is solved; a little more, and what was learned holds in episodes that training did not see.
    agent.learn(preset.total_steps, run=run, stop_at=490)
    print(f"evaluation      {agent.evaluate(20)} over 20 episodes (solved at {agent.spec.reward_threshold:g})")
    print(f"learning curve  {run / 'curve.png'}")
    print(f"video           {agent.record(run / 'cartpole.mp4')}")
    print(f"agent           {run / 'agent.safetensors'}")
    print("next            .venv/bin/renshu train a2c CartPole-v1, or your own environment: see README.md")


if __name__ == "__main__":
    main()
