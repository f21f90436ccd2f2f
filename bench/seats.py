"""Algorithms in the seats of games: what each learns there, self-play, a league, and search without learning.

    python -m bench.seats --part two_picks       # every algorithm of discrete actions, in both seats
    python -m bench.seats --part marks           # SimpleDistributedRL's marks for its games
    python -m bench.seats --part selfplay        # PPO against its past in Connect Four
    python -m bench.seats --part league          # several algorithms at Tic-tac-toe, everyone against everyone
    python -m bench.seats --part mcts            # MCTS with 30,000 simulations against perfect play

Parts are kept in docs/benchmarks/seats.json; times are of this machine, whatever else it does.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from typing import Any

import numpy as np

import renshu
from bench.report import DOCS, publish, revision, table
from renshu import A2C, DQN, MCTS, PPO, Agent, AlphaZero, GumbelAlphaZero, GumbelMuZero, QLearning
from renshu.agent.players import agent_competitor
from renshu.algorithms import registry
from renshu.arena.league import play_league
from renshu.arena.match import match
from renshu.arena.players import AlphaBeta, Pure
from renshu.envs.builtin.tic_tac_toe import TicTacToe
from renshu.envs.self_play import SelfPlay

KEPT = DOCS / "seats.json"
MACHINES = (
    "Measured on 2026-11-27, gymnasium 1.3.0, on an Intel Xeon with 2 cores; self-play on 2026-11-28, gymnasium 1.4.0, "
    "on one core of an AMD EPYC beside other work. Python 3.11.7, jax 0.10.2."
)
EPISODES = 1_000
VALUES: dict[str, Any] = {"learning_starts": 1_000, "train_freq": 1, "gradient_steps": 4, "learning_rate": 1e-3}
VALUES |= {"exploration_fraction": 0.5, "target_update_interval": 1_000}
"""Settings of DQN in 32 games at once."""
SMALL: dict[str, Any] = {"net_arch": [32], "learning_rate": 3e-3}
"""Settings of networks for games of a few positions."""
PICKS = 4_000
"""Steps that each algorithm has in the game of two picks."""
MARKS: list[tuple[str, dict[str, Any], Any, int, tuple[float, ...]]] = [
    ("TicTacToe", {}, PPO(n_steps=32, batch_size=256, net_arch=[64, 64], ent_coef=0.01), 400_000, (0.8, 0.65)),
    ("TicTacToe", {}, DQN(net_arch=[64, 64], **VALUES), 300_000, (0.8, 0.65)),
    ("TicTacToe", {}, AlphaZero(num_simulations=16, n_blocks=1, n_channels=32), 60_000, (0.8, 0.65)),
    ("StoneTaking", {}, PPO(n_steps=32, batch_size=256, **SMALL), 200_000, (0.9, 0.7)),
    ("StoneTaking", {}, DQN(net_arch=[64, 64], **VALUES), 100_000, (0.9, 0.7)),
    ("Othello", {"size": 4}, PPO(n_steps=32, batch_size=256, net_arch=[64, 64], ent_coef=0.01), 400_000, (0.1, 0.5)),
    ("Tiger", {}, PPO(n_steps=64, batch_size=512, recurrent="gru", recurrent_size=32, **SMALL), 600_000, (0.0,)),
    ("OneRoad", {}, QLearning(), 50_000, (1.0,)),
    ("OneRoad", {}, DQN(net_arch=[32], **VALUES), 100_000, (1.0,)),
]
"""Game, its settings, algorithm, steps, and SimpleDistributedRL's marks: by seat, or one for a game of one player."""


def seats(agent: Agent, episodes: int = EPISODES) -> list[float]:
    """Evaluate greedily against random play: mean returns in seat 0 and in seat 1, or one where there are no seats."""
    found = agent.evaluate(episodes, num_envs=50)
    if "seat_0" not in found.info:
        return [found.mean]
    return [float(np.nanmean(found.info[f"seat_{seat}"])) for seat in (0, 1)]


