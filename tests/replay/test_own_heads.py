"""Memories of rollouts that are of some environments at a time, and that may not follow on each other."""

from functools import cache

import jax
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from renshu.replay import ring
from renshu.replay.buffer import ReplayBuffer
from renshu.replay.ring import Index
from renshu.replay.sequences import SequenceBuffer
from renshu.types import Rollout
from tests.replay.experience import NaiveMemory, episodes, ids_of, make_rollouts, observe, rows_of, seeds, templates
from tests.replay.test_ring import GAMMA, assert_transitions

QUICK = settings(max_examples=30, deadline=None)
ROWS, N, T, WIDTH = 8, 4, 3, 2
KEY = jax.random.key(0)
add = jax.jit(ring.add)
draw = jax.jit(ring.draw, static_argnames="count")
gather = jax.jit(ring.gather, static_argnames=("n_steps", "frame_stack"))


def of_env(rollout: Rollout, env: int) -> Rollout:
    """The rollout of an environment with ids of its own."""
    ids = ids_of(rollout.obs) + 1000 * env
    return rollout._replace(obs=observe(ids), action=(ids[:-1] * 7 % 1000).astype(np.int32), extras=ids[:-1])


def make_groups(seed: int, count: int, lost: float = 0.2) -> list[Rollout]:
    """Rollouts of two of four environments. lost: probability that a rollout never arrives, and leaves a seam."""
    rng = np.random.default_rng(seed)
    streams = [[of_env(r, e) for r in make_rollouts(seed + e, 3 * count, T, 1)] for e in range(N)]
    follows, groups = [True] * N, []
    for _ in range(count):
        chosen, parts, continues = rng.permutation(N)[:WIDTH], [], []
        for env in chosen:
            part = streams[env].pop(0)
            while rng.random() < lost and streams[env]:
                part, follows[env] = streams[env].pop(0), False
            parts.append(part)
            continues.append(follows[env])
            follows[env] = True
        together = [
            jax.tree.map(lambda *x: np.concatenate(x, axis=1), *(getattr(p, f) for p in parts))
            for f in ("obs", "first", "action", "reward", "terminated")
        ]
        extras = np.concatenate([p.extras for p in parts], axis=1)
        ids = chosen.astype(np.int32)
        groups.append(Rollout(*together, extras=extras, env_id=ids, continues=np.array(continues)))
    return groups


class NaiveGroups(NaiveMemory):
    """A stream for each environment; what stands before a seam has lost its next observation."""

    def add(self, rollout: Rollout) -> None:
        for column, env in enumerate(rollout.env_id):
            first, *others = rows_of(rollout, column)
            stream = self.streams[env]
            seam = not rollout.continues[column]
            stream[-1:] = [first._replace(first=first.first or seam), *others]
            del stream[: -self.rows - 1]


def filled(seed: int, count: int, empty: ring.Ring) -> tuple[ring.Ring, NaiveGroups]:
    held, naive = empty, NaiveGroups(ROWS, N)
    for rollout in make_groups(seed, count):
        held = add(held, rollout)
        naive.add(rollout)
    return held, naive


def own_heads(**options) -> ring.Ring:
    return ring.empty(ROWS, *templates(N), own_heads=True, extras=np.zeros(N, np.int32), **options)


@QUICK
@given(seeds, st.integers(1, 12), st.sampled_from([(1, 1), (3, 3)]))
def test_nothing_is_gathered_across_a_seam(seed: int, count: int, how: tuple[int, int]) -> None:
    n_steps, frame_stack = how
    held, naive = filled(seed, count, own_heads())
    rows, envs = np.meshgrid(np.arange(1, ROWS + 1), np.arange(N), indexing="ij")
    whole = rows <= np.asarray(held.size)
    row = ((np.asarray(held.head) - rows) % (ROWS + 1)).astype(np.int32)
    index = Index(row.reshape(-1), envs.reshape(-1).astype(np.int32))
    samples = gather(
        held, index, whole.reshape(-1).astype(float), n_steps=n_steps, gamma=GAMMA, frame_stack=frame_stack
    )
    samples = jax.tree.map(np.asarray, samples)
    real = samples.weight > 0
    assert_transitions(samples, real, naive.transitions(n_steps, GAMMA, frame_stack), frame_stack)
    ids = ids_of(samples.obs) if frame_stack == 1 else ids_of(samples.obs)[:, -1]
    np.testing.assert_array_equal(samples.extras[real], ids[real])


