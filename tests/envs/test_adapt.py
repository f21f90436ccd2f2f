"""What an algorithm sees of an environment, and how its actions go back: the same as NumPy and inside jit."""

import warnings
from typing import Any

import jax
import numpy as np
import pytest
from gymnasium import spaces

from renshu import A2C, PPO
from renshu.envs.adapt import UNBOUNDED_LIMIT, FittedSpaces, fit_spaces, kind_of_space
from renshu.errors import SpaceError
from renshu.types import Accepts, EnvSpec

VECTOR = spaces.Box(-1, 1, (2,), np.float32)
IMAGE = spaces.Box(0, 255, (84, 84, 3), np.uint8)
INF = np.inf


def fitted(action: spaces.Space, observation: spaces.Space = VECTOR, **options: Any) -> FittedSpaces:
    return fit_spaces(EnvSpec(observation, action, 2), PPO.accepts, algorithm="PPO", **options)


def decoded(found: FittedSpaces, action: Any) -> np.ndarray:
    """The environment's action; checked to be the same inside jit."""
    action = np.asarray(action)
    on_host = found.decode_action(action)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Explicitly requested dtype float64")
        compiled = jax.jit(found.decode_action)(action)
    np.testing.assert_allclose(compiled, on_host, rtol=1e-6)
    return on_host


CASES = {
    "discrete": (spaces.Discrete(3), [0, 2], [0, 2]),
    "discrete_start": (spaces.Discrete(3, start=-1), [0, 2], [-1, 1]),
    "multi_discrete": (spaces.MultiDiscrete([2, 5]), [[1, 4], [0, 2]], [[1, 4], [0, 2]]),
    "multi_discrete_start": (spaces.MultiDiscrete([2, 5], start=[10, -3]), [[1, 4], [0, 2]], [[11, 1], [10, -1]]),
    "multi_discrete_uint8": (spaces.MultiDiscrete([2, 5], dtype=np.uint8), [[1, 4], [0, 2]], [[1, 4], [0, 2]]),
    "multi_discrete_2d": (
        spaces.MultiDiscrete([[2, 3], [4, 5]], start=[[0, 1], [2, 3]]),
        [[1, 2, 3, 4], [0, 0, 0, 0]],
        [[[1, 3], [5, 7]], [[0, 1], [2, 3]]],
    ),
    "multi_binary": (spaces.MultiBinary(3), [[1, 0, 1], [0, 0, 0]], [[1, 0, 1], [0, 0, 0]]),
    "multi_binary_2d": (spaces.MultiBinary([2, 2]), [[1, 0, 1, 1], [0, 1, 0, 0]], [[[1, 0], [1, 1]], [[0, 1], [0, 0]]]),
    "box": (spaces.Box(-2, 4, (1,), np.float32), [[-1.0], [0.5]], [[-2.0], [2.5]]),
    "box_beyond": (spaces.Box(-2, 4, (1,), np.float32), [[-7.0], [1.5]], [[-2.0], [4.0]]),
    "box_uneven": (spaces.Box(np.array([0, -3], "f"), np.array([1, 3], "f")), [[0, 0], [1, -1]], [[0.5, 0], [1, -3]]),
    "box_2d": (spaces.Box(-1, 1, (2, 1), np.float32), [[0.5, -0.5], [1, 0]], [[[0.5], [-0.5]], [[1], [0]]]),
    "box_scalar": (spaces.Box(0, 10, (), np.float32), [[0.0], [0.5]], [5.0, 7.5]),
    "box_float64": (spaces.Box(-0.1, 0.3, (1,), np.float64), [[-1.0], [1.0]], [[-0.1], [0.3]]),
    "box_integer": (spaces.Box(0, 10, (1,), np.int32), [[-1.0], [0.13]], [[0], [6]]),
    "box_uint8": (spaces.Box(0, 255, (1,), np.uint8), [[-3.0], [1.0]], [[0], [255]]),
}
UNBOUNDED = {
    "unbounded": (spaces.Box(-INF, INF, (1,), np.float32), [[3.0], [-99.0]], [[3.0], [-UNBOUNDED_LIMIT]]),
    "bounded_below": (spaces.Box(0, INF, (1,), np.float32), [[-3.0], [99.0]], [[0.0], [UNBOUNDED_LIMIT]]),
    "bounded_above": (spaces.Box(-INF, 5, (1,), np.float32), [[-99.0], [99.0]], [[-UNBOUNDED_LIMIT], [5.0]]),
    "one_of_two": (
        spaces.Box(np.array([-4, -INF], "f"), np.array([4, INF], "f")),
        [[0.5, 0.5], [9, -99]],
        [[2.0, 0.5], [4.0, -UNBOUNDED_LIMIT]],
    ),
    "integer": (spaces.Box(-INF, INF, (1,), np.int32), [[2.6], [-99.0]], [[3], [-UNBOUNDED_LIMIT]]),
}


