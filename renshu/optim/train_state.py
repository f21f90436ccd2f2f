"""Train states: parameters, target networks and optimisers, and the steps that change them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from renshu.optim.gradient_steps import optimizer_step
from renshu.types import Array, PyTree


class TrainState(NamedTuple):
    """Everything that gradient steps change."""

    params: PyTree
    target: PyTree  # target networks: copies of some of the parameters that follow late
    opt_state: PyTree
    updates: Array  # [] int32  gradient steps taken
    aux: PyTree = ()  # state of single algorithms
    finite: Array | bool = True  # [] bool  no loss and no gradient of the current update was NaN or infinite


class Optimizers:
    """Optimisers of the parts of a dict of parameters.

    transforms: an optax transformation for each part, without its learning rate. guard: each step keeps the state from
    before where it goes wrong; see `optimizer_step`.
    """

    def __init__(self, transforms: Mapping[str, optax.GradientTransformation], *, guard: bool) -> None:
        self.transforms, self.guard = dict(transforms), guard

    def init(self, params: Mapping[str, PyTree]) -> dict[str, PyTree]:
        """Make the optimisers' states."""
        return {part: transform.init(params[part]) for part, transform in self.transforms.items()}

    def step(
        self, train_state: TrainState, part: str, loss: Callable[[PyTree], tuple[Array, Any]], learning_rate: Array
    ) -> tuple[TrainState, Any]:
        """Take a step down the gradient of `loss(part of the parameters) -> (loss, aux)`. Returns aux, too."""
        params, opt_state, aux, finite = optimizer_step(
            self.transforms[part],
            loss,
            train_state.params[part],
            train_state.opt_state[part],
            learning_rate,
            train_state.finite,
            guard=self.guard,
        )
        params, opt_state = {**train_state.params, part: params}, {**train_state.opt_state, part: opt_state}
        return train_state._replace(params=params, opt_state=opt_state, finite=finite), aux


def polyak(train_state: TrainState, tau: Array | float) -> TrainState:
    """Move the target networks towards the parameters by `tau` (Polyak averaging), unless an update went wrong."""
    share = jnp.where(train_state.finite, tau, 0.0)
    params = {part: train_state.params[part] for part in train_state.target}
    return train_state._replace(target=jax.tree.map(lambda t, p: t + share * (p - t), train_state.target, params))


def apply_every(interval: int, fn: Callable[[TrainState], TrainState], train_state: TrainState) -> TrainState:
    """Apply `fn` after each `interval`-th gradient step."""
    if interval == 1:
        return fn(train_state)
    due = (train_state.updates % interval == 0).astype(jnp.int32)
    # A branch would copy all that it carries; a loop of no or one turn works in place.
    return jax.lax.fori_loop(0, due, lambda _, train_state: fn(train_state), train_state)
