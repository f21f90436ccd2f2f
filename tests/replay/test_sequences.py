"""Sequences drawn from a memory: whole, in order, with the carries and extras that belong to them."""

from functools import cache

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from renshu.errors import HyperparameterError
from renshu.replay.sequences import SequenceBuffer, write_extras
from tests.replay.experience import SHAPES, NaiveMemory, chi_square, ids_of, make_rollouts, rows_of, seeds, templates

QUICK = settings(max_examples=20, deadline=None)
LENGTH = 3
KEY = jax.random.key(0)


def make(shape: tuple[int, int, int], length: int = LENGTH, **options) -> SequenceBuffer:
    rows, N, T = shape
    return SequenceBuffer(rows * N, *templates(N), num_envs=N, rollout_length=T, sequence_length=length, **options)


def with_records(rollout):
    """The same rollout with extras and a carry that say where they are from."""
    ids = ids_of(rollout.obs)
    return rollout._replace(extras={"id": ids[:-1].astype(np.float32)}, carry=(ids[0].astype(np.float32),))


@cache
def functions(shape: tuple[int, int, int], length: int = LENGTH, carries: bool = False, alpha: float | None = None):
    replay, zeros = make(shape, length, alpha=alpha), np.zeros(shape[1], np.float32)

    def sample(memory, key):
        index, weight = replay.draw(memory, key, 16)
        return replay.gather(memory, index, weight, 1.0)

    empty = replay.init({"id": zeros}, (zeros,) if carries else ())
    return replay, empty, jax.jit(replay.add), jax.jit(sample)


@QUICK
@given(seeds, st.sampled_from(SHAPES), st.integers(1, 9), st.booleans())
def test_sequences_are_those_of_the_stream(seed: int, shape: tuple[int, int, int], count: int, carries: bool) -> None:
    rows, N, T = shape
    _, held, add, sample = functions(shape, carries=carries)
    naive, begun = NaiveMemory(rows, N), set()
    for rollout in map(with_records, make_rollouts(seed, count, T, N)):
        held = add(held, rollout, KEY)
        naive.add(rollout)
        begun |= set(ids_of(rollout.obs)[0].tolist())
    drawn = jax.tree.map(np.asarray, sample(held, jax.random.key(seed)))
    stretches = {}
    for stream in naive.streams:
        for start in range(len(stream) - LENGTH):
            if not carries or (stream[start].id in begun and (len(stream) - 1 - start) % T == 0):
                stretches[stream[start].id] = stream[start : start + LENGTH + 1]
    assert drawn.rollout.reward.shape == (LENGTH, 16)
    if not stretches:
        assert not drawn.weight.any()
        assert not drawn.rollout.valid.any()
        return
    assert drawn.weight.all()
    ids = ids_of(drawn.rollout.obs)
    for i, start in enumerate(ids[0].tolist()):
        found, wanted = rows_of(drawn.rollout, i), stretches[start]
        assert found[:-1] == wanted[:-1]
        assert found[-1][:2] == wanted[-1][:2]
    np.testing.assert_array_equal(drawn.rollout.extras["id"], ids[:-1])
    if carries:
        np.testing.assert_array_equal(drawn.rollout.carry[0], ids[0])
    else:
        assert drawn.rollout.carry == ()


@pytest.mark.parametrize("carries", [False, True])
def test_starting_places_are_uniform(carries: bool) -> None:
    shape = rows, N, T = (12, 3, 4)
    replay, held, add, _ = functions(shape, 6, carries)
    for rollout in map(with_records, make_rollouts(0, 5, T, N, anew=0.0)):
        held = add(held, rollout, KEY)
    index, found = replay.draw(held, KEY, 10_000)
    assert np.all(found)
    counts = np.unique(index.row * N + index.env, return_counts=True)[1]
    assert len(counts) == (2 if carries else rows - 6 + 1) * N
    assert chi_square(counts, np.full(len(counts), 10_000 / len(counts))) < 5


@pytest.mark.parametrize("carries", [False, True])
def test_priorities_are_those_of_whole_sequences(carries: bool) -> None:
    """As often as rollouts are added: the places that can be drawn are those that uniform draws find."""
    shape = _, N, T = (9, 2, 3)
    replay, held, add, sample = functions(shape, 4, carries, alpha=1.0)
    uniform, plain, add_plain, _ = functions(shape, 4, carries)
    for i, rollout in enumerate(map(with_records, make_rollouts(0, 8, T, N, anew=0.0))):
        held, plain = add(held, rollout, KEY), add_plain(plain, rollout, KEY)
        drawable = np.flatnonzero(np.asarray(held.priorities.tree[0]))
        index, found = uniform.draw(plain, KEY, 500)
        if i == 0:
            assert not drawable.size
            assert not np.any(found)
            continue
        assert set(drawable.tolist()) == set(np.unique(index.row * N + index.env).tolist())
        assert sample(held, KEY).weight.all()
    index, _ = replay.draw(held, KEY, 1)
    after = replay.reprioritize(held, index, jnp.array([7.0]))
    assert np.asarray(after.priorities.tree[0])[int(index.row[0]) * N + int(index.env[0])] == pytest.approx(7.0)


def test_extras_are_written_back_where_they_came_from() -> None:
    shape = _, N, T = (9, 2, 3)
    replay, held, add, _ = functions(shape, 4)
    for rollout in map(with_records, make_rollouts(0, 8, T, N, anew=0.0)):
        held = add(held, rollout, KEY)
    index, weight = replay.draw(held, KEY, 1)
    before = replay.gather(held, index, weight, 1.0)
    newer = {"id": before.rollout.extras["id"] + 0.5}
    for left_out in (
        write_extras(held.ring, index, 0 * weight, newer),
        write_extras(held.ring, index, weight, {"id": newer["id"] * jnp.nan}),
    ):
        np.testing.assert_array_equal(left_out["id"], held.ring.extras["id"])
    ring = held.ring._replace(extras=write_extras(held.ring, index, weight, newer))
    after = replay.gather(held._replace(ring=ring), index, weight, 1.0)
    np.testing.assert_array_equal(after.rollout.extras["id"], newer["id"])
    assert (ring.extras["id"] != held.ring.extras["id"]).sum() == 4


@pytest.mark.parametrize("length", [0, 5])
def test_a_length_that_the_memory_cannot_hold_is_refused(length: int) -> None:
    with pytest.raises(HyperparameterError, match="1 to 4"):
        make((4, 2, 2), length)
