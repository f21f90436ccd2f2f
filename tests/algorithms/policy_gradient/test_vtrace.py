"""IMPALA and APPO: without a lag they are A2C and PPO; with one they learn what those cannot."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from renshu import A2C, APPO, IMPALA, PPO
from renshu.errors import HyperparameterError
from tests.loops.tiny import advanced

pytestmark = pytest.mark.usefixtures("compiled_fast")

SMALL = {"n_steps": 8, "net_arch": [8], "learning_rate": 1e-3, "ent_coef": 0.01}
PAIRS = {
    "A2C": (A2C(**SMALL, gae_lambda=0.9), IMPALA(**SMALL, gae_lambda=0.9)),
    "PPO": (PPO(**SMALL, batch_size=16, n_epochs=2), APPO(**SMALL, batch_size=16)),
}


@pytest.mark.parametrize("pair", PAIRS)
@pytest.mark.parametrize("loop", ["host", "compiled"])
def test_without_a_lag_they_are_what_they_correct(pair, loop):
    plain, corrected = (a.on("renshu/CartPole-v1", num_envs=4, seed=1, loop=loop) for a in PAIRS[pair])
    for agent in (plain, corrected):
        advanced(agent, 8)
    assert plain.steps == corrected.steps
    for ours, theirs in zip(*map(jax.tree.leaves, (plain.parameters, corrected.parameters)), strict=True):
        np.testing.assert_allclose(ours, theirs, atol=2e-5)


def test_some_environments_at_a_time_keep_their_own_running_returns():
    spec = IMPALA().on("renshu/CartPole-v1", num_envs=6).trainer.fitted.spec
    learner = IMPALA(**SMALL, norm_reward=True).build(dataclasses.replace(spec, rollout_envs=2))
    state = learner.init(jax.random.key(0))
    state = state._replace(returns=jnp.arange(6.0))
    rollout = jax.tree.map(jnp.asarray, rollout_of(learner, 2))
    rollout = rollout._replace(env_id=jnp.array([4, 1]), continues=jnp.array([True, False]))
    after = learner.look(state, rollout)[0].returns
    gamma = learner.config.gamma
    ones = sum(gamma**t for t in range(8))
    np.testing.assert_allclose(after, [0, ones, 2, 3, 4 * gamma**8 + ones, 5], rtol=1e-5)


def rollout_of(learner, n):
    """A rollout of ones that ends nowhere."""
    from renshu.types import Rollout

    T = learner.needs.steps
    return Rollout(
        obs=np.ones((T + 1, n, 4), np.float32),
        first=np.zeros((T + 1, n), bool),
        action=np.zeros((T, n), np.int32),
        reward=np.ones((T, n), np.float32),
        terminated=np.zeros((T, n), bool),
        extras=np.full((T, n), np.log(0.5), np.float32),
    )


@pytest.mark.parametrize("algorithm", [IMPALA(**SMALL, normalize_advantage=False), APPO(**SMALL, batch_size=16)])
def test_what_an_older_policy_preferred_counts_less(algorithm):
    """The same rollout, once as if it had been likely under the policy that acted, and once unlikely."""
    spec = IMPALA().on("renshu/CartPole-v1", num_envs=2).trainer.fitted.spec
    learner = algorithm.build(spec)
    rollout = rollout_of(learner, 2)
    moved = []
    for log_prob in (np.log(0.5), np.log(0.999)):
        given = rollout._replace(extras=np.full_like(rollout.extras, log_prob))
        log_ratio_now = np.log(0.5) - log_prob
        advantage, _ = learner.estimates(given, given.reward, np.zeros((9, 2), np.float32), np.full(16, np.log(0.5)))
        moved.append(np.asarray(advantage[-1]) / np.exp(min(0.0, log_ratio_now)))
    np.testing.assert_allclose(moved[0], moved[1], rtol=1e-5)
    assert np.abs(moved[0]).min() > 0.5


def test_a_lag_below_zero_is_refused():
    with pytest.raises(HyperparameterError, match="max_lag"):
        IMPALA(max_lag=-1)
    assert IMPALA(max_lag=3).on("renshu/CartPole-v1").trainer.learner.needs.max_lag == 3
    assert PPO().on("renshu/CartPole-v1").trainer.learner.needs.max_lag == 0
