"""AlphaZero in two-player games: wall time until it never loses Tic-tac-toe, and how strong it gets in Connect Four.

    python -m bench.alphazero --part tictactoe [--seeds 3]
    python -m bench.alphazero --part connect_four --minutes 60
    taskset -c 0 python -m bench.alphazero --part othello --minutes 60   # 6 x 6, against alpha-beta, on one core
    python -m bench.alphazero --part solver --try fast      # its moves beside a perfect solver's
    python -m bench.alphazero --part speed --example pgx/examples/alphazero     # a checkout of pgx's repository

Parts are kept in docs/benchmarks/alphazero.json; connect_four and othello go on from runs/connect-four-TRY and
runs/othello, where they stopped. Their minutes are of training, with compilation.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

import renshu
from bench import solver
from bench.report import DOCS, publish, revision, table
from bench.speed import ROOT, peers_python
from renshu import MCTS, Agent, AlphaZero, GumbelAlphaZero
from renshu.agent.players import agent_competitor
from renshu.arena.exhaustive import never_loses
from renshu.arena.heuristics import heuristic_of
from renshu.arena.match import match
from renshu.arena.players import AlphaBeta, Pure
from renshu.baselines import path_of
from renshu.envs.builtin.connect_four import ConnectFour
from renshu.envs.builtin.othello import Othello
from renshu.envs.builtin.tic_tac_toe import TicTacToe

KEPT = DOCS / "alphazero.json"
MACHINES = (
    "Measured on 2026-11-27, gymnasium 1.3.0, on an Intel Xeon with 2 cores; Othello on 2026-11-28, gymnasium 1.4.0, "
    "on one core of an AMD EPYC beside other work. Python 3.11.7, jax 0.10.2."
)
RUN = Path("runs/connect-four")
COLUMNS = {
    "uct": "100 against UCT",
    "uct_equal": "1,000",
    "one_ply": "policy against one ply",
    "random": "random",
    "variety": "different positions in memory",
}
MARK = 0.945
"""Score against UCT with 1,000 simulations that is asked for, with as many simulations or fewer."""
LIMIT, MOVES, CHECK, SIMULATIONS = 300, 800_000, 16_000, 200
"""Seconds and moves that Tic-tac-toe has, moves between two checks, and simulations of a move in them."""
TICTACTOE: dict[str, Any] = {
    "num_simulations": 32,
    "n_blocks": 1,
    "n_channels": 32,
    "learning_rate": renshu.Linear(3e-3),
    "gradient_steps": 16,
    "train_freq": 8,
    "learning_starts": 500,
    "buffer_size": 60_000,
    "dirichlet_alpha": 1.0,
    "dirichlet_fraction": 0.5,
    "temperature": 2.0,
}
CONNECT_FOUR: dict[str, dict[str, Any]] = {
    "wide": {
        "num_simulations": 24,
        "n_blocks": 3,
        "n_channels": 48,
        "learning_rate": 1e-3,
        "gradient_steps": 16,
        "train_freq": 8,
        "buffer_size": 200_000,
    },
    "fast": {
        "num_simulations": 16,
        "n_blocks": 2,
        "n_channels": 32,
        "learning_rate": renshu.Linear(2e-3),
        "gradient_steps": 64,
        "train_freq": 32,
        "buffer_size": 500_000,
    },
    "open": {
        "num_simulations": 16,
        "openings": 12,
        "n_blocks": 3,
        "n_channels": 32,
        "learning_rate": renshu.Linear(2e-3),
        "gradient_steps": 64,
        "train_freq": 32,
        "buffer_size": 500_000,
    },
}
"""Tries: a network that learns more from each move; one that plays many times as many, most games to their end before
it learns from them; the same with openings at random, so that its games differ."""
GAMES_AT_ONCE = {"wide": 128, "fast": 256, "open": 256}
MOST = {"wide": 100_000_000, "fast": 10_000_000, "open": 2_500_000}
"""Games of Connect Four that are played side by side, and moves after which a training ends."""
OTHELLO_RUN, OTHELLO_MOVES = Path("runs/othello"), 1_000_000
OTHELLO = {"deep": "100 against alpha-beta 6", "bare": "policy against alpha-beta 6", "random": "policy against random"}
MATCH, LOOKED_AT = 100, (1, 100, 1000)
"""Games of a match, half of them in each seat; simulations of a move beside a solver's, 1 being the policy alone."""


