"""A policy and a value function over any observation and action space, apart or on one torso, with a memory or none."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import linen as nn
from gymnasium import spaces

from renshu.networks.encoders import MLP, check_own
from renshu.networks.heads import Distribution, PolicyHead, StateDependentHead
from renshu.networks.layers import dense
from renshu.networks.recurrent import Core, core
from renshu.ops.distributions import Categorical
from renshu.ops.masks import mask_values, split
from renshu.ops.spaces import dummy
from renshu.types import OBSERVATION, Array, Key, PyTree


class Inputs(NamedTuple):
    """Inputs of a network for T steps of B environments, time-major; where nothing remembers, of any T * B rows."""

    obs: PyTree  # [T * B, ...]
    carry: PyTree = ()  # [B, ...]  of recurrent cores, before the first step
    first: Array = ()  # [T, B] bool  the step is an episode's first


class ActorCritic(nn.Module):
    """A policy and a value function. `critic_torso=None`: both stand on the actor's torso, and on its core.

    actor_core, critic_core: recurrent layers between a torso and its head, or None.
    """

    actor_torso: nn.Module
    critic_torso: nn.Module | None
    policy_head: nn.Module
    ortho_init: bool = True
    actor_core: Core | None = None
    critic_core: Core | None = None

    def setup(self) -> None:
        self.value_head = dense(1, 1.0, self.ortho_init)

    def __call__(self, inputs: Inputs) -> tuple[Distribution, Array, PyTree]:
        """Compute the distribution over actions, values `[T * B]`, and the carry after them."""
        features, carry = self._actor(inputs)
        critic_features, critic_carry = (features, ()) if self.critic_torso is None else self._critic(inputs)
        return self.policy_head(features), self.value_head(critic_features)[..., 0], (carry, critic_carry)

    def policy(self, inputs: Inputs) -> Distribution:
        """Compute the distribution over actions alone."""
        return self.policy_head(self._actor(inputs)[0])

    def explore(self, inputs: Inputs, matrix: Array) -> tuple[Array, PyTree]:
        """Compute actions `[B, A]` of one step by matrices of state-dependent noise, and the carry after it."""
        features, carry = self._actor(inputs)
        critic_carry = () if self.critic_torso is None else self._critic(inputs)[1]
        return self.policy_head.act(features, matrix), (carry, critic_carry)  # type: ignore[attr-defined]

    def value(self, inputs: Inputs) -> Array:
        """Compute values `[T * B]` alone."""
        features = self._actor(inputs)[0] if self.critic_torso is None else self._critic(inputs)[0]
        return self.value_head(features)[..., 0]

    def _actor(self, inputs: Inputs) -> tuple[Array, PyTree]:
        carry = inputs.carry[0] if self.actor_core is not None else ()
        return _remember(self.actor_core, self.actor_torso(inputs.obs), carry, inputs.first)

    def _critic(self, inputs: Inputs) -> tuple[Array, PyTree]:
        carry = inputs.carry[1] if self.critic_core is not None else ()
        return _remember(self.critic_core, self.critic_torso(inputs.obs), carry, inputs.first)  # type: ignore[misc]


def _remember(core: Core | None, features: Array, carry: PyTree, first: Array) -> tuple[Array, PyTree]:
    """Run a core over features `[T * B, F]`; without one they are returned as they are."""
    if core is None:
        return features, ()
    x, carry = core(features.reshape(*first.shape, features.shape[-1]), carry, first)
    return x.reshape(-1, x.shape[-1]), carry


class ActorCriticNetwork(NamedTuple):
    """Pure functions over a plain dict of parameters."""

    init: Callable[[Key], PyTree]  # parameters
    both: Callable[[PyTree, Inputs], tuple[Distribution, Array, PyTree]]  # distribution, value [T * B], carry
    policy: Callable[[PyTree, Inputs], Distribution]
    value: Callable[[PyTree, Inputs], Array]
    initial_carry: Callable[[int], PyTree]  # [B, ...]  of the cores; () without any
    explore: Callable[[PyTree, Inputs, Array], tuple[Array, PyTree]]  # action, carry; for state-dependent noise alone
    noise_shape: Callable[[], tuple[int, ...]]  # (F, A), the shape of a matrix of it


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
    cnn: str | None = None,
    recurrent: str | None = None,
    recurrent_size: int = 64,
    use_sde: bool = False,
) -> ActorCriticNetwork:
    """Build the network from spaces and hyperparameters. A `network` of the user replaces the hidden layers.

    use_sde: the noise of the policy is a function of the state; for Box actions.

    Raises HyperparameterError where that network does not take the observation or returns no features `[B, F]`.
    """
    if network is not None:
        torso, critic_torso = network.copy(name=None), network.copy(name=None)
    else:
        torso = MLP(observation_space, net_arch.pi, activation_fn, ortho_init, cnn)
        critic_torso = MLP(observation_space, net_arch.vf, activation_fn, ortho_init, cnn)
    cores = [None if recurrent is None else core(recurrent, recurrent_size, ortho_init) for _ in range(2)]
    if share_features_extractor:
        critic_torso, cores[1] = None, None
    head: Any = StateDependentHead if use_sde else PolicyHead
    policy_head = head(action_space, log_std_init, squash_output, ortho_init)
    module = ActorCritic(torso, critic_torso, policy_head, ortho_init, *cores)
    if network is not None:
        check_own(network, observation_space)

    def apply(method: str) -> Callable[..., Any]:
        return lambda params, *inputs: module.apply({"params": params}, *inputs, method=method)

    def initial_carry(batch: int) -> PyTree:
        return () if recurrent is None else tuple(() if one is None else one.initial_carry(batch) for one in cores)

    def init(key: Key) -> PyTree:
        first = () if recurrent is None else jnp.ones((1, 1), jnp.bool_)
        return module.init(key, Inputs(dummy(observation_space, 1), initial_carry(1), first))["params"]

    def noise_shape() -> tuple[int, ...]:
        return jax.eval_shape(init, jax.random.key(0))["policy_head"]["log_std"].shape

    both, policy, value, explore = (apply(name) for name in ("__call__", "policy", "value", "explore"))
    return ActorCriticNetwork(init, both, policy, value, initial_carry, explore, noise_shape)


def masked(network: ActorCriticNetwork) -> ActorCriticNetwork:
    """Adapt a network to observations that carry a mask: actions that are not allowed get probability 0."""

    def both(params: PyTree, inputs: Inputs) -> tuple[Distribution, Array, PyTree]:
        seen, mask = split(inputs.obs)
        policy, value, carry = network.both(params, inputs._replace(obs=seen))
        return _without(policy, mask), value, carry

    def policy(params: PyTree, inputs: Inputs) -> Distribution:
        seen, mask = split(inputs.obs)
        return _without(network.policy(params, inputs._replace(obs=seen)), mask)

    def value(params: PyTree, inputs: Inputs) -> Array:
        return network.value(params, inputs._replace(obs=inputs.obs[OBSERVATION]))

    return network._replace(both=both, policy=policy, value=value)


def _without(policy: Any, mask: Array) -> Categorical:
    return Categorical(mask_values(policy.logits, mask))
