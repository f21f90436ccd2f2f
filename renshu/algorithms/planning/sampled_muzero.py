"""Sampled MuZero (Hubert et al. 2021): MuZero for continuous actions, which searches among a few that it draws.

The search is that of Gumbel MuZero, as in EfficientZero V2 (Wang et al. 2024, section 4.2).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import jax
import jax.numpy as jnp

from renshu.algorithms.base import OBSERVATIONS
from renshu.algorithms.hyperparameters import choice, integer, number
from renshu.algorithms.planning.imagination import Imagination, Searched
from renshu.algorithms.planning.muzero import MuZero, MuZeroLearner
from renshu.algorithms.planning.search import GUMBEL, PUCT
from renshu.ops.distributions import TanhNormal
from renshu.types import Accepts, Array, EnvSpec, Key

MOST_MEAN, LOG_STD = 3.0, (-3.0, 0.0)
"""Bounds of the mean and of the log deviation of actions, before the tanh: with a deviation of 1 they are all about."""
MOST = 0.999
"""Bound of actions that are drawn from all alike."""


@dataclass(frozen=True, kw_only=True)
class SampledMuZero(MuZero):
    """MuZero for continuous actions: each state of a search has a few that were drawn from the policy there.

    At the root, in training, half of them are drawn from all actions alike: the policy finds what it lacks. To search,
    all that were drawn are equally good beforehand, where the paper weights them by the policy over what they are drawn
    from: what a search improves is this mixture.
    """

    accepts: ClassVar[Accepts] = Accepts(
        observations=OBSERVATIONS, actions=frozenset({"box"}), frame_stack=True, squashed=True
    )

    search: str = choice(GUMBEL, 'the search: "puct" or "gumbel"', (PUCT, GUMBEL))
    num_simulations: int = integer(16, "states that a search looks at before each action", least=1)
    gamma: float = number(0.99, "discount factor", least=0, most=1, traceable=True)
    num_sampled_actions: int = integer(16, "actions drawn at each state of a search", least=2)
    ent_coef: float = number(5e-3, "weight of the policy's entropy", least=0, traceable=True)

    def build(self, spec: EnvSpec) -> SampledMuZeroLearner:
        """Bind Sampled MuZero to an environment. Raises HyperparameterError for options that do not go together."""
        return SampledMuZeroLearner(self, spec)


def distribution_of(policy: Array) -> TanhNormal:
    """Make of the network's numbers `[..., 2 D]` a distribution of actions `[..., D]`."""
    mean, log_std = jnp.split(policy, 2, axis=-1)
    return TanhNormal(MOST_MEAN * jnp.tanh(mean / MOST_MEAN), jnp.clip(log_std, *LOG_STD))


class SampledImagination(Imagination):
    """Search among choices that are drawn."""

    config: SampledMuZero

    def offered(self, policy: Array, mask: Array | None, key: Key, explore: bool = False) -> tuple[Array, Array]:
        """Draw actions, before the tanh, that are alike beforehand: `[B, C]` logits and `[B, C, D]`.

        Without exploring the first is the mean.
        """
        count, normal = self.config.num_sampled_actions, distribution_of(policy).base
        key_noise, key_any = jax.random.split(key)
        noise = jax.random.normal(key_noise, (len(policy), count, normal.mean.shape[-1]))
        noise = noise if explore else noise.at[:, 0].set(0.0)
        drawn = normal.mean[:, None] + jnp.exp(normal.log_std)[:, None] * noise
        if explore:
            anywhere = jax.random.uniform(key_any, drawn[:, count // 2 :].shape, minval=-MOST, maxval=MOST)
            drawn = drawn.at[:, count // 2 :].set(jnp.arctanh(anywhere))
        return jnp.zeros(drawn.shape[:2]), drawn

    def chosen(self, index: Array, choices: Array) -> Array:
        """Return actions `[B, ...]` by the number of their choice."""
        drawn = jnp.take_along_axis(choices, index[:, None, None], axis=1)[:, 0]
        return jnp.tanh(drawn).reshape(-1, *(self.spec.action_space.shape or ()))

    def described(self, action: Array) -> Array:
        return action.reshape(len(action), -1)

    def any_actions(self, key: Key, shape: tuple[int, ...]) -> Array:
        return jax.random.uniform(key, (*shape, *(self.spec.action_space.shape or ())), minval=-1.0, maxval=1.0)

    def learned_of(self, searched: Searched) -> dict[str, Array]:
        return super().learned_of(searched) | {"choices": searched.root.choices}

    def shown(self, policy: Array, mask: Array | None) -> dict[str, Array]:
        distribution = distribution_of(policy)
        return {"action": distribution.mode(), "log_std": distribution.log_std}


class SampledMuZeroLearner(MuZeroLearner):
    """MuZero with the policy's loss on choices that were drawn."""

    config: SampledMuZero
    imagines = SampledImagination

    def widths(self) -> tuple[int, int]:
        size = math.prod(self.spec.action_space.shape or ())
        return size, 2 * size

    def policy_losses(self, policy: Array, found: dict[str, Array]) -> Array:
        """Compute the cross-entropy to the search's policy over the actions drawn (Hubert et al. 2021, section 5)."""
        distribution = distribution_of(policy)
        density = jax.vmap(distribution.base.log_prob, in_axes=-2, out_axes=-1)(found["choices"])
        return -(found["policy"] * density).sum(axis=-1) - self.config.ent_coef * distribution.entropy()
