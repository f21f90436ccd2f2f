"""Networks that step latents: their range, boards, the memory of rewards, and codes of chance."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from gymnasium import spaces

from renshu.networks.chance import ChanceModel, one_hot_of
from renshu.networks.latent import LatentModel, has_planes, normalised, on_board

VECTOR = spaces.Box(-1.0, 1.0, (3,), np.float32)
BOARD = spaces.MultiBinary((4, 5, 2))
IMAGE = spaces.Box(0, 255, (10, 10, 3), np.uint8)
SMALL = {"actions": 2, "policy": 2, "bins": 5, "widths": (8,), "latent": 6, "channels": 4}


def made(space, kind=LatentModel, **options):
    """Model, parameters and three observations."""
    model = kind(space, **SMALL | options)
    obs = np.stack([space.sample() for _ in range(3)])
    return model, model.init(jax.random.key(0), obs), obs


def test_latents_are_within_0_and_1():
    latent = jnp.array([[1.0, 3.0, 2.0], [-5.0, 5.0, -5.0], [4.0, 4.0, 4.0]])
    np.testing.assert_allclose(normalised(latent), [[0, 1, 0.5], [0, 1, 0], [0, 0, 0]])
    assert np.isfinite(jax.grad(lambda x: normalised(x).sum())(latent)).all(), "even where all numbers are equal"
    planes = jax.random.normal(jax.random.key(0), (2, 3, 3, 4))
    assert (normalised(planes).min(axis=(1, 2, 3)) == 0).all()
    assert (normalised(planes).max(axis=(1, 2, 3)) == 1).all()


@pytest.mark.parametrize("space", [VECTOR, BOARD, IMAGE], ids=["vector", "board", "image"])
def test_shapes(space):
    model, params, obs = made(space, projection=7)
    latent = model.apply(params, obs, method="represent")
    assert latent.shape == ((3, 4, 5, 4) if space is BOARD else (3, 6))
    assert has_planes(space) == (space is BOARD)
    action = jax.nn.one_hot(jnp.array([0, 1, 0]), 2)
    after, memory, reward = model.apply(params, latent, action, (), (), method="step")
    policy, value = model.apply(params, after, method="predict")
    assert (after.shape, reward.shape, policy.shape, value.shape, memory) == (latent.shape, (3, 5), (3, 2), (3, 5), ())
    assert not any(map(np.any, (reward, policy, value))), "nothing is known at first"
    for x in (latent, after):
        flat = np.asarray(x).reshape(3, -1)
        np.testing.assert_allclose(flat.min(axis=1), 0, atol=1e-6)
        np.testing.assert_allclose(flat.max(axis=1), 1, atol=1e-6)
    other = model.apply(params, latent, 1 - action, (), (), method="step")[0]
    assert np.abs(other - after).max() > 1e-3, "actions matter"
    projected = [model.apply(params, after, predict, method="project") for predict in (True, False)]
    assert projected[0].shape == projected[1].shape == (3, 7)
    assert np.abs(projected[0] - projected[1]).max() > 1e-3


def test_actions_mark_squares():
    latent = jnp.zeros((2, 2, 3, 4))
    planes = on_board(latent, jax.nn.one_hot(jnp.array([4, 6]), 7))  # the last one passes
    expected = np.zeros((2, 2, 3, 1))
    expected[0, 1, 1] = 1
    np.testing.assert_array_equal(planes, expected)


def test_the_memory_of_rewards_begins_anew():
    model, params, obs = made(VECTOR, memory=5)
    params = jax.tree.map(lambda x: x + 0.1, params)  # heads that are not 0
    latent, action = model.apply(params, obs, method="represent"), jnp.ones((3, 2))
    _, memory, early = model.apply(params, latent, action, model.initial_memory(3), jnp.ones(3, bool), method="step")
    ways = jnp.array([True, False, False])
    late = model.apply(params, latent, action, memory, ways, method="step")[2]
    np.testing.assert_allclose(late[0], early[0], rtol=1e-6)
    assert (np.abs(late[1:] - early[1:]).max(axis=1) > 1e-6).all()


def test_codes_are_one_hot_and_their_gradient_is_that_of_probabilities():
    logits = jnp.array([[0.0, 1.0, 2.0], [3.0, 0.0, 0.0]])
    noise = jnp.array([[5.0, 0.0, 0.0], [0.0, 0.0, 0.0]])
    np.testing.assert_allclose(one_hot_of(logits, noise), [[1, 0, 0], [1, 0, 0]], atol=1e-6)
    weight = jnp.array([[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]])
    straight = jax.grad(lambda x: (weight * one_hot_of(x, noise)).sum())(logits)
    np.testing.assert_allclose(straight, jax.grad(lambda x: (weight * jax.nn.softmax(x)).sum())(logits), rtol=1e-6)
    drawn = one_hot_of(jnp.broadcast_to(logits[0], (4000, 3)), jax.random.gumbel(jax.random.key(0), (4000, 3)))
    np.testing.assert_allclose(drawn.mean(axis=0), jax.nn.softmax(logits[0]), atol=0.03)


@pytest.mark.parametrize("space", [VECTOR, BOARD], ids=["vector", "board"])
def test_chance_stands_between_an_action_and_what_comes(space):
    model, params, obs = made(space, ChanceModel, codes=3)
    latent = model.apply(params, obs, method="represent")
    after = model.apply(params, latent, jnp.ones((3, 2)), method="act")
    logits, value = model.apply(params, after, method="foresee")
    assert (after.shape, logits.shape, value.shape) == (latent.shape, (3, 3), (3, 5))
    codes = [jax.nn.one_hot(jnp.full(3, i), 3) for i in range(2)]
    (one, reward), (other, _) = (model.apply(params, after, code, method="happen") for code in codes)
    assert (one.shape, reward.shape) == (latent.shape, (3, 5))
    assert np.abs(one - other).max() > 1e-3, "codes matter"
    assert model.apply(params, obs, obs, method="encode").shape == (3, 3)
