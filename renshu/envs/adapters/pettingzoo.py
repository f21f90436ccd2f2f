"""PettingZoo's environments for Gymnasium's interfaces: agents in parallel as rows, and one seat of agents in turns."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import gymnasium
import jax
import numpy as np
from gymnasium import spaces
from gymnasium.vector import AutoresetMode, VectorEnv
from gymnasium.vector.utils import batch_space, concatenate, create_empty_array, iterate

from renshu.envs.masks import has_mask
from renshu.envs.players import RANDOM, RandomPlayer, Sight
from renshu.envs.seats import as_player
from renshu.envs.self_play import SelfPlay
from renshu.errors import EnvironmentFault, SpaceError
from renshu.types import MASK, OBSERVATION, Array, PyTree

NEW_GAMES = 1_000
"""Games that may end before the first move of a seat, one after the other."""

Result = tuple[float, bool, bool]
"""An agent's reward in a step, and whether its episode terminates or is truncated there."""


class ParallelGames:
    """Parallel environments that are alike, side by side. Raises SpaceError where they do not name their agents.

    agents: names. over: which games have ended. seen: what each agent saw last, by game.
    """

    def __init__(self, games: Sequence[Any]) -> None:
        self.games, self.agents, self.name = list(games), agents_of(games[0]), game_name(games[0])
        self.over = [True] * len(self.games)
        self.seen: list[dict[str, Any]] = [{} for _ in self.games]

    def begin(self, i: int, seed: int | None = None, options: dict[str, Any] | None = None) -> Mapping[str, Any]:
        """Begin game i. Returns the agents' infos. Raises EnvironmentFault where agents are missing."""
        game = self.games[i]
        obs, told = game.reset(seed=seed, options=options)
        self.over[i] = False
        if set(game.agents) != set(self.agents):
            raise EnvironmentFault(
                f"{self.name} began with the agents {list(game.agents)}, not with all of {self.agents}: rows are for "
                "agents that are there from the beginning"
            )
        for agent in self.agents:
            self._see(i, agent, obs)
        return told

    def step(
        self, i: int, action: Callable[[str], Any]
    ) -> tuple[dict[str, tuple[float, bool, bool]], Mapping[str, Any]]:
        """Step game i by the actions of those who are in it.

        Returns each agent's result, and the infos of those who were in it. An agent that is out before its game has
        ended waits: it is truncated again and again, which nothing takes for an episode.
        """
        game, found = self.games[i], {}
        playing = list(game.agents)
        obs, paid, ended, cut, told = game.step({agent: action(agent) for agent in playing})
        self.over[i] = not game.agents
        for agent in self.agents:
            if agent not in playing:
                found[agent] = 0.0, False, True
                continue
            self._see(i, agent, obs)
            gone = agent not in game.agents and not ended[agent]
            found[agent] = paid[agent], ended[agent], cut[agent] or gone
        return found, {agent: told.get(agent, {}) for agent in playing}

    def _see(self, i: int, agent: str, obs: Mapping[str, Any]) -> None:
        if agent not in obs:
            raise EnvironmentFault(f"{self.name} gave no observation for {agent!r}, which is in the game")
        self.seen[i][agent] = obs[agent]


