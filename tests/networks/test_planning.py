"""The network of policies and values: boards of bits as they are, images scaled."""

import jax
import numpy as np
import pytest
from gymnasium import spaces

from renshu.networks.planning import PolicyValueNetwork

IMAGE = spaces.Box(0, 255, (5, 5, 3), np.uint8)
BOARD = spaces.MultiBinary((5, 5, 3))


@pytest.mark.parametrize("space", [IMAGE, BOARD], ids=["image", "board"])
def test_shapes_and_range(space):
    network = PolicyValueNetwork(space, actions=4, blocks=1, channels=4)
    space.seed(0)
    obs = np.stack([space.sample() for _ in range(3)])
    logits, value = network.apply(network.init(jax.random.key(0), obs), obs)
    assert (logits.shape, value.shape) == ((3, 4), (3,))
    assert not any(map(np.any, (logits, value))), "no move is preferred at first"


def test_images_are_scaled_and_bits_are_not():
    bits = np.random.default_rng(0).integers(0, 2, (3, 5, 5, 3)).astype(np.uint8)
    networks = [PolicyValueNetwork(space, actions=4, blocks=1, channels=4) for space in (IMAGE, BOARD)]
    params = networks[1].init(jax.random.key(0), bits)
    leaves, structure = jax.tree.flatten(params)
    params = jax.tree.unflatten(
        structure, [x + 0.1 * jax.random.normal(jax.random.key(i), x.shape) for i, x in enumerate(leaves)]
    )
    of_image, of_board = networks[0].apply(params, 255 * bits), networks[1].apply(params, bits)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5), of_image, of_board)
