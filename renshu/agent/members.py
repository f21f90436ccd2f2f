"""Single members of a population as trainers of their own."""

from __future__ import annotations

from collections.abc import Sequence

import jax
import jax.numpy as jnp

from renshu.agent.trainer import Trainer


def member_of(trainer: Trainer, which: str | int | Sequence[float]) -> Trainer:
    """Make a trainer in which one of the population plays; see `Agent.member`."""
    with trainer.acting.held():
        state = jax.tree.map(jnp.copy, trainer.learner.member(trainer.held, which))
    # Two that train in the same environments would disturb each other: only those that cannot be made again are shared.
    again = trainer.spec.id is not None and ":" not in trainer.spec.id
    how = {"loop": trainer.requested_loop, "processes": trainer.processes, "timeout": trainer.timeout}
    backend = None if again else trainer.backend
    one = Trainer(
        trainer.algorithm, trainer.spec, trainer.seed, trainer.space_config, backend, **how, cluster=trainer.cluster
    )
    one.recorded_name = trainer.name
    one.restore(state, steps=trainer.steps, iteration=trainer.iteration)
    return one
