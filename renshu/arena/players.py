"""Competitors: whatever chooses moves in many games at once, on the host."""

from __future__ import annotations

import math
import zlib
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from renshu.arena.rules import rules_of
from renshu.envs.device import DeviceEnv
from renshu.envs.players import Player, Sight
from renshu.envs.seats import as_player
from renshu.errors import HyperparameterError, RenshuError, SpaceError
from renshu.loops.programs import single_threaded
from renshu.ops.rows import choose
from renshu.types import Array, PyTree


class View(NamedTuple):
    """Games as they stand, for one competitor. Rows that are not `mine` mean nothing to it."""

    obs: PyTree  # [B, ...]  of the player to move
    legal: np.ndarray  # [B, A] bool
    state: PyTree  # [B, ...]  the game's own states, JAX arrays
    seat: np.ndarray  # [B] int32  of the player to move
    first: np.ndarray  # [B] bool  it is this competitor's first move of that game
    mine: np.ndarray  # [B] bool  this competitor is to move


class Moved(NamedTuple):
    """Games after a move in each of them."""

    state: PyTree  # [B, ...]  after the move
    seat: np.ndarray  # [B] int32  of the player who made it
    action: np.ndarray  # [B] int32  -1 where the game was over before
    over: np.ndarray  # [B] bool
    names: tuple[str, ...]  # of the competitors, by seat


class Competitor(ABC):
    """A player that sits in one seat of many games at once.

    name: in tables and messages. takes_back: it may raise TakeBack, so that what was before is kept; it plays one game
    at a time, and has all the time it wants.

    A shallow copy must be able to play on by itself: `begin` and `choose` set attributes anew, and change no object
    that they hold but caches.
    """

    name: str
    takes_back = False

    def check(self, game: DeviceEnv) -> None:  # noqa: B027
        """Raise SpaceError where it cannot play a game. Default: it can play all."""

    @abstractmethod
    def begin(self, count: int, seed: int) -> None:
        """Forget the games before; `count` new ones begin. seed: of this competitor's chance, from 0 to 2**32 - 1."""

    @abstractmethod
    def choose(self, view: View) -> np.ndarray:
        """Choose actions, [B] int32; those of rows that are not `mine` are ignored. B is the `count` of `begin`."""

    def watch(self, now: Moved) -> None:  # noqa: B027
        """See what was just played in all games, by whomever. Default: look away."""


class TakeBack(Exception):
    """Raised by `choose` to go back to this competitor's own move before, in a match of one game at a time."""


class Left(Exception):
    """Raised by `choose` to leave for good."""

    def __init__(self) -> None:
        super().__init__("the game was left before it was over")


class Pure(Competitor):
    """A competitor made of a pure player: "random", a `Player`, or a function; see `renshu.envs.seats.as_player`.

    Raises SpaceError for anything else.
    """

    def __init__(self, player: Any = "random", name: str | None = None) -> None:
        self.player: Player = as_player(player)
        self.name = name or self.player.name or type(self.player).__name__
        self._start, self._move = jax.jit(self._begun, static_argnums=1), jax.jit(self._moved)
        self._memory: PyTree = ()
        self._seed, self._moves = np.uint32(0), 0

    def begin(self, count: int, seed: int) -> None:
        """Begin games with new memories."""
        self._seed, self._moves = np.uint32(seed), 0
        self._memory = self._start(self._seed, count)

    def choose(self, view: View) -> np.ndarray:
        """Let the player move in all games, and remember it in its own."""
        self._moves += 1
        sight = Sight(view.obs, view.legal, view.state, view.first)
        action, self._memory = self._move(self._memory, sight, view.mine, self._seed, np.uint32(self._moves))
        return np.asarray(action)

    def _begun(self, seed: Array, count: int) -> PyTree:
        return jax.vmap(self.player.begin)(jax.random.split(jax.random.key(seed), count))

    def _moved(self, memory: PyTree, sight: Sight, mine: Array, seed: Array, moves: Array) -> tuple[Array, PyTree]:
        keys = jax.random.split(jax.random.fold_in(jax.random.key(seed), moves), len(mine))
        action, after = jax.vmap(self.player.move)(memory, sight, keys)
        kept = jax.tree.map(lambda new, old: choose(mine, new, old), after, memory)
        return action.astype(jnp.int32), kept


def check_same(name: str, own: DeviceEnv, game: DeviceEnv) -> None:
    """Raise SpaceError where a competitor made for one game sits down at another."""
    same = own.observation_space == game.observation_space and own.action_space == game.action_space
    if own.name != game.name or not same:
        raise SpaceError(
            f"{name} plays {own.name} with observations of {own.observation_space} and actions of {own.action_space}; "
            f"this is {game.name} with {game.observation_space} and {game.action_space}. Make a competitor for it"
        )


