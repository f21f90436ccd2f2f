"""Actors and critics against NumPy and SciPy; ensembles one after the other and all at once."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats
from gymnasium import spaces

from renshu.networks import continuous
from renshu.networks.continuous import (
    BatchRenorm,
    Critic,
    DeterministicActor,
    GaussianActor,
    Hidden,
    StateDependentActor,
    Torso,
    each,
    ensemble,
    members,
)
from tests.algorithms.rollouts import assert_close

KEY = jax.random.key(0)
SPACE = spaces.Box(-np.inf, np.inf, (3,), np.float32)
OBS = np.random.default_rng(0).normal(size=(5, 3)).astype(np.float32)
ACTION = np.random.default_rng(1).uniform(-1, 1, (5, 2)).astype(np.float32)


def torso(**options):
    return Torso(SPACE, Hidden((4, 6), **options))


def drawn(module, *inputs):
    """Parameters of a module with no zero among them."""
    params = module.init(KEY, *inputs)["params"]
    leaves, structure = jax.tree.flatten(params)
    rng = np.random.default_rng(2)
    return jax.tree.unflatten(structure, [rng.normal(size=x.shape).astype(np.float32) for x in leaves])


def layers(params, x):
    """Hidden layers with relu, in NumPy."""
    for name in sorted(params):
        x = np.maximum(x @ params[name]["kernel"] + params[name]["bias"], 0)
    return x


# --- actors ---------------------------------------------------------------------------------------------------------


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


# --- hidden layers --------------------------------------------------------------------------------------------------


def test_dropout_needs_a_key_and_keeps_the_mean():
    hidden = Hidden((400,), dropout=0.25)
    x = np.ones((3, 2), np.float32)
    params = hidden.init(KEY, x)
    params = jax.tree.map(lambda p: jnp.full_like(p, 0.5), params)
    plain = hidden.apply(params, x)
    np.testing.assert_array_equal(plain, 1.5)
    dropped = np.asarray(hidden.apply(params, x, rngs={"dropout": KEY}))
    assert set(np.unique(dropped)) == {0.0, 2.0}
    assert (dropped == 0).mean() == pytest.approx(0.25, abs=0.04)


def test_layer_norm_stands_before_the_activation():
    hidden = Hidden((64,), layer_norm=True)
    x = np.random.default_rng(0).normal(3, 5, (4, 2)).astype(np.float32)
    variables = hidden.init(KEY, x)
    before = x @ np.asarray(variables["params"]["Dense_0"]["kernel"])
    normal = (before - before.mean(1, keepdims=True)) / np.sqrt(before.var(1, keepdims=True) + 1e-6)
    np.testing.assert_allclose(hidden.apply(variables, x), np.maximum(normal, 0), rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("warmup", [0, 10])
def test_batch_renorm(warmup):
    """Ioffe's algorithm 1 in NumPy, over three batches; then the running statistics alone."""
    layer, rng = BatchRenorm(momentum=0.9, warmup=warmup), np.random.default_rng(0)
    variables = layer.init(KEY, np.zeros((2, 3), np.float32))
    assert_close(variables["batch_stats"], {"mean": np.zeros(3), "var": np.ones(3), "batches": np.int32(0)})
    mean, var = np.zeros(3), np.ones(3)
    for size in (8.0, 0.2, 1.0):
        x = rng.normal(4.0, size, (16, 3)).astype(np.float32)
        y, moved = layer.apply(variables, x, train=True, mutable=["batch_stats"])
        std, batch_std = np.sqrt(var + 1e-3), np.sqrt(x.var(0) + 1e-3)
        r = np.clip(batch_std / std, 1 / 3, 3) if warmup == 0 else 1.0
        d = np.clip((x.mean(0) - mean) / std, -5, 5) if warmup == 0 else 0.0
        np.testing.assert_allclose(y, (x - x.mean(0)) / batch_std * r + d, rtol=1e-3, atol=1e-3)
        mean, var = 0.9 * mean + 0.1 * x.mean(0), 0.9 * var + 0.1 * x.var(0)
        variables = {**variables, **moved}
    assert_close(variables["batch_stats"], {"mean": mean, "var": var, "batches": np.int32(3)})
    running = layer.apply(variables, x[:1])
    np.testing.assert_allclose(running, (x[:1] - mean) / np.sqrt(var + 1e-3), rtol=1e-4)


# --- critics --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "space",
    [SPACE, spaces.Dict({"a": spaces.Discrete(3), "b": spaces.Tuple((SPACE, spaces.MultiBinary(2)))})],
    ids=["box", "nested"],
)
def test_critics_value_actions_of_any_observation(space):
    obs = OBS
    if isinstance(space, spaces.Dict):
        obs = {"a": np.arange(5) % 3, "b": (OBS, np.ones((5, 2), np.int8))}
    critic = Critic(space, Hidden((8,)), outputs=3)
    params = drawn(critic, obs, ACTION)
    values = critic.apply({"params": params}, obs, ACTION)
    assert values.shape == (5, 3)
    for other in (critic.apply({"params": params}, obs, -ACTION), critic.apply({"params": params}, obs, ACTION)[::-1]):
        assert np.abs(np.asarray(values) - np.asarray(other)).max() > 1e-3


def test_one_after_the_other_is_all_at_once(monkeypatch):
    critic = Critic(SPACE, Hidden((8,)))
    params = ensemble(lambda key: critic.init(key, OBS, ACTION)["params"], 3, KEY)
    keys = tuple(jax.random.split(KEY, 3))

    def value(params, key):
        return critic.apply({"params": params}, OBS, ACTION) + jax.random.normal(key, (5, 1))

    apart = each(value, params, keys)
    assert apart.shape == (3, 5, 1)
    assert len({float(x) for x in apart[:, 0, 0]}) == 3, "each is drawn for itself"
    monkeypatch.setattr(continuous.jax, "default_backend", lambda: "gpu")
    assert_close(each(value, params, keys), apart)
    assert_close(members(continuous._stack(*params), 3), params)
