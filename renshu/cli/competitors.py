"""Games and competitors named on the command line."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from renshu.arena.players import Competitor
    from renshu.envs.device import DeviceEnv

WORDS = ("random", "alphabeta", "perfect", "uct", "baseline")
"""Competitors that need no file. "baseline" is the trained agent that comes with Renshu for the game."""
KINDS = "random, alphabeta[:DEPTH], perfect, uct[:N], baseline, a run folder or an agent's file"
DEPTH, SIMULATIONS = 4, 100


def game_named(text: str, settings: list[str]) -> DeviceEnv:
    """Make a game of this library for two, by its id in any case, with or without "renshu/" and "-v0".

    settings: its arguments, as "size=6". Raises UnknownNameError with near matches, and as the game itself does.
    """
    from renshu.cli.train import environment_arguments
    from renshu.envs.gymnasium.registration import ENTRIES, device_env
    from renshu.errors import UnknownNameError, did_you_mean

    games = {id: made for id in ENTRIES if (made := device_env(id)) is not None and made.players == 2}
    known = {_plain(id): id for id in games}
    if (found := known.get(_plain(text))) is None:
        names = {_plain(id): id.removeprefix("renshu/").partition("-")[0] for id in games}
        hint = did_you_mean(_plain(text), list(names))
        for plain, name in names.items():
            hint = re.sub(rf"\b{plain}\b", name, hint)
        raise UnknownNameError(f"no game of two players is called {text!r}.{hint}")
    made = device_env(found, **environment_arguments(settings)) if settings else games[found]
    assert made is not None
    return made


def _plain(text: str) -> str:
    return re.sub(r"-v\d+$", "", text.lower().removeprefix("renshu/")).replace("_", "").replace("-", "")


def competitor_named(text: str, game: DeviceEnv, simulations: int | None = None) -> Competitor:
    """Make a competitor: one of `KINDS`. simulations: of those that plan, in place of their own number.

    Raises UnknownNameError with near matches for anything else, and as files and agents do.
    """
    from renshu.agent.players import agent_competitor
    from renshu.arena.heuristics import heuristic_of
    from renshu.arena.players import AlphaBeta, Pure
    from renshu.baselines import baseline
    from renshu.errors import UnknownNameError, did_you_mean

    word, colon, number = text.partition(":")
    kind = word.lower()
    if kind in WORDS and not Path(text).exists():
        takes = kind in ("alphabeta", "uct")
        if colon and not (takes and number.isdecimal() and int(number)):
            wanted = f"{kind}:N with a whole number N from 1" if takes else kind
            raise UnknownNameError(f"{text!r} is no competitor: expected {wanted}")
        if kind == "random":
            return Pure()
        if kind == "perfect":
            return AlphaBeta(game)
        if kind == "alphabeta":
            return AlphaBeta(game, int(number or DEPTH), heuristic_of(game))
        if kind == "baseline":
            return agent_competitor(baseline(game), simulations=simulations, name=kind)
        return _uct(game, int(number or simulations or SIMULATIONS))
    if not Path(text).exists():
        hint = did_you_mean(kind, WORDS)
        raise UnknownNameError(f"{text!r} is no competitor, and no file or folder: expected {KINDS}.{hint}")
    return _agent(Path(text), game, simulations)


def _uct(game: DeviceEnv, simulations: int) -> Competitor:
    from renshu.agent.agent import Agent
    from renshu.agent.players import agent_competitor
    from renshu.algorithms.planning.mcts import MCTS

    return agent_competitor(Agent(MCTS(num_simulations=simulations), game), name=f"uct:{simulations}")


def _agent(path: Path, game: DeviceEnv, simulations: int | None) -> Competitor:
    from renshu.agent.agent import load
    from renshu.agent.players import agent_competitor
    from renshu.cli.agents import file_of
    from renshu.errors import SpaceError

    file, name = file_of(path), path.resolve().name if path.is_dir() else path.stem
    agent = load(file)
    if agent.spec.id not in (None, game.id):
        raise SpaceError(f"{path} has learned {agent.spec.id}; this is {game.name}, another game")
    if agent.trainer.learner.needs.env_state and agent.spec.model is None:
        agent = load(file, env=game)
    plans = hasattr(agent.algorithm, "num_simulations")
    return agent_competitor(agent, simulations=simulations if plans else None, name=name)
