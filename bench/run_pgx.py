"""Time pgx's AlphaZero example in this process and print JSON.

Arguments: the folder of the example (examples/alphazero in pgx's repository), then NAME=VALUE settings of its own.
Its module is imported as it is; the main part, which logs to a service and never ends, is what stands here.
"""

import json
import sys
import time
import types
from typing import Any

import jax
import numpy as np
import pgx

REPEATS = 3


def taken(samples: Any, rows: np.ndarray) -> Any:
    """Return rows [1, B] of what was played, [1, T, N, ...], all moves of all games in one."""
    return jax.tree.map(lambda x: x.reshape((-1, *x.shape[3:]))[rows], samples)


def main() -> None:
    """Play and learn for some iterations."""
    folder, settings = sys.argv[1], sys.argv[2:]
    sys.path.insert(0, folder)
    sys.modules["wandb"] = types.ModuleType("wandb")  # only its main part would use it
    pgx.make_baseline_model = lambda *_: None  # there is none for Connect Four, and only its evaluation would play it
    sys.argv = ["train.py", *settings]
    import train

    config, key = train.config, jax.random.PRNGKey(0)
    boards = jax.vmap(train.env.init)(jax.random.split(key, 2)).observation
    model = train.forward.init(key, boards)
    model, opt_state = jax.tree.map(lambda x: x[None], (model, train.optimizer.init(params=model[0])))
    seconds, games, moves = [], [], config.selfplay_batch_size * config.max_num_steps
    for i in range(REPEATS + 1):
        key, key_play, key_order = jax.random.split(key, 3)
        began = time.perf_counter()
        data = train.selfplay(model, key_play[None])
        samples = jax.device_get(train.compute_loss_input(data))
        order = np.asarray(jax.random.permutation(key_order, moves))
        for rows in order.reshape(-1, 1, config.training_batch_size):
            model, opt_state, loss, _ = train.train(model, opt_state, taken(samples, rows))
        loss.block_until_ready()
        if i:  # the first compiles
            seconds.append(time.perf_counter() - began)
            games.append(int(data.terminated.sum()))
    print(json.dumps({"moves": moves * REPEATS, "games": sum(games), "seconds": sum(seconds)}))


if __name__ == "__main__":
    main()
