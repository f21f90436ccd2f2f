"""Rules of the built-in games written a second time, move by move, and random games played by both.

bench/games.py plays many games by them, the tests some. pgx's games, where it has them, are a third version.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from renshu.envs.builtin.game_2048 import Game2048State, _pushed

Cells = dict[tuple[int, int], int | None]
"""Seats by row and column; None for an empty cell."""


class Found(NamedTuple):
    """Result of a comparison. differences: positions in which anything differs."""

    games: int
    positions: int
    differences: int


class Record(NamedTuple):
    """Random games: first observations [N, ...], and of each step [T, N, ...]."""

    first: Any
    active: Any  # the game was not over before the step
    state: Any  # before the step
    mask: Any
    seat: Any
    action: Any
    obs: Any  # after the step
    reward: Any
    over: Any


def at_random(mask, number):
    """Choose one of the allowed actions [..., A], of 128 at most, by a random number [...] uint32: a hash ranks them.

    The ranks carry the actions in their last seven bits, so that a maximum finds one: much faster than an argmax.
    """
    actions = jnp.arange(mask.shape[-1], dtype=jnp.uint32)
    rank = number[..., None] + actions * jnp.uint32(0x9E3779B9)
    for factor in (0x85EBCA6B, 0xC2B2AE35):
        rank = (rank ^ (rank >> 15)) * jnp.uint32(factor)
    rank = (rank ^ (rank >> 16)) & ~jnp.uint32(127) | 128 | actions
    return (jnp.where(mask, rank, 0).max(-1) & 127).astype(jnp.int32)


def played(env, games, steps, key=0) -> Record:
    """Play random games to their end, as arrays on the host. Raises AssertionError where one needs more steps."""
    n = int(env.action_space.n)

    def step(carry, key):
        state, over = carry
        mask = jax.vmap(env.action_mask)(state) if env.gives_masks else jnp.ones((games, n), bool)
        seat = jax.vmap(env.to_play)(state) if env.players > 1 else jnp.zeros(games, jnp.int32)
        choice, chance = jax.random.split(key)
        action = at_random(mask, jax.random.bits(choice, (games,)))
        after = jax.vmap(env.step)(state, action, jax.random.split(chance, games))
        done = over | after.terminated
        return (after.state, done), (~over, state, mask, seat, action, after.obs, after.reward, done)

    @jax.jit
    def run(key):
        first, rest = jax.random.split(key)
        state, obs = jax.vmap(env.reset)(jax.random.split(first, games))
        return obs, jax.lax.scan(step, (state, jnp.zeros(games, bool)), jax.random.split(rest, steps))

    obs, ((_, over), steps_) = run(jax.random.key(key))
    assert over.all(), f"{int((~over).sum())} games of {env.name} are longer than {steps} moves"
    return jax.tree.map(np.asarray, Record(obs, *steps_))


def found(record: Record, same) -> Found:
    """Count the positions that were reached and in which `same` [T, N] is False."""
    return Found(record.active.shape[1], int(record.active.sum()), int((record.active & ~same).sum()))


def equal(a, b):
    """Tell in which positions [T, N] two arrays [T, N, ...] are equal."""
    assert a.shape == b.shape, (a.shape, b.shape)
    return (a == b).all(tuple(range(2, a.ndim)))


def beside_pgx(env, name, games, steps, key=0) -> Found:
    """Replay random games of ours in pgx, and compare masks, seats, observations, rewards and ends.

    pgx draws who begins; ours calls that player seat 0. Its Othello goes on to two passes where neither can move, ours
    ends there: then pgx may only pass, and has to pay the same in the end.
    """
    import pgx

    ours, theirs = played(env, games, steps, key), pgx.make(name)
    last = int(env.action_space.n) - 1
    extra = 2 * (name == "othello")
    actions = np.concatenate([np.where(ours.active, ours.action, last), np.full((extra, games), last)])

    @jax.jit
    def run(key, actions):
        state = jax.vmap(theirs.init)(jax.random.split(key, games))
        begins = state.current_player

        def step(state, action):
            after = jax.vmap(theirs.step)(state, action)
            by_seat = jnp.where((begins == 0)[:, None], after.rewards, after.rewards[:, ::-1])
            seat = (state.current_player != begins).astype(jnp.int32)
            return after, (state.legal_action_mask, seat, after.observation, by_seat, after.terminated)

        return state.observation, jax.lax.scan(step, state, actions)[1]

    first, (mask, seat, obs, reward, over) = jax.tree.map(
        np.asarray, run(jax.random.key(key + 1), jnp.asarray(actions))
    )
    assert (first == ours.first).all()
    assert over[-1].all()
    if extra:
        waits = np.concatenate([~ours.active, np.ones((extra, games), bool)])
        waits[1:] &= ~over[:-1]
        only_pass = np.append(np.zeros(last, bool), True)
        assert (mask[waits] == only_pass).all()
        mask, seat, obs, over = (x[:-extra] for x in (mask, seat, obs, over))
        ends = ~over | ours.over
    else:
        ends = over == ours.over
    paid = np.where(ours.over[..., None], reward.sum(0), 0)
    same = equal(mask, ours.mask) & equal(obs, ours.obs) & equal(paid, ours.reward) & (seat == ours.seat) & ends
    return found(ours, same)


def beside_pgx_2048(env, games, steps, key=0) -> Found:
    """Follow random games of pgx's 2048 position by position: masks, rewards, ends, and boards but for the new tile."""
    import pgx

    theirs: Any = pgx.make("2048")

    def with_one_tile(board, pushed):
        new = board != pushed
        fits = ~new | ((pushed == 0) & ((board == 1) | (board == 2)))
        return fits.all((1, 2)) & (new.sum((1, 2)) == 1)

    def step(carry, key):
        state, over = carry
        choice, chance = jax.random.split(key)
        action = at_random(state.legal_action_mask, jax.random.bits(choice, (games,)))
        keys = jax.random.split(chance, games)
        after = jax.vmap(theirs.step)(state, action, keys)
        before, then = (Game2048State(s._board.reshape(games, 4, 4)) for s in (state, after))
        ours = jax.vmap(env.step)(before, action, keys)
        pushed = jax.vmap(_pushed)(before.board, action)[0]
        boards = with_one_tile(ours.state.board, pushed) & with_one_tile(then.board, pushed)
        mask = jax.vmap(env.action_mask)(before)
        same = boards & (mask == state.legal_action_mask).all(-1) & (ours.reward == after.rewards[:, 0])
        same &= after.terminated == ~jax.vmap(env.action_mask)(then).any(-1)
        seen = jnp.concatenate([jax.vmap(env._see)(then), jnp.zeros((games, 4, 4, 15), jnp.int8)], -1)
        same &= (seen == after.observation).all((1, 2, 3))
        return (after, over | after.terminated), (~over, same)

    @jax.jit
    def run(key):
        first, rest = jax.random.split(key)
        start = jax.vmap(theirs.init)(jax.random.split(first, games))
        return jax.lax.scan(step, (start, jnp.zeros(games, bool)), jax.random.split(rest, steps))

    (_, over), (active, same) = jax.tree.map(np.asarray, run(jax.random.key(key)))
    assert over.all()
    return Found(games, int(active.sum()), int((active & ~same).sum()))


