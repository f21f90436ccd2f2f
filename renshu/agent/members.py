"""Single members of a population as trainers of their own."""

from __future__ import annotations

from collections.abc import Sequence

import jax
import jax.numpy as jnp

from renshu.agent.cluster import backend_again
from renshu.agent.trainer import Trainer


def member_of(trainer: Trainer, which: str | int | Sequence[float]) -> Trainer:
    """Make a trainer in which one of the population plays; see `Agent.member`."""
    with trainer.acting.held():
        state = jax.tree.map(jnp.copy, trainer.learner.member(trainer.held, which))
    source = None if trainer.loop_name is None else trainer.backend.source
    # Its own, of the same source: two that step the same environments would disturb each other.
    backend = None if source is None else backend_again(source, trainer.spec, **trainer.backend_options)
    one = Trainer(
        trainer.algorithm, trainer.spec, trainer.seed, trainer.space_config, backend, **trainer.backend_options
    )
    one.recorded_name = trainer.name
    one.restore(state, steps=trainer.steps, iteration=trainer.iteration)
    return one
