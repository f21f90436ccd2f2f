"""Learners with tables learn probes, the Grid and the cliff."""

import numpy as np
import pytest

from renshu import Linear
from renshu.envs.builtin.grid import Grid
from tests import probes
from tests.algorithms.tabular.test_tabular import KINDS, every


def on_grid(name, seed=0, **options):
    """One algorithm for several tests, so that it is compiled once. Dyna-Q's model has no room for moves that slip."""
    algorithm = KINDS[name](n_steps=3, learning_rate=Linear(0.2, 0.01), exploration_fraction=0.8)
    return algorithm.on(Grid(move_prob=1.0 if name == "dyna" else 0.8), num_envs=4, seed=seed, **options)


@every
def test_probes(name):
    """One discount for all, so that they are one program."""

    def solved(env, *seen):
        agent = KINDS[name](gamma=0.5, exploration_final_eps=0.2).on(env, num_envs=4, seed=0)
        return agent.learn(1600, progress=False).explain(np.array(seen, np.float32)[:, None])

    np.testing.assert_allclose(solved(probes.Value, 1.0, -1.0)["value"], [1, -1], atol=0.01)
    np.testing.assert_allclose(solved(probes.Discount, 1.0, 0.0)["value"], [1, 0.5], atol=0.01)
    np.testing.assert_allclose(solved(probes.Policy, -1.0, 1.0)["action_values"], [[1, 0], [0, 1]], atol=0.01)
    # Treating the time limit as an end would give 1.6 at most.
    np.testing.assert_allclose(solved(probes.TimeLimit, 0.0)["value"], [2], atol=0.02)


@every
def test_learns_grid(name):
    agent = on_grid(name).learn(60_000, progress=False)
    assert agent.evaluate(500).mean > 0.65


@pytest.mark.parametrize("name", ["q", "sarsa"])
def test_learns_cliff_walking(name):
    """Optimistic values need no random actions: -13 is the shortest way, right beside the cliff."""
    options = {"learning_rate": 0.5, "gamma": 1.0, "exploration_initial_eps": 0.0, "exploration_final_eps": 0.0}
    algorithm = KINDS[name](**options)
    agent = algorithm.on("CliffWalking-v1", seed=0, env_kwargs={"max_episode_steps": 200}).learn(6000, progress=False)
    assert agent.evaluate(1).mean == -13
