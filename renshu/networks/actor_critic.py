"""A policy and a value function over any observation and action space, apart or on one torso."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from gymnasium import spaces

from renshu.errors import HyperparameterError
from renshu.ops.distributions import Bernoulli, Categorical, MultiCategorical, Normal, TanhNormal
from renshu.ops.masks import mask_values, split
from renshu.ops.spaces import dummy, encode
from renshu.types import OBSERVATION, Array, Key, PyTree

ACTIVATIONS: dict[str, Callable[[Array], Array]] = {"tanh": jnp.tanh, "relu": nn.relu, "elu": nn.elu, "silu": nn.silu}

Distribution = Categorical | MultiCategorical | Bernoulli | Normal | TanhNormal


def product(x: Array, w: Array) -> Array:
    """x [..., F] @ w [F, G], with a gradient that XLA multiplies fast on a CPU."""
    return _product(x.reshape(-1, x.shape[-1]), w).reshape(*x.shape[:-1], w.shape[-1])


@jax.custom_vjp
def _product(x: Array, w: Array) -> Array:
    return x @ w


def _product_forward(x: Array, w: Array) -> tuple[Array, tuple[Array, Array]]:
    return x @ w, (x, w)


def _product_backward(saved: tuple[Array, Array], g: Array) -> tuple[Array, Array]:
    x, w = saved
    if g.shape[1] == 1:
        return g @ w.T, (g.T @ x).T
    # XLA folds the transposition into the product, which on a CPU halves its speed; written out it costs a tenth.
    x_t = jax.lax.optimization_barrier(x.T) if jax.default_backend() == "cpu" else x.T
    return g @ w.T, x_t @ g


_product.defvjp(_product_forward, _product_backward)


def dense(width: int, gain: float, orthogonal: bool) -> nn.Dense:
    """A linear layer; orthogonal initialisation with `gain` (Saxe 2014), or Flax's own (LeCun normal)."""
    init = nn.initializers.orthogonal(gain) if orthogonal else nn.initializers.lecun_normal()
    return nn.Dense(width, kernel_init=init, dot_general=lambda x, w, *_, **__: product(x, w))


class MLP(nn.Module):
    """Encode an observation `[B, ...]` as one vector and pass it through hidden layers: features `[B, widths[-1]]`."""

    space: spaces.Space
    widths: tuple[int, ...]
    activation: str = "tanh"
    ortho_init: bool = True

    @nn.compact
    def __call__(self, obs: PyTree) -> Array:
        x = encode(self.space, obs)
        for width in self.widths:
            x = ACTIVATIONS[self.activation](dense(width, 2**0.5, self.ortho_init)(x))
        return x


class PolicyHead(nn.Module):
    """From features `[B, F]` to a distribution over actions of `space`."""

    space: spaces.Space
    log_std_init: float = 0.0
    squash_output: bool = False
    ortho_init: bool = True

    @nn.compact
    def __call__(self, features: Array) -> Distribution:
        def outputs(count: int) -> Array:
            return dense(count, 0.01, self.ortho_init)(features)

        space = self.space
        if isinstance(space, spaces.Discrete):
            return Categorical(outputs(int(space.n)))
        if isinstance(space, spaces.MultiDiscrete):
            ends = np.cumsum(space.nvec)
            parts = jnp.split(outputs(int(ends[-1])), ends[:-1], axis=-1)
            return MultiCategorical(tuple(Categorical(part) for part in parts))
        if isinstance(space, spaces.MultiBinary):
            return Bernoulli(outputs(math.prod(space.shape or ())))
        size = math.prod(space.shape or ())  # Box
        mean = outputs(size)
        log_std = self.param("log_std", nn.initializers.constant(self.log_std_init), (size,))
        return (TanhNormal if self.squash_output else Normal)(mean, jnp.broadcast_to(log_std, mean.shape))


