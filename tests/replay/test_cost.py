"""What the memory costs does not grow with what it holds: time, and memory beside its own."""

import statistics
import time
from functools import cache
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from renshu.replay.buffer import ReplayBuffer
from renshu.replay.elite import EliteEpisodes
from renshu.types import Rollout

N, REPEATS, BATCH = 4, 50, 32
SMALL, LARGE = 10_000, 1_000_000
OBS, ACTION = np.zeros((N, 4), np.float32), np.zeros(N, np.int32)
KINDS = ["prioritized", "good and prioritized"]


def make(kind: str, capacity: int) -> ReplayBuffer:
    alpha = 0.6 if "prioritized" in kind else None
    if "good" in kind:
        return EliteEpisodes(capacity, OBS, ACTION, num_envs=N, rollout_length=1, longest=50, alpha=alpha)
    return ReplayBuffer(capacity, OBS, ACTION, num_envs=N, rollout_length=1, alpha=alpha)


def program(replay: ReplayBuffer) -> Any:
    """Add a step, draw, set priorities, `count` times: a loop of unknown length, as learners have it."""

    def step(i: Any, carry: Any) -> Any:
        memory, total, key = carry
        key, key_add, key_draw = jax.random.split(key, 3)
        first = jnp.zeros((2, N), bool).at[1].set(i % 10 == 9)
        obs, reward = jnp.full((2, N, 4), i, jnp.float32), jnp.full((1, N), i % 7, jnp.float32)
        rollout = Rollout(obs, first, jnp.zeros((1, N), jnp.int32), reward, jnp.zeros((1, N), bool), (), ())
        memory = replay.add(memory, rollout, key_add)
        samples = replay.sample(memory, key_draw, BATCH, gamma=0.99)
        error = samples.reward + samples.next_obs.sum(axis=-1)
        return replay.reprioritize(memory, samples.indices, error), total + (samples.weight * error).sum(), key

    def run(memory: Any, key: Any, count: Any) -> Any:
        return jax.lax.fori_loop(0, count, step, (memory, jnp.float32(0.0), key))[:2]

    return run


@cache
def compiled(kind: str, capacity: int, rows: int = 0) -> tuple[Any, Any]:
    """The program, and shapes of a memory, or of `rows` of them at once."""
    replay = make(kind, capacity)
    run, memory = program(replay), jax.eval_shape(replay.init)
    if rows:
        run = jax.vmap(run, (0, None, None))
        memory = jax.tree.map(lambda x: jax.ShapeDtypeStruct((rows, *x.shape), x.dtype), memory)
    return jax.jit(run, donate_argnums=0).lower(memory, jax.random.key(0), jnp.int32(0)).compile(), memory


@pytest.mark.parametrize(("kind", "rows"), [*((kind, 0) for kind in KINDS), (KINDS[1], 2)])
def test_no_copy_of_the_memory_is_made(kind: str, rows: int) -> None:
    run, memory = compiled(kind, LARGE, rows)
    use, size = run.memory_analysis(), sum(x.size * x.dtype.itemsize for x in jax.tree.leaves(memory))
    assert size > 25_000_000
    assert use.temp_size_in_bytes < 1_000_000
    assert use.alias_size_in_bytes >= size


@pytest.mark.parametrize("kind", KINDS)
def test_time_does_not_grow_with_capacity(kind: str) -> None:
    key, count, times = jax.random.key(1), jnp.int32(REPEATS), {SMALL: [], LARGE: []}
    programs = {capacity: (compiled(kind, capacity)[0], make(kind, capacity).init()) for capacity in times}
    for _ in range(12):
        for capacity, (run, memory) in programs.items():
            began = time.perf_counter()
            memory, total = jax.block_until_ready(run(memory, key, count))
            times[capacity].append(time.perf_counter() - began)
            programs[capacity] = run, memory
            assert np.isfinite(total)
    small, large = (statistics.median(times[capacity][2:]) for capacity in (SMALL, LARGE))
    assert large < 3 * small
