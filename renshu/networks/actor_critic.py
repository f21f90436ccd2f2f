"""A policy and a value function over any observation and action space, apart or on one torso."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

from flax import linen as nn
from gymnasium import spaces

from renshu.networks.encoders import MLP, check_own
from renshu.networks.heads import Distribution, PolicyHead
from renshu.networks.layers import dense
from renshu.ops.distributions import Categorical
from renshu.ops.masks import mask_values, split
from renshu.ops.spaces import dummy
from renshu.types import OBSERVATION, Array, Key, PyTree


class ActorCritic(nn.Module):
    """A policy and a value function. `critic_torso=None`: both stand on the actor's torso."""

    actor_torso: nn.Module
    critic_torso: nn.Module | None
    policy_head: nn.Module
    ortho_init: bool = True

    def setup(self) -> None:
        self.value_head = dense(1, 1.0, self.ortho_init)

    def __call__(self, obs: PyTree) -> tuple[Distribution, Array]:
        """Compute the distribution over actions, and values `[B]`, of observations `[B, ...]`."""
        features = self.actor_torso(obs)
        critic_features = features if self.critic_torso is None else self.critic_torso(obs)
        return self.policy_head(features), self.value_head(critic_features)[..., 0]

    def policy(self, obs: PyTree) -> Distribution:
        """Compute the distribution over actions alone."""
        return self.policy_head(self.actor_torso(obs))

    def value(self, obs: PyTree) -> Array:
        """Compute values `[B]` alone."""
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
    """Build the network from spaces and hyperparameters. A `network` of the user replaces the hidden layers.

    Raises HyperparameterError where that network does not take the observation or returns no features `[B, F]`.
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
    """Adapt a network to observations that carry a mask: actions that are not allowed get probability 0."""

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
