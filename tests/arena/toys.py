"""Games for tests: turns that do not alternate, rewards on the way, chance, and a mask."""

from dataclasses import dataclass
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from gymnasium import spaces

from renshu.envs.games import Game

TURNS = (0, 0, 1, 0, 1, 1, 0)
"""Who moves when in `Chain`."""
TABLES = np.random.default_rng(3).integers(-3, 4, (40, len(TURNS), 4, 3)).astype(np.float32)
"""What seat 0 is paid by seat 1: by move, by what was chosen before (of 4), by action. A table is played by."""
PAID = TABLES[0]


class ChainState(NamedTuple):
    moves: jax.Array
    last: jax.Array  # 3 before the first
    table: jax.Array  # of TABLES


@dataclass(frozen=True)
class Chain(Game):
    """Moves in the order of TURNS, each paid at once. An action may not follow on itself."""

    id = "test/Chain-v0"
    observation_space = spaces.MultiDiscrete([8, 4])
    action_space = spaces.Discrete(3)

    def begin(self, key):
        return ChainState(jnp.int32(0), jnp.int32(3), jnp.int32(0))

    def move(self, state, action, key):
        paid = jnp.asarray(TABLES)[state.table, state.moves, state.last, action]
        after = ChainState(state.moves + 1, jnp.int32(action), state.table)
        return after, jnp.stack([paid, -paid]), state.moves + 1 == len(TURNS)

    def observe(self, state):
        return jnp.stack([state.moves, state.last])

    def to_play(self, state):
        return jnp.asarray(TURNS, jnp.int32)[jnp.minimum(state.moves, len(TURNS) - 1)]

    def action_mask(self, state):
        return jnp.arange(3) != state.last

    def text(self, state):
        return f"{int(state.moves)} moves, the last {int(state.last)}"


def chain_value(moves=0, last=3, table=0):
    """Value of Chain for seat 0 by plain recursion, and the best actions."""
    values = {}
    for action in range(3):
        if action != last:
            after = chain_value(moves + 1, action, table)[0] if moves + 1 < len(TURNS) else 0.0
            values[action] = float(TABLES[table, moves, last, action]) + after
    best = max(values.values()) if TURNS[moves] == 0 else min(values.values())
    return best, [action for action, value in values.items() if value == best]


class WhoseState(NamedTuple):
    moves: jax.Array
    ones: jax.Array
    seat: jax.Array


@dataclass(frozen=True)
class Whose(Game):
    """Choose who moves next. Over when moves and choices of seat 1 are 8 together; who moved last is paid."""

    id = "test/Whose-v0"
    observation_space = spaces.Box(0, 9, (3,), np.float32)
    action_space = spaces.Discrete(2)

    def begin(self, key):
        return WhoseState(jnp.int32(0), jnp.int32(0), jnp.int32(0))

    def move(self, state, action, key):
        after = WhoseState(state.moves + 1, state.ones + (action == 1), jnp.int32(action))
        over = after.moves + after.ones >= 8
        return after, jnp.where(over, jnp.where(jnp.arange(2) == state.seat, 1.0, -1.0), 0.0), over

    def observe(self, state):
        return jnp.stack([state.moves, state.ones, state.seat]).astype(jnp.float32)

    def to_play(self, state):
        return state.seat

    def action_mask(self, state):
        return jnp.broadcast_to(state.moves + state.ones < 8, (2,))


class DiceState(NamedTuple):
    lead: jax.Array
    moves: jax.Array


@dataclass(frozen=True)
class Dice(Game):
    """Add a die, or with action 1 two of them halved, to one's own side; after six moves or a lead of 6 it is over."""

    id = "test/Dice-v0"
    observation_space = spaces.Box(-99, 99, (2,), np.float32)
    action_space = spaces.Discrete(2)

    def begin(self, key):
        return DiceState(jax.random.uniform(key), jnp.int32(0))

    def move(self, state, action, key):
        thrown = jax.random.randint(key, (2,), 1, 7)
        gained = jnp.where(action == 1, thrown.sum() / 2, thrown[0])
        lead = state.lead + jnp.where(state.moves % 2 == 0, gained, -gained)
        over = (state.moves == 5) | (jnp.abs(lead) > 6)
        result = jnp.where(over, jnp.sign(lead), 0.0)
        return DiceState(lead, state.moves + 1), jnp.stack([result, -result]), over

    def observe(self, state):
        return jnp.stack([state.lead, state.moves.astype(jnp.float32)])

    def to_play(self, state):
        return state.moves % 2

    def action_mask(self, state):
        return jnp.ones(2, jnp.bool_)


LINES = [(0, 1, 2), (3, 4, 5), (6, 7, 8), (0, 3, 6), (1, 4, 7), (2, 5, 8), (0, 4, 8), (2, 4, 6)]


def won(board, player):
    return any(all(board[i] == player for i in line) for line in LINES)


def crosses_value(board, player=1):
    """Value of tic-tac-toe for the player to move, by plain recursion, and the best squares. board: 9 of 0, 1, 2."""
    values = {}
    for i in range(9):
        if board[i] == 0:
            after = (*board[:i], player, *board[i + 1 :])
            if won(after, player):
                values[i] = 1
            elif 0 not in after:
                values[i] = 0
            else:
                values[i] = -crosses_value(after, 3 - player)[0]
    best = max(values.values())
    return best, [i for i, value in values.items() if value == best]
