"""MuZero and its kin: scores by steps, by simulations and by options, and wall time until it never loses Tic-tac-toe.

    python -m bench.muzero --part cartpole [--seeds 3] [--steps 100000]
    python -m bench.muzero --part page

Parts are cartpole, simulations, tictactoe, stochastic, efficient and pendulum. Each seed is kept in
docs/benchmarks/muzero.json when all of its steps were taken. Settings are chosen on seeds 10 and above.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from gymnasium import spaces

from bench.report import DOCS, publish, revision, table
from renshu import SAC, Agent, GumbelMuZero, Linear, MuZero, SampledMuZero, StochasticMuZero
from renshu.agent.players import agent_competitor
from renshu.arena.exhaustive import never_loses
from renshu.envs.builtin.game_2048 import Game2048
from renshu.envs.builtin.tic_tac_toe import TicTacToe
from renshu.envs.device import DeviceEnv, Step

KEPT = DOCS / "muzero.json"
MACHINES = (
    "Measured on 2026-11-27 and 28, Python 3.11.7, jax 0.10.2: Tic-tac-toe and 2048 on one core of an AMD EPYC beside "
    "other work, the other parts on an Intel Xeon with 2 cores."
)
POINTS, EPISODES = 10, 20
"""Evaluations of a training, and greedy episodes of each."""
LIMIT, MOVES, CHECK, SIMULATIONS = 900, 340_000, 20_000, 100
"""Seconds and moves that Tic-tac-toe has, moves between two checks, and simulations of a move in them."""

CARTPOLE: dict[str, Any] = {
    "latent": 64,
    "net_arch": [128],
    "n_steps": 30,
    "gradient_steps": 32,
    "num_simulations": 16,
}
TICTACTOE: dict[str, Any] = {
    "num_simulations": 32,
    "gamma": 1.0,
    "n_steps": 9,
    "target_update_interval": None,
    "support": 2,
    "vf_coef": 4.0,
    "reward_coef": 5.0,
    "n_blocks": 1,
    "n_channels": 32,
    "learning_rate": Linear(4e-3),
    "batch_size": 128,
    "train_freq": 8,
    "gradient_steps": 16,
    "buffer_size": 60_000,
    "dirichlet_alpha": 1.0,
    "dirichlet_fraction": 0.25,
    "temperature": Linear(0.5, end=0.1),
}
OPENING = 4
"""Most moves at random with which a game of Tic-tac-toe begins in training."""
BOARD_2048: dict[str, Any] = {
    "num_simulations": 16,
    "gamma": 0.999,
    "support": 100,
    "latent": 128,
    "net_arch": [128],
    "gradient_steps": 16,
    "buffer_size": 100_000,
    "temperature": Linear(1.0, end=0.25),
}
CATCH: dict[str, Any] = {
    "num_simulations": 8,
    "gamma": 0.97,
    "support": 5,
    "latent": 64,
    "net_arch": [64],
    "n_steps": 9,
    "vf_coef": 1.0,
    "batch_size": 64,
    "learning_rate": 2e-3,
    "gradient_steps": 32,
    "buffer_size": 20_000,
    "learning_starts": 500,
}
OPTIONS: dict[str, dict[str, Any]] = {
    "none": {},
    "consistency": {"consistency_coef": 2.0},
    "value prefix": {"value_prefix": True},
    "search-based values": {"reanalyse": 0.5, "search_value": True},
    "all": {"consistency_coef": 2.0, "value_prefix": True, "reanalyse": 0.5, "search_value": True},
}
PENDULUM: dict[str, Any] = {"support": 40, "latent": 64, "net_arch": [128]}


class Flat2048(Game2048):
    """2048 with its observation as one vector, [256] int8: a network without convolutions, as in the paper, is fast."""

    observation_space = spaces.MultiBinary(256)

    def _see(self, state: Any) -> Any:
        return super()._see(state).reshape(-1)


class Opened(TicTacToe):
    """Tic-tac-toe that begins with up to OPENING moves at random, so that few positions are never seen."""

    def begin(self, key: Any) -> Any:
        """Set up a board with that many marks: no line is possible with four of them."""
        key_count, key_moves = jax.random.split(key)
        count = jax.random.randint(key_count, (), 0, OPENING + 1)

        def one(i: Any, state: Any) -> Any:
            free = jnp.where(self.action_mask(state), 0.0, -jnp.inf)
            action = jax.random.categorical(jax.random.fold_in(key_moves, i), free)
            return self.move(state, action, key)[0]

        return jax.lax.fori_loop(0, count, one, super().begin(key))


class Catch(DeviceEnv):
    """A ball falls through a picture of 10 by 10 cells; the bar below it moves left, stays or moves right.

    Observation: uint8 [10, 10, 1]. Reward at the end, after 9 steps: 1 for a ball that was caught, -1 for another.
    """

    observation_space = spaces.Box(0, 255, (10, 10, 1), np.uint8)
    action_space = spaces.Discrete(3)

    def reset(self, key: Any) -> tuple[Any, Any]:
        state = jnp.stack([jnp.int32(0), *jax.random.randint(key, (2,), 0, 10)])  # row and column of the ball, the bar
        return state, self.see(state)

    def see(self, state: Any) -> Any:
        rows, columns = jnp.arange(10)[:, None], jnp.arange(10)
        marked = ((rows == state[0]) & (columns == state[1])) | ((rows == 9) & (columns == state[2]))
        return (255 * marked[..., None]).astype(jnp.uint8)

    def step(self, state: Any, action: Any, key: Any) -> Step:
        state = jnp.stack([state[0] + 1, state[1], jnp.clip(state[2] + action - 1, 0, 9)])
        over = state[0] == 9
        caught = jnp.where(state[1] == state[2], 1.0, -1.0)
        return Step(state, self.see(state), jnp.where(over, caught, 0.0), over)


def course(algorithm: Any, env: Any, num_envs: int, seed: int, steps: int) -> dict[str, Any]:
    """Train, with evaluations on the way, whose time does not count. Returns steps, scores and seconds."""
    agent = algorithm.on(env, num_envs=num_envs, seed=seed)
    found: dict[str, Any] = {"seed": seed, "revision": revision(), "steps": [], "scores": [], "seconds": []}
    began, watching = time.perf_counter(), 0.0

    def look(agent: Agent, *_: Any) -> bool:
        nonlocal watching
        asked = time.perf_counter()
        if agent.steps >= steps * (len(found["steps"]) + 1) / POINTS:
            found["steps"].append(agent.steps)
            found["seconds"].append(asked - began - watching)
            found["scores"].append(agent.evaluate(EPISODES).mean)
        watching += time.perf_counter() - asked
        return True

    agent.learn(steps, progress=False, callbacks=[look])
    print(type(algorithm).__name__, seed, [f"{score:.1f}" for score in found["scores"]], flush=True)
    return found


Course = dict[str, Any]


def cartpole(seed: int, steps: int) -> dict[str, Course]:
    """Train MuZero and Gumbel MuZero on CartPole-v1."""
    return {
        kind.__name__: course(kind(**CARTPOLE), "renshu/CartPole-v1", 8, seed, steps) for kind in (MuZero, GumbelMuZero)
    }


def simulations(seed: int, steps: int) -> dict[str, Course]:
    """Train both with 2 to 16 simulations."""
    found = {}
    for kind in (MuZero, GumbelMuZero):
        for count in (2, 4, 8, 16):
            settings: dict[str, Any] = CARTPOLE | {"num_simulations": count}
            algorithm = kind(**settings)
            name = f"{kind.__name__}, {count} simulations"
            found[name] = course(algorithm, "renshu/CartPole-v1", 8, seed, steps)
    return found


def stochastic(seed: int, steps: int) -> dict[str, Course]:
    """Train Stochastic MuZero and MuZero on 2048."""
    return {
        kind.__name__: course(kind(**BOARD_2048), Flat2048(), 16, seed, steps) for kind in (StochasticMuZero, MuZero)
    }


def efficient(seed: int, steps: int) -> dict[str, Course]:
    """Train Gumbel MuZero on pictures, with each of EfficientZero's options."""
    found = {}
    for name, options in OPTIONS.items():
        settings: dict[str, Any] = CATCH | options
        found[name] = course(GumbelMuZero(**settings), Catch(), 8, seed, steps)
    return found


