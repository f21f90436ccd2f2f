"""A gradient step from replay that goes wrong changes nothing, and says so."""

import jax
import numpy as np
import pytest
from gymnasium import spaces

from renshu import DDPG, DQN, SAC, TD3, TQC, CrossQ
from renshu.loops.programs import Programs
from renshu.types import EnvSpec, Rollout

pytestmark = pytest.mark.usefixtures("compiled_fast")

SMALL = {"buffer_size": 64, "batch_size": 8, "learning_starts": 0, "net_arch": [8]}
ALGORITHMS = {
    "dqn": (DQN, {}),
    "sac": (SAC, {"learning_rate": 0.01}),
    "td3": (TD3, {"policy_delay": 1}),
    "td3 delayed": (TD3, {"policy_delay": 2}),
    "ddpg": (DDPG, {}),
    "tqc": (TQC, {}),
    "crossq": (CrossQ, {}),
}


def rollout(reward: float, discrete: bool) -> Rollout:
    rng = np.random.default_rng(0)
    action = rng.integers(0, 2, (8, 1)).astype(np.int32) if discrete else rng.uniform(-1, 1, (8, 1, 1))
    return Rollout(
        obs=rng.normal(size=(9, 1, 3)).astype(np.float32),
        first=np.zeros((9, 1), np.bool_),
        action=action if discrete else action.astype(np.float32),
        reward=np.full((8, 1), reward, np.float32),
        terminated=np.zeros((8, 1), np.bool_),
        carry=(),
        extras=(),
    )


def same(one, other) -> bool:
    pairs = zip(jax.tree.leaves(one), jax.tree.leaves(other), strict=True)
    return all(np.array_equal(a, b) for a, b in pairs)


@pytest.mark.parametrize("gradient_steps", [1, 2])
@pytest.mark.parametrize("name", ALGORITHMS)
def test_a_step_that_goes_wrong_changes_nothing(name, gradient_steps):
    kind, settings = ALGORITHMS[name]
    actions = spaces.Discrete(2) if kind is DQN else spaces.Box(-1, 1, (1,))
    algorithm = kind(**{**SMALL, **settings}, train_freq=8, gradient_steps=gradient_steps)
    learner = algorithm.build(EnvSpec(spaces.Box(-1, 1, (3,)), actions, 1))
    programs = Programs(learner)

    def after(reward):
        state = programs.init(jax.random.key(0))
        keys = programs.keys(jax.random.key(1), 0)
        state, vector = programs.learn(state, rollout(reward, kind is DQN), keys)
        return state, programs.metrics(vector)

    before = programs.init(jax.random.key(0))
    good, metrics = after(1.0)
    assert not same(good.params, before.params)
    assert int(good.counters.updates) == gradient_steps
    assert np.isfinite(list(metrics.values())).all()
    bad, metrics = after(np.nan)
    assert same(bad.train, before.train)
    assert int(bad.counters.updates) == 0
    assert not np.isfinite(list(metrics.values())).all(), "the loop hears of it"
