"""What a user holds: acting, explaining, evaluating, recording, moving to another environment."""

import gymnasium
import jax
import numpy as np
import pytest
from gymnasium import spaces
from gymnasium.envs.classic_control import CartPoleEnv

from renshu import A2C, PPO
from renshu.envs.builtin.classic import CartPole
from renshu.errors import EnvironmentFault, HyperparameterError, SpaceError, UnknownNameError
from renshu.loops.evaluation import Evaluation
from tests import probes

SMALL = {"n_steps": 16, "batch_size": 16, "n_epochs": 1, "net_arch": [8]}


@pytest.fixture(scope="module")
def agent():
    return PPO(**SMALL).on("CartPole-v1", num_envs=2, seed=0).learn(64, progress=False)


def test_predict(agent):
    batch = np.random.default_rng(0).normal(size=(50, 4)).astype(np.float32)
    actions = agent.predict(batch)
    assert actions.shape == (50,)
    assert set(actions) <= {0, 1}
    assert [agent.predict(row) for row in batch] == list(actions)
    assert gymnasium.make("CartPole-v1").action_space.contains(agent.predict(batch[0]))
    probabilities = agent.explain(batch)["probabilities"]
    np.testing.assert_array_equal(actions, probabilities.argmax(axis=-1))
    assert agent.predict(batch.astype(np.float64).tolist()).shape == (50,)


def test_sampled_predictions_follow_the_probabilities(agent):
    obs = np.zeros((4000, 4), np.float32)
    share = agent.predict(obs, deterministic=False).mean()
    assert share == pytest.approx(agent.explain(obs[0])["probabilities"][1], abs=0.04)
    first, second = (agent.predict(obs, deterministic=False) for _ in range(2))
    assert not np.array_equal(first, second)


@pytest.mark.parametrize("wrong", [np.zeros(3), np.zeros((2, 5)), np.zeros((2, 2, 4)), 1.0, ["a"] * 4, {"x": 1}, None])
def test_predict_refuses_what_is_no_observation(agent, wrong):
    with pytest.raises(SpaceError, match=r"\(4,\)|observation"):
        agent.predict(wrong)


def test_evaluate(agent):
    result = agent.evaluate(7)
    assert result.episodes == len(result.returns) == len(result.lengths) == 7
    assert result.returns == [float(length) for length in result.lengths]
    assert result.mean == pytest.approx(np.mean(result.returns))
    assert str(result) == f"{result.mean:.2f} ± {result.std:.2f}"
    assert str(Evaluation([0.954] * 3, [1] * 3)) == "0.954 ± 0.000"
    assert str(Evaluation([500.0] * 3, [500] * 3)) == "500.0 ± 0.0"
    assert agent.evaluate(7).returns == result.returns
    assert agent.evaluate(7, seed=5).returns != result.returns
    with pytest.raises(HyperparameterError, match="at least 1"):
        agent.evaluate(0)


def test_evaluate_elsewhere(agent):
    """Where the spaces are the same; what the caller made stays open, other spaces are refused."""
    assert agent.evaluate(2, env="CartPole-v0").episodes == 2
    closed = []

    class Mine(CartPoleEnv):
        def close(self):
            closed.append(self)

    mine = Mine()
    mine.theta_threshold_radians = 0.0  # so that any step is the last
    result = agent.evaluate(2, env=mine, num_envs=1)
    assert result.lengths == [1, 1], "in a copy of the object"
    assert mine not in closed
    with pytest.raises(SpaceError, match="which do not fit"):
        agent.evaluate(2, env="Acrobot-v1")


def test_evaluation_counts_each_environment_alike():
    """With 2 environments and 4 episodes each gives 2, however short the episodes of one of them are."""

    class Uneven(probes.Probe):
        made = 0

        def __init__(self):
            super().__init__()
            self.length, Uneven.made = (1 if Uneven.made % 2 else 50), Uneven.made + 1

        def step(self, action):
            self.t += 1
            return self.observe(), 1.0, self.t >= self.length, False, {}

    agent = A2C(net_arch=[4]).on(Uneven, seed=0)
    Uneven.made = 0
    assert sorted(agent.evaluate(4, num_envs=2).lengths) == [1, 1, 50, 50]


