"""TQC: which quantiles are left out, the mixture's target, and the loss, against naive Python."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from renshu.algorithms.continuous.tqc import TQC
from renshu.errors import HyperparameterError
from renshu.ops.losses import quantile_td_loss
from renshu.ops.value_heads import Quantiles
from tests.algorithms.rollouts import beginning
from tests.algorithms.transitions import SMALL, critics, quick, samples_of, spec_of, started

KEY = jax.random.key(0)


def learner(**options):
    return quick(TQC(**{**SMALL, "n_quantiles": 5, "n_critics": 3, **options}).build(spec_of()))


@pytest.mark.parametrize("drop", [0, 2])
def test_target_leaves_out_the_highest_of_all(drop):
    made, batch = learner(top_quantiles_to_drop_per_net=drop, ent_coef=0.3), samples_of()
    train_state, obs = started(made), np.asarray(batch.next_obs)
    key_action = jax.random.split(jax.random.split(KEY)[0])[0]
    action, log_prob = made.policy(train_state.params, obs).sample_and_log_prob(key_action)
    z = critics(train_state.target, obs, np.asarray(action))
    wanted = []
    for b in range(16):
        kept = sorted(z[:, b].reshape(-1))[: 3 * (5 - drop)]
        wanted.append([batch.reward[b] + batch.discount[b] * (x - 0.3 * log_prob[b]) for x in kept])
    np.testing.assert_allclose(jax.jit(made.target)(train_state, batch, KEY), wanted, rtol=1e-3, atol=1e-3)


def test_losses():
    """Mean over critics, quantiles and targets of |tau - 1[target < z]| huber(target - z) (equation 11)."""
    rng = np.random.default_rng(0)
    z, target = (rng.normal(0, 2, shape).astype(np.float32) for shape in ((3, 4, 5), (4, 9)))
    taus = Quantiles(5).midpoints
    for b in range(4):
        found = []
        for n in range(3):
            for k in range(5):
                for y in target[b]:
                    u, tau = y - z[n, b, k], (2 * k + 1) / 10
                    huber = 0.5 * u**2 if abs(u) <= 1 else abs(u) - 0.5
                    found.append((abs(tau - (u < 0)) * huber, abs(u)))
        alone = jnp.zeros(4).at[b].set(4.0)  # the weight that makes the mean that of one transition
        loss, errors = quantile_td_loss(jnp.asarray(z), jnp.asarray(target), taus, alone)
        np.testing.assert_allclose([loss, errors[b]], np.mean(found, axis=0), rtol=1e-4)


def test_the_policy_and_explain_go_by_means():
    made, batch = learner(ent_coef=0.0), samples_of()
    train_state, obs = started(made), np.asarray(batch.obs)
    action = made.policy(train_state.params, obs).sample_and_log_prob(jax.random.split(KEY)[0])[0]
    z = critics(train_state.params, obs, np.asarray(action))
    after = jax.jit(made.policy_step, static_argnums=4)(
        train_state, batch.obs, KEY, jnp.float32(1e-3), lambda z: z.mean(axis=(0, 2))[:, None]
    )
    loss = after.aux.metrics["actor_loss"]
    np.testing.assert_allclose(loss, -z.mean(), rtol=1e-3)
    found = made.explain(made.actor_state(made.init(KEY)), (), beginning(obs))
    z = critics(train_state.params, obs, np.asarray(found["mean"]))
    np.testing.assert_allclose(found["value"], z.mean(axis=2).min(axis=0), rtol=1e-3, atol=1e-4)


def test_bad_hyperparameters():
    with pytest.raises(HyperparameterError, match="top_quantiles_to_drop_per_net=5 leaves none of n_quantiles=5"):
        learner(top_quantiles_to_drop_per_net=5)
