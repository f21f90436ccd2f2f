"""Breakout played with trained weights until a game passes a score; that game is kept as a video.

python examples/breakout_play.py runs/breakout-a2c --score 300
"""

import argparse
from pathlib import Path

import renshu
from renshu.envs.source import EnvSource
from renshu.viewing.recording import episode_frames, write_video


def main(path: str, score: float = 300.0, out: str = "breakout.mp4", games: int = 200, sampled: bool = True) -> float:
    """Play up to so many games, and keep the first that passes the score. Returns the highest score.

    path: a run folder, or an agent's file. sampled: draw actions from the policy, or else each game is much the same.
    """
    place, video = Path(path), Path(out)
    agent = renshu.load(place / "agent.safetensors" if place.is_dir() else place)
    attempt, scores = video.with_name(f"attempt-{video.name}"), []
    env = EnvSource.of(agent.spec.id, agent.spec.kwargs).single("rgb_array")  # made ready as for training; whole games
    policy = agent.player(deterministic=not sampled)
    while len(scores) < games and max(scores, default=-1.0) <= score:
        write_video(attempt, episode_frames(env, policy, seed=len(scores), returns=scores), fps=30)
        print(f"game {len(scores):3}: {scores[-1]:4.0f}   best {max(scores):4.0f}")
    env.close()

    if max(scores) > score:
        attempt.replace(video)
        print(f"a game of {scores[-1]:.0f} is in {video}")
    else:
        attempt.unlink()
        print(f"no game of {games} passed {score:.0f}; the best had {max(scores):.0f}")
    return max(scores)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("path", help="a run folder, or an agent's file")
    parser.add_argument("--score", type=float, default=300.0)
    parser.add_argument("--out", default="breakout.mp4")
    given = parser.parse_args()
    main(given.path, given.score, given.out)