def assert_decodes(space: spaces.Space, given: Any, expected: Any) -> FittedSpaces:
    given = np.asarray(given, np.float32 if isinstance(space, spaces.Box) else np.int32)
    found = fitted(space)
    action = decoded(found, given)
    np.testing.assert_allclose(action, expected, rtol=1e-6)
    for row in action:
        assert space.contains(np.asarray(row)), f"{row!r} is not in {space}"
    return found


@pytest.mark.parametrize(("space", "given", "expected"), CASES.values(), ids=CASES.keys())
def test_actions(space: spaces.Space, given: Any, expected: Any):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        fitted(space)  # a bounded space needs no warning
    assert_decodes(space, given, expected)


@pytest.mark.parametrize(("space", "given", "expected"), UNBOUNDED.values(), ids=UNBOUNDED.keys())
def test_actions_without_bounds_are_clipped_with_a_warning(space: spaces.Space, given: Any, expected: Any):
    with pytest.warns(UserWarning, match=r"no bounds in 1 of [12] dimensions: .* within \+-10"):
        found = assert_decodes(space, given, expected)
    assert "clipped at +-10 elsewhere" in found.notes[-1]


def test_the_widest_integers_do_not_wrap_around():
    limits = np.iinfo(np.int32)
    action = decoded(fitted(spaces.Box(limits.min, limits.max, (1,), np.int32)), np.array([[1.0], [-1.0]], np.float32))
    assert action[0, 0] > limits.max - 200
    assert action[1, 0] == limits.min


def test_a_half_bounded_space_beyond_the_limit_is_refused():
    with pytest.raises(SpaceError, match="give it both bounds"):
        fitted(spaces.Box(2 * UNBOUNDED_LIMIT, INF, (1,), np.float32))


@pytest.mark.parametrize(
    ("space", "seen"),
    [
        (spaces.Discrete(3, start=4), spaces.Discrete(3)),
        (spaces.MultiDiscrete([[2, 3], [4, 5]]), spaces.MultiDiscrete([2, 3, 4, 5])),
        (spaces.MultiBinary([2, 3]), spaces.MultiBinary(6)),
        (spaces.Box(-3, 5, (2, 2), np.float64), spaces.Box(-1, 1, (4,), np.float32)),
    ],
    ids=["discrete", "multi_discrete", "multi_binary", "box"],
)
def test_what_the_algorithm_sees(space: spaces.Space, seen: spaces.Space):
    found = fitted(space)
    assert found.spec.action_space == seen
    assert found.spec.observation_space == VECTOR
    assert found.spec.num_envs == 2
    assert any(note.startswith("action: ") for note in found.notes)


@pytest.mark.parametrize(
    "space",
    [
        spaces.Dict({"a": spaces.Discrete(2)}),
        spaces.Tuple([spaces.Discrete(2)]),
        spaces.Text(5),
        spaces.Sequence(spaces.Discrete(2)),
        spaces.Graph(spaces.Box(-1, 1, (1,)), None),
    ],
    ids=lambda space: type(space).__name__,
)
def test_actions_that_nobody_takes(space: spaces.Space):
    with pytest.raises(
        SpaceError, match=r"PPO does not take actions of .* It takes box, discrete, multi_binary"
    ) as caught:
        fitted(space)
    assert type(space).__name__ in str(caught.value)


