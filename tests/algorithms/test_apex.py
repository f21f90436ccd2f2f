"""Ape-X: errors that actors find, priorities they become, and environments that explore in their own ways."""

import dataclasses
from contextlib import nullcontext

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from renshu import ApeX, ApeXDDPG
from renshu.errors import HyperparameterError
from renshu.replay import sum_tree
from renshu.replay.buffer import PRIORITY_EPS
from renshu.types import TimeStep

SMALL = {
    "buffer_size": 256,
    "batch_size": 16,
    "learning_starts": 1_000,
    "train_freq": 8,
    "n_steps": 3,
    "net_arch": [8],
    "gamma": 0.9,
}
CASES = {
    "ApeX": (ApeX(**SMALL), "renshu/CartPole-v1"),
    "ApeXDDPG": (ApeXDDPG(**SMALL), "renshu/Pendulum-v1"),
}


def collected(algorithm, env, rollouts=5):
    """An agent of the host loop after some rollouts, and the last of them."""
    agent = algorithm.on(env, num_envs=2, seed=0, loop="host", max_episode_steps=6)
    agent.trainer.set_target(10**5)
    loop, kept = agent.trainer.start_loop(nullcontext), []
    for _ in range(rollouts):
        kept.append(loop.collect())
        loop.state, _ = agent.trainer.programs.learn(loop.state, kept[-1].rollout, loop.keys)
        loop.iteration += 1
    return agent, kept[-1].rollout


@pytest.mark.parametrize("name", CASES)
def test_a_step_enters_with_the_error_that_its_actor_found(name):
    agent, rollout = collected(*CASES[name])
    learner, memory = agent.trainer.learner, agent.state.memory
    taken, best = (np.asarray(x, np.float64) for x in rollout.extras)
    T, N = rollout.reward.shape
    expected = np.full((T, N), np.nan)
    for t, n in np.argwhere(rollout.valid):
        total, k = 0.0, 0
        while k < 3 and t + k < T and rollout.valid[t + k, n]:
            total += 0.9**k * rollout.reward[t + k, n]
            k += 1
            if rollout.terminated[t + k - 1, n]:
                break
        ended = rollout.terminated[t + k - 1, n]
        if ended:
            expected[t, n] = total - taken[t, n]
        elif t + k < T:
            expected[t, n] = total + 0.9**k * best[t + k, n] - taken[t, n]
    found = np.where(rollout.valid, learner.first_errors(rollout), np.nan)
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-4)
    assert np.isfinite(expected).sum() >= 6
    assert np.isnan(expected[-1][rollout.valid[-1] & ~rollout.terminated[-1]]).all()

    rows = (int(memory.ring.head) - T + np.arange(T)) % memory.ring.first.shape[0]
    priorities = sum_tree.at(memory.priorities.tree, jnp.asarray(rows[:, None] * 2 + np.arange(2)))
    alpha = learner.config.prioritized_replay_alpha
    wanted = np.where(np.isnan(expected), 1.0, (np.abs(expected) + PRIORITY_EPS) ** alpha)
    np.testing.assert_allclose(priorities, np.where(rollout.valid, wanted, 0.0), rtol=1e-4, atol=1e-6)
    assert jax.tree.leaves(memory.ring.extras) == []


def test_each_environment_has_its_own_epsilon():
    spec = dataclasses.replace(ApeX(**SMALL).on("renshu/CartPole-v1").trainer.fitted.spec, num_envs=8, rollout_envs=2)
    learner = ApeX(**SMALL, exploration_base=0.4, exploration_exponent=7.0).build(spec)
    acting = learner.actor_state(learner.init(jax.random.key(0)))._replace(exploration=jnp.float32(0.0))
    step = TimeStep(np.zeros((2, 4), np.float32), np.ones(2, bool), env_id=np.array([0, 7], np.int32))
    np.testing.assert_allclose(learner.epsilon(acting, step), [0.4, 0.4**8], rtol=1e-5)


def test_noise_of_each_environment():
    spec = dataclasses.replace(ApeXDDPG(**SMALL).on("renshu/Pendulum-v1").trainer.fitted.spec, num_envs=3)
    learner = ApeXDDPG(**SMALL, exploration_base=0.5, exploration_exponent=1.0, action_noise_std=0.2).build(spec)
    step = TimeStep(np.zeros((3, 3), np.float32), np.ones(3, bool))
    np.testing.assert_allclose(learner.noise_std(step)[:, 0], [0.1, 0.2 * 0.5**1.5, 0.05], rtol=1e-5)


@pytest.mark.parametrize("options", [{"prioritized": False}, {"elite_episodes": True}])
def test_what_does_not_go_together_is_refused(options):
    with pytest.raises(HyperparameterError, match="ApeX"):
        ApeX(**SMALL, **options).on("renshu/CartPole-v1")


@pytest.mark.parametrize("name", CASES)
def test_a_data_set_has_none_of_the_errors_that_actors_find(name, tmp_path):
    algorithm, env = CASES[name]
    agent = algorithm.on(env, num_envs=2, seed=0, max_episode_steps=6)
    with pytest.raises(HyperparameterError, match="recorded as it acted"):
        algorithm.on(agent.collect(64, to=tmp_path / "data"))
