"""Evaluation on the device: the same as that of the host loop."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from renshu.envs.builtin.classic import CartPole
from renshu.loops import evaluation
from tests.envs.test_device import Counter
from tests.loops.tiny import TINY_A2C, TINY_PPO, same


@pytest.fixture(scope="module")
def agents():
    """The same agent with a compiled loop and with the host's."""
    ours, host = (TINY_PPO.on(CartPole(), num_envs=2, seed=0, loop=loop) for loop in ("compiled", "host"))
    ours.learn(600, progress=False)
    host.trainer.state = jax.tree.map(jnp.array, ours.state)
    return ours, host


@pytest.mark.parametrize("options", [{"episodes": 7}, {"episodes": 5, "num_envs": 1}, {"episodes": 8, "num_envs": 3}])
def test_evaluation_is_the_host_loops(agents, options):
    ours, host = (agent.evaluate(**options, seed=11) for agent in agents)
    assert ours.returns == host.returns
    assert ours.lengths == host.lengths
    assert ours.episodes == options["episodes"]


def test_evaluation_again_and_with_chance(agents):
    agent, _ = agents
    greedy = agent.evaluate(4)
    assert greedy.returns == agent.evaluate(4).returns
    assert greedy.returns != agent.evaluate(4, seed=5).returns
    drawn = agent.evaluate(4, deterministic=False)
    assert drawn.returns == agent.evaluate(4, deterministic=False).returns != greedy.returns


def test_evaluation_without_a_time_limit_takes_several_calls(monkeypatch):
    """Each environment gives its share, however short the episodes of one of them are; as in the host loop."""
    monkeypatch.setattr(evaluation, "CHUNK", 4)
    ours, host = (TINY_A2C.on(Counter(30), seed=0, loop=loop) for loop in ("compiled", "host"))
    for options in ({"episodes": 5, "num_envs": 2}, {"episodes": 2, "num_envs": 1}):
        a, b = ours.evaluate(**options), host.evaluate(**options)
        assert a.lengths == b.lengths
        np.testing.assert_allclose(a.returns, b.returns, rtol=1e-6)
        assert max(a.lengths) > 4


def test_evaluation_elsewhere(agents):
    agent, _ = agents
    assert agent.evaluate(2, env=CartPole(gravity=5.0)).episodes == 2
    assert agent.evaluate(2, env="CartPole-v1").episodes == 2


def test_evaluation_leaves_training_alone():
    def trained(evaluate):
        agent = TINY_PPO.on(CartPole(), num_envs=2, seed=1)
        for _ in range(3):
            agent.learn(32, progress=False)
            if evaluate:
                agent.evaluate(3, deterministic=False)
                agent.predict(np.zeros(4), deterministic=False)
        return agent.state

    assert same(trained(False), trained(True))
