"""Parts of the actor-critics that learn from replay: groups of hyperparameters, networks, random actions."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
from flax import linen as nn
from gymnasium import spaces

from renshu.algorithms.base import OBSERVATIONS
from renshu.algorithms.hyperparameters import NetArch, choice, convolutions, integer, layer_sizes, module, number
from renshu.algorithms.replay_learner import ReplayAlgorithm
from renshu.networks.critics import Critic, init_ensemble
from renshu.networks.encoders import Hidden, Torso, check_own
from renshu.networks.layers import ACTIVATIONS, STATISTICS
from renshu.ops.spaces import dummy
from renshu.types import Accepts, Array, Key


@dataclass(frozen=True, kw_only=True)
class ActorCriticAlgorithm(ReplayAlgorithm):
    """Hyperparameters of an actor and critics; names and meaning as in Stable-Baselines3."""

    accepts: ClassVar[Accepts] = Accepts(
        observations=OBSERVATIONS, actions=frozenset({"box"}), frame_stack=True, squashed=True
    )

    n_critics: int = integer(2, "critics: networks that each estimate the value of an action", least=1)
    policy_delay: int = integer(1, "updates of the critics for one of the policy", least=1)
    cnn: str | None = convolutions()
    net_arch: NetArch = layer_sizes(
        (256, 256), 'widths of the hidden layers: a list, or {"pi": [...], "qf": [...]}', qf=True
    )
    activation_fn: str = choice("relu", "activation of the hidden layers", tuple(ACTIVATIONS))
    network: Any = module(
        "a Flax module of your own, obs [B, ...] -> features [B, F]: in place of the policy's hidden layers, and "
        "before those of the critics"
    )


@dataclass(frozen=True, kw_only=True)
class TargetNetworks:
    """Hyperparameters of target networks that follow by Polyak averaging."""

    tau: float = number(
        0.005,
        "share of the parameters that a target network takes over in an update",
        above=0,
        most=1,
        traceable=True,
        tune=(1e-3, 0.08),
    )
    target_update_interval: int = integer(1, "gradient steps between updates of the target networks", least=1)


class Networks:
    """An actor and an ensemble of critics over observations of a space. Holds no arrays.

    config: the hyperparameters. space: as the networks see it. The parameters are a dict of "actor", "critics" (a
    tuple) and, with batch normalisation, "stats".
    """

    def __init__(self, config: ActorCriticAlgorithm, space: spaces.Space) -> None:
        self.config, self.space = config, space
        if config.network is not None:
            check_own(config.network, space)

    def torso(self, **options: Any) -> Torso:
        """Make hidden layers for the policy. options: of `Hidden`."""
        hidden = Hidden(self.config.net_arch.pi, self.config.activation_fn, **options)
        return Torso(self.space, hidden, self._own(), self.config.cnn)

    def critic(self, outputs: int = 1, **options: Any) -> Critic:
        """Make a critic with that many outputs. options: of `Hidden`."""
        hidden = Hidden(self.config.net_arch.vf, self.config.activation_fn, **options)
        return Critic(self.space, hidden, self._own(), outputs, self.config.cnn)

    def _own(self) -> nn.Module | None:
        return None if self.config.network is None else self.config.network.copy(name=None)

    def init(self, actor: nn.Module, critic: nn.Module, action: Array | None, key: Key) -> dict[str, Any]:
        """Make the parameters. action: `[1, A]`, an example for the critics; None where they value all at once."""
        key_actor, key_critics = jax.random.split(key)
        obs = dummy(self.space, 1)
        variables = actor.init(key_actor, obs)
        critics = init_ensemble(lambda k: critic.init(k, obs, action), self.config.n_critics, key_critics)
        params: dict[str, Any] = {"actor": variables["params"], "critics": tuple(one["params"] for one in critics)}
        if STATISTICS in variables:
            params["stats"] = {"actor": variables[STATISTICS], "critics": tuple(one[STATISTICS] for one in critics)}
        return params


def mix_random(action: Array, share: Array, key: Key) -> Array:
    """Replace a share of the actions `[N, A]` by uniformly random ones."""
    key_action, key_random = jax.random.split(key)
    anything = jax.random.uniform(key_action, action.shape, minval=-1.0, maxval=1.0)
    random = jax.random.uniform(key_random, action.shape[:1]) < share
    return jnp.where(random[:, None], anything, action)


def lowest_value(q: Array) -> Array:
    """Reduce the values of all critics `[n, N, K]` to those of the lowest, `[N]`."""
    return q.mean(axis=2).min(axis=0)
