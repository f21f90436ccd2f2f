"""The memory of good episodes against plain Python that keeps whole episodes."""

from functools import cache

import jax
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from renshu.errors import HyperparameterError
from renshu.replay.buffer import ReplayState
from renshu.replay.elite import EliteEpisodes
from renshu.types import Rollout
from tests.replay.experience import (
    Row,
    episodes,
    ids_of,
    make_rollouts,
    rows_of,
    seeds,
    stacked,
    templates,
    transitions_of,
    whole_places,
)

QUICK = settings(max_examples=40, deadline=None)
KEY = jax.random.key(0)
KINDS = [
    ((12, 1, 1), 1, 0.0, 0.6),
    ((9, 3, 2), 3, 0.0, 0.6),
    ((9, 2, 7), 1, 1.0, None),
    ((40, 3, 4), 2, 0.0, None),
]
"""Rows of the memory, environments, steps of a rollout; best, chance, alpha. More than fits may enter the second and
the third at once."""
LONGEST = 4


class NaiveGoodEpisodes:
    """Episodes that run, returns so far, and rows that entered."""

    def __init__(self, rows: int, num_envs: int, best: int, probability: float) -> None:
        self.rows, self.best, self.probability = rows, best, probability
        self.running: list[list[Row]] = [[] for _ in range(num_envs)]
        self.returns: list[float] = []
        self.entered: list[Row] = []

    def add(self, rollout: Rollout) -> None:
        T, N = rollout.reward.shape
        streams = [rows_of(rollout, env) for env in range(N)]
        for env, stream in enumerate(streams):
            if stream[0].first:
                self.running[env] = []
        for t in range(T):
            for env, stream in enumerate(streams):
                self.running[env].append(stream[t])
                if stream[t + 1].first:
                    self.end(self.running[env])
                    self.running[env] = []

    def end(self, episode: list[Row]) -> None:
        if len(episode) == 1:
            return
        total = sum(row.reward for row in episode[:-1])
        self.returns.append(total)
        if sorted(self.returns)[-self.best :][0] <= total or self.probability == 1.0:
            kept = episode[-LONGEST - 1 :]
            self.entered += [kept[0]._replace(first=True), *kept[1:]]
            self.entered = self.entered[-self.rows :]


@cache
def functions(shape: tuple[int, int, int], best: int, probability: float, alpha: float | None):
    rows, N, T = shape
    memory = EliteEpisodes(
        rows,
        *templates(N),
        num_envs=N,
        rollout_length=T,
        longest=LONGEST,
        best=best,
        probability=probability,
        alpha=alpha,
        n_steps=2,
    )
    return memory, jax.jit(memory.add), jax.jit(memory.sample, static_argnames="count")


def assert_holds(memory: ReplayState, expected: list[Row]) -> None:
    held, rows = memory.ring, whole_places(memory.ring).row
    assert ids_of(jax.tree.map(lambda x: x[rows, 0], held.obs)).tolist() == [row.id for row in expected]
    columns = [np.asarray(x)[rows, 0].tolist() for x in (held.first, held.action, held.reward, held.terminated)]
    ends = [after is None or after.first for after in [*expected[1:], None]][: len(expected)]
    for found, row, end in zip(zip(*columns, strict=True), expected, ends, strict=True):
        assert found[0] == row.first
        assert end or found[1:] == row[2:]
    assert not expected or held.first[held.head, 0]
    if memory.priorities:
        numbers = np.asarray(memory.priorities.tree[0])
        np.testing.assert_array_equal(numbers[rows], np.where(ends, 0.0, 1.0))
        assert np.count_nonzero(numbers) == len(ends) - sum(ends)


