"""Breakout before any learning: spaces, actions, the first screen, and a game played at random, as a video.

pip install -e ".[atari]"
python examples/breakout_random.py
"""

from pathlib import Path

import gymnasium
from matplotlib.image import imsave

from renshu import A2C
from renshu.viewing.recording import episode_frames, write_video

ENV = "ALE/Breakout-v5"


def main(folder: str = "runs/breakout-random", max_steps: int | None = None) -> float:
    """Look at the game and play it once, `max_steps` at the most. Returns the score."""
    A2C().on(ENV, seed=0).summary()  # the game as an agent sees it, made ready by itself; nothing is learned here

    env = gymnasium.make(ENV, render_mode="rgb_array")
    print("observations ", env.observation_space)
    print("actions      ", env.action_space, env.unwrapped.get_action_meanings())
    env.reset(seed=0)
    out = Path(folder)
    out.mkdir(parents=True, exist_ok=True)
    imsave(out / "screen.png", env.render())
    print("first screen ", out / "screen.png")

    env.action_space.seed(0)
    scores: list[float] = []

    def policy(observation, first):
        return env.action_space.sample()

    write_video(out / "random.mp4", episode_frames(env, policy, seed=0, max_steps=max_steps, returns=scores), fps=30)
    env.close()
    print("score        ", scores[0])
    print("video        ", out / "random.mp4")
    return scores[0]


if __name__ == "__main__":
    main()