def beside_rules(env, rules, games, steps, key=0) -> Found:
    """Replay random games of ours by rules written for one game at a time, and compare as with pgx."""
    ours = played(env, games, steps, key)
    same = np.ones(ours.active.shape, bool)
    for n in range(games):
        game = rules()
        assert np.array_equal(game.observe(), ours.first[n])
        for t in range(int(ours.active[:, n].sum())):
            fits = np.array_equal(game.mask(), ours.mask[t, n]) and game.seat == ours.seat[t, n]
            reward, over = game.play(int(ours.action[t, n]))
            fits &= np.array_equal(reward, np.atleast_1d(ours.reward[t, n])) and over == ours.over[t, n]
            same[t, n] = fits and np.array_equal(game.observe(), ours.obs[t, n])
    return found(ours, same)


def beside_tiger(env, games, steps, key=0) -> Found:
    """Check random episodes of the tiger against its rules; how often it is heard right is for a test."""
    ours = played(env, games, steps, key)
    opens, tiger = ours.action > 0, ours.state.tiger
    same = (tiger == tiger[0]) & (ours.over == opens) & np.isin(ours.obs, [0, 1])
    same &= ours.reward == np.where(opens, np.where(ours.action - 1 == tiger, -1, 0.1), -0.01).astype(np.float32)
    return found(ours, same & (~opens | (ours.obs == tiger)))


