"""Policy heads: from features `[B, F]` to a distribution over actions."""

from __future__ import annotations

import math

import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from gymnasium import spaces

from renshu.networks.layers import dense
from renshu.ops.distributions import Bernoulli, Categorical, MultiCategorical, Normal, TanhNormal
from renshu.types import Array

Distribution = Categorical | MultiCategorical | Bernoulli | Normal | TanhNormal


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
