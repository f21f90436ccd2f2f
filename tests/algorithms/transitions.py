"""Transitions made by hand, and networks small enough to follow in NumPy."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from gymnasium import spaces

from renshu.algorithms.continuous.noise import perturbation
from renshu.optim.train_state import TrainState
from renshu.replay.ring import Index, Transitions
from renshu.types import EnvSpec

BOX = spaces.Box(-np.inf, np.inf, (3,), np.float32)
SMALL: dict[str, Any] = {"batch_size": 16, "buffer_size": 400, "net_arch": [8], "learning_starts": 20}


def spec_of(action: spaces.Space | int = 2, num_envs: int = 2, frame_stack: int = 1) -> EnvSpec:
    """An environment of three numbers; action: a space, or the dimensions of a Box."""
    space = spaces.Box(-1, 1, (action,), np.float32) if isinstance(action, int) else action
    return EnvSpec(BOX, space, num_envs, frame_stack=frame_stack)


def quick(learner: Any) -> Any:
    """The learner, with parameters drawn by NumPy: Flax's own take seconds to compile."""
    made = learner.init_train

    def init_train(key: Any) -> TrainState:
        shapes = jax.eval_shape(made, key)
        params = drawn(shapes.params, 0)
        plain = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), shapes)
        target = {part: params[part] for part in shapes.target}
        aux = plain.aux
        if getattr(learner, "has_parameter_noise", False):
            std = jnp.float32(learner.config.action_noise_std)
            aux = aux._replace(noise=aux.noise._replace(delta=perturbation(params["actor"], std, key), std=std))
        return plain._replace(params=params, target=target, aux=aux, finite=jnp.bool_(True))

    learner.init_train = init_train
    return learner


def drawn(shapes: Any, seed: int) -> Any:
    """Arrays of these shapes: normal numbers, and 0 for those that stand alone."""
    rng = np.random.default_rng(seed)
    return jax.tree.map(lambda x: np.asarray(0.5 * rng.normal(size=x.shape) * (x.ndim > 0), x.dtype), shapes)


def started(learner: Any) -> TrainState:
    """The core of a learner whose late copies differ from its networks."""
    train_state = learner.init_train(jax.random.key(0))
    return jax.tree.map(jnp.asarray, train_state._replace(target=drawn(train_state.target, 1)))


def samples_of(count: int = 16, action: int = 2, choices: int | None = None, seed: int = 0) -> Transitions:
    """Transitions of random numbers, a third of them the last of an episode; choices: Discrete actions of so many."""
    rng = np.random.default_rng(seed)
    shape = (count, action)
    actions = rng.uniform(-1, 1, shape).astype(np.float32) if choices is None else rng.integers(choices, size=count)
    index = Index(jnp.arange(count), jnp.zeros(count, jnp.int32))
    return Transitions(
        obs=jnp.asarray(rng.normal(size=(count, 3)), jnp.float32),
        action=jnp.asarray(actions),
        reward=jnp.asarray(rng.normal(size=count), jnp.float32),
        discount=jnp.where(jnp.arange(count) % 3 == 0, 0.0, 0.9),
        next_obs=jnp.asarray(rng.normal(size=(count, 3)), jnp.float32),
        weight=jnp.ones(count),
        indices=index,
    )


def network(params: Any, x: Any) -> np.ndarray:
    """What a network with relu layers says, before whatever its head does; in NumPy."""
    hidden = params["torso"]["hidden"] if "torso" in params else params["hidden"]
    for name in sorted(hidden):
        x = np.maximum(x @ np.asarray(hidden[name]["kernel"]) + np.asarray(hidden[name]["bias"]), 0)
    return x @ np.asarray(params["Dense_0"]["kernel"]) + np.asarray(params["Dense_0"]["bias"])


def critics(params: Any, obs: Any, action: Any) -> np.ndarray:
    """What the critics say, `[n, B, K]`; in NumPy."""
    x = np.concatenate([obs, action], axis=1)
    return np.stack([network(one, x) for one in params["critics"]])


def parts(tree: Any, word: str) -> dict[str, np.ndarray]:
    """Arrays of a tree whose path has a word in it, by path."""
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    return {jax.tree_util.keystr(path): np.asarray(x) for path, x in leaves if word in jax.tree_util.keystr(path)}


def moved(a: Any, b: Any) -> bool:
    """Whether any number differs between two trees."""
    return not jax.tree.all(jax.tree.map(np.array_equal, a, b))
