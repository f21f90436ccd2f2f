"""Seats of a game: one is the learner's, opponents take the others, so that it is an environment for one player."""

from __future__ import annotations

import copy
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from renshu.envs.device import DeviceEnv, MaskedDeviceEnv, Step
from renshu.envs.players import RANDOM, SELF, FunctionPlayer, Player, RandomPlayer, Sight
from renshu.envs.self_play import SelfPlay
from renshu.errors import SpaceError
from renshu.types import Array, Key, PyTree


def as_player(opponent: Any) -> Player:
    """Turn what a user gave as an opponent into a Player.

    opponent: "random", "self" (see `renshu.envs.self_play.SelfPlay`), a Player, or a pure function of a key, its
    observation and its legal actions. Raises SpaceError for anything else.
    """
    if isinstance(opponent, Player):
        return opponent
    if opponent == RANDOM:
        return RandomPlayer()
    if opponent == SELF:
        return SelfPlay()
    if callable(opponent):
        return FunctionPlayer(opponent)
    raise SpaceError(
        f'{opponent!r} is no opponent: expected "random", "self", an agent, or a function '
        "(key, observation, legal actions) -> action"
    )


class SeatedState(NamedTuple):
    """A game in which it is the learner's turn, or which is over."""

    game: PyTree
    obs: PyTree  # of the player to move
    seat: Array  # [] int32   the learner's
    owed: Array  # [] float32 what the seat was paid before the learner's first move
    total: Array  # [] float32 what it was paid in this game
    over: Array  # [] bool
    cut: Array  # [] bool    it was cut off: nobody had won
    moves: Array  # [] int32  of all players
    memory: PyTree  # [P, ...] of the opponents, one in each seat
    moved: Array  # [P] bool  the seat has moved in this game


class Seated(DeviceEnv):
    """A game as an environment for one player: a step is the learner's move and the replies to it.

    The learner's seat is drawn anew for each game, so that it moves first in half of the games of two; the reward is
    what its seat is paid, whoever moves. `info` of the last step has the return by seat, as "seat_0", and by opponent
    where these differ.

    game: of two players or more. opponent: who takes all other seats; see `as_player`. seat: always the same one; None
    draws. Raises SpaceError where the game is for one player, there is no such seat, or the opponent is none.
    """

    renews = True  # opponents reply once to those who moved and those who begin

    def __init__(self, game: DeviceEnv, opponent: Any = RANDOM, *, seat: int | None = None) -> None:
        if game.players < 2:
            raise SpaceError(f"{game.name} is for one player: leave opponent= out")
        if seat is not None and not 0 <= seat < game.players:
            raise SpaceError(f"seat={seat}: {game.name} has the seats 0 to {game.players - 1}")
        self.game, self.opponent, self.seat = game, as_player(opponent), seat
        self.observation_space, self.action_space = game.observation_space, game.action_space
        # Moves of all are counted here; the learner's own steps are fewer.
        self.max_episode_steps, self.reward_threshold, self.id = game.max_episode_steps, None, game.id

    @property
    def name(self) -> str:
        """Name of the game."""
        return self.game.name

    def reset(self, key: Key) -> tuple[SeatedState, PyTree]:
        """Begin a game, and let the others move until it is the learner's turn."""
        state, reply = self._begun(key)
        state = self._others(state, reply)
        return state, state.obs

    def _begun(self, key: Key) -> tuple[SeatedState, Key]:
        """Begin a game in which nobody has moved; a key for the others' moves comes with it."""
        begin, draw, reply, memory = jax.random.split(key, 4)
        players = self.game.players
        seat = jax.random.randint(draw, (), 0, players) if self.seat is None else jnp.int32(self.seat)
        game, obs = self.game.reset(begin)
        memories = jax.vmap(self.opponent.begin)(jax.random.split(memory, players))
        nothing, no = jnp.float32(0.0), jnp.bool_(False)
        unmoved = jnp.zeros(players, jnp.bool_)
        return SeatedState(game, obs, seat, nothing, nothing, no, no, jnp.int32(0), memories, unmoved), reply

    def step(self, state: SeatedState, action: PyTree, key: Key) -> Step:
        """Make the learner's move, and let the others reply until it is its turn again or the game is over."""
        after = self._others(*self._answered(state, action, key))
        return self._shown(jax.tree.map(lambda new, old: jnp.where(state.over, old, new), after, state))

    def step_or_reset(self, state: SeatedState, action: PyTree, ended: Array, key_step: Key, key_reset: Key) -> Step:
        """Make the learner's move, or begin a game, and let the others move."""
        moved, begun = self._answered(state, action, key_step), self._begun(key_reset)
        before = jax.tree.map(lambda new, old: jnp.where(ended, new, old), begun, moved)
        after = self._others(*before)
        after = jax.tree.map(lambda new, old: jnp.where(state.over & ~ended, old, new), after, state)
        found = self._shown(after)
        # What a seat is paid before its first move is told with that move.
        return found._replace(state=found.state._replace(owed=jnp.where(ended, after.owed, 0.0)))

    def _answered(self, state: SeatedState, action: PyTree, key: Key) -> tuple[SeatedState, Key]:
        """Make the learner's move; a key for the replies comes with it."""
        move, reply = jax.random.split(key)
        moved = self._moved(state, action, move)
        # Others may have ended the game before the learner's first move; nobody may play on then, maybe for ever.
        return moved._replace(over=moved.over | state.over), reply

    def _shown(self, after: SeatedState) -> Step:
        """Make the result of a step."""
        flags = {f"seat_{i}": after.seat == i for i in range(self.game.players)}
        for i in range(self.game.players):
            memory = jax.tree.map(lambda x, i=i: x[i], after.memory)
            for name, plays in self.opponent.filed(memory).items():
                flags[name] = flags.get(name, False) | (plays & (after.seat != i))
        returns = {name: jnp.where(flag, after.total, jnp.nan) for name, flag in flags.items()}
        terminated = after.over & ~after.cut
        return Step(after._replace(owed=jnp.float32(0.0)), after.obs, after.owed, terminated, after.cut, returns)

    def _moved(self, state: SeatedState, action: PyTree, key: Key) -> SeatedState:
        """Let the player to move make a move."""
        after = self.game.step(state.game, action, key)
        paid, moves, cut = after.reward[state.seat], state.moves + 1, jnp.asarray(after.truncated)
        if self.max_episode_steps is not None:
            cut |= moves >= self.max_episode_steps
        return state._replace(
            game=after.state,
            obs=after.obs,
            owed=state.owed + paid,
            total=state.total + paid,
            over=after.terminated | cut,
            cut=cut & ~after.terminated,
            moves=moves,
        )

    def _others(self, state: SeatedState, key: Key) -> SeatedState:
        """Let the opponents move until it is the learner's turn or the game is over."""

        def theirs(now: tuple[SeatedState, Key]) -> Array:
            return ~now[0].over & (self.game.to_play(now[0].game) != now[0].seat)

        def play(now: tuple[SeatedState, Key]) -> tuple[SeatedState, Key]:
            state, key = now
            key, choose, move = jax.random.split(key, 3)
            seat = self.game.to_play(state.game)
            legal = self.game.action_mask(state.game) != 0
            memory = jax.tree.map(lambda x: x[seat], state.memory)
            sight = Sight(state.obs, legal, state.game, ~state.moved[seat])
            action, memory = self.opponent.move(memory, sight, choose)
            state = state._replace(
                memory=jax.tree.map(lambda all_, one: all_.at[seat].set(one), state.memory, memory),
                moved=state.moved.at[seat].set(True),
            )
            return self._moved(state, action, move), key

        return jax.lax.while_loop(theirs, play, (state, key))[0]

    def action_mask(self, state: SeatedState) -> Array:
        """Return which actions are allowed: [n] bool."""
        return self.game.action_mask(state.game)

    def to_play(self, state: SeatedState) -> Array:
        """Return the seat of the player to move, which is the learner's."""
        return self.game.to_play(state.game)

    def bare(self, state: SeatedState) -> PyTree:
        """Return the state of the game alone."""
        return state.game

    @property
    def model(self) -> DeviceEnv:
        """The game, without opponents."""
        return self.game

    @property
    def names_actions(self) -> bool:
        """Presence of names for actions."""
        return self.game.names_actions

    def action_name(self, action: int) -> str:
        """Name an action as people write it."""
        return self.game.action_name(action)

    def render(self, state: SeatedState) -> np.ndarray:
        """Draw a state."""
        return self.game.render(state.game)

    def text(self, state: SeatedState) -> str:
        """Show a state as lines of text."""
        return self.game.text(state.game)