def tictactoe(seed: int, save: bool = False) -> dict[str, Any]:
    """Train until no reply of the other side beats the agent, or five minutes are over; twice in a row, to be sure.

    save: as the baseline of the game.
    """
    agent = AlphaZero(**TICTACTOE).on("renshu/TicTacToe-v0", num_envs=64, seed=seed)
    player, course = agent_competitor(agent, simulations=SIMULATIONS), []
    began, thinking, leaves = time.perf_counter(), 0.0, []

    def check(agent: Agent, *_: Any) -> bool:
        nonlocal thinking, leaves
        asked = time.perf_counter()
        spent = asked - began - thinking
        if agent.steps < CHECK * (len(course) + 1):
            return spent < LIMIT
        leaves = [never_loses(TicTacToe(), player, seat) for seat in (0, 1)]
        course.append({"seconds": spent, "moves": agent.steps, "losses": sum(found.losses for found in leaves)})
        print(seed, course[-1], flush=True)
        thinking += time.perf_counter() - asked
        return spent < LIMIT and not (len(course) > 1 and course[-1]["losses"] == course[-2]["losses"] == 0)

    agent.learn(MOVES, progress=False, callbacks=[check])
    if save:
        agent.save(path_of(agent.name))
    return {"seed": seed, "course": course, "games": sum(sum(found) for found in leaves)}


def connect_four(name: str, minutes: float, every: float) -> Agent:
    """Train a try for some more minutes, with matches after `every` minutes."""
    settings, run = CONNECT_FOUR[name], Path(f"{RUN}-{name}")
    new = GumbelAlphaZero(**settings).on("renshu/ConnectFour-v0", num_envs=GAMES_AT_ONCE[name], seed=0)
    return by_minutes(Training(new, MOST[name], run, f"connect_four_{name}", settings, strength), minutes, every)


def othello(minutes: float, every: float) -> Agent:
    """Train on boards of 6 x 6, with the settings of the open try, and with matches against alpha-beta of depth 6."""
    game, settings = Othello(size=6), CONNECT_FOUR["open"]

    def strength(agent: Agent) -> dict[str, Any]:
        searching, bare = (agent_competitor(agent, simulations=n) for n in (100, 1))
        deep = AlphaBeta(game, 6, heuristic_of(game))
        found = {"deep": (searching, deep), "bare": (bare, deep), "random": (bare, Pure())}
        return {name: match(game, *both, 40, seed=0, openings=2).score for name, both in found.items()}

    new = GumbelAlphaZero(**settings).on(game, num_envs=GAMES_AT_ONCE["open"], seed=0)
    return by_minutes(Training(new, OTHELLO_MOVES, OTHELLO_RUN, "othello", settings, strength, game), minutes, every)


class Training(NamedTuple):
    """A training that goes on from where it stopped."""

    new: Agent  # to begin with, where there is no run folder yet
    moves: int  # at which it ends
    run: Path
    part: str  # of the page
    settings: dict[str, Any]
    strength: Callable[[Agent], dict[str, Any]]
    env: Any = None  # for those that a run folder cannot name