def pendulum(seed: int, steps: int) -> dict[str, Course]:
    """Train Sampled MuZero and SAC on Pendulum-v1."""
    sampled, sac, env = SampledMuZero(**PENDULUM), SAC(learning_rate=1e-3), "renshu/Pendulum-v1"
    return {
        "SampledMuZero": course(sampled, env, 8, seed, steps),
        "SAC": course(sac, env, 1, seed, steps),
    }


def tictactoe(seed: int, steps: int) -> dict[str, Course]:
    """Train until no reply of the other side beats the agent, or the time is over; twice in a row, to be sure."""
    return {"MuZero": until_it_never_loses(seed, steps)}


def until_it_never_loses(seed: int, moves: int) -> dict[str, Any]:
    """Train one agent. Returns moves, losses and seconds of all checks."""
    agent = MuZero(**TICTACTOE).on(Opened(), num_envs=64, seed=seed)
    player = agent_competitor(agent, simulations=SIMULATIONS)
    found: dict[str, Any] = {"seed": seed, "revision": revision(), "steps": [], "scores": [], "seconds": []}
    began, thinking = time.perf_counter(), 0.0

    def check(agent: Agent, *_: Any) -> bool:
        nonlocal thinking
        asked = time.perf_counter()
        spent = asked - began - thinking
        if agent.steps < min(CHECK, moves) * (len(found["steps"]) + 1):
            return spent < LIMIT
        found["steps"].append(agent.steps)
        found["seconds"].append(spent)
        found["scores"].append(sum(never_loses(TicTacToe(), player, seat).losses for seat in (0, 1)))
        print(seed, *(found[name][-1] for name in ("steps", "scores", "seconds")), flush=True)
        thinking += time.perf_counter() - asked
        return spent < LIMIT and found["scores"][-2:] != [0, 0]

    agent.learn(moves, progress=False, callbacks=[check])
    return found


