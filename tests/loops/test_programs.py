"""The compiled programs beside their own plain functions."""

from typing import Any

import gymnasium as gym
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from renshu import PPO, AlphaZero, MuZero
from renshu.loops import programs
from renshu.loops.programs import pack, unpack
from renshu.types import EnvSpec

VIEW: Any = {
    "w": jnp.arange(6, dtype=jnp.float32).reshape(2, 3),
    "count": jnp.int32(7),
    "b": (jnp.float32(1.5), jnp.array([True, False])),
    "none": (),
}


@pytest.mark.parametrize("small", [programs.SMALL, 0])
def test_unpack_gives_back_the_view(small: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whether its numbers went into the vector or, in a large view, not; through jit too."""
    monkeypatch.setattr(programs, "SMALL", small)
    like = jax.eval_shape(lambda: VIEW)
    packed = jax.jit(lambda actor_state: pack(actor_state))(VIEW)  # a new function: jit remembers the old one
    assert packed[0].shape == (7 if small else 0,)
    again = jax.jit(lambda p: unpack(p, like))(packed)
    assert jax.tree.structure(again) == jax.tree.structure(VIEW)
    for one, other in zip(jax.tree.leaves(again), jax.tree.leaves(VIEW), strict=True):
        assert one.dtype == other.dtype
        np.testing.assert_array_equal(one, other)


def test_a_view_without_numbers() -> None:
    """A learner that has no parameters can act too."""
    assert unpack(pack(()), ()) == ()


def test_convolutions_are_told() -> None:
    """Of images by what is seen, of boards by the learner: an MLP takes the same board as a row of numbers."""
    image, board = gym.spaces.Box(0, 255, (12, 12, 3), np.uint8), gym.spaces.MultiBinary((3, 3, 2))
    two = gym.spaces.Discrete(2)
    assert programs.convolves(PPO().build(EnvSpec(image, two, num_envs=2)))
    assert not programs.convolves(PPO().build(EnvSpec(board, two, num_envs=2)))
    assert programs.convolves(MuZero().build(EnvSpec(board, two, num_envs=2)))
    planner = AlphaZero().on("renshu/TicTacToe-v0").trainer.learner
    assert programs.convolves(planner)
    quick = {"xla_cpu_experimental_ynn_fusion_type"}
    cpu = jax.default_backend() == "cpu" and jax.__version_info__ < (0, 11)
    assert quick & set(programs.compiler_options(planner)) == (quick if cpu else set())