def test_an_algorithm_that_takes_only_continuous_actions_says_what_fits():
    accepts = Accepts(observations=frozenset({"box"}), actions=frozenset({"box"}))
    with pytest.raises(
        SpaceError, match=r"SAC does not take actions of Discrete\(2\).*It takes box; PPO, A2C and DQN take"
    ):
        fit_spaces(EnvSpec(VECTOR, spaces.Discrete(2), 1), accepts, algorithm="SAC")


@pytest.mark.parametrize(
    "space",
    [spaces.Text(5), spaces.Sequence(spaces.Discrete(2)), spaces.Graph(VECTOR, None), spaces.Dict(a=spaces.Text(3))],
    ids=lambda space: type(space).__name__,
)
def test_observations_that_nobody_takes(space: spaces.Space):
    with pytest.raises(SpaceError, match=r"PPO does not take observations of .* It takes box, .*nested"):
        fitted(spaces.Discrete(2), space)


@pytest.mark.parametrize("space", [IMAGE, spaces.Tuple([IMAGE, VECTOR])], ids=["image", "nested"])
def test_images_go_through_a_convolution_or_a_network_of_ones_own(space: spaces.Space):
    height, width, channels = IMAGE.shape
    assert (
        f"an image of {height} x {width}, channels {channels}, convolved" in fitted(spaces.Discrete(2), space).notes[0]
    )
    note = fitted(spaces.Discrete(2), space, own_network=True).notes[0]
    assert "given to your network as it is" in note


def test_pictures_of_floats_are_flattened_with_a_warning_unless_a_convolution_is_asked_for():
    space = spaces.Box(0, 1, (64, 48, 3), np.float32)
    with pytest.warns(UserWarning, match=r'looks like an image, but is float32.*cnn="nature"'):
        assert "flattened" in fitted(spaces.Discrete(2), space).notes[0]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert "64 x 48, channels 3, convolved" in fitted(spaces.Discrete(2), space, cnn="nature").notes[0]


def test_an_own_network_does_not_let_actions_through():
    with pytest.raises(SpaceError, match="actions"):
        fitted(spaces.Text(5), IMAGE, own_network=True)


def test_every_part_of_a_nested_observation_has_its_note():
    space = spaces.Dict(
        [("speed", VECTOR), ("gear", spaces.Discrete(5)), ("lights", spaces.Tuple([spaces.MultiBinary(2)] * 2))]
    )
    notes = fitted(spaces.Discrete(2), space).notes
    assert len(notes) == 5
    assert notes[0].endswith("flattened at 'speed'")
    assert notes[1] == "observation: Discrete(5), one-hot at 'gear'"
    assert notes[2].endswith("as 0 and 1 at 0 at 'lights'")


@pytest.mark.parametrize(
    ("space", "kind"),
    [
        (VECTOR, "box"),
        (IMAGE, "image"),
        (spaces.Box(0, 255, (84, 84), np.uint8), "image"),
        (spaces.Box(0, 9, (4, 4), np.uint8), "box"),
        (spaces.Box(0, 1, (84, 84, 3), np.float32), "box"),
        (spaces.Discrete(2), "discrete"),
        (spaces.MultiDiscrete([2]), "multi_discrete"),
        (spaces.MultiBinary(2), "multi_binary"),
        (spaces.Dict(), "nested"),
        (spaces.Tuple([]), "nested"),
        (spaces.Text(3), "Text"),
    ],
    ids=str,
)
def test_kinds_of_spaces(space: spaces.Space, kind: str):
    assert kind_of_space(space) == kind


def test_the_algorithms_take_what_they_say():
    for algorithm in (PPO, A2C):
        assert algorithm.accepts.actions == {"box", "discrete", "multi_discrete", "multi_binary"}
        assert algorithm.accepts.observations == algorithm.accepts.actions | {"nested", "image"}