PARTS: dict[str, tuple[Callable[[int, int], dict[str, Course]], int, str]] = {
    "cartpole": (cartpole, 100_000, "CartPole-v1, in the compiled loop"),
    "simulations": (simulations, 50_000, "CartPole-v1 with few simulations"),
    "tictactoe": (tictactoe, MOVES, "Tic-tac-toe"),
    "stochastic": (stochastic, 200_000, "2048, whose tiles come by chance"),
    "efficient": (efficient, 40_000, "EfficientZero's options on pictures of a falling ball"),
    "pendulum": (pendulum, 40_000, "Pendulum-v1, continuous actions"),
}
"""Functions of the parts, the steps of a training there, and headings."""


def keep(part: str, seed: int, runs: dict[str, Course]) -> None:
    """Keep the runs of a seed beside those of others."""
    kept = json.loads(KEPT.read_text()) if KEPT.exists() else {}
    known = kept.get(part, {})
    merged = {name: [*(x for x in known.get(name, []) if x["seed"] != seed), run] for name, run in runs.items()}
    merged = {name: sorted(found, key=lambda run: run["seed"]) for name, found in merged.items()}
    KEPT.write_text(json.dumps(kept | {part: merged}, indent=1, default=repr))


def rows(runs: dict[str, list[Course]]) -> list[list[object]]:
    """Make a row of each algorithm's scores: mean over seeds at each look, and seconds of a training."""
    found = []
    for name, seeds in runs.items():
        scores = np.array([run["scores"] for run in seeds])
        spread = f"{scores[:, -1].mean():.1f} ± {scores[:, -1].std():.1f}"
        seconds = np.mean([run["seconds"][-1] for run in seeds])
        found.append([name, *(f"{score:.1f}" for score in scores.mean(axis=0)[:-1]), spread, f"{seconds:.0f}"])
    return found


def verdict(runs: dict[str, list[Course]]) -> str:
    """Say which options help, by the mean over all seeds and looks beside that of none."""
    means = {name: float(np.mean([run["scores"] for run in seeds])) for name, seeds in runs.items()}
    plain = means.pop("none")
    told = [f"{name} {'helps' if mean > plain else 'does not help'} ({mean:.2f})" for name, mean in means.items()]
    return f" By the mean of all of them, which is {plain:.2f} with no option: {', '.join(told)}."


def body_of(part: str, runs: dict[str, list[Course]]) -> str:
    """Write the section of a part."""
    title, seeds = PARTS[part][2], next(iter(runs.values()))
    revisions = ", ".join(dict.fromkeys(run["revision"] for found in runs.values() for run in found))
    if part == "tictactoe":
        ends = [
            [r["seed"], f"{r['seconds'][-1]:.0f}", f"{r['steps'][-1]:,}", ", ".join(map(str, r["scores"]))]
            for r in seeds
        ]
        text = (
            "MuZero trains until no reply of the other side beats it, in either seat, when it looks "
            f"{SIMULATIONS} states ahead: with the second check without a loss in a row, or after {LIMIT} s. "
            f"Games in training begin with up to {OPENING} moves at random.\n\n"
        ) + table(["seed", "seconds", "moves", f"losses after each {CHECK:,} moves"], ends)
    else:
        at = [f"{np.mean([run['steps'][i] for run in seeds]):,.0f}" for i in range(len(seeds[0]["steps"]))]
        text = f"Mean return of {EPISODES} greedy episodes by steps, over {len(seeds)} seeds."
        text += (verdict(runs) if part == "efficient" else "") + "\n\n"
        text += table(["", *at, "seconds"], rows(runs))
    return f"## {title}\n\n{text}\n\nRevision {revisions}."


def page() -> None:
    """Write the page of all parts that were measured."""
    kept = json.loads(KEPT.read_text())
    body = [body_of(part, kept[part]) for part in PARTS if part in kept]
    body.append("Settings are those of `bench/muzero.py`. Seconds are of training alone, compilation included.")
    publish("muzero", "MuZero", "python -m bench.muzero", "\n\n".join(body), MACHINES)


def main() -> None:
    """Measure a part, and write the page."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--part", choices=[*PARTS, "page"], default="page")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--first", type=int, default=0, help="the first seed; settings are chosen on 10 and above")
    parser.add_argument("--steps", type=int, help="of each training; fewer than the part has are not kept")
    args = parser.parse_args()
    if args.part != "page":
        measure, all_steps, _ = PARTS[args.part]
        steps = args.steps or all_steps
        for seed in range(args.first, args.first + args.seeds):
            runs = measure(seed, steps)
            if seed >= 10 or steps < all_steps:
                print(body_of(args.part, {name: [run] for name, run in runs.items()}))
            else:
                keep(args.part, seed, runs)
    if KEPT.exists():
        page()


if __name__ == "__main__":
    main()
