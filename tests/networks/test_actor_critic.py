"""The network of a policy and a value function: initialisation, sharing, and own modules."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn
from gymnasium import spaces

from renshu.algorithms.hyperparameters import NetArch
from renshu.errors import HyperparameterError
from renshu.networks.actor_critic import ActorCriticNetwork, Inputs, actor_critic
from renshu.networks.layers import ACTIVATIONS
from renshu.ops.distributions import Bernoulli, Categorical, MultiCategorical, Normal, TanhNormal
from tests.algorithms.rollouts import OBSERVATION, draw, shaken

KEY = jax.random.key(0)


def build(action: spaces.Space | None = None, observation: spaces.Space = OBSERVATION, **changes: Any):
    options: dict[str, Any] = {
        "net_arch": NetArch((5, 4), (8,)),
        "activation_fn": "tanh",
        "ortho_init": True,
        "share_features_extractor": False,
        "log_std_init": 0.0,
        "squash_output": False,
        "network": None,
    }
    network = actor_critic(observation, action or spaces.Discrete(3), **options | changes)
    return ActorCriticNetwork(*(jax.jit(function) for function in network))


class Own(nn.Module):
    width: int = 6

    @nn.compact
    def __call__(self, obs):
        return nn.relu(nn.Dense(self.width)(obs))


class Convolution(nn.Module):
    @nn.compact
    def __call__(self, obs):
        assert obs.dtype == jnp.uint8
        x = nn.Conv(2, (4, 4), strides=(4, 4))(obs.astype(jnp.float32) / 255)
        return x.reshape(len(obs), -1)


class ReturnsTriple(nn.Module):
    def __call__(self, obs):
        return jnp.zeros((obs.shape[0], 2, 2))


class ReturnsOneRow(nn.Module):
    def __call__(self, obs):
        return jnp.zeros((1, 4))


class ReturnsTuple(nn.Module):
    def __call__(self, obs):
        return obs, obs


class Rejects(nn.Module):
    @nn.compact
    def __call__(self, obs):
        raise KeyError("camera")


class Statistics(nn.Module):
    @nn.compact
    def __call__(self, obs):
        return nn.BatchNorm(use_running_average=False)(obs)


def kernels(params: Any) -> dict[str, np.ndarray]:
    return {
        jax.tree_util.keystr(path, simple=True, separator="/"): np.asarray(leaf)
        for path, leaf in jax.tree_util.tree_leaves_with_path(params)
        if leaf.ndim == 2
    }


def test_orthogonal_initialisation():
    params = build().init(KEY)
    found = kernels(params)
    assert len(found) == 5  # two layers of the policy, one of the value, two heads
    for name, kernel in found.items():
        gain = {"policy_head": 0.01, "value_head": 1.0}.get(name.split("/")[0], 2**0.5)
        product = kernel.T @ kernel if kernel.shape[0] >= kernel.shape[1] else kernel @ kernel.T
        np.testing.assert_allclose(product, gain**2 * np.eye(len(product)), atol=1e-5 * gain**2, err_msg=name)
    biases = [leaf for leaf in jax.tree.leaves(params) if leaf.ndim == 1]
    assert len(biases) == 5
    assert all((bias == 0).all() for bias in biases)


def test_without_orthogonal_initialisation():
    kernel = kernels(build(ortho_init=False).init(KEY))["actor_torso/Dense_1/kernel"]
    assert np.abs(kernel.T @ kernel - 2 * np.eye(4)).max() > 0.1


def test_the_first_policy_is_nearly_uniform_but_not_constant():
    network = build()
    obs = draw(OBSERVATION, (50,), 0)
    policy, value = network.both(network.init(KEY), Inputs(obs))[:2]
    probabilities = jax.nn.softmax(policy.logits)
    np.testing.assert_allclose(probabilities, 1 / 3, atol=0.02)
    assert np.std(probabilities, axis=0).min() > 1e-5
    assert np.std(value) > 0.1


def test_widths_of_policy_and_value():
    shapes = {name: kernel.shape for name, kernel in kernels(build().init(KEY)).items()}
    assert shapes == {
        "actor_torso/Dense_0/kernel": (3, 5),
        "actor_torso/Dense_1/kernel": (5, 4),
        "critic_torso/Dense_0/kernel": (3, 8),
        "policy_head/Dense_0/kernel": (4, 3),
        "value_head/kernel": (8, 1),
    }


def test_no_hidden_layers_is_a_linear_policy():
    network = build(net_arch=NetArch((), ()))
    params = shaken(network.init(KEY))
    obs = draw(OBSERVATION, (4,), 0)
    head = params["policy_head"]["Dense_0"]
    np.testing.assert_allclose(
        network.policy(params, Inputs(obs)).logits, obs @ np.asarray(head["kernel"]) + head["bias"], rtol=1e-5
    )


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_value_by_hand(activation: str):
    network = build(activation_fn=activation)
    params = shaken(network.init(KEY))
    obs = draw(OBSERVATION, (4,), 0).astype(np.float64)
    hidden = obs @ np.asarray(params["critic_torso"]["Dense_0"]["kernel"]) + params["critic_torso"]["Dense_0"]["bias"]
    hidden = {
        "tanh": np.tanh,
        "relu": lambda x: np.maximum(x, 0),
        "elu": lambda x: np.where(x > 0, x, np.expm1(x)),
        "silu": lambda x: x / (1 + np.exp(-x)),
    }[activation](np.asarray(hidden, np.float64))
    expected = hidden @ np.asarray(params["value_head"]["kernel"]) + params["value_head"]["bias"]
    np.testing.assert_allclose(network.value(params, Inputs(obs.astype(np.float32))), expected[:, 0], rtol=1e-4)


@pytest.mark.parametrize("share", [False, True])
def test_the_parts_agree_with_the_whole(share: bool):
    network = build(share_features_extractor=share)
    params, obs = shaken(network.init(KEY)), draw(OBSERVATION, (4,), 0)
    policy, value = network.both(params, Inputs(obs))[:2]
    np.testing.assert_allclose(network.policy(params, Inputs(obs)).logits, policy.logits, rtol=1e-6)
    np.testing.assert_allclose(network.value(params, Inputs(obs)), value, rtol=1e-6)


def test_sharing_leaves_one_torso_of_the_policys_widths():
    params = build(share_features_extractor=True).init(KEY)
    assert set(params) == {"actor_torso", "policy_head", "value_head"}
    assert params["value_head"]["kernel"].shape == (4, 1)


@pytest.mark.parametrize(
    ("space", "options", "kind", "shape"),
    [
        (spaces.Discrete(3), {}, Categorical, (4,)),
        (spaces.MultiDiscrete([2, 3, 4]), {}, MultiCategorical, (4, 3)),
        (spaces.MultiBinary(3), {}, Bernoulli, (4, 3)),
        (spaces.Box(-1, 1, (2,), np.float32), {}, Normal, (4, 2)),
        (spaces.Box(-1, 1, (2,), np.float32), {"squash_output": True}, TanhNormal, (4, 2)),
    ],
    ids=["discrete", "multi_discrete", "multi_binary", "box", "squashed"],
)
def test_each_action_space_has_its_distribution(space, options, kind, shape):
    network = build(space, log_std_init=-0.5, **options)
    params = network.init(KEY)
    policy, value = network.both(params, Inputs(draw(OBSERVATION, (4,), 0)))[:2]
    assert type(policy) is kind
    assert (policy.sample(KEY).shape, policy.mode().shape, value.shape) == (shape, shape, (4,))
    if isinstance(policy, MultiCategorical):
        assert [part.logits.shape[-1] for part in policy.parts] == [2, 3, 4]
    if isinstance(policy, Normal | TanhNormal):
        np.testing.assert_array_equal(params["policy_head"]["log_std"], [-0.5, -0.5])


def test_an_own_module_stands_twice_unless_shared():
    apart = build(network=Own(7)).init(KEY)
    assert apart["actor_torso"]["Dense_0"]["kernel"].shape == (3, 7)
    assert np.abs(apart["actor_torso"]["Dense_0"]["kernel"] - apart["critic_torso"]["Dense_0"]["kernel"]).max() > 0.01
    shared = build(network=Own(7), share_features_extractor=True).init(KEY)
    assert set(shared) == {"actor_torso", "policy_head", "value_head"}


def test_the_two_copies_of_an_own_module_learn_apart():
    network = build(network=Own())
    params, obs = network.init(KEY), draw(OBSERVATION, (4,), 0)
    grad = jax.grad(lambda p: network.both(p, Inputs(obs))[1].sum())(params)
    assert all((leaf == 0).all() for leaf in jax.tree.leaves(grad["actor_torso"]))
    assert np.abs(grad["critic_torso"]["Dense_0"]["kernel"]).max() > 1e-3


def test_an_own_module_gets_images_as_they_are():
    image = spaces.Box(0, 255, (8, 8, 3), np.uint8)
    network = build(observation=image, network=Convolution())
    policy, value = network.both(network.init(KEY), Inputs(draw(image, (2,), 0)))[:2]
    assert (policy.logits.shape, value.shape) == ((2, 3), (2,))


@pytest.mark.parametrize(
    ("module", "words"),
    [
        (ReturnsTriple(), r"ReturnsTriple must return features of shape \[B, F\].*not \(2, 2, 2\)"),
        (ReturnsOneRow(), r"ReturnsOneRow must return.*not \(1, 4\)"),
        (ReturnsTuple(), "ReturnsTuple must return.*not tuple"),
        (Rejects(), r"Rejects does not take observations of Box.*KeyError: 'camera'"),
        (Convolution(), "Convolution does not take observations of Box.*AssertionError"),
        (Statistics(), r"Statistics keeps variables beside its params \(batch_stats\)"),
    ],
    ids=lambda x: type(x).__name__ if isinstance(x, nn.Module) else "",
)
def test_an_own_module_that_does_not_fit_is_refused(module: nn.Module, words: str):
    with pytest.raises(HyperparameterError, match=rf"(?s)network: {words}"):
        build(network=module)
