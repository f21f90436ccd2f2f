"""Guards against bad numbers: keep the state from before an update that went NaN."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from renshu.types import Array, Key, Metrics, PyTree, Rollout

NEVER_UNDONE = ("memory", "counters")
"""Fields of a state that an update keeps even if it went wrong: a memory is never copied, and steps were made."""


def guarded_learn(learner: Any) -> Callable[[Any, Rollout, Key], tuple[Any, Metrics]]:
    """Return a learner's `learn` that changes nothing where a metric or a parameter comes out not finite.

    The state from before is kept then, all but NEVER_UNDONE, and at least one metric is NaN, which tells the loop.
    Learners that do it themselves, and cheaper, say so by `guards_itself`.
    """
    if learner.guards_itself:
        return learner.learn

    def learn(state: Any, rollout: Rollout, key: Key) -> tuple[Any, Metrics]:
        new, metrics = learner.learn(state, rollout, key)
        params = all_finite(new.params)
        good = params & all_finite(metrics)
        undone = [name for name in new._fields if name not in NEVER_UNDONE]
        kept = {name: keep_if(good, getattr(new, name), getattr(state, name)) for name in undone}
        return new._replace(**kept), {name: jnp.where(params, x, jnp.nan) for name, x in metrics.items()}

    return learn


def all_finite(tree: PyTree) -> Array:
    """Tell whether all numbers of a tree are finite, [] bool."""
    leaves = [jnp.asarray(x) for x in jax.tree.leaves(tree)]
    floats = [x for x in leaves if jnp.issubdtype(x.dtype, jnp.floating)]
    return jnp.array([jnp.isfinite(x).all() for x in floats], jnp.bool_).all()


def keep_if_finite(new: PyTree, old: PyTree, metrics: Metrics) -> PyTree:
    """Return `new`, or `old` where any metric or any leaf of `new` is NaN or infinite: a bad update changes nothing."""
    return keep_if(all_finite((new, metrics)), new, old)


def keep_and_tell(new: PyTree, old: PyTree, metrics: Metrics) -> tuple[PyTree, Metrics]:
    """Do as `keep_if_finite`. One of the metrics is NaN where `new` was not finite, so that the loop hears of it."""
    good, first = all_finite(new), min(metrics)
    told = {**metrics, first: jnp.where(good, metrics[first], jnp.nan)}
    return keep_if(good & all_finite(metrics), new, old), told


def keep_if(good: Array, new: PyTree, old: PyTree) -> PyTree:
    """Return `new` where `good` is true, `old` where not."""
    return jax.tree.map(lambda n, o: jnp.where(good, n, o), new, old)
