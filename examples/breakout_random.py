"""Breakout before any learning: spaces, actions, the first screen, and a game played at random, as a video.

pip install -e ".[atari]"
"""

from pathlib import Path

import gymnasium
import matplotlib

matplotlib.use("Agg")  # no window is needed
import matplotlib.pyplot as plt

from renshu import A2C
from renshu.viewing.recording import episode_frames, write_video

ENV = "ALE/Breakout-v5"


def main(folder: str = "runs/breakout-random", max_steps: int | None = None) -> float:
    """Look at the game and play it once. Returns the score."""
    agent = A2C().on(ENV, seed=0)  # makes the game ready; nothing is learned here
    agent.summary()

    env = gymnasium.make(ENV, render_mode="rgb_array")
    print("observations ", env.observation_space)
    print("actions      ", env.action_space, env.unwrapped.get_action_meanings())
    env.reset(seed=0)
    out = Path(folder)
    out.mkdir(parents=True, exist_ok=True)
    plt.imsave(out / "screen.png", env.render())
    print("first screen ", out / "screen.png")

    env.action_space.seed(0)
    scores: list[float] = []
    frames = episode_frames(
        env, lambda obs, first: env.action_space.sample(), seed=0, max_steps=max_steps, returns=scores
    )
    write_video(out / "random.mp4", frames, fps=30)
    print("score        ", scores[0])
    print("video        ", out / "random.mp4")
    return scores[0]


if __name__ == "__main__":
    main()
