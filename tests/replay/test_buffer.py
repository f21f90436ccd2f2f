"""The replay memory: who can be drawn, how likely, and with which weight."""

from functools import cache, partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from renshu.errors import HyperparameterError
from renshu.replay.buffer import FORGETTING, PRIORITY_EPS, ReplayBuffer, ReplayState
from renshu.replay.ring import Index
from tests.replay.experience import (
    SHAPES,
    NaiveMemory,
    chi_square,
    ids_of,
    make_rollouts,
    rows_of,
    seeds,
    stacked,
    templates,
    whole_places,
)
from tests.replay.test_sum_tree import assert_sums

QUICK = settings(max_examples=30, deadline=None)
ALPHA = 0.6
FULL = (40, 3, 5)
KEY = jax.random.key(0)


def make(shape: tuple[int, int, int], alpha: float | None, **options) -> ReplayBuffer:
    rows, N, T = shape
    return ReplayBuffer(rows * N + N - 1, *templates(N), num_envs=N, rollout_length=T, alpha=alpha, **options)


@cache
def functions(shape: tuple[int, int, int], alpha: float | None = ALPHA):
    replay = make(shape, alpha, n_steps=2)
    sample = jax.jit(partial(replay.sample, gamma=0.99), static_argnames="count")
    return replay, jax.jit(replay.add), sample, jax.jit(replay.reprioritize)


def priorities(memory: ReplayState) -> dict[int, float]:
    """The numbers that are not 0 in the tree, by the id of the step."""
    numbers = np.asarray(memory.priorities.tree[0])
    index, n = whole_places(memory.ring), memory.ring.first.shape[1]
    leaves = index.row * n + index.env
    ids = ids_of(memory.ring.obs)[index.row, index.env]
    assert np.count_nonzero(numbers) == np.count_nonzero(numbers[leaves])
    return {int(i): float(x) for i, x in zip(ids, numbers[leaves], strict=True) if x > 0}


@QUICK
@given(seeds, st.sampled_from(SHAPES), st.integers(1, 9), st.sampled_from([0.1, 0.6]))
def test_priorities_follow_the_steps(seed: int, shape: tuple[int, int, int], count: int, ends: float) -> None:
    rows, N, T = shape
    replay, add, sample, reprioritize = functions(shape)
    rng = np.random.default_rng(seed)
    memory, naive, known, highest = replay.init(), NaiveMemory(rows, N), {}, 1.0
    for rollout in make_rollouts(seed, count, T, N, ends=ends, anew=0.0):
        memory = add(memory, rollout, KEY)
        naive.add(rollout)
        steps = [row for env in range(N) for row in rows_of(rollout, env)[:-1]]
        possible = naive.transitions(1, 1.0, 1)
        known = {i: p for i, p in (known | {row.id: highest for row in steps}).items() if i in possible}
        assert priorities(memory) == pytest.approx(known)
        samples = jax.tree.map(np.asarray, sample(memory, jax.random.key(rng.integers(2**31)), count=8))
        ids = ids_of(samples.obs)
        if not known:
            assert not samples.weight.any()
            continue
        assert set(ids.tolist()) <= set(known)
        assert (samples.weight > 0).all()
        error = rng.normal(0, 3, len(ids)).astype(np.float32)
        memory = reprioritize(memory, samples.indices, error)
        values = (np.abs(error) + PRIORITY_EPS) ** ALPHA
        found = priorities(memory)
        for i in set(ids.tolist()):
            assert any(found[i] == pytest.approx(x) for x in values[ids == i])
        known |= {i: found[i] for i in ids.tolist()}
        assert found == pytest.approx(known)
        highest = max(FORGETTING * highest, values.max())
        np.testing.assert_allclose(memory.priorities.highest, highest, rtol=1e-6)
        assert_sums(memory.priorities.tree)


@cache
def filled(alpha: float | None = ALPHA, seed: int = 3) -> tuple[ReplayBuffer, ReplayState]:
    """A full memory, and where it has priorities each step with its own."""
    replay, add, _, reprioritize = functions(FULL, alpha)
    memory = replay.init()
    for rollout in make_rollouts(seed, 12, FULL[2], FULL[1], anew=0.0):
        memory = add(memory, rollout, KEY)
    index = whole_places(memory.ring)
    return replay, reprioritize(memory, index, np.random.default_rng(seed).uniform(0.1, 9, len(index.row)))


@pytest.mark.parametrize("alpha", [0.0, 0.6, 1.0])
def test_draws_in_proportion_to_priority(alpha: float) -> None:
    replay, memory = filled(alpha)
    known = priorities(memory)
    single = jax.jit(jax.vmap(lambda key: replay.sample(memory, key, 1, gamma=0.99)))
    ids, counts = np.unique(ids_of(single(jax.random.split(KEY, 30_000)).obs), return_counts=True)
    assert ids.tolist() == sorted(known)
    expected = np.array([known[i] for i in ids.tolist()])
    assert chi_square(counts, 30_000 * expected / expected.sum()) < 5
    if alpha == 0:
        np.testing.assert_array_equal(expected, 1.0)


