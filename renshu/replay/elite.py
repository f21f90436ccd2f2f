"""Elite replay for self-imitation: episodes among the best returns so far enter, and a few of the others."""

from __future__ import annotations

from typing import Any, NamedTuple

import chex
import jax
import jax.numpy as jnp

from renshu.errors import HyperparameterError
from renshu.replay import ring, sum_tree
from renshu.replay.buffer import Priorities, ReplayBuffer, ReplayState
from renshu.replay.ring import Ring
from renshu.types import Array, Key, PyTree, Rollout


class PendingEpisodes(NamedTuple):
    """Running episodes, and the returns that decide whether they enter."""

    ring: Ring  # the last steps of N environments
    steps: Array  # [N] int32  of the running episode so far
    total: Array  # [N] float32  its sum of rewards so far
    best: Array  # [best] float32  the highest returns so far, -inf where there were fewer


class Finished(NamedTuple):
    """Episodes that ended at a step, `[T, N]`, and those that run on, `[N]`."""

    ended: Array  # bool
    steps: Array  # int32
    total: Array  # float32  the return
    running_steps: Array
    running_total: Array


class Moves(NamedTuple):
    """Destination of each row of the pending ring, `[S, N]`."""

    enters: Array  # bool
    offset: Array  # int32  how far behind the memory's newest row
    begins: Array  # bool   the first of its episode
    real: Array  # bool     not the observation that ends it
    count: Array  # [] int32  rows that enter in all


class EliteEpisodes(ReplayBuffer):
    """A ReplayBuffer that only good episodes enter, when they are over; the same functions of the same state.

    An episode enters if its return, the sum of its raw rewards, is among the `best` highest so far (equal to the
    lowest of them counts), and otherwise with the given probability. Of an episode of more than `longest` steps the
    last enter. An episode cut off by a rollout that begins with a reset never does.

    capacity: rows of the memory: steps, and a row for the observation that ends each episode. obs, action: of N
    environments. For n_steps, frame_stack and alpha see ReplayBuffer. Raises HyperparameterError where a number
    is out of range or the longest episode does not fit.
    """

    def __init__(
        self,
        capacity: int,
        obs: PyTree,
        action: PyTree,
        *,
        num_envs: int,
        rollout_length: int,
        longest: int,
        best: int = 100,
        probability: float = 0.01,
        n_steps: int = 1,
        frame_stack: int = 1,
        alpha: float | None = None,
    ) -> None:
        if longest < 1 or best < 1 or not 0 <= probability <= 1:
            raise HyperparameterError(
                f"elite episodes with longest={longest}, best={best}, probability={probability}: give longest >= 1, "
                "best >= 1 and 0 <= probability <= 1"
            )
        if capacity <= longest:
            raise HyperparameterError(
                f"buffer_size={capacity} does not hold an episode of {longest} steps and the observation that ends it: "
                f"give buffer_size >= {longest + 1}, or a shorter time limit"
            )

        super().__init__(
            capacity,
            jax.tree.map(_column, obs),
            jax.tree.map(_column, action),
            num_envs=1,
            rollout_length=1,
            n_steps=n_steps,
            frame_stack=frame_stack,
            alpha=alpha,
        )
        self.longest, self.best, self.probability = longest, best, probability
        self.staged = num_envs, rollout_length, obs, action

    def init(self, extras: PyTree = (), carry: PyTree = ()) -> ReplayState:
        """Return an empty memory. extras: as for a ReplayBuffer. carry: not kept, since episodes move."""
        num_envs, rollout_length, obs, action = self.staged
        pending = PendingEpisodes(
            ring=ring.empty(self.longest + rollout_length, obs, action, extras=extras),
            steps=jnp.zeros(num_envs, jnp.int32),
            total=jnp.zeros(num_envs, jnp.float32),
            best=jnp.full(self.best, -jnp.inf, jnp.float32),
        )
        return super().init(jax.tree.map(_column, extras))._replace(pending=pending)

    def held(self, memory: ReplayState) -> Array:
        """Return a number that is always enough: good episodes are few."""
        return jnp.int32(2**30)

    def add(self, memory: ReplayState, rollout: Rollout, key: Key) -> ReplayState:
        """Add a rollout: its steps wait, and the episodes that end in it enter or do not.

        Raises AssertionError, when traced, where it has more steps than `rollout_length`.
        """
        chex.assert_axis_dimension_lteq(rollout.reward, 0, self.staged[1])
        pending: PendingEpisodes = memory.pending
        staged = ring.add(pending.ring, rollout)
        finished = _finish(pending, rollout)
        accepted_at_random = jax.random.bernoulli(key, self.probability, finished.ended.shape)
        # Most rollouts end no episode, and many that end are refused: neither then costs anything.
        accepted, best = jax.lax.cond(
            _anywhere(finished.ended.any()),
            lambda: _choose(pending.best, finished, accepted_at_random),
            lambda: (finished.ended, pending.best),
        )

        def enter() -> tuple[Ring, Any]:
            moves = _moves(staged, finished, accepted, self.longest, self.rows)
            return _enter(memory.ring, memory.priorities, staged, moves)

        steps, priorities = jax.lax.cond(_anywhere(accepted.any()), enter, lambda: (memory.ring, memory.priorities))
        after = PendingEpisodes(staged, finished.running_steps, finished.running_total, best)
        return ReplayState(steps, priorities, after)