def test_evaluation_leaves_training_alone():
    def trained(evaluate):
        agent = PPO(**SMALL).on("CartPole-v1", num_envs=2, seed=1)
        for _ in range(3):
            agent.learn(32, progress=False)
            if evaluate:
                agent.evaluate(3, deterministic=False)
                agent.predict(np.zeros(4), deterministic=False)
        return jax.tree.leaves(agent.parameters)

    assert all(np.array_equal(a, b) for a, b in zip(trained(False), trained(True), strict=True))


def test_explain_continuous():
    agent = PPO(**SMALL, log_std_init=-1.0).on("Pendulum-v1", seed=0)
    found = agent.explain(np.zeros(3, np.float32))
    assert set(found) == {"mean", "std", "value"}
    np.testing.assert_allclose(found["std"], np.exp(-1.0), rtol=1e-6)
    action = agent.predict(np.zeros((2, 3), np.float32))
    np.testing.assert_allclose(action[0], 2 * np.clip(found["mean"], -1, 1), rtol=1e-5)


def test_every_kind_of_environment():
    kinds = {
        "id": "CartPole-v1",
        "instance": gymnasium.make("CartPole-v1"),
        "class": probes.Policy,
        "function": lambda: gymnasium.make("CartPole-v1"),
        "vector": gymnasium.make_vec("CartPole-v1", 3, vectorization_mode="sync"),
        "id of a device environment": "renshu/CartPole-v1",
        "device environment": CartPole(),
    }
    for name, env in kinds.items():
        agent = A2C(net_arch=[4]).on(env, seed=0).learn(20, progress=False)
        assert agent.steps >= 20, name
        assert agent.spec.num_envs == (3 if name == "vector" else 1)
        assert agent.evaluate(2).episodes == 2


def test_instance_is_not_touched_by_evaluation():
    env = probes.Exploration()
    agent = A2C(net_arch=[4]).on(env, seed=0).learn(20, progress=False)
    before = env.t
    agent.evaluate(3)
    assert env.t == before


def test_worker_processes_give_the_same_training():
    def parameters(processes):
        with A2C(net_arch=[4]).on(probes.Exploration, num_envs=2, seed=0, processes=processes) as agent:
            return jax.tree.leaves(agent.learn(60, progress=False).parameters)

    assert all(np.array_equal(a, b) for a, b in zip(parameters(False), parameters(True), strict=True))


def test_carry_on_elsewhere(agent):
    other = agent.on("CartPole-v0")
    assert other.steps == agent.steps
    assert all(
        np.array_equal(a, b)
        for a, b in zip(jax.tree.leaves(other.parameters), jax.tree.leaves(agent.parameters), strict=True)
    )
    before = jax.tree.map(np.array, agent.parameters)
    other.learn(32, progress=False)
    assert other.steps > agent.steps
    assert all(
        np.array_equal(a, b) for a, b in zip(jax.tree.leaves(before), jax.tree.leaves(agent.parameters), strict=True)
    )
    with pytest.raises(SpaceError, match="Acrobot-v1 has"):
        agent.on("Acrobot-v1")


def test_carry_on_with_another_number_of_environments():
    agent = A2C(net_arch=[4], norm_obs=True, norm_reward=True).on("Pendulum-v1", num_envs=2, seed=0)
    agent.learn(50, progress=False)
    other = agent.on("Pendulum-v1", num_envs=5)
    np.testing.assert_array_equal(other.state.obs_stats.mean, agent.state.obs_stats.mean)
    assert other.state.returns.shape == (5,)
    assert other.learn(50, progress=False).steps >= 100


