"""Hindsight: goals are those that the same episode achieved later, with their rewards."""

import jax
import numpy as np
import pytest

from renshu.errors import HyperparameterError
from renshu.replay.relabelling import GoalBuffer
from tests.replay.experience import NaiveMemory, chi_square, episodes, ids_of, make_rollouts

KEY = jax.random.key(0)
ROWS, N, T = 20, 2, 5


def with_goals(rollout):
    """Goals that say where they were achieved; none is ever desired, so that nothing is confused."""
    goals = ids_of(rollout.obs).astype(np.float32)[..., None]
    return rollout._replace(obs={"achieved_goal": goals, "desired_goal": -goals, "observation": 2 * goals})


def reached(achieved, desired):
    return np.float32(100.0) * (achieved == desired).all(axis=-1) - 1


def make(n_sampled_goal=4, **options):
    obs = {name: np.zeros((N, 1), np.float32) for name in ("achieved_goal", "desired_goal", "observation")}
    return GoalBuffer(
        ROWS * N,
        obs,
        np.zeros(N, np.int32),
        num_envs=N,
        rollout_length=T,
        goal_reward=reached,
        n_sampled_goal=n_sampled_goal,
        **options,
    )


def filled(replay, seed=0, count=7):
    memory, naive, add = replay.init(), NaiveMemory(ROWS, N), jax.jit(replay.add)
    for rollout in make_rollouts(seed, count, T, N, ends=0.15):
        naive.add(rollout)
        memory = add(memory, with_goals(rollout), KEY)
    return memory, [episode for stream in naive.streams for episode in episodes(stream)]


@pytest.mark.parametrize("n_steps", [1, 3])
def test_goals_are_achieved_later_in_the_episode(n_steps):
    replay = make(n_steps=n_steps)
    memory, played = filled(replay)
    batch = jax.tree.map(np.asarray, replay.sample(memory, KEY, 2000, gamma=0.5))
    after = {row.id: [later.id for later in episode[i + 1 :]] for episode in played for i, row in enumerate(episode)}
    rewards = {row.id: row.reward for episode in played for row in episode}
    relabelled = batch.obs["desired_goal"][:, 0] > 0
    assert abs(relabelled[batch.weight > 0].mean() - 0.8) < 0.03
    for i in np.flatnonzero(batch.weight > 0):
        start, goal = int(batch.obs["achieved_goal"][i, 0]), int(batch.obs["desired_goal"][i, 0])
        steps = min(n_steps, len(after[start]))
        np.testing.assert_array_equal(batch.next_obs["achieved_goal"][i], after[start][steps - 1])
        on_the_way = [start, *after[start]][:steps]
        if relabelled[i]:
            assert goal in after[start]
            assert batch.next_obs["desired_goal"][i] == goal
            wanted = [99.0 if later == goal else -1.0 for later in after[start][:steps]]
        else:
            assert goal == -start
            assert batch.next_obs["desired_goal"][i] == -after[start][steps - 1]
            wanted = [rewards[row] for row in on_the_way]
        terminated = batch.discount[i] == 0
        assert batch.reward[i] == pytest.approx(sum(0.5**k * r for k, r in enumerate(wanted)))
        assert terminated or batch.discount[i] == 0.5**steps


def test_later_goals_are_uniform():
    replay = make(n_sampled_goal=10**6)
    memory, played = filled(replay)
    batch = jax.tree.map(np.asarray, replay.sample(memory, KEY, 20_000, gamma=0.5))
    longest = max(played, key=len)
    chosen = batch.obs["achieved_goal"][:, 0] == longest[0].id
    goals, counts = np.unique(batch.obs["desired_goal"][chosen, 0], return_counts=True)
    assert goals.tolist() == [row.id for row in longest[1:]]
    assert chi_square(counts, np.full(len(counts), counts.mean())) < 4


def test_frame_stacks_pursue_one_goal():
    replay = make(n_sampled_goal=10**6, frame_stack=3)
    memory, _ = filled(replay)
    batch = jax.tree.map(np.asarray, replay.sample(memory, KEY, 64, gamma=0.5))
    assert batch.obs["desired_goal"].shape == (64, 3, 1)
    assert (batch.obs["desired_goal"] == batch.next_obs["desired_goal"][:, :1]).all()


def test_observations_without_goals_are_refused():
    with pytest.raises(HyperparameterError, match="achieved_goal"):
        GoalBuffer(9, np.zeros((1, 2)), np.zeros(1), num_envs=1, rollout_length=1, goal_reward=reached)
