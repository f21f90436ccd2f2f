"""Augmented random search beside its paper, written out."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from renshu import ARS
from renshu.algorithms.evolution.ars import Directions

pytestmark = pytest.mark.usefixtures("compiled_fast")


@pytest.mark.parametrize("top", [None, 2])
def test_a_step_is_algorithm_2(top):
    config = ARS(n_delta=5, n_top=top, delta_std=0.3, learning_rate=0.7)
    search, policy = Directions(config, 4), jnp.arange(4.0)
    members, state = search.ask(jax.random.key(0), policy)
    members, rng = np.asarray(members), np.random.default_rng(0)
    fitness = rng.normal(size=10).astype(np.float32)
    found = search.tell(jax.random.key(1), jnp.asarray(members), jnp.asarray(fitness), state, jnp.float32(0.7))

    deltas = [(members[k] - np.arange(4.0)) / 0.3 for k in range(5)]
    np.testing.assert_allclose(members[5:], [np.arange(4.0) - 0.3 * delta for delta in deltas], rtol=1e-5)
    pairs = sorted(((max(fitness[k], fitness[k + 5]), k) for k in range(5)), reverse=True)[: top or 5]
    used = [fitness[k + half] for _, k in pairs for half in (0, 5)]
    step = sum((fitness[k] - fitness[k + 5]) * deltas[k] for _, k in pairs)
    wanted = np.arange(4.0) + 0.7 / (len(pairs) * np.std(used)) * step
    np.testing.assert_allclose(found, wanted, rtol=1e-4)


def test_equal_returns_move_nothing():
    search = Directions(ARS(n_delta=3), 2)
    members, state = search.ask(jax.random.key(0), jnp.ones(2))
    np.testing.assert_array_equal(search.tell(jax.random.key(0), members, jnp.ones(6), state, jnp.float32(0.02)), 1.0)


def test_a_linear_policy_from_zero_balances_the_pole():
    agent = ARS(norm_obs=True, delta_std=0.2, learning_rate=0.2).on("renshu/CartPole-v1", seed=0)
    weights = agent.trainer.learner.policy.weights
    assert weights(agent.parameters).shape == (8,), "a matrix alone, as in the paper"
    assert not np.asarray(weights(agent.parameters)).any()
    agent.learn(60_000, progress=False)
    assert agent.evaluate(10).mean > 400


def test_the_offset_takes_off_what_being_alive_pays():
    def after(offset):
        agent = ARS(n_delta=4, alive_bonus_offset=offset, net_arch=[]).on("renshu/CartPole-v1", seed=0)
        seen = []
        agent.learn(50, progress=False, callbacks=lambda _, metrics: seen.append(metrics) or True)
        return seen[0]["fitness_mean"], seen[0]["return_mean"]

    fitness, mean = after(0.0)
    assert fitness == pytest.approx(mean)
    fitness, mean = after(-1.0)
    assert fitness == pytest.approx(0.0, abs=1e-4)
    assert mean > 5