def two_picks(seeds: list[int]) -> list[dict[str, Any]]:
    """Train every algorithm of discrete actions in the game of two picks, where picking 1 earns 0.5 in either seat."""
    found = []
    for name, kind in registry.algorithms().items():
        if "discrete" not in kind.accepts.actions or hasattr(kind, "behavior"):  # whose archive needs a function
            continue
        known = {field: SMALL[field] for field in SMALL if hasattr(kind, field)}
        known |= {"learning_starts": 200} if hasattr(kind, "learning_starts") else {}
        for seed in seeds:
            began = time.perf_counter()
            agent = kind(**known).on("renshu/TwoPicks-v0", num_envs=16, seed=seed)
            agent.learn(PICKS, progress=False)
            found.append({"algorithm": name, "seed": seed, "seats": seats(agent, 400), "settings": repr(known)})
            print(name, seed, found[-1]["seats"], f"{time.perf_counter() - began:.0f} s", flush=True)
    return found


def marks(seeds: list[int]) -> list[dict[str, Any]]:
    """Train for each of SimpleDistributedRL's marks."""
    found = []
    for game, kwargs, algorithm, steps, wanted in MARKS:
        for seed in seeds:
            began = time.perf_counter()
            agent = algorithm.on(f"renshu/{game}-v0", num_envs=32, seed=seed, env_kwargs=kwargs)
            agent.learn(steps, progress=False)
            row = {"game": game, "settings": kwargs, "algorithm": type(algorithm).__name__, "steps": steps}
            row |= {"seed": seed, "returns": seats(agent), "marks": wanted, "seconds": time.perf_counter() - began}
            found.append(row)
            print(row, flush=True)
    return found


