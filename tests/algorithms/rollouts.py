"""Rollouts made by hand, without an environment."""

from __future__ import annotations

import math
from typing import Any

import jax
import numpy as np
from gymnasium import spaces

from renshu.algorithms.base import Learner
from renshu.ops.spaces import map_space, storage_dtype
from renshu.types import EnvSpec, Rollout, TimeStep

OBSERVATION = spaces.Box(-np.inf, np.inf, (3,), np.float32)


def spec_of(action: spaces.Space | None = None, observation: spaces.Space = OBSERVATION, num_envs: int = 3) -> EnvSpec:
    return EnvSpec(observation, action or spaces.Discrete(2), num_envs)


def draw(space: spaces.Space, shape: tuple[int, ...], seed: int) -> Any:
    """Samples of a space, `[*shape, ...]` at each leaf, in the dtypes in which rollouts hold them."""
    space.seed(seed)
    batch = [space.sample() for _ in range(math.prod(shape))]

    def stack(leaf: spaces.Space, *values: Any) -> np.ndarray:
        return np.stack(values).reshape(*shape, *(leaf.shape or ())).astype(storage_dtype(leaf.dtype))

    return map_space(stack, space, *batch)


def make_rollout(
    learner: Learner,
    *,
    seed: int = 0,
    terminated: tuple[tuple[int, int], ...] = (),
    truncated: tuple[tuple[int, int], ...] = (),
) -> Rollout:
    """Random experience; the episodes of environments n end at steps t for the (t, n) given."""
    T, N = learner.needs.steps, learner.spec.num_envs
    ends, first = np.zeros((T, N), bool), np.zeros((T + 1, N), bool)
    for t, n in terminated:
        ends[t, n] = True
    for t, n in (*terminated, *truncated):
        if t + 2 <= T:
            first[t + 2, n] = True  # step t + 1 only resets
    return Rollout(
        obs=draw(learner.spec.observation_space, (T + 1, N), seed),
        first=first,
        action=draw(learner.spec.action_space, (T, N), seed + 1),
        reward=np.random.default_rng(seed).normal(1.0, 2.0, (T, N)).astype(np.float32),
        terminated=ends,
        carry=(),
        extras=(),
    )


def quick(learner: Any) -> Any:
    """The learner, with parameters drawn by NumPy: to compile Flax's initialisation takes longer than a test."""
    shapes = jax.eval_shape(learner.network.init, jax.random.key(0))
    learner.network = learner.network._replace(init=lambda key: shaken(shapes, 0.5))
    return learner


def shaken(tree: Any, scale: float = 0.3) -> Any:
    """Parameters moved at random, so that policies are neither uniform nor the one that acted; shapes count as 0."""
    leaves, structure = jax.tree.flatten(tree)
    rng = np.random.default_rng(7)

    def move(leaf: Any) -> np.ndarray:
        start = 0 if isinstance(leaf, jax.ShapeDtypeStruct) else np.asarray(leaf)
        return start + scale * rng.normal(size=leaf.shape).astype(np.float32)

    return jax.tree.unflatten(structure, [move(leaf) for leaf in leaves])


def assert_same(one: Any, other: Any) -> None:
    """Two trees are equal to the bit."""
    jax.tree.map(np.testing.assert_array_equal, one, other)


def assert_close(one: Any, other: Any, rtol: float = 1e-4, atol: float = 1e-6) -> None:
    """Two trees are equal but for rounding."""
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=rtol, atol=atol), one, other)


def beginning(obs: Any) -> TimeStep:
    """Observations `[B, ...]` as the first of an episode each."""
    return TimeStep(obs, np.ones(jax.tree.leaves(obs)[0].shape[0], np.bool_))
