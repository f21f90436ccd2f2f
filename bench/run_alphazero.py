"""Time Gumbel AlphaZero in Connect Four in this process and print JSON. Argument: hyperparameters, as JSON."""

import json
import sys
import time

import numpy as np

from renshu import GumbelAlphaZero

GAMES, FREQ, BATCH, BLOCKS = 64, 8, 512, 24
"""Games at once; moves in each between two trainings; moves of a minibatch, all that were made; such blocks timed."""


def main() -> None:
    """Play and learn."""
    settings = {**json.loads(sys.argv[1]), "train_freq": FREQ, "batch_size": BATCH, "gradient_steps": 1}
    algorithm = GumbelAlphaZero(**settings, learning_starts=BATCH)
    agent = algorithm.on("renshu/ConnectFour-v0", num_envs=GAMES, seed=0)
    agent.learn(4 * GAMES * FREQ, progress=False)
    first, began = agent.steps, time.perf_counter()
    agent.learn(BLOCKS * GAMES * FREQ, progress=False)
    seconds, moves = time.perf_counter() - began, agent.steps - first
    print(json.dumps({"moves": moves, "games": moves / np.mean(agent.recent_lengths), "seconds": seconds}))


if __name__ == "__main__":
    main()
