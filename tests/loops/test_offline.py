"""Learning from data sets: without an environment, the same each time, larger than the memory too."""

from functools import cache

import jax
import numpy as np
import pytest

from renshu import DQN, PPO, SAC, TD3, Dataset, Linear, load
from renshu.errors import HyperparameterError, NotFiniteError, SpaceError
from renshu.files.datasets import in_memory
from renshu.loops import offline
from renshu.ops.rollouts import joined
from tests.loops.tiny import copied, same

SMALL = {"batch_size": 8, "net_arch": [8]}
DEEP = DQN(**SMALL, n_steps=3, prioritized=True, target_update_interval=10, learning_rate=Linear(1e-3, 0.0))


@cache
def pendulum() -> Dataset:
    agent = SAC(**SMALL, learning_starts=100, train_freq=10).on("renshu/Pendulum-v1", num_envs=2, seed=0)
    return agent.collect(600).dataset()


@cache
def cartpole() -> Dataset:
    return DQN(**SMALL).on("renshu/CartPole-v1", num_envs=2, seed=0).collect(600).dataset()


def trained(algorithm, dataset, steps=70, **options):
    return algorithm.on(dataset, seed=3, **options).learn(steps, progress=False)


@pytest.mark.parametrize("algorithm", [TD3(**SMALL), SAC(**SMALL), DEEP], ids=["td3", "sac", "dqn"])
def test_the_same_data_and_seed_give_the_same_agent(algorithm, tmp_path):
    dataset = cartpole() if isinstance(algorithm, DQN) else pendulum()
    again = Dataset.open(dataset.save(tmp_path / "data"))
    one = trained(algorithm, dataset)
    others = [trained(algorithm, again), trained(algorithm, again, 140), trained(algorithm, again, 30)]
    assert same(one.state, others[0].state)
    assert one.steps == 70
    assert int(one.state.counters.updates) == int(one.state.counters.steps) == 70
    assert not same(one.parameters, algorithm.on(dataset, seed=3).parameters)
    assert not same(one.parameters, others[1].parameters)
    others[2].learn(40, progress=False, callbacks=lambda agent, metrics: None)
    if not isinstance(algorithm, DQN):  # whose learning rate goes by what share of a training is done
        assert same(one.parameters, others[2].parameters)


def test_the_memory_holds_what_the_data_hold():
    agent = trained(TD3(**SMALL), pendulum(), 1)
    (held,), whole = agent.dataset().chunks(), joined(list(pendulum().chunks()))
    assert agent.state.memory.ring.size == pendulum().rows
    np.testing.assert_allclose(held.action, whole.action, atol=1e-6)
    assert same(held._replace(action=()), whole._replace(action=()))


def test_targets_move_by_gradient_steps():
    """After 10 of them DQN's target network is the network as it was then."""
    agent = trained(DEEP, cartpole(), 9)
    before = copied(agent.state.train.target)
    assert same(before, copied(DEEP.on(cartpole(), seed=3).state.train.target))
    late = copied(agent.learn(1, progress=False).state.train.target)
    assert not same(before, late)


def test_data_larger_than_the_memory_come_in_over_the_training(monkeypatch):
    monkeypatch.setattr(offline, "BLOCK", 16)
    monkeypatch.setattr(offline, "ROWS", 25)
    algorithm = TD3(**SMALL, buffer_size=200)
    agents = [algorithm.on(pendulum(), seed=3) for _ in range(2)]
    seen: set[bytes] = set()

    def look(agent, metrics):
        seen.update(row.tobytes() for row in np.asarray(agent.state.memory.ring.obs)[:, 0])

    agents[0].learn(160, progress=False, callbacks=look)
    agents[1].learn(160, progress=False)
    assert same(agents[0].state, agents[1].state)
    assert agents[0].state.memory.ring.size == 100
    whole = joined(list(pendulum().chunks()))
    assert {row.tobytes() for row in whole.obs[:-1, 0]} <= seen
    assert pendulum().rows <= agents[0].trainer.loop_snapshot()["read"] < pendulum().rows + 2 * 25


@pytest.mark.parametrize("streamed", [False, True])
def test_a_run_goes_on_to_the_bit(streamed, tmp_path, monkeypatch):
    monkeypatch.setattr(offline, "BLOCK", 16)
    monkeypatch.setattr(offline, "ROWS", 25)
    algorithm = TD3(**SMALL, buffer_size=200 if streamed else 10_000)
    whole = algorithm.on(pendulum(), seed=3).learn(96, progress=False)

    def stop(agent, metrics):
        return agent.steps < 40

    half = algorithm.on(pendulum(), seed=3).learn(96, progress=False, callbacks=stop, run=tmp_path / "run")
    assert half.steps < 96
    done = type(half).resume(tmp_path / "run", env=pendulum()).learn(progress=False)
    assert done.steps == 96
    assert same(done.state, whole.state)