@QUICK
@given(seeds, st.sampled_from(KINDS), st.integers(1, 12), st.sampled_from([0.15, 0.6]))
def test_good_episodes_enter_whole_and_in_order(seed, kind, count, ends) -> None:
    (rows, N, T), best, probability, _ = kind
    good, add, sample = functions(*kind)
    memory, naive = good.init(), NaiveGoodEpisodes(rows, N, best, probability)
    for rollout in make_rollouts(seed, count, T, N, ends=ends):
        memory = add(memory, rollout, KEY)
        naive.add(rollout)
        assert_holds(jax.tree.map(np.asarray, memory), naive.entered)
        samples = jax.tree.map(np.asarray, sample(memory, jax.random.key(seed), count=16, gamma=0.5))
        expected = {}
        for episode in episodes(naive.entered):
            expected |= transitions_of(episode, 2, 0.5, 1)
        real, ids, next_ids = samples.weight > 0, ids_of(samples.obs), ids_of(samples.next_obs)
        assert real.any() == bool(expected) or not good.alpha
        for i in np.flatnonzero(real):
            wanted = expected[ids[i]]
            assert next_ids[i] == wanted.next_obs[0]
            np.testing.assert_allclose((samples.reward[i], samples.discount[i]), wanted[2:4], rtol=1e-6)


def test_others_enter_with_the_given_chance() -> None:
    shape = (20_000, 4, 250)
    good, add, _ = functions(shape, 1, 0.3, None)
    memory, over = good.init(), 0
    for i, rollout in enumerate(make_rollouts(0, 8, shape[2], shape[1], anew=0.0)):
        memory = add(memory, rollout, jax.random.fold_in(KEY, i))
        over += int(rollout.first[1:].sum())
    entered = int(memory.ring.first[: int(memory.ring.head)].sum())
    best = 20  # there are about as many that raised or matched the highest return
    assert over > 1000
    assert abs(entered - 0.3 * over) < 5 * np.sqrt(0.21 * over) + best


def test_vmap_equals_a_loop() -> None:
    rows, N, T = KINDS[1][0]
    good, *_ = functions(KINDS[1][0], 3, 0.5, 0.6)
    # In the last stream nothing ends.
    streams = [stacked(make_rollouts(seed, 6, T, N, ends=ends)) for seed, ends in enumerate([0.6, 0.2, 0.0])]

    def run(rollouts, key):
        return jax.lax.scan(lambda memory, x: (good.add(memory, x, key), None), good.init(), rollouts)[0]

    keys = jax.random.split(KEY, 3)
    together = jax.jit(jax.vmap(run))(stacked(streams), keys)
    run = jax.jit(run)
    assert together.ring.size[0] == rows
    assert together.ring.size[2] == 0
    for i, stream in enumerate(streams):
        alone = run(stream, keys[i])
        # What stands at the head is never read.
        held = [
            jax.tree.map(np.asarray, m._replace(ring=m.ring._replace(first=m.ring.first.at[m.ring.head].set(True))))
            for m in (jax.tree.map(lambda x, i=i: x[i], together), alone)
        ]
        jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, rtol=1e-6), *held)


def test_returns_equal_to_the_lowest_of_the_best_enter() -> None:
    good, add, _ = functions(*KINDS[3])
    memory = good.init()
    for rollout in make_rollouts(0, 5, 4, 3, ends=1.0, anew=0.0):
        memory = add(memory, rollout._replace(reward=np.zeros_like(rollout.reward)), KEY)
    # Every episode is one step and its last observation; each environment began and ended 10.
    assert memory.ring.size == 40
    np.testing.assert_array_equal(memory.pending.best, [0.0, 0.0])


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"longest": 20}, "buffer_size >= 21"),
        ({"longest": 0}, "longest >= 1"),
        ({"best": 0}, "best >= 1"),
        ({"probability": 1.5}, "probability <= 1"),
        ({"probability": float("nan")}, "probability <= 1"),
    ],
)
def test_numbers_out_of_range_are_refused(wrong: dict[str, float], message: str) -> None:
    with pytest.raises(HyperparameterError, match=message):
        EliteEpisodes(20, *templates(2), **{"num_envs": 2, "rollout_length": 1, "longest": 5, **wrong})


def test_a_rollout_longer_than_promised_is_refused_when_traced() -> None:
    good, *_ = functions(*KINDS[0])
    with pytest.raises(AssertionError):
        jax.eval_shape(good.add, good.init(), make_rollouts(0, 1, 2, 1)[0], KEY)