def by_minutes(training: Training, minutes: float, every: float) -> Agent:
    """Train for some more minutes, with matches after `every` of them, and keep what they tell."""
    run = training.run
    kept = json.loads(KEPT.read_text()) if KEPT.exists() else {}
    found = kept.get(training.part, {}).get("course", []) if run.exists() else []
    known, left, agent = (found[-1]["minutes"] if found else 0.0), minutes, training.new
    while left > 0.1 and agent.steps < training.moves:
        began = time.perf_counter()
        ways: dict[str, Any] = {"callbacks": [stop_after(min(left, every) * 60)], "checkpoint_every": 500_000}
        ways["progress"] = False
        if run.exists():
            agent = Agent.resume(run, env=training.env).learn(**ways)
        else:
            agent.learn(training.moves, run=run, **ways)
        spent = (time.perf_counter() - began) / 60
        known, left = known + spent, left - spent
        found.append({"minutes": known, "moves": agent.steps, **training.strength(agent)})
        print(found[-1], flush=True)
        keep(training.part, {"course": found, "settings": training.settings, "revision": revision()})
    return agent


def speed(example: Path, repeats: int = 3) -> dict[str, Any]:
    """Time self-play and learning in Connect Four beside pgx's own example: a process each, in turn.

    example: the folder examples/alphazero of pgx's repository. As many games at once, simulations, blocks and channels,
    and each move is learned from once, in minibatches of the same size.
    """
    names = {"num_layers": "n_blocks", "num_channels": "n_channels"}
    shared = {"num_channels": 32, "num_layers": 2, "num_simulations": 32}
    theirs = {"env_id": "connect_four", **shared, "selfplay_batch_size": 64, "max_num_steps": 64}
    theirs["training_batch_size"] = 512
    ours = {names.get(name, name): value for name, value in shared.items()}
    python = peers_python(ROOT / ".venv-pgx", ROOT / "bench" / "pgx.txt")
    commands = {
        "Renshu": [sys.executable, "-m", "bench.run_alphazero", json.dumps(ours)],
        "pgx": [str(python), "bench/run_pgx.py", str(example), *(f"{name}={value}" for name, value in theirs.items())],
    }
    runs: dict[str, list[dict[str, float]]] = {name: [] for name in commands}
    for _ in range(repeats):
        for name, command in commands.items():
            done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
            if done.returncode:
                raise SystemExit(f"{' '.join(command)} failed:\n{done.stderr}")
            runs[name].append(json.loads(done.stdout.splitlines()[-1]))
            print(name, runs[name][-1], flush=True)
    return {"runs": runs, "settings": theirs, "revision": revision()}


def stop_after(seconds: float) -> Any:
    """Make a callback that ends training after some seconds."""
    began = time.perf_counter()

    def stop(agent: Agent, *_: Any) -> bool:
        return time.perf_counter() - began < seconds

    return stop


def strength(agent: Agent) -> dict[str, Any]:
    """Play matches: with search against UCT, without against a one-ply player and random play."""
    game = ConnectFour()
    uct = agent_competitor(MCTS(num_simulations=1000).on(game, seed=1), name="uct")
    little, equally = (match(game, agent_competitor(agent, simulations=n), uct, MATCH, seed=0) for n in (100, 1000))
    one_ply = AlphaBeta(game, 1, heuristic=None)
    bare = match(game, agent_competitor(agent, simulations=1), one_ply, MATCH, seed=0)
    at_random = match(game, agent_competitor(agent, simulations=1), Pure(), MATCH, seed=0)
    scores = {"uct": little.score, "uct_equal": equally.score, "one_ply": bare.score, "random": at_random.score}
    return scores | {"variety": variety(agent)}


def variety(agent: Agent) -> float:
    """Return the share of the positions in an agent's memory that are there once only, or the first of their kind."""
    ring = agent.state.memory.ring
    boards = np.asarray(ring.obs["observation"])[: int(np.min(ring.size))]
    rows = np.packbits(boards.reshape(-1, boards[0, 0].size), axis=-1)
    return len(np.unique(rows, axis=0)) / len(rows)


def solver_part(name: str) -> dict[str, Any]:
    """Hold the agent of a try against a perfect solver, with the policy alone and with search."""
    agent, positions = Agent.resume(Path(f"{RUN}-{name}")), solver.solved()
    found = {n: solver.shares(agent_competitor(agent, simulations=n), positions) for n in LOOKED_AT}
    return {"try": name, "moves": agent.steps, "found": found, "revision": revision()}


