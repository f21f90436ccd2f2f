"""On-policy algorithms and PQN solve the probes; a wrong return, discount, gradient sign, or time limit does not."""

import numpy as np
import pytest
from gymnasium import spaces

from renshu import A2C, PPO, PQN
from tests import probes

LEARNERS = {
    "ppo": lambda **kw: PPO(**{"n_steps": 32, "batch_size": 64, "learning_rate": 3e-3, "net_arch": [16], **kw}),
    "a2c": lambda **kw: A2C(**{"n_steps": 8, "learning_rate": 5e-3, "net_arch": [16], **kw}),
    "pqn": lambda **kw: PQN(**{"learning_rate": 1e-2, "net_arch": [16], **kw}),
}
STEPS = {"ppo": 6_000, "a2c": 12_000, "pqn": 20_000}

every = pytest.mark.parametrize("name", LEARNERS)
both = pytest.mark.parametrize("name", ["ppo", "a2c"])


def trained(name, env, steps=1.0, **hyperparameters):
    agent = LEARNERS[name](**hyperparameters).on(env, num_envs=8, seed=0)
    return agent.learn(int(STEPS[name] * steps), progress=False)


def value(agent, x):
    return float(agent.explain(np.array([x], np.float32))["value"])


@every
def test_value(name):
    agent = trained(name, probes.Value)
    assert value(agent, 1.0) == pytest.approx(1.0, abs=0.15)
    assert value(agent, -1.0) == pytest.approx(-1.0, abs=0.15)


@every
def test_discount(name):
    agent = trained(name, probes.Discount, gamma=0.5)
    assert value(agent, 1.0) == pytest.approx(1.0, abs=0.1)
    assert value(agent, 0.0) == pytest.approx(0.5, abs=0.1)


@both
@pytest.mark.parametrize(
    "space",
    [
        spaces.Discrete(2),
        spaces.MultiDiscrete([2, 2, 2]),
        spaces.MultiDiscrete([[2], [2]]),
        spaces.MultiBinary(3),
        spaces.Box(-1, 1, (2,), np.float32),
        spaces.Box(-4, 2, (1,), np.float64),
    ],
    ids=["discrete", "multi_discrete", "multi_discrete_2d", "multi_binary", "box", "box_shifted"],
)
def test_policy(name, space):
    agent = trained(name, lambda: probes.Policy(space), steps=2.0)
    for sign in (-1.0, 1.0):
        action = agent.predict(np.array([sign], np.float32))
        assert space.contains(action) or isinstance(space, spaces.Discrete)
        if isinstance(space, spaces.Box):
            np.testing.assert_allclose(action, 0.5 * sign, atol=0.2)
        else:
            np.testing.assert_array_equal(action, np.full(space.shape, sign > 0))


@both
def test_exploration(name):
    agent = trained(name, probes.Exploration, steps=2.0, ent_coef=0.02)
    assert agent.evaluate(5).mean == pytest.approx(1.0)


@every
def test_time_limit(name):
    """Treating the time limit as an end would give a value of about 2.4 where it is 5."""
    agent = trained(name, probes.TimeLimit, gamma=0.8)
    assert value(agent, 0.0) == pytest.approx(5.0, abs=0.5)
