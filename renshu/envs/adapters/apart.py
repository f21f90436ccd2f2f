"""Agents of PettingZoo's parallel environments as vector environments of their own: each has a learner of its own."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from threading import Condition
from typing import Any, NamedTuple

import numpy as np
from gymnasium.vector import AutoresetMode, VectorEnv
from gymnasium.vector.utils import batch_space, concatenate, create_empty_array, iterate

from renshu.envs.adapters.pettingzoo import ParallelGames
from renshu.envs.masks import has_mask
from renshu.errors import EnvironmentFault, SpaceError
from renshu.types import MASK, Array, PyTree

Policy = Callable[[PyTree, bool], Any]
"""A function of an observation and of whether the agent's game begins with it, to an action."""
Policies = Callable[[bool], Policy]
"""A function that makes one for a game. Its argument: the policy is greedy."""


def apart(game: Any, num_envs: int = 1) -> dict[str, AgentApart]:
    """Make a vector environment for each agent of a parallel environment, by name: so that each learns by itself.

    Agents may differ in their spaces. `renshu.learn_together` trains those who act in them, in the same games.

    game: a `pettingzoo.ParallelEnv`. num_envs: of it and its copies; each agent has a row in each. Raises SpaceError
    for anything else.
    """
    if not hasattr(game, "possible_agents") or not callable(getattr(game, "step", None)) or hasattr(game, "last"):
        raise SpaceError(
            f"{game!r} is no parallel environment of PettingZoo: expected a pettingzoo.ParallelEnv. Agents that act in "
            "turns (AECEnv) learn apart as SeatInTurns(game, seat=...), each against the others as they are"
        )
    if num_envs < 1:
        raise SpaceError(f"num_envs={num_envs}: expected 1 or more games")
    shared = SharedGames([game, *(copy.deepcopy(game) for _ in range(num_envs - 1))])
    return {agent: AgentApart(shared, agent) for agent in shared.agents}


class Outcome(NamedTuple):
    """Everything that one agent is told of a step of all games."""

    obs: PyTree  # [N, ...]
    reward: Array  # [N] float64
    terminated: Array  # [N] bool
    truncated: Array  # [N] bool
    infos: list[dict[str, Any]]


