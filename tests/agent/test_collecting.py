"""Collection without learning: into the memory, into a data set, in both loops."""

import gymnasium
import jax
import numpy as np
import pytest

from renshu import DQN, PPO, SAC, Dataset, QLearning
from renshu.errors import CheckpointError, EnvironmentFault, HyperparameterError
from renshu.ops.rollouts import joined
from tests.loops.tiny import copied, same

pytestmark = pytest.mark.usefixtures("compiled_fast")

SMALL = {"batch_size": 8, "net_arch": [8], "learning_starts": 20}
CASES = {
    "dqn": (DQN(**SMALL), "CartPole-v1"),
    "sac": (SAC(**SMALL), "Pendulum-v1"),
    "ppo": (PPO(n_steps=8, batch_size=8, net_arch=[8]), "Pendulum-v1"),
    "qlearning": (QLearning(obs_bins=3, obs_low=-3.0, obs_high=3.0), "CartPole-v1"),
}


@pytest.mark.parametrize("loop", ["host", "compiled"])
@pytest.mark.parametrize("name", CASES)
def test_a_data_set_of_what_an_agent_does(name, loop, tmp_path):
    algorithm, env = CASES[name]
    agent = algorithm.on(f"renshu/{env}", num_envs=2, seed=0, loop=loop)
    agent.learn(40, progress=False)
    before, steps = copied(agent.state), agent.steps
    found = agent.collect(300, to=tmp_path / "data")
    assert same(agent.state, before)
    assert agent.steps == steps
    assert isinstance(found, Dataset)
    assert 300 <= found.steps <= 300 + 2 * 512
    (whole,) = found.chunks()
    space = gymnasium.make(env).action_space
    assert all(space.contains(action) for action in whole.action[:, 0])
    assert whole.action[:, 0].std() > 0
    # Pendulum's reward says whether observation, action and reward belong together.
    if env == "Pendulum-v1":
        cos, sin, speed = np.moveaxis(whole.obs[:-1], -1, 0)
        wanted = -(np.arctan2(sin, cos) ** 2 + 0.1 * speed**2 + 0.001 * whole.action[..., 0] ** 2)
        np.testing.assert_allclose(whole.reward[whole.valid], wanted[whole.valid], rtol=1e-3, atol=1e-3)
    with pytest.raises(CheckpointError, match="taken"):
        agent.collect(300, to=tmp_path / "data")


@pytest.mark.parametrize("loop", ["host", "compiled"])
def test_a_memory_that_is_filled_without_learning(loop):
    agent = DQN(**SMALL, buffer_size=500).on("renshu/CartPole-v1", num_envs=2, seed=0, loop=loop)
    before = copied(agent.parameters)
    assert agent.collect(100) is agent
    assert 100 <= agent.steps <= 110
    assert int(agent.state.counters.updates) == 0
    assert float(agent.state.counters.owed) == 0
    assert float(agent.state.exploration) == 1
    assert same(agent.parameters, before)
    size = int(agent.state.memory.ring.size)
    assert agent.dataset().rows == size
    assert 2 * size >= agent.steps
    steps = agent.steps
    agent.learn(20, progress=False)
    assert agent.steps >= steps + 20
    assert int(agent.state.counters.updates) == (agent.steps - steps) // 8
    assert int(agent.state.memory.ring.size) == size + 12


def test_who_has_no_memory_is_told_so():
    agent = PPO(n_steps=8, batch_size=8, net_arch=[8]).on("renshu/CartPole-v1", seed=0)
    with pytest.raises(HyperparameterError, match="keeps no memory that could be filled"):
        agent.collect(10)
    with pytest.raises(HyperparameterError, match="keeps no memory that makes"):
        agent.dataset()


def test_elite_episodes_are_a_data_set_too():
    agent = DQN(**SMALL, elite_episodes=True, buffer_size=2000).on("renshu/CartPole-v1", num_envs=2, seed=0)
    agent.learn(400, progress=False)
    found = agent.dataset()
    assert found.spec.num_envs == 1
    (whole,) = found.chunks()
    assert DQN(**SMALL).on(joined_set(found), seed=0).learn(10, progress=False).steps == 10
    assert whole.valid.sum() == found.steps


def joined_set(found: Dataset) -> Dataset:
    assert len(joined(list(found.chunks())).reward) == found.rows
    return found


class Breaks(gymnasium.Env):
    """Raises in its 41st step, once."""

    observation_space, action_space = gymnasium.spaces.Box(-1, 1, (2,)), gymnasium.spaces.Discrete(2)
    steps = 0

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        return self.observation_space.sample(), {}

    def step(self, action):
        type(self).steps += 1
        if self.steps == 41:
            raise ValueError("the robot fell over")
        return self.observation_space.sample(), 0.0, self.steps % 10 == 0, False, {}


def test_what_is_interrupted_loses_nothing():
    Breaks.steps = 0
    agent = DQN(**SMALL, buffer_size=500).on(Breaks, seed=0)
    with pytest.raises(EnvironmentFault, match="fell over"):
        agent.collect(100)
    assert 30 <= agent.steps <= 41
    agent.predict(np.zeros(2, np.float32))
    agent.collect(20)
    assert agent.steps >= 50


def test_a_memory_keeps_rewards_as_they_were():
    """The sign is what is learned from; data sets and good episodes are of the rewards themselves."""
    agent = SAC(**SMALL, reward_clipping=True).on("renshu/Pendulum-v1", num_envs=2, seed=0).collect(50)
    (held,) = agent.dataset().chunks()
    assert np.abs(held.reward).max() > 1
    batch = agent.trainer.learner.replay.sample(agent.state.memory, jax.random.key(0), 16, gamma=0.9)
    assert set(np.unique(batch.reward)) <= {-1.0, 0.0, 1.0}
