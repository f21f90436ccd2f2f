"""Several agents in the same games, each with a learner of its own (Tan 1993, "Multi-agent reinforcement learning")."""

from __future__ import annotations

from collections.abc import Iterable
from functools import partial
from pathlib import Path
from threading import Thread
from typing import Any, cast

from renshu.agent.agent import Agent
from renshu.agent.backends import HostBackend
from renshu.envs.adapters.apart import AgentApart, SharedGames
from renshu.errors import EnvironmentFault, SpaceError

LOOK = 0.2
"""Seconds between two looks for Ctrl-C."""


def learn_together(
    agents: Iterable[Agent], total_steps: int, *, run: str | Path | None = None, progress: bool = True, **options: Any
) -> None:
    """Train agents in the same games, each by itself: what one does is to the others a part of the environment.

    They learn at the same time, in threads. A game takes a step once all have acted, so that a seed repeats a training.
    An agent that has its steps before the others goes on acting, without learning. Evaluations have the others act
    greedily, as they do then: on the way that depends on the moment, which no seed repeats.

    agents: one for each agent of a game, made on the environments of `renshu.envs.adapters.apart`. total_steps: further
    steps of each. run: a folder, in which each has one by the name of its agent. progress: of the first one. options:
    those of `Agent.learn` for all.

    Raises SpaceError where agents are missing or not of one game; what ends one training ends all, and is raised.
    """
    agents = list(agents)
    seats = {_seat(agent).agent: agent for agent in agents}
    shared = _shared(agents, seats)
    for agent in agents:
        cast(HostBackend, agent.trainer.backend).envs.reset()  # forgets what was seen before there were others
        _seat(agent).trainings += 1
    shared.policies = {name: partial(_policy, agent) for name, agent in seats.items()}
    shared.enter(set(seats))
    errors: dict[str, BaseException] = {}

    def train(name: str, first: bool) -> None:
        folder = None if run is None else Path(run) / name
        try:
            seats[name].learn(total_steps, run=folder, progress=progress and first, **options)
        except BaseException as error:
            errors[name] = error
            shared.fail(f"the training of {name} ended: {type(error).__name__}: {error}")
        else:
            shared.leave(name)

    threads = [Thread(target=train, args=(name, i == 0), name=name) for i, name in enumerate(seats)]
    try:
        for thread in threads:
            thread.start()
        while alive := [thread for thread in threads if thread.is_alive()]:
            alive[0].join(LOOK)
    except BaseException as error:
        shared.fail(f"the training was stopped: {type(error).__name__}")
        for thread in threads:
            thread.join()
        raise
    finally:
        shared.enter(set())
    if errors:
        # Those who waited for the one that failed have an EnvironmentFault that says so.
        causes = [error for error in errors.values() if not isinstance(error, EnvironmentFault)]
        raise (causes or [*errors.values()])[0]


def _policy(agent: Agent, greedy: bool) -> Any:
    return agent.player(deterministic=greedy)


def _seat(agent: Agent) -> AgentApart:
    backend = agent.trainer.backend
    env = backend.source.given if isinstance(backend, HostBackend) else None
    if not isinstance(env, AgentApart):
        raise SpaceError(
            f"{agent.title} is not in a game with others: make agents on the environments of "
            "renshu.envs.adapters.apart(game), one each"
        )
    return env


def _shared(agents: list[Agent], seats: dict[str, Agent]) -> SharedGames:
    """Return the games in which these agents are. Raises SpaceError unless they are all of those of one game."""
    games = {id(shared): shared for shared in (_seat(agent).shared for agent in agents)}
    if len(games) != 1:
        raise SpaceError(f"expected agents of one game, which are made on the same apart(game), not of {len(games)}")
    shared = next(iter(games.values()))
    missing = [name for name in shared.agents if name not in seats]
    if missing or len(agents) > len(seats):
        wrong = f"no agent acts for {', '.join(missing)}" if missing else "two agents act for the same one"
        raise SpaceError(f"{wrong}: expected one for each of {', '.join(shared.agents)}")
    return shared