@pytest.mark.parametrize("beta", [0.0, 0.4, 1.0])
def test_weights_are_those_of_importance_sampling(beta: float) -> None:
    memory = filled()[1]
    known = priorities(memory)
    samples = functions(FULL)[2](memory, KEY, 32, jnp.float32(beta))
    # Schaul et al. 2016: (1/N 1/P(i))^beta, divided by the highest.
    probability = np.array([known[i] for i in ids_of(samples.obs).tolist()]) / sum(known.values())
    weight = (1 / len(known) / probability) ** beta
    np.testing.assert_allclose(samples.weight, weight / weight.max(), rtol=1e-5)


def test_uniform_weights_are_one_and_errors_change_nothing() -> None:
    replay, memory = filled(None)
    samples = functions(FULL, None)[2](memory, KEY, 64)
    assert set(np.asarray(samples.weight).tolist()) == {1.0}
    assert replay.reprioritize(memory, samples.indices, jnp.ones(64)) is memory


def test_an_error_that_is_not_finite_changes_nothing() -> None:
    memory = filled()[1]
    _, _, sample, reprioritize = functions(FULL)
    index = Index(*(x[:3] for x in sample(memory, KEY, 32, jnp.float32(1.0)).indices))
    after = reprioritize(memory, index, jnp.array([jnp.nan, jnp.inf, -jnp.inf]))
    jax.tree.map(np.testing.assert_array_equal, after, memory)


def test_a_step_that_a_new_beginning_made_none_has_no_weight() -> None:
    shape = SHAPES[0]
    replay, add, sample, _ = functions(shape)
    once, again = make_rollouts(0, 1, 2, 1, ends=0.0)[0], make_rollouts(9, 1, 2, 1, ends=0.0)[0]
    memory = add(add(replay.init(), once, KEY), again, KEY)
    samples = sample(memory, KEY, count=64)
    dropped = np.asarray(samples.indices.row) == 1
    assert dropped.any()
    np.testing.assert_array_equal(np.asarray(samples.weight) > 0, ~dropped)


@pytest.mark.parametrize("alpha", [None, ALPHA])
def test_nothing_comes_of_an_empty_memory(alpha: float | None) -> None:
    replay, _, sample, reprioritize = functions(SHAPES[1], alpha)
    memory = replay.init()
    samples = sample(memory, KEY, count=8)
    assert not samples.weight.any()
    assert all(np.isfinite(x).all() for x in jax.tree.leaves(samples))
    after = reprioritize(memory, samples.indices, jnp.ones(8))
    jax.tree.map(np.testing.assert_array_equal, after, memory)


def test_vmap_equals_a_loop() -> None:
    shape = SHAPES[1]
    replay = functions(shape)[0]
    streams = [stacked(make_rollouts(seed, 4, shape[2], shape[1])) for seed in range(3)]

    def run(rollouts, key):
        def step(memory, rollout):
            memory = replay.add(memory, rollout, key)
            samples = replay.sample(memory, key, 16, gamma=0.99)
            return replay.reprioritize(memory, samples.indices, samples.reward), samples

        return jax.lax.scan(step, replay.init(), rollouts)

    keys = jax.random.split(KEY, 3)
    together = jax.jit(jax.vmap(run))(stacked(streams), keys)
    run = jax.jit(run)
    for i, stream in enumerate(streams):
        alone = run(stream, keys[i])
        jax.tree.map(lambda x, y, i=i: np.testing.assert_allclose(x[i], y, rtol=1e-5), together, alone)


@pytest.mark.parametrize("needs", [{"rollout_length": 6}, {"n_steps": 6}, {"frame_stack": 6}])
def test_a_memory_that_is_too_small_is_refused(needs: dict[str, int]) -> None:
    with pytest.raises(HyperparameterError, match="buffer_size >= 12"):
        ReplayBuffer(11, *templates(2), num_envs=2, **{"rollout_length": 1, **needs})
    ReplayBuffer(12, *templates(2), num_envs=2, **{"rollout_length": 1, **needs})


def test_one_outlier_does_not_draw_up_new_steps_for_ever() -> None:
    replay, add, sample, reprioritize = functions(FULL)
    memory = replay.init()
    for rollout in make_rollouts(0, 4, FULL[2], FULL[1]):
        memory = add(memory, rollout, KEY)
    batch = sample(memory, KEY, count=4)
    memory = reprioritize(memory, batch.indices, jnp.full(4, 1e4))
    assert float(memory.priorities.highest) > 200
    for _ in range(8000):
        memory = reprioritize(memory, batch.indices, jnp.full(4, 1.0))
    assert float(memory.priorities.highest) == pytest.approx(1.0, abs=0.1)


def test_no_exponent_makes_a_step_impossible() -> None:
    replay = make(FULL, alpha=9.0)
    memory = replay.init()
    for rollout in make_rollouts(0, 4, FULL[2], FULL[1]):
        memory = replay.add(memory, rollout, KEY)
    batch = replay.sample(memory, KEY, 8, gamma=0.99)
    memory = replay.reprioritize(memory, batch.indices, jnp.zeros(8))
    leaves = np.asarray(batch.indices.row) * FULL[1] + np.asarray(batch.indices.env)
    assert (np.asarray(memory.priorities.tree[0])[leaves] > 0).all()
