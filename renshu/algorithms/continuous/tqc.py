"""TQC (Kuznetsov et al. 2020, "Controlling overestimation bias with truncated mixture of continuous distributional
quantile critics"): SAC with critics that predict quantiles of the return, and targets without the highest.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import jax
import jax.numpy as jnp

from renshu.algorithms.continuous.actor_critic import ReplayActorCritic
from renshu.algorithms.continuous.sac import SAC, SACLearner
from renshu.algorithms.hyperparameters import integer
from renshu.errors import HyperparameterError
from renshu.ops.value_heads import Quantiles
from renshu.types import Accepts, Array, EnvSpec


@dataclass(frozen=True, kw_only=True)
class TQC(SAC):
    """SAC on quantiles of the return; its defaults are those of sb3-contrib."""

    accepts: ClassVar[Accepts] = ReplayActorCritic.accepts

    n_quantiles: int = integer(25, "quantiles that each critic predicts", least=1)
    top_quantiles_to_drop_per_net: int = integer(
        2, "highest quantiles that targets leave out, for each critic", least=0
    )

    def build(self, spec: EnvSpec) -> TQCLearner:
        """Bind TQC to an environment. Raises HyperparameterError where no quantile would be left."""
        return TQCLearner(self, spec)


class TQCLearner(SACLearner):
    """Quantiles in place of values."""

    def __init__(self, algorithm: TQC, spec: EnvSpec) -> None:
        a = algorithm
        if a.top_quantiles_to_drop_per_net >= a.n_quantiles:
            raise HyperparameterError(
                f"TQC: top_quantiles_to_drop_per_net={a.top_quantiles_to_drop_per_net} leaves none of n_quantiles="
                f"{a.n_quantiles}: drop fewer"
            )
        super().__init__(algorithm, spec)
        self.head = Quantiles(a.n_quantiles)

    def outputs(self) -> int:
        return self.algorithm.n_quantiles

    def target_value(self, q: Array) -> Array:
        """Sort all quantiles `[n, B, K]` and drop the highest: `[B, K']` (equation 10)."""
        n, batch, quantiles = q.shape
        kept = n * (quantiles - self.algorithm.top_quantiles_to_drop_per_net)
        return jnp.sort(jnp.swapaxes(q, 0, 1).reshape(batch, -1), axis=1)[:, :kept]

    def policy_value(self, q: Array) -> Array:
        """Compute the mean of all quantiles (equation 13)."""
        return q.mean(axis=(0, 2))[:, None]

    def losses(self, q: Array, target: Array) -> tuple[Array, Array]:
        """Compute quantile regression of each critic on the target, and mean absolute errors, `[B]` (equation 11)."""
        taus = jnp.broadcast_to(self.head.midpoints, q.shape[1:])
        losses, errors = jax.vmap(lambda one: self.head.loss(one, target, taus))(q)
        return losses.mean(axis=0) / self.algorithm.n_quantiles, errors.mean(axis=0)