def test_carry_on_from_one_loop_to_another(tmp_path):
    """What was learned on the device acts and learns in Gymnasium's environment, and the other way round."""
    ours = PPO(**SMALL).on("renshu/CartPole-v1", num_envs=2, seed=0).learn(64, progress=False)
    host = ours.on("CartPole-v1")
    again = host.on("renshu/CartPole-v1", num_envs=3)
    assert [agent.trainer.backend.loop_name for agent in (ours, host, again)] == ["compiled", "host", "compiled"]
    batch = np.random.default_rng(0).normal(size=(20, 4)).astype(np.float32)
    np.testing.assert_array_equal(ours.predict(batch), host.predict(batch))
    np.testing.assert_array_equal(ours.explain(batch)["value"], again.explain(batch)["value"])
    steps = ours.steps
    for agent in (host, again):
        assert agent.learn(32, progress=False).steps >= steps + 32
    assert ours.steps == steps
    assert ours.record(tmp_path / "a.gif").stat().st_size > 1000
    with pytest.raises(SpaceError, match="which do not fit"):
        ours.on("renshu/Pendulum-v1")


def test_record(agent, tmp_path):
    for name in ("a.gif", "b.mp4"):
        path = agent.record(tmp_path / name)
        assert path.stat().st_size > 1000
    with pytest.raises(EnvironmentFault, match="render"):
        A2C(net_arch=[4]).on(probes.Value, seed=0).record(tmp_path / "c.gif")


def test_summary(agent, capsys):
    agent.summary()
    text = capsys.readouterr().out
    for part in ("PPO on CartPole-v1", "n_steps=16", "Discrete(2), as it is", "2 at once", "solved at 475", "seed 0"):
        assert part in text


def test_bad_arguments():
    with pytest.raises(UnknownNameError, match="CartPole-v1"):
        PPO().on("CartPool-v1")
    for num_envs in (0, -1, 1.5, True):
        with pytest.raises(HyperparameterError, match="num_envs"):
            PPO().on("CartPole-v1", num_envs=num_envs)
    with pytest.raises(HyperparameterError, match=r"num_envs=2, but .* has 3"):
        A2C().on(gymnasium.make_vec("CartPole-v1", 3), num_envs=2)
    for seed in (-1, 2**32):
        with pytest.raises(HyperparameterError, match="seed"):
            PPO().on("CartPole-v1", seed=seed)
    agent = A2C(net_arch=[4]).on("CartPole-v1", seed=0)
    for total in (0, -5, 1.5, True, float("nan")):
        with pytest.raises(HyperparameterError, match="total_steps"):
            agent.learn(total)
    with pytest.raises(HyperparameterError, match="number of environment steps"):
        agent.learn()


def test_unsupported_spaces_name_what_fits():
    class Odd(probes.Value):
        def __init__(self):
            super().__init__(spaces.Dict({"a": spaces.Discrete(2)}))

    with pytest.raises(SpaceError, match="box, discrete, multi_binary, multi_discrete"):
        PPO().on(Odd)


def test_a_fault_of_the_environment_loses_nothing():
    class Breaks(probes.Exploration):
        broken = False

        def step(self, action):
            if Breaks.broken:
                raise RuntimeError("the motor is hot")
            return super().step(action)

    agent = A2C(net_arch=[4]).on(Breaks, num_envs=2, seed=0).learn(50, progress=False)
    steps, before = agent.steps, jax.tree.map(np.array, agent.parameters)
    Breaks.broken = True
    with pytest.raises(EnvironmentFault, match=r"environment 0 .*the motor is hot"):
        agent.learn(50, progress=False)
    assert agent.steps == steps
    assert all(
        np.array_equal(a, b) for a, b in zip(jax.tree.leaves(before), jax.tree.leaves(agent.parameters), strict=True)
    )
    Breaks.broken = False
    assert agent.learn(50, progress=False).steps > steps
