"""Rules of the built-in games beside pgx's and beside a second version of them, and the speed of random play.

    python -m bench.games [--games 10000]

pgx is optional for the library: pip install renshu[games].
"""

from __future__ import annotations

import argparse
import os
import statistics
import time
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import pgx

from bench import rules
from bench.report import publish, revision, table
from renshu.envs.builtin.connect_four import ConnectFour
from renshu.envs.builtin.game_2048 import Game2048
from renshu.envs.builtin.one_road import OneRoad
from renshu.envs.builtin.othello import Othello
from renshu.envs.builtin.stone_taking import StoneTaking
from renshu.envs.builtin.tic_tac_toe import TicTacToe
from renshu.envs.builtin.tiger import Tiger
from renshu.envs.builtin.two_picks import TwoPicks
from renshu.envs.device import DeviceEnv
from renshu.ops.rows import choose

BATCH = 2500
"""Games compared at a time."""
ENVIRONMENTS, MOVES, CALLS = 1024, 1000, 5
Rules = Callable[[int, int], rules.Found]
"""A function of a number of games and a seed, that compares them."""


def comparisons() -> dict[tuple[str, str], Rules]:
    """Return each comparison by the names of the game and of what it is compared with."""

    def with_pgx(env: DeviceEnv, name: str, steps: int) -> Rules:
        return lambda games, key: rules.beside_pgx(env, name, games, steps, key)

    def with_rules(env: DeviceEnv, make: Callable[[], Any], steps: int) -> Rules:
        return lambda games, key: rules.beside_rules(env, make, games, steps, key)

    step_by_step = "a second version"
    return {
        ("Tic-tac-toe", "pgx"): with_pgx(TicTacToe(), "tic_tac_toe", 9),
        ("Connect Four", "pgx"): with_pgx(ConnectFour(), "connect_four", 42),
        ("Othello 8 x 8", "pgx"): with_pgx(Othello(), "othello", 80),
        ("2048", "pgx"): lambda games, key: rules.beside_pgx_2048(Game2048(), games, 800, key),
        ("Othello 6 x 6", step_by_step): with_rules(Othello(6), lambda: rules.Othello(6), 50),
        ("Othello 4 x 4", step_by_step): with_rules(Othello(4), lambda: rules.Othello(4), 20),
        ("Stone taking", step_by_step): with_rules(StoneTaking(), rules.StoneTaking, 10),
        ("Stone taking, 21 by up to 4", step_by_step): with_rules(
            StoneTaking(21, 4), lambda: rules.StoneTaking(21, 4), 21
        ),
        ("Two picks", step_by_step): with_rules(TwoPicks(), rules.TwoPicks, 2),
        ("One road", step_by_step): with_rules(OneRoad(), rules.OneRoad, 10),
        ("One road, 4 long, back to the start", step_by_step): with_rules(
            OneRoad(4, 3, False), lambda: rules.OneRoad(4, 3, False), 3000
        ),
        ("Tiger", step_by_step): lambda games, key: rules.beside_tiger(Tiger(), games, 80, key),
    }


def compared(compare: Rules, games: int) -> rules.Found:
    """Compare some games, a batch at a time, each with a seed of its own."""
    found = [compare(min(BATCH, games - begun), begun) for begun in range(0, games, BATCH)]
    return rules.Found(*(sum(numbers) for numbers in zip(*found, strict=True)))


def ours(env: DeviceEnv) -> tuple[Callable, Callable, Callable]:
    """Return `begin`, `mask` and `step` of N games of ours; their state holds the last observation, as pgx's does."""

    def step(state: Any, action: Any, keys: Any) -> tuple[Any, Any, Any]:
        after = jax.vmap(env.step)(state[0], action, keys)
        return (after.state, after.obs), after.reward, after.terminated

    return jax.vmap(env.reset), lambda state: jax.vmap(env.action_mask)(state[0]), step


def theirs(env: pgx.Env) -> tuple[Callable, Callable, Callable]:
    """Return `begin`, `mask` and `step` of N games of pgx."""

    def step(state: Any, action: Any, keys: Any) -> tuple[Any, Any, Any]:
        after = jax.vmap(env.step)(state, action, keys)
        return after, after.rewards, after.terminated

    return jax.vmap(env.init), lambda state: state.legal_action_mask, step


