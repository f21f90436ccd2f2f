"""Backups in place give what mctx's own give, to the bit, and no level of them passes over whole trees."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

mctx = pytest.importorskip("mctx", reason="mctx is not installed")
from renshu.algorithms.planning.backups import backing_up_in_place  # noqa: E402

BATCH, ACTIONS, SIMULATIONS = 3, 5, 37


def search(key):
    """A search in a game of chance numbers, of two players, with ends here and there."""

    def step(params, key, action, state):
        numbers = jnp.sin(state * 12.9898 + action * 78.233) * 43758.5453
        fraction = numbers - jnp.floor(numbers)
        ended = fraction > 0.9
        return (
            mctx.RecurrentFnOutput(
                reward=jnp.where(ended, fraction, 0.0),
                discount=jnp.where(ended, 0.0, -0.9),
                prior_logits=jnp.stack([jnp.cos(fraction * i) for i in range(ACTIONS)], axis=1),
                value=fraction - 0.5,
            ),
            fraction + state,
        )

    root = mctx.RootFnOutput(
        prior_logits=jnp.zeros((BATCH, ACTIONS)), value=jnp.zeros(BATCH), embedding=jnp.arange(BATCH, dtype=jnp.float32)
    )
    return mctx.muzero_policy({}, key, root, step, SIMULATIONS)


def selects(function):
    """Choices between versions of arrays of all nodes and actions in the compiled program."""
    text = jax.jit(function).lower(jax.random.key(0)).compile().as_text()
    return len(re.findall(rf"\[{BATCH},{SIMULATIONS + 1},{ACTIONS}\]\S* select\(", text))


def in_place(key):
    with backing_up_in_place():
        return search(key)


def test_the_same_trees():
    for seed in range(4):
        ours, theirs = jax.jit(in_place)(jax.random.key(seed)), jax.jit(search)(jax.random.key(seed))
        assert np.asarray(theirs.search_tree.node_visits[:, 0] == SIMULATIONS + 1).all()
        for a, b in zip(jax.tree.leaves(ours), jax.tree.leaves(theirs), strict=True):
            np.testing.assert_array_equal(np.asarray(a), np.asarray(b))


def test_no_level_passes_over_whole_trees():
    assert selects(search) > 0  # where mctx itself gets there, the file has no reason to be any more
    assert selects(in_place) == 0


def test_mctx_is_left_as_it_was():
    import mctx._src.search as module

    own = module.backward
    seen = []

    @backing_up_in_place()
    def fails():
        seen.append(module.backward)
        raise ValueError("in the middle")

    with pytest.raises(ValueError, match="in the middle"):
        fails()
    assert seen[0] is not own
    assert module.backward is own