class AgentsInParallel(VectorEnv):
    """Agents of parallel environments as rows of a vector environment (NEXT_STEP): one learner acts for all of them.

    games: `pettingzoo.ParallelEnv`s that are alike; row `i * P + p` is agent p of game i. An agent that is out before
    its game has ended waits until it ends, and no step is counted for it meanwhile. Raises SpaceError where the agents'
    spaces differ.
    """

    def __init__(self, games: Sequence[Any]) -> None:
        self._played = ParallelGames(games)
        self.games, self.agents, self.name = self._played.games, self._played.agents, self._played.name
        self.single_observation_space, self.single_action_space = _common_spaces(self.games[0], self.agents)
        self.num_envs = len(self.games) * len(self.agents)
        self.observation_space = batch_space(self.single_observation_space, self.num_envs)
        self.action_space = batch_space(self.single_action_space, self.num_envs)
        self.metadata = {"autoreset_mode": AutoresetMode.NEXT_STEP}

    def repeated(self, rows: int) -> AgentsInParallel:
        """Return as many rows, with copies of the game. Raises SpaceError unless that is a multiple of the agents."""
        count, rest = divmod(rows, len(self.agents))
        if rest or not count:
            raise SpaceError(
                f"num_envs={rows}: {self.name} has {len(self.agents)} agents, each of which is a row: expected a "
                f"multiple of {len(self.agents)}"
            )
        return AgentsInParallel([self.games[0], *(copy.deepcopy(self.games[0]) for _ in range(count - 1))])

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[PyTree, dict[str, Any]]:
        """Begin all games. seed: of the first; the others have those after it."""
        infos: dict[str, Any] = {}
        for i in range(len(self.games)):
            told = self._played.begin(i, None if seed is None else seed + i, options)
            infos = self._added(infos, i, told)
        return self._stacked(), infos

    def step(self, actions: PyTree) -> tuple[PyTree, Array, Array, Array, dict[str, Any]]:
        """Step every game by the actions of those who are in it; games that are over begin anew instead."""
        given = list(iterate(self.action_space, actions))
        rewards = np.zeros(self.num_envs)
        terminated, truncated = np.zeros(self.num_envs, np.bool_), np.zeros(self.num_envs, np.bool_)
        infos: dict[str, Any] = {}
        for i in range(len(self.games)):
            if self._played.over[i]:
                infos = self._added(infos, i, self._played.begin(i))
                continue
            rows = {agent: i * len(self.agents) + p for p, agent in enumerate(self.agents)}
            found, told = self._played.step(i, lambda agent, rows=rows: given[rows[agent]])
            for agent, row in rows.items():
                rewards[row], terminated[row], truncated[row] = found[agent]
            infos = self._added(infos, i, told)
        return self._stacked(), rewards, terminated, truncated, infos

    def close(self, **options: Any) -> None:
        """Close all games."""
        for game in self.games:
            game.close()

    def _added(self, infos: dict[str, Any], i: int, told: Mapping[str, Any]) -> dict[str, Any]:
        for p, agent in enumerate(self.agents):
            if agent in told:
                infos = self._add_info(infos, dict(told[agent]), i * len(self.agents) + p)
        return infos

    def _stacked(self) -> PyTree:
        seen = [of_game[agent] for of_game in self._played.seen for agent in self.agents]
        space = self.single_observation_space
        return concatenate(space, seen, create_empty_array(space, self.num_envs))