@QUICK
@given(seeds, st.integers(1, 12))
def test_only_steps_in_the_ring_are_drawn(seed: int, count: int) -> None:
    held, naive = filled(seed, count, own_heads())
    index, real = jax.tree.map(np.asarray, draw(held, jax.random.key(seed), count=256))
    drawn, possible = ids_of(held.obs)[index.row, index.env], set(naive.transitions(1, GAMMA, 1))
    assert set(drawn[real].tolist()) <= possible
    assert not possible & set(drawn[~real].tolist())
    if len(possible) <= 10:
        assert set(drawn[real].tolist()) == possible


@cache
def prioritized():
    replay = ReplayBuffer(ROWS * N, *templates(N), num_envs=N, rollout_length=T, alpha=1.0, own_heads=True)
    return replay, jax.jit(replay.add)


@QUICK
@given(seeds, st.integers(1, 12))
def test_priorities_are_those_of_steps_that_can_be_drawn(seed: int, count: int) -> None:
    replay, put = prioritized()
    memory, naive = replay.init(np.zeros(N, np.int32)), NaiveGroups(ROWS, N)
    for rollout in make_groups(seed, count):
        memory = put(memory, rollout, KEY)
        naive.add(rollout)
    leaves = np.flatnonzero(np.asarray(memory.priorities.tree[0]))
    found = ids_of(memory.ring.obs)[leaves // N, leaves % N]
    assert sorted(found.tolist()) == sorted(naive.transitions(1, GAMMA, 1))


@QUICK
@given(seeds, st.integers(1, 12), st.sampled_from([None, 1.0]))
def test_no_sequence_crosses_a_seam(seed: int, count: int, alpha: float | None) -> None:
    length = 4
    options = {"num_envs": N, "rollout_length": T, "sequence_length": length, "own_heads": True}
    replay = SequenceBuffer(ROWS * N, *templates(N), alpha=alpha, **options)
    memory, naive, seams = replay.init(np.zeros(N, np.int32)), NaiveGroups(ROWS, N), set()
    put, groups = jax.jit(replay.add), make_groups(seed, count)
    for rollout in groups:
        memory = put(memory, rollout, KEY)
        naive.add(rollout)
        ids = ids_of(rollout.obs)[0]
        seams |= {int(i) for i, goes_on in zip(ids, rollout.continues, strict=True) if not goes_on}
    possible = set()
    for stream in naive.streams:
        for start in range(len(stream) - length):
            if not seams & {row.id for row in stream[start + 1 : start + length + 1]}:
                possible.add(stream[start].id)
    index, weight = replay.draw(memory, KEY, 64)
    drawn = jax.tree.map(np.asarray, replay.gather(memory, index, weight, 1.0))
    found = ids_of(drawn.rollout.obs)[:, drawn.weight > 0]
    assert set(found[0].tolist()) <= possible
    if alpha is not None:
        leaves = np.flatnonzero(np.asarray(memory.priorities.tree[0]))
        assert set(ids_of(memory.ring.obs)[leaves // N, leaves % N].tolist()) == possible
    # The flags are those of the episodes: a seam in front of a sequence is no beginning.
    firsts = {row.id for group in groups for c in range(WIDTH) for row in rows_of(group, c) if row.first}
    flags = drawn.rollout.first[:, drawn.weight > 0]
    np.testing.assert_array_equal(flags, np.isin(found, list(firsts)))


@QUICK
@given(seeds, st.integers(1, 12))
def test_ends_of_episodes_are_known(seed: int, count: int) -> None:
    held, naive = filled(seed, count, own_heads(episodes=True))
    number, end = (np.asarray(x) for x in held.episodes)
    ids = ids_of(held.obs)
    for env, stream in enumerate(naive.streams):
        if not stream:
            continue
        last = {row.id: episode[-1].id for episode in episodes(stream) for row in episode}
        for back in range(int(held.size[env]) + 1):
            row = (int(held.head[env]) - back) % (ROWS + 1)
            assert ids[end[number[row, env], env], env] == last[ids[row, env]]


def test_a_ring_with_one_head_refuses_other_rollouts() -> None:
    held, rollout = ring.empty(ROWS, *templates(N)), make_groups(0, 1)[0]
    with pytest.raises(AssertionError):
        ring.add(held, rollout)
    with pytest.raises(AssertionError, match="follow on"):
        ring.add(ring.empty(ROWS, *templates(WIDTH)), rollout)
