"""Experience made by hand in which every observation can be told from every other, and memories in plain Python."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import hypothesis.strategies as st
import jax
import numpy as np

from renshu.replay.ring import Index, Ring
from renshu.types import Rollout


class Row(NamedTuple):
    """What one environment gave at one time."""

    id: int
    first: bool
    action: int
    reward: float
    terminated: bool


class Transition(NamedTuple):
    """What a memory should give for one step; observations by their ids."""

    obs: list[int]
    action: int
    reward: float
    discount: float
    next_obs: list[int]


def observe(ids: np.ndarray) -> dict[str, np.ndarray]:
    """Observations that carry ids of any shape: a vector and a picture."""
    position = np.stack([ids, -ids], axis=-1).astype(np.float32)
    screen = np.broadcast_to(ids[..., None, None] % 251, (*ids.shape, 2, 3)).astype(np.uint8)
    return {"position": position, "screen": screen}


def templates(num_envs: int) -> tuple[Any, Any]:
    """Observations and actions of N environments, for shapes and dtypes."""
    return observe(np.zeros(num_envs, int)), np.zeros(num_envs, np.int32)


def make_rollouts(seed: int, count: int, T: int, N: int, *, ends: float = 0.3, anew: float = 0.15) -> list[Rollout]:
    """Rollouts of environments that reset by the NEXT_STEP rule.

    ends: probability that a step ends its episode, half of them by termination. anew: that a rollout does not go on
    where the last one stopped. Rewards are small whole numbers, so that sums are exact.
    """
    rng = np.random.default_rng(seed)
    rollouts, next_id = [], 1
    first, ended = np.ones(N, bool), np.zeros(N, bool)
    ids = np.arange(next_id, next_id + N)
    next_id += N
    for _ in range(count):
        if rng.random() < anew:
            first, ended = np.ones(N, bool), np.zeros(N, bool)
            ids, next_id = np.arange(next_id, next_id + N), next_id + N
        columns: list[list[np.ndarray]] = [[ids], [first], [], []]
        for _ in range(T):
            resets = ended
            over = ~resets & (rng.random(N) < ends)
            columns[2].append(np.where(resets, 0, rng.integers(-5, 6, N)))
            columns[3].append(over & (rng.random(N) < 0.5))
            first, ended = resets, over
            ids, next_id = np.arange(next_id, next_id + N), next_id + N
            columns[0].append(ids)
            columns[1].append(first)
        all_ids, firsts, rewards, terminated = (np.stack(c) for c in columns)
        rollouts.append(
            Rollout(
                obs=observe(all_ids),
                first=firsts,
                action=(all_ids[:-1] * 7 % 1000).astype(np.int32),
                reward=rewards.astype(np.float32),
                terminated=terminated,
                carry=(),
                extras=(),
            )
        )
    return rollouts


def stacked(trees: Sequence[Any]) -> Any:
    """One tree of arrays with an axis more."""
    return jax.tree.map(lambda *x: np.stack(x), *trees)


def rows_of(rollout: Rollout, env: int) -> list[Row]:
    """The rows of one environment; the last has an observation only."""
    ids = ids_of(rollout.obs)[:, env].tolist()
    columns = (x[:, env].tolist() for x in (rollout.first[:-1], rollout.action, rollout.reward, rollout.terminated))
    whole = [Row(*row) for row in zip(ids[:-1], *columns, strict=True)]
    return [*whole, Row(ids[-1], bool(rollout.first[-1, env]), 0, 0.0, False)]


class NaiveMemory:
    """The last rows of each environment as a list, cut into episodes when asked."""

    def __init__(self, rows: int, num_envs: int) -> None:
        self.rows, self.streams = rows, [[] for _ in range(num_envs)]

    def add(self, rollout: Rollout) -> None:
        for env, stream in enumerate(self.streams):
            stream[-1:] = rows_of(rollout, env)
            del stream[: -self.rows - 1]

    def transitions(self, n_steps: int, gamma: float, frame_stack: int) -> dict[int, Transition]:
        """What can be drawn, by the id of its observation."""
        found: dict[int, Transition] = {}
        for stream in self.streams:
            for episode in episodes(stream):
                found |= transitions_of(episode, n_steps, gamma, frame_stack)
        return found


def episodes(stream: list[Row]) -> list[list[Row]]:
    """Cut a stream where episodes begin; of the oldest and the newest a part may be missing."""
    cut: list[list[Row]] = []
    for row in stream:
        if row.first or not cut:
            cut.append([])
        cut[-1].append(row)
    return cut


def transitions_of(episode: list[Row], n_steps: int, gamma: float, frame_stack: int) -> dict[int, Transition]:
    """The steps of an episode, whose last row is only an observation."""
    ids = [row.id for row in episode]

    def seen(at: int) -> list[int]:
        return [ids[max(0, at - back)] for back in reversed(range(frame_stack))]

    found = {}
    for start in range(len(ids) - 1):
        after = min(start + n_steps, len(ids) - 1)
        total = sum(gamma**k * row.reward for k, row in enumerate(episode[start:after]))
        discount = 0.0 if episode[after - 1].terminated else gamma ** (after - start)
        found[ids[start]] = Transition(seen(start), episode[start].action, total, discount, seen(after))
    return found


def ids_of(obs: Any) -> np.ndarray:
    """The ids that observations carry; asserts that all of their parts carry the same."""
    # As NumPy arrays first: JAX compiles an indexing for each new shape.
    obs = jax.tree.map(np.asarray, obs)
    ids = obs["position"][..., 0].astype(int)
    jax.tree.map(np.testing.assert_array_equal, obs, observe(ids))
    return ids


def whole_places(ring: Ring) -> Index:
    """All rows that hold a step or a reset, oldest first, of all environments."""
    total, n = ring.first.shape
    rows = (int(ring.head) - np.arange(int(ring.size), 0, -1)) % total
    return Index(np.repeat(rows, n).astype(np.int32), np.tile(np.arange(n, dtype=np.int32), len(rows)))


def chi_square(counts: np.ndarray, expected: np.ndarray) -> float:
    """How many standard deviations Pearson's statistic lies above its mean."""
    freedom = len(counts) - 1
    return float((((counts - expected) ** 2 / expected).sum() - freedom) / np.sqrt(2 * freedom))


seeds = st.integers(0, 2**32 - 1)
SHAPES = [(5, 1, 1), (7, 3, 3), (4, 2, 4)]
"""Rows of the memory, environments, steps of a rollout: which divide each other, do not, and are the same."""