def program(begin: Callable, mask: Callable, step: Callable, moves: int) -> tuple[Callable, Any]:
    """Return a compiled function that plays random moves in N games from a key and a start, and that start."""
    start = begin(jax.random.split(jax.random.key(0), ENVIRONMENTS))

    def play(carry: Any, key: Any) -> tuple[Any, None]:
        state, total, ended = carry
        choice, chance = jax.random.split(key)
        action = rules.at_random(mask(state), jax.random.bits(choice, (ENVIRONMENTS,)))
        state, reward, over = step(state, action, jax.random.split(chance, ENVIRONMENTS))
        state = jax.tree.map(lambda new, old: choose(over, new, old), start, state)
        return (state, total + reward, ended + over), None

    @jax.jit
    def run(key: Any) -> Any:
        zero = jnp.zeros_like(jax.eval_shape(step, start, jnp.zeros(ENVIRONMENTS, jnp.int32), keys)[1])
        return jax.lax.scan(play, (start, zero, jnp.zeros(ENVIRONMENTS, jnp.int32)), jax.random.split(key, moves))[0]

    keys = jax.random.split(jax.random.key(0), ENVIRONMENTS)
    return run, jax.block_until_ready(run(jax.random.key(0)))


def speeds(moves: int = MOVES) -> list[list[str]]:
    """Measure positions per second of random play, ours and pgx's in turn: medians of calls after one that compiles."""
    rows = []
    games: Any = (("Tic-tac-toe", TicTacToe(), "tic_tac_toe"), ("Connect Four", ConnectFour(), "connect_four"))
    games += (("Othello 8 x 8", Othello(), "othello"), ("2048", Game2048(), "2048"))
    for name, env, id in games:
        runs = [program(*sides, moves)[0] for sides in (ours(env), theirs(pgx.make(id)))]
        times: list[list[float]] = [[], []]
        for call in range(CALLS):
            for run, taken in zip(runs, times, strict=True):
                began = time.perf_counter()
                jax.block_until_ready(run(jax.random.key(call)))
                taken.append(time.perf_counter() - began)
        own, other = (ENVIRONMENTS * moves / statistics.median(taken) for taken in times)
        rows.append([name, f"{own / 1e6:.2f} M", f"{other / 1e6:.2f} M", f"{own / other:.1f}"])
        print(*rows[-1], flush=True)
    return rows


def main() -> None:
    """Compare, measure and publish."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--games", type=int, default=10_000)
    games = parser.parse_args().games
    load, code = os.getloadavg()[0], revision()
    pace, rows = speeds(), []
    for (name, other), compare in comparisons().items():
        result = compared(compare, games)
        rows.append([name, other, f"{result.games:,}", f"{result.positions:,}", f"{result.differences:,}"])
        print(*rows[-1], flush=True)
    words = (
        "Random games of ours, replayed move by move by another version of the rules. A position differs where the "
        "mask, the player to move, the observation after the move, a reward or the end does. pgx's Othello asks two "
        "passes in a row for an end, ours ends at once: there pgx could only pass, and then paid the same. 2048 is "
        "played by pgx, whose positions are put to ours, and boards may differ in the new tile alone. "
        f"pgx {pgx.__version__}. Code: {code}."
    )
    how = (
        f"Positions per second of random play: {ENVIRONMENTS:,} games at once, {MOVES:,} moves of each in one compiled "
        "loop, in which a game that has ended begins again; moves are drawn the same way for both. Median of "
        f"{CALLS} calls in turn. Load of the machine as this began: {load:.1f}."
    )
    parts = [
        "## The rules",
        words,
        table(["game", "compared with", "games", "positions", "differences"], rows),
        "## Speed",
        how,
        table(["game", "ours", "pgx", "ratio"], pace),
    ]
    publish("games", "Built-in games", "python -m bench.games", "\n\n".join(parts))


if __name__ == "__main__":
    main()
