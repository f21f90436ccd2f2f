"""More training of the same agent: schedules, epsilon, other numbers of environments; and limits of learn."""

import gymnasium
import numpy as np
import pytest
from gymnasium import spaces

from renshu import DQN, PPO, PQN, SAC, SARSA, TD3, Linear, load
from renshu.errors import HyperparameterError

pytestmark = pytest.mark.usefixtures("compiled_fast")

SMALL = {"batch_size": 8, "net_arch": [8], "learning_starts": 20}
ON_POLICY = {"n_steps": 8, "batch_size": 8, "net_arch": [8], "n_epochs": 1}
TABLE = {"n_steps": 4, "obs_bins": 2, "obs_low": -1.0, "obs_high": 1.0}


@pytest.mark.parametrize(
    "algorithm",
    [
        DQN(**SMALL, exploration_fraction=0.5),
        PQN(n_steps=4, batch_size=8, net_arch=[4], exploration_fraction=0.5),
        SARSA(**TABLE, exploration_fraction=0.5),
    ],
    ids=["dqn", "pqn", "sarsa"],
)
@pytest.mark.parametrize("restart", [True, False])
def test_epsilon_never_rises_again(algorithm, restart, tmp_path):
    agent = algorithm.on("renshu/CartPole-v1", num_envs=2, seed=0)
    final = float(agent.learn(400, progress=False).state.exploration)
    assert final == pytest.approx(algorithm.exploration_final_eps)
    again = load(agent.save(tmp_path / "agent.safetensors"))
    for one in (agent, again):
        one.learn(400, progress=False, restart_schedules=restart, callbacks=lambda agent, metrics: False)
        assert float(one.state.exploration) <= final


@pytest.mark.parametrize(("restart", "expected"), [(True, 1e-3), (False, 0.5e-3)])
def test_schedules_begin_again_or_go_on(restart, expected, capsys):
    rates = []
    agent = PPO(**ON_POLICY, learning_rate=Linear(1e-3, 0.0)).on("CartPole-v1", seed=0)
    agent.learn(800, progress=False)
    agent.learn(800, restart_schedules=restart, callbacks=lambda agent, metrics: rates.append(metrics["learning_rate"]))
    assert rates[0] == pytest.approx(expected, rel=0.05)
    assert rates[-1] < 2e-5
    assert ("schedules begin again at step 8" in capsys.readouterr().err) == restart


@pytest.mark.parametrize("count", [1, 4])
def test_a_learner_from_replay_goes_on_in_another_number_of_environments(count):
    agent = DQN(**SMALL).on("CartPole-v1", num_envs=2, seed=0).learn(60, progress=False)
    other = agent.on("CartPole-v1", num_envs=count).learn(60, progress=False)
    assert other.steps >= agent.steps + 60
    assert int(other.state.memory.ring.first.shape[1]) == count


@pytest.mark.parametrize(
    "algorithm", [PPO(**ON_POLICY, norm_reward=True), SARSA(**TABLE), DQN(**SMALL)], ids=["ppo", "sarsa", "dqn"]
)
def test_a_file_is_loaded_for_another_number_of_environments(algorithm, tmp_path):
    agent = algorithm.on("CartPole-v1", num_envs=2, seed=0).learn(64, progress=False)
    path = agent.save(tmp_path / "agent.safetensors")
    other = load(path, env=gymnasium.make_vec("CartPole-v1", 3))
    assert other.spec.num_envs == 3
    assert other.learn(64, progress=False).steps >= agent.steps + 64


def test_more_steps_than_can_be_counted_are_refused():
    agent = PPO(**ON_POLICY).on("CartPole-v1", seed=0)
    with pytest.raises(HyperparameterError, match="steps are counted to 2,147,483,647"):
        agent.learn(3_000_000_000, progress=False)


def test_a_false_of_numpy_stops_as_well():
    for answer in (False, np.bool_(False), np.array(False)):
        agent = PPO(**ON_POLICY).on("CartPole-v1", seed=0)
        assert agent.learn(80, progress=False, callbacks=lambda agent, metrics, x=answer: x).steps < 20


def test_a_compiled_loop_looks_as_often_as_is_asked(tmp_path):
    agent = PPO(**ON_POLICY).on("renshu/CartPole-v1", seed=0)
    agent.learn(4000, progress=False, checkpoint_every=16, eval_every=400, eval_episodes=1, run=tmp_path / "run")
    at = []
    agent.learn(800, progress=False, checkpoint_every=16, run=tmp_path / "b", callbacks=lambda a, m: at.append(a.steps))
    assert np.diff(at).max() <= 16


class Wide(gymnasium.Env):
    """Actions without bounds; the reward is highest at 5."""

    observation_space = spaces.Box(-1, 1, (1,), np.float32)
    action_space = spaces.Box(-np.inf, np.inf, (1,), np.float32)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        return np.zeros(1, np.float32), {}

    def step(self, action):
        return np.zeros(1, np.float32), -abs(float(action[0]) - 5), True, False, {}


@pytest.mark.parametrize("algorithm", [SAC(**SMALL), TD3(**SMALL), PPO(**ON_POLICY, squash_output=True)])
def test_a_squashed_policy_reaches_all_that_the_warning_says(algorithm):
    with pytest.warns(UserWarning, match=r"within \+-10"):
        agent = algorithm.on(Wide, seed=0)
    decode, encode = agent.fitted.decode_action, agent.fitted.encode_action
    np.testing.assert_allclose(decode(np.array([[-1.0], [0.5], [1.0]], np.float32)), [[-10], [5], [10]])
    np.testing.assert_allclose(encode(np.array([[5.0]], np.float32)), [[0.5]])
    assert "scaled to +-10" in agent.fitted.notes[-1]


class Angle(spaces.Box):
    """A space of a user's own."""


class Choice(spaces.Discrete):
    """Another one."""


def test_subclasses_of_spaces_are_what_they_are():
    class Own(Wide):
        observation_space = Angle(-1, 1, (1,), np.float32)
        action_space = Choice(2)

        def step(self, action):
            return np.zeros(1, np.float32), float(action), True, False, {}

    assert PPO(**ON_POLICY).on(Own, seed=0).learn(16, progress=False).steps >= 16


@pytest.mark.parametrize("settings", [{"n_steps": 8, "batch_size": 1}, {"n_steps": 1, "batch_size": 1}])
def test_a_minibatch_of_one_row_teaches(settings):
    class Two(Wide):
        action_space = spaces.Discrete(2)

        def step(self, action):
            return np.zeros(1, np.float32), float(action), True, False, {}

    agent = PPO(**settings, n_epochs=4, net_arch=[8], learning_rate=3e-3, ent_coef=0.0).on(Two, seed=1)
    before = agent.explain(np.zeros(1, np.float32))["probabilities"][1]
    agent.learn(400, progress=False)
    assert agent.explain(np.zeros(1, np.float32))["probabilities"][1] > max(0.8, before)