def test_evaluation_while_training_is_in_the_environment_of_the_data(tmp_path):
    agent = TD3(**SMALL).on(pendulum(), seed=0)
    agent.learn(64, progress=False, eval_every=32, eval_episodes=1, run=tmp_path / "run")
    assert (tmp_path / "run" / "best.safetensors").exists()
    assert agent.evaluate(2).lengths == [200, 200]
    assert "30" not in agent.name
    other = load(tmp_path / "run" / "best.safetensors")
    assert other.evaluate(1).lengths == [200]


def test_learning_goes_on_in_an_environment_with_the_data_in_memory():
    agent = trained(SAC(**SMALL), pendulum())
    online = agent.on("renshu/Pendulum-v1", num_envs=2)
    assert online.steps == 70
    assert int(online.state.memory.ring.size) == pendulum().rows
    assert online.state.memory.ring.first.shape[0] > 1000
    online.learn(40, progress=False)
    assert int(online.state.memory.ring.size) == pendulum().rows + 20
    back = online.on(pendulum())
    assert back.learn(5, progress=False).steps == online.steps + 5


def test_what_cannot_learn_from_data_is_refused():
    with pytest.raises(HyperparameterError, match="PPO learns from experience of its own"):
        PPO().on(pendulum())
    with pytest.raises(HyperparameterError, match="elite_episodes"):
        TD3(elite_episodes=True).on(pendulum())
    with pytest.raises(HyperparameterError, match="no environments to step"):
        TD3().on(pendulum(), num_envs=4)
    with pytest.raises(HyperparameterError, match="nobody plays in a data set"):
        TD3().on(pendulum(), opponent="random")
    with pytest.raises(HyperparameterError, match="leave loop= out"):
        TD3().on(pendulum(), loop="host")
    with pytest.raises(HyperparameterError, match="nothing can be collected"):
        TD3(**SMALL).on(pendulum()).collect(10)
    nameless = in_memory(joined(list(pendulum().chunks())), pendulum().spec, "it")
    nameless.spec = jax.tree.map(lambda x: x, nameless.spec.__class__(**{**vars(nameless.spec), "id": None}))
    with pytest.raises(SpaceError, match="nothing says how to make the environment"):
        TD3(**SMALL).on(nameless).evaluate(1)


def test_a_gradient_step_that_goes_wrong_changes_nothing():
    agent = trained(TD3(**SMALL), pendulum(), 20)
    before = copied(agent.parameters)
    train = agent.state.train
    bad = jax.tree.map(lambda x: x * np.nan, train.target)
    agent.trainer.state = agent.state._replace(train=train._replace(target=bad))
    with pytest.raises(NotFiniteError, match="gradient step 21 went wrong"):
        agent.learn(20, progress=False)
    assert same(agent.parameters, before)


def test_actions_between_the_points_of_a_grid_are_refused():
    with pytest.raises(SpaceError, match="none of the 5"):
        trained(DQN(**SMALL), pendulum())


def test_reading_moves_no_target():
    """Of data that do not fit into the memory more is read between blocks of steps."""
    algorithm = DQN(**SMALL, buffer_size=200, target_update_interval=10_000)
    agent = algorithm.on(cartpole(), seed=3)
    begun = copied(agent.state.train.target)
    agent.learn(3 * offline.BLOCK, progress=False)
    assert int(agent.state.memory.ring.size) == 100
    assert same(agent.state.train.target, begun)


def test_a_file_has_the_hyperparameters_of_the_user(tmp_path):
    algorithm = TD3(**SMALL, train_freq=64, gradient_steps=64, learning_starts=50)
    agent = trained(algorithm, pendulum(), 5)
    again = load(agent.save(tmp_path / "agent.safetensors"))
    assert again.algorithm == algorithm
    assert load(agent.save(tmp_path / "whole.safetensors", memory=True), env=pendulum()).steps == 5


def test_what_stops_the_first_reading_loses_nothing(monkeypatch):
    agent = TD3(**SMALL).on(pendulum(), seed=3)
    encoded, calls = offline.OfflineLoop._encoded, []

    def stopped(self, rollout):
        calls.append(rollout)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return encoded(self, rollout)

    monkeypatch.setattr(offline, "ROWS", 64)
    monkeypatch.setattr(offline.OfflineLoop, "_encoded", stopped)
    with pytest.raises(KeyboardInterrupt):
        agent.learn(20, progress=False)
    assert np.isfinite(agent.predict(np.zeros(3, np.float32))).all()
    agent.learn(20, progress=False)
    assert agent.steps == 20
    assert int(agent.state.memory.ring.size) >= pendulum().rows - 64