def selfplay(seeds: list[int]) -> list[dict[str, Any]]:
    """Train PPO against copies of its past, and let it play against random play and itself as it was half-trained."""
    found, steps = [], 6_000_000
    for seed in seeds:
        began = time.perf_counter()
        settings: dict[str, Any] = {"n_steps": 32, "batch_size": 1024, "n_epochs": 4, "net_arch": [128, 128]}
        settings |= {"learning_rate": renshu.Linear(2e-3), "gamma": 1.0, "ent_coef": 0.15}
        agent = PPO(**settings).on("renshu/ConnectFour-v0", num_envs=128, seed=seed, opponent=SelfPlay())
        agent.learn(steps // 2, progress=False)
        path = agent.save(Path("runs") / f"selfplay-{seed}-half.safetensors")
        agent.learn(steps // 2, progress=False, restart_schedules=False)
        agent.save(Path("runs") / f"selfplay-{seed}.safetensors")
        half = renshu.load(path)
        against = {"random": agent.play("random", 400), "half": agent.play(half, 400)}
        row = {"seed": seed, "steps": agent.steps, "seconds": time.perf_counter() - began}
        row |= {name: [result.score, *result.interval] for name, result in against.items()}
        found.append(row)
        print(row, flush=True)
    return found


def league(seeds: list[int]) -> dict[str, Any]:
    """Train several algorithms at Tic-tac-toe, and let everyone play against everyone."""
    trained: dict[str, tuple[Any, int]] = {
        "ppo, self-play": (PPO(n_steps=32, batch_size=256, net_arch=[64, 64], ent_coef=0.1), 400_000),
        "a2c, self-play": (A2C(n_steps=8, net_arch=[64, 64], ent_coef=0.1, learning_rate=1e-3), 400_000),
        "dqn, self-play": (DQN(net_arch=[64, 64], **VALUES), 300_000),
        "alphazero": (AlphaZero(num_simulations=32, n_blocks=1, n_channels=32, learning_rate=3e-3), 40_000),
        "gumbel muzero": (GumbelMuZero(num_simulations=16, n_steps=9, gradient_steps=32, learning_rate=2e-3), 60_000),
        "gumbel alphazero": (GumbelAlphaZero(num_simulations=16, n_blocks=1, n_channels=32), 40_000),
    }
    everyone: list[Any] = [Pure(), AlphaBeta(TicTacToe())]
    for name, (algorithm, steps) in trained.items():
        mine = {} if algorithm.accepts.players else {"opponent": "self"}
        agent = algorithm.on("renshu/TicTacToe-v0", num_envs=32, seed=seeds[0], **mine)
        agent.learn(steps, progress=False)
        everyone.append(agent_competitor(agent, name=name))
        print(name, agent.play("random", 100), flush=True)
    result = play_league(TicTacToe(), everyone, 100, seed=0)
    rated = result.ratings
    rows = [[result.names[i], *(float(x[i]) for x in (rated.elo, rated.low, rated.high))] for i in result.order]
    print(rows, flush=True)
    return {"rows": rows, "steps": {name: steps for name, (_, steps) in trained.items()}}


def mcts(simulations: int = 30_000, games: int = 6) -> dict[str, Any]:
    """Let a search without learning play Tic-tac-toe against perfect play."""
    game, began = TicTacToe(), time.perf_counter()
    searching = agent_competitor(MCTS(num_simulations=simulations).on(game, seed=0))
    result = match(game, searching, AlphaBeta(game), games, seed=0)
    print(result, flush=True)
    seconds = time.perf_counter() - began
    return {
        "simulations": simulations,
        "won, drawn, lost": [result.wins, result.draws, result.losses],
        "seconds": seconds,
    }


def page() -> None:
    """Write the page of all parts that were measured."""
    kept, body = json.loads(KEPT.read_text()), []
    if "two_picks" in kept:
        names = list(dict.fromkeys(row["algorithm"] for row in kept["two_picks"]["found"]))
        rows = []
        for name in names:
            runs = [row["seats"] for row in kept["two_picks"]["found"] if row["algorithm"] == name]
            rows.append([name, *(", ".join(f"{run[seat]:.2f}" for run in runs) for seat in (0, 1))])
        body.append(
            "## Two picks\n\nWhoever picks 1 is paid 1 by the other, at that moment. Against random play, picking 1 "
            f"earns 0.5 in either seat. Mean returns of 400 games after {PICKS:,} steps, a figure for each seed.\n\n"
            + table(["algorithm", "moves first", "moves second"], rows)
        )
    if "marks" in kept:
        rows = [
            [
                " ".join([row["game"], *map(str, row["settings"].values())]),
                f"{row['algorithm']}, seed {row['seed']}",
                f"{row['steps']:,}",
                f"{row['seconds']:.0f} s",
                " / ".join(f"{x:.2f}" for x in row["returns"]),
                " / ".join(f"{x:g}" for x in row["marks"]),
            ]
            for row in kept["marks"]["found"]
        ]
        body.append(
            f"## SimpleDistributedRL's marks\n\nMean returns of {EPISODES:,} games against random play, moving first / "
            "second.\n\n" + table(["game", "by", "steps", "took", "returns", "marks"], rows)
        )
    if "selfplay" in kept:
        rows = [
            [row["seed"], f"{row['steps']:,}", f"{row['seconds']:.0f} s", *(scored(row[x]) for x in ("random", "half"))]
            for row in kept["selfplay"]["found"]
        ]
        body.append(
            "## Self-play in Connect Four\n\nPPO against copies of its past. Scores (a draw is half a win) of 400 "
            "games, half in each seat, with 95 % intervals: greedy against random play, and against itself after half "
            "of the steps, after two moves at random.\n\n"
            + table(["seed", "steps", "took", "random", "half-trained"], rows)
        )
    if "league" in kept:
        rows = [
            [name, f"{elo:.0f}", f"{low:.0f} to {high:.0f}"] for name, elo, low, high in kept["league"]["found"]["rows"]
        ]
        body.append(
            "## A league at Tic-tac-toe\n\nEveryone against everyone, 100 games each; random play has 0.\n\n"
            + table(["player", "Elo", "95 % interval"], rows)
        )
    if "mcts" in kept:
        found = kept["mcts"]["found"]
        won, drawn, lost = found["won, drawn, lost"]
        body.append(
            f"## Search without learning\n\nMCTS with {found['simulations']:,} simulations a move against perfect play "
            f"at Tic-tac-toe: {won} won, {drawn} drawn, {lost} lost, in {found['seconds']:.0f} s."
        )
    publish("seats", "Algorithms in the seats of games", "python -m bench.seats", "\n\n".join(body), MACHINES)


def scored(row: list[float]) -> str:
    """Format a score and its interval."""
    return f"{row[0]:.3f} ({row[1]:.3f} to {row[2]:.3f})"


def main() -> None:
    """Measure a part, and write the page."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parts = {"two_picks": two_picks, "marks": marks, "selfplay": selfplay, "league": league, "mcts": lambda _: mcts()}
    parser.add_argument("--part", choices=[*parts, "page"], default="page")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--first", type=int, default=0, help="the first seed; settings are chosen on 10 and above")
    args = parser.parse_args()
    if args.part != "page":
        found = parts[args.part](list(range(args.first, args.first + args.seeds)))
        if args.first < 10:
            kept = json.loads(KEPT.read_text()) if KEPT.exists() else {}
            kept[args.part] = {"found": found, "revision": revision()}
            KEPT.write_text(json.dumps(kept, indent=1, default=repr))
    if KEPT.exists():
        page()


if __name__ == "__main__":
    main()