class SharedGames:
    """Games that go on when each agent who is there has given its actions, from a thread of its own.

    policies: of those who are not there, by agent; without one an agent acts at random. greedy: whether they are made
    to act greedily. present: agents who are there. What ends a game for one agent is as in AgentsInParallel.
    """

    def __init__(self, games: Sequence[Any]) -> None:
        self._played = ParallelGames(games)
        self.games, self.agents, self.name = self._played.games, self._played.agents, self._played.name
        self.policies: dict[str, Policies] = {}
        self.greedy = False
        self.present: set[str] = set()
        self._turn = Condition()
        self._seed: int | None = None
        self._given: dict[str, list[Any] | None] = {}
        self._found: dict[str, Outcome] = {}
        self._rounds, self._failure = 0, ""
        self._spaces = [{agent: copy.deepcopy(x.action_space(agent)) for agent in self.agents} for x in self.games]
        self._others: list[dict[str, Policy]] = [{} for _ in self.games]
        self._moved: list[set[str]] = [set() for _ in self.games]

    def __deepcopy__(self, memo: dict[int, Any]) -> SharedGames:
        made = SharedGames(copy.deepcopy(self.games, memo))
        made.policies = dict(self.policies)
        return made

    def enter(self, agents: set[str]) -> None:
        """Let the games wait for these agents from now on; each begins with a reset."""
        self.present, self._given, self._failure = set(agents), {}, ""
        self._others = [{} for _ in self.games]

    def leave(self, agent: str) -> None:
        """Let the games go on without an agent."""
        with self._turn:
            self.present.discard(agent)
            self._given.pop(agent, None)
            self._go_on()

    def fail(self, why: str) -> None:
        """Let nobody go on: whoever waits, and whoever comes, gets an EnvironmentFault."""
        with self._turn:
            self._failure = self._failure or why
            self._turn.notify_all()

    def exchange(self, agent: str, actions: list[Any] | None, seed: int | None = None) -> Outcome:
        """Give an agent's actions, [N], or None to begin; wait until all games have gone on by one step.

        seed: of the games that begin; that of the first of those who are there counts. Raises EnvironmentFault where
        another one's training has failed, and where the agent is not there.
        """
        with self._turn:
            if agent not in self.present:
                raise EnvironmentFault(
                    f"{agent} of {self.name} acts together with {', '.join(x for x in self.agents if x != agent)}: "
                    "train them by renshu.learn_together([...], steps)"
                )
            self._given[agent] = actions
            if agent == next(x for x in self.agents if x in self.present):
                self._seed = seed
            rounds = self._rounds
            self._go_on()
            self._turn.wait_for(lambda: self._rounds > rounds or self._failure)
            if self._failure:
                raise EnvironmentFault(self._failure)
            return self._found[agent]

    def _go_on(self) -> None:
        """Step all games, once all who are there have given their actions."""
        if self._failure or not self.present:
            self._turn.notify_all()
        elif self.present <= self._given.keys():
            given, self._given = self._given, {}
            try:
                self._advance(given)
            except BaseException as error:
                self._failure = f"{self.name} failed: {type(error).__name__}: {error}"
                raise
            finally:
                self._rounds += 1
                self._turn.notify_all()

    def _advance(self, given: dict[str, list[Any] | None]) -> None:
        count, played = len(self.games), self._played
        results = {agent: [(0.0, False, False)] * count for agent in self.agents}
        infos: dict[str, list[dict[str, Any]]] = {agent: [{} for _ in self.games] for agent in self.agents}
        anew = any(actions is None for actions in given.values())
        for i in range(count):
            if anew or played.over[i]:
                told = self._begin(i, None if self._seed is None or not anew else self._seed + i)
            else:
                found, told = played.step(i, partial(self._action, i, given))
                for agent, result in found.items():
                    results[agent][i] = result
            for agent in told.keys() & infos.keys():
                infos[agent][i] = dict(told[agent])
        for agent in given:
            space = self.games[0].observation_space(agent)
            obs = concatenate(space, [seen[agent] for seen in played.seen], create_empty_array(space, count))
            rewards, ended, cut = (np.array(x) for x in zip(*results[agent], strict=True))
            self._found[agent] = Outcome(obs, rewards, ended, cut, infos[agent])

    def _begin(self, i: int, seed: int | None) -> Mapping[str, Any]:
        self._moved[i] = set()
        if seed is not None:
            for space in self._spaces[i].values():
                space.seed(seed)
        return self._played.begin(i, seed)

    def _action(self, i: int, given: dict[str, Any], agent: str) -> Any:
        first = agent not in self._moved[i]
        self._moved[i].add(agent)
        return given[agent][i] if agent in given else self._move(i, agent, first)

    def _move(self, i: int, agent: str, first: bool) -> Any:
        """Choose the action of an agent who is not there."""
        space, obs = self._spaces[i][agent], self._played.seen[i][agent]
        if agent not in self.policies:
            masked = has_mask(self.games[i].observation_space(agent), space)
            return space.sample(np.asarray(obs[MASK], np.int8)) if masked else space.sample()
        if agent not in self._others[i]:
            self._others[i][agent] = self.policies[agent](self.greedy)
        return self._others[i][agent](obs, first)


class AgentApart(VectorEnv):
    """One agent of parallel environments, a row for each game (NEXT_STEP). Make them with `apart`.

    A copy has copies of the games, in which the others act by the policies that they have now, greedily, or at random
    where they have none.
    """

    def __init__(self, shared: SharedGames, agent: str) -> None:
        game = shared.games[0]
        self.shared, self.agent, self.num_envs = shared, agent, len(shared.games)
        self.name = f"{shared.name}.{agent}"
        self.single_observation_space, self.single_action_space = (
            game.observation_space(agent),
            game.action_space(agent),
        )
        self.observation_space = batch_space(self.single_observation_space, self.num_envs)
        self.action_space = batch_space(self.single_action_space, self.num_envs)
        self.metadata = {"autoreset_mode": AutoresetMode.NEXT_STEP}
        self.trainings = 0
        """Times that it was trained in: environments that changed so begin anew."""

    def __deepcopy__(self, memo: dict[int, Any]) -> AgentApart:
        shared = copy.deepcopy(self.shared, memo)
        shared.greedy = True
        shared.enter({self.agent})
        return AgentApart(shared, self.agent)

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[PyTree, dict[str, Any]]:
        """Begin all games. seed: of the first; the others have those after it."""
        shared = self.shared
        if not shared.present:  # somebody has a look before the training
            shared = copy.deepcopy(shared)
            shared.enter({self.agent})
        found = shared.exchange(self.agent, None, seed)
        return found.obs, self._infos(found)

    def step(self, actions: PyTree) -> tuple[PyTree, Array, Array, Array, dict[str, Any]]:
        """Step every game, once all have given their actions; games that are over begin anew instead."""
        found = self.shared.exchange(self.agent, list(iterate(self.action_space, actions)))
        return found.obs, found.reward, found.terminated, found.truncated, self._infos(found)

    def close(self, **options: Any) -> None:
        """Close all games."""
        for game in self.shared.games:
            game.close()

    def _infos(self, found: Outcome) -> dict[str, Any]:
        infos: dict[str, Any] = {}
        for row, told in enumerate(found.infos):
            infos = self._add_info(infos, told, row)
        return infos