Heuristic = Callable[[PyTree], Array]
"""From one state of a game that goes on to what the player to move may hope for, [] float32; pure."""

TIE = 1e-6
"""Difference below which two moves are equally good."""
MOST_KEPT = 200_000
"""Positions that a search remembers; beyond that it forgets them all, or gives up where it was to see the end."""
LONGEST = 400
"""Moves beyond which a search to the end gives up."""


class Child(NamedTuple):
    """Result of one action: the position after it, and what it brings to whoever chose it."""

    action: int
    over: bool
    gain: float  # for the player who moved
    sign: int  # 1 where the same player moves again, -1 where the other does
    seat: int
    guess: float  # the gain, and the heuristic of the position after it
    row: np.ndarray  # [S] uint8, the state as bytes


class AlphaBeta(Competitor):
    """Search of all moves to a depth by negamax with alpha-beta pruning, for games of two without chance.

    It sees whole states, also what a player should not, and takes chance in a game for one fixed outcome. A player may
    move several times in a row, and be paid at any move; what counts is half of its own rewards less the other's. Of
    several best moves one is drawn by the seed, the position and the number of the game; one that wins at once is
    preferred. Positions are remembered from game to game.

    game: what it plays. depth: moves to look ahead, 1 or more; None: to the end of the game, which is perfect play, and
    only possible in small games. heuristic: judges positions where the search stops; None: 0 for all of them.

    Raises SpaceError where the game is not for two, HyperparameterError for another depth.
    """

    def __init__(
        self, game: DeviceEnv, depth: int | None = None, heuristic: Heuristic | None = None, name: str | None = None
    ) -> None:
        self.game, self.depth, self.heuristic = rules_of(game).game, depth, heuristic
        if self.game.players != 2:
            raise SpaceError(f"AlphaBeta plays games of two; {self.game.name} has {self.game.players} players")
        if depth is not None and (not isinstance(depth, int) or depth < 1):
            raise HyperparameterError(f"depth={depth!r}: expected a whole number of moves from 1, or None for all")
        self.name = name or ("perfect" if depth is None else f"alphabeta:{depth}")
        shapes = jax.eval_shape(lambda: self.game.reset(jax.random.key(0))[0])
        self._leaves, self._tree = jax.tree.flatten(shapes)
        self._pack = jax.jit(jax.vmap(self._packed))
        self._expand = jax.jit(self._expanded, compiler_options=single_threaded())
        self._children: dict[bytes, list[Child]] = {}
        self._bounds: dict[tuple[bytes, float], tuple[float, float]] = {}
        self._first: dict[bytes, int] = {}  # the action that was best when the position was last searched
        self._roots: dict[bytes, tuple[float, list[int]]] = {}
        self._credit = [0.0] * int(self.game.action_space.n)  # type: ignore[attr-defined]  # of pruning, by action
        self._seed = 0

    def check(self, game: DeviceEnv) -> None:
        """Raise SpaceError for another game than its own."""
        check_same(self.name, self.game, game)

    def begin(self, count: int, seed: int) -> None:
        """Begin games. The seed draws among best moves."""
        self._seed = seed

    def choose(self, view: View) -> np.ndarray:
        """Search each position of its own."""
        rows, chosen = np.asarray(self._pack(view.state)), np.zeros(len(view.mine), np.int32)
        for i in map(int, np.flatnonzero(view.mine)):
            _, best = self.best(rows[i], int(view.seat[i]))
            draw = np.random.default_rng([self._seed, i, zlib.crc32(rows[i].tobytes())])
            chosen[i] = best[draw.integers(len(best))]
        return chosen

    def search(self, state: PyTree) -> tuple[float, list[int]]:
        """Return the value of a state for the player to move, and the best actions there, in order."""
        row = np.asarray(self._pack(jax.tree.map(lambda x: jnp.asarray(x)[None], state)))[0]
        return self.best(row, int(self.game.to_play(state)))

    def best(self, row: np.ndarray, seat: int) -> tuple[float, list[int]]:
        """Return the value of a packed state [S] for the player to move there, and its best actions."""
        key = row.tobytes()
        if (known := self._roots.get(key)) is not None:
            return known
        if max(map(len, (self._bounds, self._roots, self._first))) > MOST_KEPT:
            for kept in (self._bounds, self._roots, self._first):
                kept.clear()
        depth, best, found = self._depth, -math.inf, list[Child]()
        for child in self._ordered(key, row, seat):
            # A bound just below the best tells equal moves from those that are worse.
            value = self._after(child, depth, best - 2 * TIE, math.inf, 1)
            if value > best + TIE:
                best, found = value, [child]
            elif value >= best - TIE:
                found.append(child)
        at_once = [child for child in found if child.over and best > 0]
        self._roots[key] = best, sorted(child.action for child in at_once or found)
        self._first[key] = self._roots[key][1][0]
        return self._roots[key]

    @property
    def _depth(self) -> float:
        return math.inf if self.depth is None else self.depth

    def _value(self, row: np.ndarray, seat: int, depth: float, alpha: float, beta: float, ply: int) -> float:
        """Return the value for the player to move: exact between alpha and beta, otherwise a bound beyond them."""
        key = row.tobytes()
        low, high = self._bounds.get((key, depth), (-math.inf, math.inf))
        if low >= beta or low == high:
            return low
        if high <= alpha:
            return high
        if ply > LONGEST:
            raise RenshuError(
                f"{self.name} looked {LONGEST} moves ahead in {self.game.name} and saw no end: give AlphaBeta a depth"
            )
        best = -math.inf
        for child in self._ordered(key, row, seat):
            value = self._after(child, depth, max(alpha, best), beta, ply + 1)
            if value > best:
                best, self._first[key] = value, child.action
            if best >= beta:
                self._credit[child.action] += min(depth, 32) ** 2
                break
        self._bounds[key, depth] = (
            low if best <= alpha else max(low, best),
            high if best >= beta else min(high, best),
        )
        return best

    def _after(self, child: Child, depth: float, alpha: float, beta: float, ply: int) -> float:
        """Return the value of an action for whoever chose it; alpha and beta are that player's too."""
        if child.over:
            return child.gain
        if depth == 1:
            return child.guess
        alpha, beta = alpha - child.gain, beta - child.gain
        if child.sign < 0:
            alpha, beta = -beta, -alpha
        return child.gain + child.sign * self._value(child.row, child.seat, depth - 1, alpha, beta, ply)

    def _ordered(self, key: bytes, row: np.ndarray, seat: int) -> list[Child]:
        """Return the results of all actions that are allowed, those that promise most first."""
        if (children := self._children.get(key)) is None:
            rows, numbers = (np.asarray(x) for x in self._expand(row))
            children = []
            for action, (legal, over, paid, follower, judged) in enumerate(numbers.tolist()):
                if legal:
                    gain, sign = (paid if seat == 0 else -paid), (1 if follower == seat else -1)
                    guess = gain + (0.0 if over else sign * judged)
                    children.append(Child(action, over > 0, gain, sign, int(follower), guess, rows[action]))
            if len(self._children) >= MOST_KEPT:
                if self.depth is None:
                    raise RenshuError(
                        f"{self.game.name} is too large to be searched to the end: there are more than {MOST_KEPT:,} "
                        "positions. Give AlphaBeta a depth, as in depth=6"
                    )
                self._children.clear()
            self._children[key] = children
        if not children:
            raise RenshuError(f"{self.game.name} goes on, and its action_mask allows no action: {row.tolist()}")
        first = self._first.get(key)
        return sorted(children, key=lambda x: (x.action == first, x.guess, self._credit[x.action]), reverse=True)

    def _expanded(self, row: Array) -> tuple[Array, Array]:
        """Take every action from a packed state [S]: states after it [A, S], and five numbers [A, 5] of each."""
        game, state = self.game, self._unpacked(row)
        actions = jnp.arange(len(self._credit))
        after = jax.vmap(game.step, (None, 0, None))(state, actions, jax.random.key(0))
        legal = game.action_mask(state) != 0 if game.gives_masks else jnp.ones(len(actions), jnp.bool_)
        over = after.terminated | after.truncated
        paid = (after.reward[:, 0] - after.reward[:, 1]) / 2
        judged = jnp.zeros(len(actions)) if self.heuristic is None else jax.vmap(self.heuristic)(after.state)
        numbers = (legal, over, paid, jax.vmap(game.to_play)(after.state), judged)
        return jax.vmap(self._packed)(after.state), jnp.stack([x.astype(jnp.float32) for x in numbers], axis=1)

    def _packed(self, state: PyTree) -> Array:
        """Put a state into bytes, [S] uint8: one array travels faster than several, and can be looked up."""
        parts = [x.astype(jnp.uint8) if x.dtype == jnp.bool_ else x for x in jax.tree.leaves(state)]
        return jnp.concatenate([jax.lax.bitcast_convert_type(x, jnp.uint8).reshape(-1) for x in parts])

    def _unpacked(self, row: Array) -> PyTree:
        leaves, at = [], 0
        for like in self._leaves:
            size = math.prod(like.shape) * like.dtype.itemsize
            part, at = row[at : at + size], at + size
            if like.dtype == jnp.bool_:
                leaves.append(part.reshape(like.shape) != 0)
                continue
            wide = (like.dtype.itemsize,) if like.dtype.itemsize > 1 else ()
            leaves.append(jax.lax.bitcast_convert_type(part.reshape(*like.shape, *wide), like.dtype))
        return jax.tree.unflatten(self._tree, leaves)
