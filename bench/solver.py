"""Positions of Connect Four by ply, solved, and the share of an agent's moves there that are best."""

from __future__ import annotations

import json
import subprocess
from typing import Any, NamedTuple

import jax
import numpy as np

from bench.speed import ROOT, peers_python
from renshu.agent.players import AgentCompetitor
from renshu.arena.match import play_games
from renshu.arena.players import AlphaBeta, View
from renshu.envs.builtin.connect_four import ConnectFour

GAMES, A_PLY, WIDTH = 1_000, 50, 6
"""Games that positions are taken from, different positions of each ply at most, and plies in a row of the table."""


class Solved(NamedTuple):
    """Positions of Connect Four with the scores of their moves, ordered by ply."""

    view: View
    ply: np.ndarray  # [B] int32  moves before
    scores: np.ndarray  # [B, 7]  -inf for a full column


def solved(seed: int = 0) -> Solved:
    """Take positions from games of players that win where they can at once and else move at random, and solve them."""
    game = ConnectFour()
    played = play_games(game, [AlphaBeta(game, 1)] * 2, GAMES, seed=seed, record=True)
    places: list[tuple[int, int]] = []
    for ply in range(len(played.actions)):
        known: set[tuple[int, ...]] = set()
        for number in map(int, np.flatnonzero(played.lengths > ply)):
            columns = tuple(map(int, played.actions[:ply, number]))
            if columns not in known and len(known) < A_PLY:
                known.add(columns)
                places.append((ply, number))
    at, number = np.array(places).T
    state = jax.tree.map(lambda x: x[at, number], played.states)
    legal = np.asarray(jax.vmap(game.action_mask)(state))
    yes = np.ones(len(at), np.bool_)
    view = View(jax.vmap(game.observe)(state), legal, state, np.asarray(state.seat), yes, yes)
    return Solved(view, at, _scores([played.actions[:ply, row].tolist() for ply, row in places]))


def _scores(columns: list[list[int]]) -> np.ndarray:
    python = peers_python(ROOT / ".venv-solver", ROOT / "bench" / "solver.txt")
    asked = [python, ROOT / "bench" / "run_solver.py"]
    done = subprocess.run(asked, input=json.dumps(columns), capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"the solver failed:\n{done.stderr}")
    found = json.loads(done.stdout)
    return np.array([[scores.get(str(column), -np.inf) for column in range(7)] for scores in found])


def shares(player: AgentCompetitor, positions: Solved) -> list[dict[str, Any]]:
    """Let an agent move in all positions: shares of its moves that are best, by plies.

    kept: of the positions in which some move gives a result away, those where the agent's does not. best: of all
    positions, those where it chose what wins soonest or loses latest.
    """
    player.begin(len(positions.ply), seed=0)
    chosen = positions.scores[np.arange(len(positions.ply)), player.choose(positions.view)]
    best, result = positions.scores.max(axis=1), np.sign(positions.scores)
    matters = (np.where(np.isinf(positions.scores), np.inf, result) < np.sign(best)[:, None]).any(axis=1)
    rows = []
    for first in range(0, 7 * 6, WIDTH):
        here = (positions.ply >= first) & (positions.ply < first + WIDTH)
        counts = here & matters
        rows.append(
            {
                "plies": f"{first + 1} to {first + WIDTH}",
                "positions": int(here.sum()),
                "decisive": int(counts.sum()),
                "kept": float(np.mean(np.sign(chosen[counts]) == np.sign(best[counts]))) if counts.any() else None,
                "best": float(np.mean(chosen[here] == best[here])) if here.any() else None,
            }
        )
    return rows