def keep(part: str, result: Any) -> None:
    """Keep the result of a part beside those of others."""
    kept = json.loads(KEPT.read_text()) if KEPT.exists() else {}
    KEPT.write_text(json.dumps(kept | {part: result}, indent=1, default=repr))


def page() -> None:
    """Write the page of all parts that were measured."""
    kept = json.loads(KEPT.read_text())
    body = []
    if "tictactoe" in kept:
        rows = [[run["seed"], *first_without_losses(run), f"{run['games']:,}"] for run in kept["tictactoe"]["runs"]]
        body.append(
            "## Tic-tac-toe\n\nAlphaZero trains until no reply of the other side beats it, in either seat: all games "
            f"that its choices (of {SIMULATIONS} simulations) can lead to are played, by every reply. Training "
            f"ends with the second check without a loss in a row, or after {LIMIT} s. "
            "Its programs were compiled in an earlier run and are read from disk.\n\n"
            + table(["seed", "seconds", "moves", "losses at the end", "games of the last check"], rows)
        )
    tries = {name: kept[key] for name in CONNECT_FOUR if (key := f"connect_four_{name}") in kept}
    if tries:
        measured = {key for found in tries.values() for row in found["course"] for key in row}
        columns = {key: head for key, head in COLUMNS.items() if key in measured}
        rows = [[name, *row] for name, found in tries.items() for row in course_rows(found["course"], columns)]
        settings = "\n".join(f"- {name}: {found['settings']}" for name, found in tries.items())
        body.append(
            f"## Connect Four\n\nScores (draws count half) over {MATCH} games, half in each seat: with 100 and 1,000 "
            "simulations against UCT with 1,000; with one simulation, which is the network's policy alone, against a "
            "player that sees wins one move ahead, and against random play. Public "
            f"marks: {MARK} and 0.539.\n\n"
            f"{settings}\n\n"
            + table(["try", "minutes", "moves", *columns.values()], rows)
            + f"\n\n{verdict(tries)} The fast try loses strength against UCT as it goes on: it begins all games "
            "from the empty board, and they become alike."
        )
    if "solver" in kept:
        body.append(solver_section(kept["solver"]))
    if "othello" in kept:
        body.append(
            f"## Othello on 6 x 6\n\nThe settings of the open try, {OTHELLO_MOVES:,} moves, on one core. Scores over "
            "40 games, half in each seat, after two moves at random: with 100 simulations and with the policy alone, "
            "against alpha-beta that looks 6 moves ahead and judges by corners, edges, moves and discs, and "
            "against random play.\n\n"
            + table(["minutes", "moves", *OTHELLO.values()], course_rows(kept["othello"]["course"], OTHELLO))
        )
    if "speed" in kept:
        body.append(speed_section(kept["speed"]))
    publish("alphazero", "AlphaZero", "python -m bench.alphazero", "\n\n".join(body), MACHINES)


def verdict(tries: dict[str, Any]) -> str:
    """Say how near the tries come to the mark."""
    looks = [(max(row["uct"], row.get("uct_equal", 0.0)), name) for name, x in tries.items() for row in x["course"]]
    best, name = max(looks)
    return f"The best score with search is {best:.3f}, of {name}: the mark is {'' if best >= MARK else 'not '}reached."


def course_rows(course: list[dict[str, Any]], opponents: dict[str, str]) -> list[list[str]]:
    """Format a training's matches."""
    return [
        [f"{row['minutes']:.0f}", f"{row['moves']:,}", *(f"{row[x]:.3f}" if x in row else "" for x in opponents)]
        for row in course
    ]