def seat(env: DeviceEnv, opponent: Any = RANDOM) -> DeviceEnv:
    """Seat an opponent in a game, with a mask in its observations or without; return all else as it is."""
    if env.players < 2:
        return env
    return MaskedDeviceEnv(seat(env.env, opponent)) if isinstance(env, MaskedDeviceEnv) else Seated(env, opponent)


def seated_in(env: DeviceEnv) -> Player | None:
    """Find the opponent that sits in an environment; None where there is none."""
    if isinstance(env, MaskedDeviceEnv):
        return seated_in(env.env)
    return env.opponent if isinstance(env, Seated) else None


def game_of(env: DeviceEnv) -> DeviceEnv:
    """Return a game without the opponent in it, and without masks in its observations."""
    while isinstance(env, MaskedDeviceEnv | Seated):
        env = env.env if isinstance(env, MaskedDeviceEnv) else env.game
    return env


def name_of(opponent: Player) -> str | Player:
    """Return the name by which `as_player` makes a player again; the player itself where there is none."""
    if isinstance(opponent, RandomPlayer):
        return RANDOM
    usual = SelfPlay()
    same = isinstance(opponent, SelfPlay) and (opponent.size, opponent.every) == (usual.size, usual.every)
    return SELF if same else opponent


def opponents_of(env: DeviceEnv) -> SelfPlay | None:
    """Find the past selves that play in an environment; None where there are none."""
    opponent = seated_in(env)
    return opponent if isinstance(opponent, SelfPlay) else None


def opponents_in(inner: PyTree) -> Array:
    """Return the slots of the copies that play in the states `[N, ...]` of games, [N, P] int32; -2 for no copy's seat.

    The learner's own seat counts for nobody.
    """
    state: Any = inner
    seats = jnp.arange(state.moved.shape[-1])
    return jnp.where(seats == state.seat[:, None], -2, state.memory.slot)


def replaced(env: DeviceEnv, opponent: Player) -> DeviceEnv:
    """Return an environment with another opponent in its game."""
    made = copy.copy(env)
    if isinstance(made, MaskedDeviceEnv):
        made.env = replaced(made.env, opponent)
    elif isinstance(made, Seated):
        made.opponent = opponent
    return made
