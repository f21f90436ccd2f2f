"""A policy whose weights are one vector, for learners that know no gradient."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import linen as nn
from gymnasium import spaces
from jax.flatten_util import ravel_pytree

from renshu.networks.encoders import MLP, check_own
from renshu.networks.heads import Distribution, PolicyHead
from renshu.ops.distributions import Categorical
from renshu.ops.masks import mask_values, split
from renshu.ops.spaces import dummy
from renshu.types import Array, Key, PyTree


class Policy(nn.Module):
    """A torso and a policy's head; their weights have the names that they have in `ActorCritic`."""

    actor_torso: nn.Module
    policy_head: nn.Module

    def __call__(self, obs: PyTree) -> Distribution:
        """Compute the distribution over actions."""
        return self.policy_head(self.actor_torso(obs))


class VectorPolicy(NamedTuple):
    """Pure functions of a policy over its weights as a vector [D] float32."""

    size: int  # D
    start: Callable[[Key], Array]  # weights [D] as a network begins
    policy: Callable[[PyTree, PyTree], Distribution]  # weights by name, observations [B, ...]
    params: Callable[[Array], PyTree]  # weights by name, without the deviation of continuous actions
    weights: Callable[[PyTree], Array]  # the inverse; other networks' weights may be among those by name


def vector_policy(
    observation_space: spaces.Space,
    action_space: spaces.Space,
    *,
    widths: tuple[int, ...],
    activation_fn: str,
    ortho_init: bool,
    squash_output: bool,
    masks: bool = False,
    cnn: str | None = None,
    network: nn.Module | None = None,
    with_bias: bool = True,
) -> VectorPolicy:
    """Build a policy from spaces and hyperparameters. A `network` of the user replaces the hidden layers.

    with_bias: a bias on the outputs. The deviation of continuous actions is no part of the vector: what is played is
    the mean.

    Raises HyperparameterError where that network does not take the observation or returns no features `[B, F]`.
    """
    if network is not None:
        check_own(network, observation_space)
        torso: nn.Module = network.copy(name=None)
    else:
        torso = MLP(observation_space, widths, activation_fn, ortho_init, cnn)
    module = Policy(torso, PolicyHead(action_space, 0.0, squash_output, ortho_init, with_bias))

    def init(key: Key) -> tuple[PyTree, PyTree]:
        return _parted(dict(module.init(key, dummy(observation_space, 1))["params"]))

    shapes, still = jax.eval_shape(init, jax.random.key(0))
    zeros = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), shapes)
    flat, unravel = ravel_pytree(zeros)

    def whole(tree: PyTree) -> PyTree:
        constant = {name: jnp.zeros(x.shape, x.dtype) for name, x in still.items()}
        return {**tree, "policy_head": {**tree["policy_head"], **constant}}

    def weights(tree: PyTree) -> Array:
        known, _ = _parted({name: tree[name] for name in shapes})
        return ravel_pytree(known)[0]

    def policy(params: PyTree, obs: PyTree) -> Any:
        if not masks:
            return module.apply({"params": whole(params)}, obs)
        seen, mask = split(obs)
        found: Any = module.apply({"params": whole(params)}, seen)
        return Categorical(mask_values(found.logits, mask))

    return VectorPolicy(flat.size, lambda key: ravel_pytree(init(key)[0])[0], policy, unravel, weights)


def _parted(params: dict[str, Any]) -> tuple[PyTree, PyTree]:
    """Part weights from the deviation of continuous actions."""
    head = dict(params["policy_head"])
    still = {name: head.pop(name) for name in ("log_std",) if name in head}
    return {**params, "policy_head": head}, still
