"""The ring against lists of episodes in plain Python: what it holds, what is drawn, what is gathered."""

from functools import partial

import jax
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from renshu.replay import ring
from renshu.replay.ring import Index, Transitions
from tests.replay.experience import (
    SHAPES,
    NaiveMemory,
    Transition,
    chi_square,
    ids_of,
    make_rollouts,
    seeds,
    stacked,
    templates,
    whole_places,
)

QUICK = settings(max_examples=30, deadline=None)
GAMMA = 0.5
add = jax.jit(ring.add)
gather = jax.jit(ring.gather, static_argnames=("n_steps", "frame_stack"))
draw = jax.jit(ring.draw, static_argnames="count")


def gathered(held: ring.Ring, n_steps: int, frame_stack: int) -> tuple[np.ndarray, Transitions]:
    index = whole_places(held)
    # One shape for all fillings, so that one program serves all.
    room = (held.first.shape[0] - 1) * held.first.shape[1] - len(index.row)
    padded = Index(*(np.pad(x, (0, room), mode="edge") for x in index[:2]))
    samples = gather(held, padded, np.ones(len(padded.row)), n_steps=n_steps, gamma=GAMMA, frame_stack=frame_stack)
    samples = jax.tree.map(lambda x: np.asarray(x)[: len(index.row)], samples)
    return samples.weight > 0, samples


def assert_transitions(
    samples: Transitions, real: np.ndarray, expected: dict[int, Transition], frame_stack: int
) -> None:
    obs, next_obs = ids_of(samples.obs), ids_of(samples.next_obs)
    if frame_stack == 1:
        obs, next_obs = obs[:, None], next_obs[:, None]
    assert sorted(obs[real, -1].tolist()) == sorted(expected)
    for i in np.flatnonzero(real):
        wanted = expected[obs[i, -1]]
        assert obs[i].tolist() == wanted.obs
        assert next_obs[i].tolist() == wanted.next_obs
        assert samples.action[i] == wanted.action
        assert samples.discount[i] == wanted.discount
        np.testing.assert_allclose(samples.reward[i], wanted.reward)


@QUICK
@given(
    seeds, st.sampled_from(SHAPES), st.integers(1, 9), st.sampled_from([(1, 1), (3, 3)]), st.sampled_from([0.1, 0.6])
)
def test_gather_gives_what_lists_of_episodes_give(seed, shape, count, n_step_history, ends) -> None:
    (rows, N, T), (n_steps, frame_stack) = shape, n_step_history
    held, naive = ring.empty(rows, *templates(N)), NaiveMemory(rows, N)
    for rollout in make_rollouts(seed, count, T, N, ends=ends):
        held = add(held, rollout)
        naive.add(rollout)
        real, samples = gathered(held, n_steps, frame_stack)
        assert_transitions(samples, real, naive.transitions(n_steps, GAMMA, frame_stack), frame_stack)
    assert held.size == min(count * T, rows)


def test_episodes_of_one_step() -> None:
    rows, N, T = SHAPES[1]
    held, naive = ring.empty(rows, *templates(N)), NaiveMemory(rows, N)
    for rollout in make_rollouts(0, 5, T, N, ends=1.0):
        held = add(held, rollout)
        naive.add(rollout)
    real, samples = gathered(held, 3, 3)
    assert_transitions(samples, real, naive.transitions(3, GAMMA, 3), 3)
    assert real.sum() in (3 * N, 4 * N)
    assert (ids_of(samples.obs)[real] == ids_of(samples.obs)[real][:, -1:]).all()


@QUICK
@given(seeds, st.sampled_from(SHAPES), st.integers(1, 9), st.sampled_from([0.1, 0.6]))
def test_only_steps_in_the_ring_are_drawn(seed, shape, count, ends) -> None:
    rows, N, T = shape
    held, naive = ring.empty(rows, *templates(N)), NaiveMemory(rows, N)
    for rollout in make_rollouts(seed, count, T, N, ends=ends):
        held = add(held, rollout)
        naive.add(rollout)
    index, real = jax.tree.map(np.asarray, draw(held, jax.random.key(seed), count=64))
    drawn = ids_of(held.obs)[index.row, index.env]
    possible = set(naive.transitions(1, GAMMA, 1))
    assert set(drawn[real].tolist()) <= possible
    assert not possible & set(drawn[~real].tolist())


def test_draws_are_uniform_over_steps() -> None:
    rows, N, T = SHAPES[1]
    held, naive = ring.empty(rows, *templates(N)), NaiveMemory(rows, N)
    for rollout in make_rollouts(3, 4, T, N, anew=0.0):
        held = add(held, rollout)
        naive.add(rollout)
    index, real = draw(held, jax.random.key(0), count=20_000)
    ids, counts = np.unique(ids_of(held.obs)[index.row, index.env][real], return_counts=True)
    assert sorted(ids.tolist()) == sorted(naive.transitions(1, GAMMA, 1))
    assert len(ids) < rows * N  # there were resets to avoid
    assert chi_square(counts, np.full(len(counts), counts.mean())) < 5
    share = 1 - len(ids) / (rows * N)
    np.testing.assert_allclose(1 - real.mean(), share**ring.TRIES, atol=0.01)


def test_nothing_is_drawn_from_an_empty_ring() -> None:
    held = ring.empty(5, *templates(2))
    index, real = draw(held, jax.random.key(0), count=8)
    assert not real.any()
    samples = gather(held, index, real, n_steps=2, gamma=GAMMA)
    assert (samples.weight == 0).all()
    assert all(np.isfinite(x).all() for x in jax.tree.leaves(samples))


def test_what_stands_in_a_reset_row_does_not_matter() -> None:
    rows, N, T = SHAPES[1]
    clean = noisy = ring.empty(rows, *templates(N))
    for rollout in make_rollouts(1, 4, T, N):
        reset = ~rollout.valid
        clean = add(clean, rollout)
        noise = {"reward": np.where(reset, np.nan, rollout.reward), "terminated": rollout.terminated | reset}
        noisy = add(noisy, rollout._replace(**noise))
    real, expected = gathered(clean, 3, 1)
    assert not real.all()
    _, found = gathered(noisy, 3, 1)
    jax.tree.map(lambda x, y: np.testing.assert_array_equal(x[real], y[real]), expected, found)


def test_vmap_equals_a_loop() -> None:
    rows, N, T = SHAPES[1]
    streams = [stacked(make_rollouts(seed, 4, T, N)) for seed in range(3)]

    def run(rollouts, key):
        held = jax.lax.scan(lambda r, x: (ring.add(r, x), None), ring.empty(rows, *templates(N)), rollouts)[0]
        index, real = ring.draw(held, key, 16)
        return held, ring.gather(held, index, real, n_steps=3, gamma=GAMMA, frame_stack=2)

    keys = jax.random.split(jax.random.key(0), 3)
    together = jax.jit(jax.vmap(run))(stacked(streams), keys)
    run = jax.jit(run)
    for i, stream in enumerate(streams):
        alone = run(stream, keys[i])
        jax.tree.map(lambda x, y, i=i: np.testing.assert_allclose(x[i], y, rtol=1e-6), together, alone)


@pytest.mark.parametrize("T", [5, 6])
def test_a_rollout_that_does_not_fit_is_refused_when_traced(T: int) -> None:
    with pytest.raises(AssertionError):
        jax.eval_shape(ring.add, ring.empty(4, *templates(2)), make_rollouts(0, 1, T, 2)[0])
    with pytest.raises(AssertionError):
        jax.eval_shape(partial(ring.add, ring.empty(9, *templates(3))), make_rollouts(0, 1, T, 2)[0])