class Othello:
    """Othello by walking from a square in every direction, over a table of cells."""

    def __init__(self, size=8):
        self.size, self.seat = size, 0
        half = size // 2
        self.cells: Cells = {(row, column): None for row in range(size) for column in range(size)}
        self.cells[half - 1, half] = self.cells[half, half - 1] = 0
        self.cells[half - 1, half - 1] = self.cells[half, half] = 1

    def turned(self, square, seat):
        found = []
        if self.cells[square] is not None:
            return found
        for down, right in [(-1, -1), (-1, 0), (-1, 1), (0, -1), (0, 1), (1, -1), (1, 0), (1, 1)]:
            line, at = [], (square[0] + down, square[1] + right)
            while self.cells.get(at) == 1 - seat:
                line.append(at)
                at = at[0] + down, at[1] + right
            if self.cells.get(at) == seat:
                found += line
        return found

    def moves(self, seat):
        return [bool(self.turned(square, seat)) for square in self.cells]

    def mask(self):
        moves = self.moves(self.seat)
        return [*moves, not any(moves)]

    def play(self, action):
        if action < self.size**2:
            square = divmod(action, self.size)
            for other in self.turned(square, self.seat):
                self.cells[other] = self.seat
            self.cells[square] = self.seat
        self.seat = 1 - self.seat
        over = not any(self.moves(0)) and not any(self.moves(1))
        lead = list(self.cells.values()).count(0) - list(self.cells.values()).count(1)
        result = over * ((lead > 0) - (lead < 0))
        return [result, -result], over

    def observe(self):
        return _planes(self.cells.values(), self.size, self.size, self.seat)


class InARow:
    """Tic-tac-toe, and Connect Four where discs fall, by looking from every cell in four directions."""

    def __init__(self, rows, columns, length, fall):
        self.rows, self.columns, self.length, self.fall, self.seat = rows, columns, length, fall, 0
        self.cells: Cells = {(row, column): None for row in range(rows) for column in range(columns)}

    def mask(self):
        if self.fall:
            return [self.cells[0, column] is None for column in range(self.columns)]
        return [cell is None for cell in self.cells.values()]

    def play(self, action):
        at = divmod(action, self.columns)
        if self.fall:
            at = max(row for row in range(self.rows) if self.cells[row, action] is None), action
        self.cells[at] = self.seat
        won = any(
            all(self.cells.get((row + i * down, column + i * right)) == self.seat for i in range(self.length))
            for row, column in self.cells
            for down, right in [(0, 1), (1, 0), (1, 1), (1, -1)]
        )
        reward = [won * (1 if seat == self.seat else -1) for seat in (0, 1)]
        self.seat = 1 - self.seat
        return reward, won or None not in self.cells.values()

    def observe(self):
        return _planes(self.cells.values(), self.rows, self.columns, self.seat)


class StoneTaking:
    """A heap of stones: the last one loses."""

    def __init__(self, stones=10, most=3):
        self.stones, self.most, self.seat = stones, most, 0

    def mask(self):
        return [take <= self.stones for take in range(1, self.most + 1)]

    def play(self, action):
        self.stones -= action + 1
        self.seat = 1 - self.seat
        return ([1, -1] if self.seat == 0 else [-1, 1]) if self.stones == 0 else [0, 0], self.stones == 0

    def observe(self):
        return self.stones


class TwoPicks:
    """Two picks, each paid at once."""

    def __init__(self):
        self.picks, self.seat = [], 0

    def mask(self):
        return [True, True]

    def play(self, action):
        self.picks.append(action)
        self.seat = 1
        return ([action, -action], False) if len(self.picks) == 1 else ([-action, action], True)

    def observe(self):
        return [int(len(self.picks) > 0), int(self.picks[:1] == [1])]


class OneRoad:
    """A road on which any action but 0 is wrong."""

    def __init__(self, length=10, actions=2, ends=True):
        self.length, self.actions, self.ends, self.seat, self.at = length, actions, ends, 0, 0

    def mask(self):
        return [True] * self.actions

    def play(self, action):
        if action:
            self.at = self.at if self.ends else 0
            return [0], self.ends
        self.at += 1
        return [int(self.at == self.length)], self.at == self.length

    def observe(self):
        return self.at


def _planes(cells, rows, columns, seat):
    """Return the planes [R, C, 2] of a seat's marks and the other's."""
    cells = list(cells)
    return np.array([[cell == seat, cell == 1 - seat] for cell in cells], int).reshape(rows, columns, 2)
