"""Convolutions: their gradients, the layouts of images, and networks for images of several sizes."""

import gymnasium
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from gymnasium import spaces

from renshu.errors import HyperparameterError
from renshu.networks.convolutions import convolve
from renshu.networks.encoders import MLP, Encoder, default_widths
from renshu.networks.layers import orthogonal
from renshu.networks.q_network import QNetwork
from renshu.ops.images import layout_of, pixels
from renshu.ops.spaces import dummy

KEY = jax.random.key(0)


def image(*shape, high=255, dtype=np.uint8):
    return spaces.Box(0, high, shape, dtype)


@pytest.mark.parametrize(
    ("side", "size", "stride", "padding"),
    [
        (20, 4, 2, ((0, 0), (0, 0))),
        (11, 3, 1, ((1, 1), (1, 1))),
        (21, 8, 4, ((0, 0), (0, 0))),
        (10, 3, 2, ((1, 1), (0, 1))),
    ],
)
def test_the_gradient_is_that_of_the_plain_convolution(side, size, stride, padding):
    x = jax.random.normal(KEY, (2, side, side, 3))
    kernel = jax.random.normal(KEY, (size, size, 3, 5))

    def plain(x, kernel):
        out = jax.lax.conv_general_dilated(
            x, kernel, (stride, stride), padding, dimension_numbers=("NHWC", "HWIO", "NHWC")
        )
        return jnp.sin(out).sum()

    def ours(x, kernel):
        return jnp.sin(convolve(x, kernel, stride, padding)).sum()

    for a, b in zip(jax.grad(ours, (0, 1))(x, kernel), jax.grad(plain, (0, 1))(x, kernel), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    ("space", "shape", "stacked", "channels"),
    [
        (image(84, 84, 3), (84, 84, 3), False, "last"),
        (image(3, 96, 60), (96, 60, 3), False, "first"),
        (image(64, 48), (64, 48, 1), False, "none"),
        (image(4, 84, 84), (84, 84, 4), False, "first"),
        (image(4, 40, 40, 3), (40, 40, 12), True, "last"),
        (image(4, 3, 40, 40), (40, 40, 12), True, "first"),
        (image(5, 5, 5), (5, 5, 5), False, "last"),
    ],
    ids=str,
)
def test_layouts(space, shape, stacked, channels):
    assert layout_of(space) == (shape, stacked, channels)


@pytest.mark.parametrize(
    "space",
    [
        image(8, 8),
        image(10),
        image(84, 84, 3, high=1.0, dtype=np.float32),
        spaces.Discrete(3),
        spaces.MultiBinary((40, 40)),
    ],
    ids=str,
)
def test_others_are_no_images(space):
    assert layout_of(space) is None


def test_frames_become_channels_oldest_first_and_pixels_go_from_0_to_1():
    frames = np.random.default_rng(0).integers(0, 256, (2, 4, 6, 5, 3), np.uint8)
    space = image(4, 6, 5, 3)
    seen = np.asarray(pixels(space, frames, layout_of(space)))
    assert seen.shape == (2, 6, 5, 12)
    np.testing.assert_allclose(seen[..., 3:6], frames[:, 1] / 255, rtol=1e-6)
    first = image(4, 3, 6, 5)
    np.testing.assert_array_equal(pixels(first, np.moveaxis(frames, -1, 2), layout_of(first)), seen)


def test_numbers_with_other_bounds_keep_their_scale():
    space = spaces.Box(-2, 2, (12, 12, 3), np.float32)
    x = np.full((1, 12, 12, 3), 1.5, np.float32)
    assert float(pixels(space, x, layout_of(space, anything=True)).max()) == 1.5
    board = image(10, 10, 4, high=1)
    assert float(pixels(board, np.ones((1, 10, 10, 4), np.uint8), layout_of(board)).max()) == 1.0


@pytest.mark.parametrize(
    ("cnn", "side", "features", "widths"),
    [
        (None, 84, 7 * 7 * 64, (512,)),
        (None, 36, 1 * 1 * 64, (512,)),
        (None, 10, 8 * 8 * 16, (128,)),
        ("impala", 84, 11 * 11 * 32, (256,)),
        ("impala", 10, 2 * 2 * 32, (256,)),
        ("minatar", 84, 82 * 82 * 16, (128,)),
    ],
)
def test_networks_for_images_of_any_size(cnn, side, features, widths):
    space = image(side, side, 2)
    out = jax.eval_shape(lambda: Encoder(space, cnn).init_with_output(KEY, dummy(space, 3))[0])
    assert out.shape == (3, features)
    assert default_widths(space, cnn, (64, 64)) == widths


def test_an_image_that_is_too_small():
    space = image(20, 30, 3)
    with pytest.raises(HyperparameterError, match=r"at least 36 x 36 pixels.*has 20 x 30 with 3 channels.*cnn=.impala"):
        jax.eval_shape(lambda: Encoder(space, "nature").init(KEY, dummy(space, 1)))


def test_images_and_vectors_side_by_side():
    """Every part counts, and a part that is no image costs no parameters before the hidden layers."""
    space = spaces.Dict(camera=image(40, 40, 3), joints=spaces.Box(-1, 1, (3,)), goal=spaces.Dict(x=spaces.Discrete(3)))
    network = MLP(space, (16,), "relu")
    obs = {
        "camera": np.random.default_rng(0).integers(0, 256, (2, 40, 40, 3), np.uint8),
        "joints": np.zeros((2, 3), np.float32),
        "goal": {"x": np.zeros(2, np.int32)},
    }
    params = network.init(KEY, obs)
    assert params["params"]["Dense_0"]["kernel"].shape == (1 * 1 * 64 + 3 + 3, 16)  # 40 pixels, then 9, 3, 1
    before = network.apply(params, obs)
    for part in (
        {"joints": np.ones((2, 3), np.float32)},
        {"goal": {"x": np.ones(2, np.int32)}},
        {"camera": 255 - obs["camera"]},
    ):
        assert (np.asarray(network.apply(params, {**obs, **part})) != np.asarray(before)).any()


def test_dueling_streams_stand_on_the_convolution():
    """Wang et al. 2016, figure 1: each of the two streams has its hidden layer right behind it."""
    space = image(36, 36, 1)
    params = QNetwork(space, 3, widths=(32,), dueling=True).init(KEY, dummy(space, 1))["params"]
    shapes = sorted(layer["kernel"].shape for name, layer in params.items() if name.startswith("Dense"))
    assert shapes == [(32, 1), (32, 3), (64, 32), (64, 32)]


def test_a_flat_network_is_what_it_was():
    """An observation without images has no new parameters."""
    space = gymnasium.make("CartPole-v1").observation_space
    assert set(MLP(space, (8,)).init(KEY, dummy(space, 1))["params"]) == {"Dense_0"}


@pytest.mark.parametrize("shape", [(300, 130), (2, 5, 40, 130), (130, 300), (64, 64)])
def test_weights_are_orthogonal(shape):
    """Of tall matrices too, which are made another way: the same numbers as by a QR decomposition."""
    made = np.asarray(orthogonal(2.0)(KEY, shape)).reshape(-1, shape[-1])
    rows, columns = made.shape
    product = made.T @ made if rows >= columns else made @ made.T
    np.testing.assert_allclose(product, 4 * np.eye(min(rows, columns)), atol=1e-4)
    np.testing.assert_allclose(made.reshape(shape), jax.nn.initializers.orthogonal(2.0)(KEY, shape), atol=1e-5)