class ActorCritic(nn.Module):
    """A policy and a value function. `critic_torso=None`: both stand on the actor's torso."""

    actor_torso: nn.Module
    critic_torso: nn.Module | None
    policy_head: nn.Module
    ortho_init: bool = True

    def setup(self) -> None:
        self.value_head = dense(1, 1.0, self.ortho_init)

    def __call__(self, obs: PyTree) -> tuple[Distribution, Array]:
        """Distribution over actions and values `[B]` of observations `[B, ...]`."""
        features = self.actor_torso(obs)
        critic_features = features if self.critic_torso is None else self.critic_torso(obs)
        return self.policy_head(features), self.value_head(critic_features)[..., 0]

    def policy(self, obs: PyTree) -> Distribution:
        """Distribution over actions alone."""
        return self.policy_head(self.actor_torso(obs))

    def value(self, obs: PyTree) -> Array:
        """Values `[B]` alone."""
        torso = self.actor_torso if self.critic_torso is None else self.critic_torso
        return self.value_head(torso(obs))[..., 0]


class ActorCriticNetwork(NamedTuple):
    """Pure functions over a plain dict of parameters."""

    init: Callable[[Key], PyTree]  # parameters
    both: Callable[[PyTree, PyTree], tuple[Distribution, Array]]  # (params, obs) -> distribution, value [B]
    policy: Callable[[PyTree, PyTree], Distribution]
    value: Callable[[PyTree, PyTree], Array]


def actor_critic(
    observation_space: spaces.Space,
    action_space: spaces.Space,
    *,
    net_arch: Any,
    activation_fn: str,
    ortho_init: bool,
    share_features_extractor: bool,
    log_std_init: float,
    squash_output: bool,
    network: nn.Module | None,
) -> ActorCriticNetwork:
    """Build the network from spaces and hyperparameters. An own `network` stands in the place of the hidden layers.

    Raises HyperparameterError where an own network does not take the observation or returns no features `[B, F]`.
    """
    if network is not None:
        torso, critic_torso = network.copy(name=None), network.copy(name=None)
    else:
        torso = MLP(observation_space, net_arch.pi, activation_fn, ortho_init)
        critic_torso = MLP(observation_space, net_arch.vf, activation_fn, ortho_init)
    module = ActorCritic(
        torso,
        None if share_features_extractor else critic_torso,
        PolicyHead(action_space, log_std_init, squash_output, ortho_init),
        ortho_init,
    )
    if network is not None:
        check_own(network, observation_space)

    def apply(method: str) -> Callable[[PyTree, PyTree], Any]:
        return lambda params, obs: module.apply({"params": params}, obs, method=method)

    return ActorCriticNetwork(
        init=lambda key: module.init(key, dummy(observation_space, 1))["params"],
        both=apply("__call__"),
        policy=apply("policy"),
        value=apply("value"),
    )


def masked(network: ActorCriticNetwork) -> ActorCriticNetwork:
    """The same over observations that carry a mask: Discrete actions that are not allowed have probability 0."""

    def both(params: PyTree, obs: PyTree) -> tuple[Distribution, Array]:
        seen, mask = split(obs)
        policy, value = network.both(params, seen)
        return _without(policy, mask), value

    def policy(params: PyTree, obs: PyTree) -> Distribution:
        seen, mask = split(obs)
        return _without(network.policy(params, seen), mask)

    return ActorCriticNetwork(network.init, both, policy, lambda params, obs: network.value(params, obs[OBSERVATION]))


def _without(policy: Any, mask: Array) -> Categorical:
    return Categorical(mask_values(policy.logits, mask))


def check_own(network: nn.Module, space: spaces.Space) -> None:
    """Raise HyperparameterError where a user's network does not take observations or returns no features `[B, F]`."""
    obs, name = dummy(space, 2), type(network).__name__
    try:
        features, variables = jax.eval_shape(lambda: network.init_with_output(jax.random.key(0), obs))
    except Exception as error:
        raise HyperparameterError(
            f"network: {name} does not take observations of {space} in batches of 2: {type(error).__name__}: {error}"
        ) from error
    if not hasattr(features, "shape") or len(features.shape) != 2 or features.shape[0] != 2:
        got = getattr(features, "shape", type(features).__name__)
        raise HyperparameterError(f"network: {name} must return features of shape [B, F], here (2, F), not {got}")
    if set(variables) - {"params"}:
        extra = ", ".join(sorted(set(variables) - {"params"}))
        raise HyperparameterError(f"network: {name} keeps variables beside its params ({extra}); that is not supported")
