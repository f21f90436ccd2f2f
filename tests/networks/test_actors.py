"""Actors against NumPy and SciPy."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats

from renshu.networks.actors import DeterministicActor, GaussianActor, StateDependentActor
from tests.networks.inputs import KEY, OBS, drawn, layers, torso


def test_deterministic_actor_is_the_tanh_of_a_network():
    actor = DeterministicActor(torso(), 2)
    params = drawn(actor, OBS)
    features = layers(params["torso"]["hidden"], OBS)
    wanted = np.tanh(features @ params["Dense_0"]["kernel"] + params["Dense_0"]["bias"])
    np.testing.assert_allclose(actor.apply({"params": params}, OBS), wanted, rtol=1e-4, atol=1e-5)


def test_gaussian_actor_against_scipy():
    """Density of tanh(u), u normal: that of u over the slope of the tanh, 1 - a^2."""
    actor = GaussianActor(torso(), 2)
    params = jax.tree.map(lambda x: 0.3 * x, drawn(actor, OBS))
    policy = actor.apply({"params": params}, OBS)
    action, log_prob = policy.sample_and_log_prob(KEY)
    u = np.arctanh(np.asarray(action, np.float64))
    density = scipy.stats.norm.logpdf(u, np.asarray(policy.mean), np.exp(np.asarray(policy.log_std)))
    wanted = (density - np.log(1 - np.asarray(action, np.float64) ** 2)).sum(axis=1)
    np.testing.assert_allclose(log_prob, wanted, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("scale", [-1e4, 1e4])
def test_gaussian_actor_stays_finite(scale):
    actor = GaussianActor(torso(), 2)
    params = jax.tree.map(lambda x: jnp.full_like(x, scale), actor.init(KEY, OBS)["params"])

    def loss(params):
        policy = actor.apply({"params": params}, OBS)
        action, log_prob = policy.sample_and_log_prob(KEY)
        return log_prob.mean() + action.mean(), policy.log_std

    (value, log_std), grad = jax.value_and_grad(loss, has_aux=True)(params)
    assert set(np.unique(log_std)) <= {-20.0, 2.0}
    assert jnp.isfinite(value)
    assert all(jnp.isfinite(x).all() for x in jax.tree.leaves(grad))


def test_state_dependent_noise_has_the_deviation_that_the_policy_says():
    actor = StateDependentActor(torso(), 2, 6, log_std_init=-1.0)
    params = {**drawn(actor, OBS), "log_std": np.random.default_rng(3).normal(-2, 0.5, (6, 2)).astype(np.float32)}
    params["mean"] = jax.tree.map(lambda x: 0.01 * x, params["mean"])
    policy = actor.apply({"params": params}, OBS)
    features = layers(params["torso"]["hidden"], OBS)
    wanted = np.sqrt(features**2 @ np.exp(params["log_std"]) ** 2 + 1e-6)
    np.testing.assert_allclose(np.exp(policy.log_std), wanted, rtol=1e-4)
    matrices = np.random.default_rng(4).normal(size=(5, 6, 2)).astype(np.float32)
    action = actor.apply({"params": params}, OBS, matrices, method="act")
    offset = np.einsum("bf,bfa->ba", features, np.exp(params["log_std"]) * matrices)
    np.testing.assert_allclose(action, np.tanh(np.asarray(policy.mean) + offset), rtol=1e-3, atol=1e-4)