def solver_section(found: dict[str, Any]) -> str:
    """Write the section on a solver's moves."""
    rows = []
    for same in zip(*found["found"].values(), strict=True):
        counts = [same[0][name] for name in ("plies", "positions", "decisive")]
        told = ["" if row[kind] is None else f"{row[kind]:.0%}" for kind in ("kept", "best") for row in same]
        rows.append([*counts, *told])
    looked = [f"{int(n):,}" for n in found["found"]]
    head = ["moves", "positions", "decisive", *(f"keeps, {n}" for n in looked), *(f"best, {n}" for n in looked)]
    return (
        f"Moves of {found['try']} after {found['moves']:,} beside those of a perfect solver (bitbully), in positions "
        "of games between players that win where they can at once and else move at random. Decisive: positions in "
        "which some move gives the result away; keeps: those of them where the agent's does not. Best: of all "
        "positions, those where it chose what wins soonest or loses latest. The numbers are simulations; 1 is the "
        "policy alone.\n\n" + table(head, rows)
    )


def speed_section(found: dict[str, Any]) -> str:
    """Write the section on speed."""
    simulations, rows = found["settings"]["num_simulations"], []
    for name, runs in found["runs"].items():
        moves = [run["moves"] / run["seconds"] for run in runs]
        games = [run["games"] / run["seconds"] * 3600 for run in runs]
        ratios = [a / (run["moves"] / run["seconds"]) for a, run in zip(moves, found["runs"]["pgx"], strict=True)]
        rate, spread = statistics.median(moves), f" ({min(ratios):.2f} to {max(ratios):.2f})"
        ratio = f"{statistics.median(ratios):.2f}{spread}" if name != "pgx" else ""
        rows.append([name, f"{rate:,.0f}", f"{rate * simulations:,.0f}", f"{statistics.median(games):,.0f}", ratio])
    settings = ", ".join(f"{name} {value}" for name, value in found["settings"].items())
    about = (
        "Self-play and learning in Connect Four beside pgx's own example of Gumbel AlphaZero, with its settings "
        f"{settings}; each move is learned from once by both. Medians of {len(found['runs']['pgx'])} processes in "
        "turn, after compiling."
    )
    return f"## Speed\n\n{about}\n\n" + table(["", "searches/s", "simulations/s", "games an hour", "/ pgx"], rows)


def first_without_losses(run: dict[str, Any]) -> list[object]:
    """Name the time and the moves of the first of the last two checks without a loss, and the losses at the end."""
    course = run["course"]
    done = course[-1]["losses"] == 0
    at = course[-2] if done and len(course) > 1 else course[-1]
    return [f"{at['seconds']:.0f}" if done else f"not in {LIMIT}", f"{at['moves']:,}", course[-1]["losses"]]


def main() -> None:
    """Measure a part, and write the page."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--part", choices=["tictactoe", "connect_four", "othello", "solver", "speed", "page"], default="page"
    )
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--first", type=int, default=0, help="the first seed; settings are chosen on 10 and above")
    parser.add_argument("--try", dest="name", choices=[*CONNECT_FOUR], default="fast", help="of Connect Four")
    parser.add_argument("--minutes", type=float, default=60.0)
    parser.add_argument("--example", type=Path, help="folder examples/alphazero of pgx's repository")
    parser.add_argument("--baseline", action="store_true", help="save the agent in renshu/baselines: the first seed's")
    parser.add_argument("--every", type=float, default=20.0, help="minutes between two rounds of matches")
    args = parser.parse_args()
    if args.part == "tictactoe":
        seeds = range(args.first, args.first + args.seeds)
        runs = [tictactoe(seed, args.baseline and seed == args.first) for seed in seeds]
        if args.first < 10:
            keep("tictactoe", {"runs": runs, "settings": TICTACTOE, "revision": revision()})
    elif args.part == "connect_four":
        agent = connect_four(args.name, args.minutes, args.every)
        if args.baseline:
            agent.save(path_of(agent.name))
    elif args.part == "othello":
        othello(args.minutes, args.every)
    elif args.part == "solver":
        keep("solver", solver_part(args.name))
    elif args.part == "speed":
        if args.example is None or not (args.example / "train.py").exists():
            parser.error("--part speed needs --example, the folder examples/alphazero of github.com/sotetsuk/pgx")
        keep("speed", speed(args.example.resolve()))
    if KEPT.exists():
        page()


if __name__ == "__main__":
    main()
