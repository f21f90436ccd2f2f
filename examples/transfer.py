"""One agent, two games: it learns DemonAttack, and goes on in SpaceInvaders with what it has learned there.

Both games have six actions, and pictures of one size. The same method, `agent.on(...)`, takes any agent to any
environment of the same spaces; the first agent stays as it was.

    pip install -e ".[atari]"
    python examples/transfer.py --steps 2_000_000
"""

import argparse
from typing import Any

import renshu
from renshu.loops.evaluation import Evaluation

FIRST, SECOND = "ALE/DemonAttack-v5", "ALE/SpaceInvaders-v5"


def main(steps: int = 1_000_000, games: int = 20, **settings: Any) -> dict[str, Evaluation]:
    """Train for so many steps in each game, and compare in the second one. settings: hyperparameters of A2C."""
    preset = renshu.preset("a2c", FIRST, **settings)
    untrained = preset.algorithm.on(SECOND, num_envs=preset.num_envs, seed=0)
    first = preset.algorithm.on(FIRST, num_envs=preset.num_envs, seed=0).learn(steps)
    second = first.on(SECOND)  # a copy of weights, optimiser and counters, in other environments

    # Sampled actions: a policy that knows little and always takes the likeliest often does nothing but stand still.
    scores = {
        "untrained": untrained.evaluate(games, deterministic=False),
        f"after {FIRST}": second.evaluate(games, deterministic=False),
        f"after {SECOND} too": second.learn(steps).evaluate(games, deterministic=False),
    }
    print(f"\nscores in {games} games of {SECOND}")
    for label, score in scores.items():
        print(f"{label:32} {score}")
    return scores


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=1_000_000, help="in each of the two games")
    main(parser.parse_args().steps)