class SeatInTurns(gymnasium.Env):
    """One seat of an environment in which agents act in turns (AEC); opponents take the others.

    A step is the agent's action and those of the others until it is its turn again; the reward is what it is paid
    meanwhile, whoever acts. `info` of the last step has the return by seat, as "seat_0". Agents that are out act no
    more. A game that ends before the seat's first turn is no episode: another one begins.

    game: a `pettingzoo.AECEnv`. opponent: see `renshu.envs.seats.as_player`, but for "self". seat: the name of an
    agent; None draws one for each game. Raises SpaceError where the seat is none, the opponent none, or seats are drawn
    whose spaces differ.
    """

    def __init__(self, game: Any, opponent: Any = RANDOM, *, seat: str | None = None) -> None:
        self.game, self.seat, self.name = game, seat, game_name(game)
        self.agents = agents_of(game)
        if seat is not None and seat not in self.agents:
            raise SpaceError(f"seat={seat!r}: {self.name} has the agents {self.agents}")
        wanted = self.agents if seat is None else [seat]
        self.observation_space, self.action_space = _common_spaces(game, wanted)
        self.metadata = dict(getattr(game, "metadata", {}))
        self._take(opponent)
        self._mine, self._owed, self._total, self._moved = self.agents[0], 0.0, 0.0, set()
        self._memory: dict[str, PyTree] = {}

    def against(self, opponent: Any) -> SeatInTurns:
        """Return the same game with another opponent."""
        made = copy.copy(self)
        made._take(opponent)
        return made

    def __deepcopy__(self, memo: dict[int, Any]) -> SeatInTurns:
        made = copy.copy(self)  # the opponent never changes
        made.game, made._memory = copy.deepcopy(self.game, memo), dict(self._memory)
        made._moved, made._np_random = set(self._moved), copy.deepcopy(self._np_random, memo)
        made.action_space = copy.deepcopy(self.action_space, memo)
        return made

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[PyTree, dict[str, Any]]:
        """Begin a game, and let the others act until it is the seat's turn."""
        super().reset(seed=seed)
        for _ in range(NEW_GAMES):
            self.game.reset(seed=seed, options=options)
            seed, self._moved, self._total = None, set(), 0.0
            drawn = self.agents[int(self.np_random.integers(len(self.agents)))]
            self._mine = drawn if self.seat is None else self.seat
            keys = jax.random.split(self._key(), len(self.agents))
            self._memory = {agent: self.opponent.begin(key) for agent, key in zip(self.agents, keys, strict=True)}
            obs, reward, over, cut, info = self._until_my_turn()
            self._owed = reward
            if not (over or cut):
                return obs, info
        raise EnvironmentFault(f"{NEW_GAMES:,} games of {self.name} ended before {self._mine!r} had a turn")

    def step(self, action: Any) -> tuple[PyTree, float, bool, bool, dict[str, Any]]:
        """Act, and let the others act until it is the seat's turn again or it is out."""
        self.game.step(action)
        obs, paid, terminated, truncated, info = self._until_my_turn()
        reward, self._owed = self._owed + paid, 0.0
        self._total += reward
        if terminated or truncated:
            info = {**info, f"seat_{self.agents.index(self._mine)}": self._total}
        return obs, reward, terminated, truncated, info

    @property
    def render_mode(self) -> str | None:
        """The game's own way to render."""
        return getattr(self.game.unwrapped, "render_mode", None)

    @render_mode.setter
    def render_mode(self, mode: str | None) -> None:  # pyright: ignore[reportIncompatibleVariableOverride]
        self.game.unwrapped.render_mode = mode

    def render(self) -> Any:
        """Render the game."""
        return self.game.render()

    def close(self) -> None:
        """Close the game."""
        self.game.close()

    def _take(self, opponent: Any) -> None:
        self.opponent = as_player(opponent)
        if isinstance(self.opponent, SelfPlay):
            raise SpaceError(f'opponent="self" is for games of pure functions, and {self.name} is none')
        self._move = jax.jit(self.opponent.move)

    def _until_my_turn(self) -> tuple[PyTree, float, bool, bool, dict[str, Any]]:
        """Let the others act; return what PettingZoo's `last` says of the seat: paid is all since its last action."""
        game = self.game
        while self._mine in game.agents:
            agent = game.agent_selection
            obs, paid, terminated, truncated, info = game.last()
            if agent == self._mine:
                return obs, float(paid), bool(terminated), bool(truncated), dict(info)
            game.step(None if terminated or truncated else self._reply(agent, obs, info))
        raise EnvironmentFault(f"{self.name} removed the agent {self._mine!r} without a last turn, in which it ends")

    def _reply(self, agent: str, obs: PyTree, info: Mapping[str, Any]) -> Any:
        """Choose the action of an opponent."""
        space = self.game.action_space(agent)
        legal = info.get(MASK)
        if has_mask(self.game.observation_space(agent), space):
            legal, obs = obs[MASK], obs[OBSERVATION]
        if isinstance(self.opponent, RandomPlayer):
            if not isinstance(space, spaces.Discrete):
                space.seed(int(self.np_random.integers(2**31)))
                return space.sample()
            allowed = np.arange(space.n) if legal is None else np.flatnonzero(legal)
            return int(space.start + self.np_random.choice(allowed))
        legal = np.ones(int(getattr(space, "n", 0)), np.bool_) if legal is None else np.asarray(legal) != 0
        sight = Sight(obs, legal, (), np.bool_(agent not in self._moved))
        self._moved.add(agent)
        action, self._memory[agent] = self._move(self._memory[agent], sight, self._key())
        return int(action) if isinstance(space, spaces.Discrete) else np.asarray(action)

    def _key(self) -> Any:
        return jax.random.key(int(self.np_random.integers(2**32)))


def agents_of(game: Any) -> list[str]:
    """Return the agents that a game can have. Raises SpaceError where it does not say."""
    agents: list[str] = list(getattr(game, "possible_agents", []))
    if not agents:
        raise SpaceError(f"{game_name(game)} names no possible_agents: rows and seats are theirs")
    return agents


def _common_spaces(game: Any, agents: list[str]) -> tuple[spaces.Space, spaces.Space]:
    pairs = [(game.observation_space(agent), game.action_space(agent)) for agent in agents]
    for agent, pair in zip(agents, pairs, strict=True):
        if pair != pairs[0]:
            raise SpaceError(
                f"the agents of {game_name(game)} differ: {agents[0]} has {pairs[0][0]} and {pairs[0][1]}, {agent} has "
                f"{pair[0]} and {pair[1]}. One learner wants the same spaces of all: pad them (supersuit's "
                "pad_observations_v0 and pad_action_space_v0)"
            )
    return pairs[0]


def game_name(game: Any) -> str:
    """Return the name of a game for messages."""
    return str(getattr(game, "metadata", {}).get("name") or type(game.unwrapped).__name__)
