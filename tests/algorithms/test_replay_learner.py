"""Learners from replay: which steps entitle to gradient steps, and when they are taken."""

import jax
import numpy as np
import pytest

from renshu import DQN
from renshu.loops.programs import Programs
from tests.algorithms.rollouts import make_rollout, spec_of

pytestmark = pytest.mark.usefixtures("compiled_fast")

SMALL = {"batch_size": 4, "buffer_size": 200, "net_arch": [4], "learning_starts": 0}


@pytest.mark.parametrize(("gradient_steps", "expected"), [(-1, 18 - 3), (6, 5), (3, 2), (1, 0)])
def test_rows_that_only_reset_entitle_to_no_gradient_step(gradient_steps, expected):
    """Three of eighteen rows are resets: of the gradient steps of a rollout each real one has its share."""
    made = Programs(DQN(**SMALL, train_freq=6, gradient_steps=gradient_steps).build(spec_of()))
    rollout = make_rollout(made.learner, terminated=((0, 0), (1, 1)), truncated=((4, 2),))
    assert int(rollout.valid.sum()) == 15
    state, _ = made.learn(made.init(jax.random.key(0)), rollout, made.keys(jax.random.key(1), 0))
    assert int(state.counters.updates) == expected
    share = (18 if gradient_steps == -1 else gradient_steps) * 15 / 18
    assert float(state.counters.owed) == pytest.approx(share - expected, abs=1e-5)


def test_what_is_owed_adds_up():
    """Two thirds of a step each time: no gradient step is lost to rounding, none is taken early."""
    made = Programs(DQN(**SMALL, train_freq=1, gradient_steps=1).build(spec_of()))
    rollout = make_rollout(made.learner)
    rollout = rollout._replace(first=np.array([[False] * 3, [True, False, False]]))
    state, updates = made.init(jax.random.key(0)), []
    for i in range(9):
        state, _ = made.learn(state, rollout, made.keys(jax.random.key(1), i))
        updates.append(int(state.counters.updates))
    assert updates == [0, 1, 2, 2, 3, 4, 4, 5, 6]