@jax.custom_batching.custom_vmap
def _anywhere(flag: Array) -> Array:
    """Tell whether a flag is set in any row of a vmap: a branch on it stays one, where vmap would copy the memory."""
    return flag


@_anywhere.def_vmap
def _anywhere_vmap(axis_size: int, in_batched: list[bool], flag: Array) -> tuple[Array, bool]:
    return _anywhere(flag.any(axis=0)), False


def _column(x: Any) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct((1, *x.shape[1:]), x.dtype)


def _finish(pending: PendingEpisodes, rollout: Rollout) -> Finished:
    """Follow the episodes through a rollout."""

    def step(running: tuple[Array, Array], row: tuple[Array, Array, Array]) -> tuple[Any, Any]:
        first, valid, reward = row
        steps, total = (jnp.where(first, 0, x) for x in running)
        after = jnp.where(valid, steps + 1, 0), jnp.where(valid, total + reward, 0.0)
        return after, (~valid & (steps > 0), steps, total)

    rows = (rollout.first[:-1], rollout.valid, rollout.reward)
    running, finished = jax.lax.scan(step, (pending.steps, pending.total), rows)
    return Finished(*finished, *running)


def _choose(best: Array, finished: Finished, accepted_at_random: Array) -> tuple[Array, Array]:
    """Choose the episodes that enter, `[T, N]` bool; returns the highest returns afterwards too."""
    returns = jnp.where(finished.ended, finished.total, -jnp.inf).reshape(-1)
    earlier = jnp.tri(returns.size, k=-1, dtype=bool)
    better = (best > returns[:, None]).sum(axis=1) + (earlier & (returns > returns[:, None])).sum(axis=1)
    good = (better < best.size).reshape(accepted_at_random.shape)
    return finished.ended & (good | accepted_at_random), jax.lax.top_k(jnp.concatenate([best, returns]), best.size)[0]


def _moves(staged: Ring, finished: Finished, accepted: Array, longest: int, rows: int) -> Moves:
    """Find the destination of rows of the pending ring: episodes one behind the other, as they ended.

    rows: capacity of the memory. Where more enter at once, only the newest do.
    """
    total, (steps, _) = staged.first.shape[0], accepted.shape
    kept = jnp.minimum(finished.steps, longest)
    length = jnp.where(accepted, kept + 1, 0)
    start = jnp.cumsum(length.reshape(-1)).reshape(length.shape) - length
    count = length.sum()
    # When a row was written, in steps since the rollout began, and where after that the next episode ended.
    time = (steps - (staged.head - jnp.arange(total)) % total)[:, None]
    ends = jnp.where(finished.ended, jnp.arange(steps)[:, None], steps)
    following = jax.lax.cummin(ends, axis=0, reverse=True)
    end = jnp.where(time < steps, following[jnp.clip(time[:, 0], 0, steps - 1)], steps)

    def of_episode(x: Array) -> Array:
        return jnp.take_along_axis(x, jnp.minimum(end, steps - 1), axis=0)

    since = time - (end - of_episode(kept))
    offset = of_episode(start) + since
    enters = (end < steps) & of_episode(accepted) & (since >= 0) & (offset >= count - rows)
    return Moves(enters, offset, since == 0, since < of_episode(kept), count)


def _enter(memory: Ring, priorities: Any, staged: Ring, moves: Moves) -> tuple[Ring, Any]:
    """Copy rows of the pending ring into the one column of the memory's ring."""
    total = memory.first.shape[0]
    head = (memory.head + moves.count) % total
    row = jnp.where(moves.enters, (memory.head + moves.offset) % total, sum_tree.NOWHERE).reshape(-1)

    def put(old: PyTree, new: PyTree) -> PyTree:
        return jax.tree.map(lambda x, y: x.at[row, 0].set(y.reshape(-1, *y.shape[2:]), mode="drop"), old, new)

    steps = Ring(
        obs=put(memory.obs, staged.obs),
        # The row at head makes the one before it, where an episode ended, a reset.
        first=put(memory.first, moves.begins).at[head, 0].set(True),
        action=put(memory.action, staged.action),
        reward=put(memory.reward, staged.reward),
        terminated=put(memory.terminated, staged.terminated),
        head=head,
        size=jnp.minimum(memory.size + moves.count, total - 1),
        extras=put(memory.extras, staged.extras),
    )
    if not isinstance(priorities, Priorities):
        return steps, ()
    value = jnp.where(moves.real, priorities.highest, 0.0).reshape(-1)
    tree = sum_tree.put(priorities.tree, jnp.append(row, head), jnp.append(value, 0.0))
    return steps, priorities._replace(tree=tree)
