"""Temperature of a soft policy: the weight of its entropy, fixed or learned (Haarnoja et al. 2018, section 5)."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import jax.numpy as jnp

from renshu.algorithms.hyperparameters import auto
from renshu.ops.losses import temperature_loss
from renshu.optim.train_state import Optimizers, TrainState
from renshu.types import Array

PART = "log_ent_coef"
"""Part of the parameters that holds the log of a learned temperature."""


@dataclass(frozen=True, kw_only=True)
class Entropy:
    """Hyperparameters of a policy that seeks entropy."""

    ent_coef: float | str = auto(
        "auto",
        "temperature: reward for 1 nat of entropy; learned, from 1 or another number on",
        least=0,
        starts=True,
        traceable=True,
    )
    target_entropy: float | str = auto(
        "auto",
        "entropy that a learned ent_coef aims at, in nats; auto: minus the dimensions, or 0.98 of the highest",
        traceable=True,
    )


def init_temperature(config: Entropy) -> dict[str, Array]:
    """Make the part of the parameters that a learned temperature needs; nothing for a fixed one."""
    if not isinstance(config.ent_coef, str):
        return {}
    start = config.ent_coef.removeprefix("auto").removeprefix("_")  # "0.1" of "auto_0.1"
    return {PART: jnp.float32(math.log(float(start or 1)))}


def temperature(config: Entropy, params: dict[str, Any]) -> Array | float:
    """Return the temperature, []."""
    return jnp.exp(params[PART]) if isinstance(config.ent_coef, str) else config.ent_coef


def temperature_step(
    config: Entropy,
    optim: Optimizers,
    train_state: TrainState,
    actor_loss: Array,
    entropy: Array,
    target: Array | float,
    learning_rate: Array,
) -> TrainState:
    """Move a learned temperature by how far the entropy is from its target, and note the metrics of the policy."""
    if isinstance(config.ent_coef, str):
        loss = lambda log: (temperature_loss(log, entropy, target), ())  # noqa: E731
        train_state, _ = optim.step(train_state, PART, loss, learning_rate)
    now = jnp.float32(temperature(config, train_state.params))
    metrics = {"actor_loss": actor_loss, "entropy": entropy, "ent_coef": now}
    return train_state._replace(aux=train_state.aux._replace(metrics=metrics))
