"""Acting in other threads while an agent learns: never on buffers that an update has donated."""

import gc
import threading
import time

import jax
import numpy as np
import pytest

from renshu import DQN, PPO, load

OBS = np.zeros(4, np.float32)


def make(kind, env):
    if kind == "dqn":
        algorithm = DQN(buffer_size=500, batch_size=8, learning_starts=20, net_arch=[8], train_freq=1)
        return algorithm.on(env, seed=0)
    return PPO(n_steps=4, batch_size=8, n_epochs=1, net_arch=[8]).on(env, num_envs=2, seed=0)


def while_learning(agent, steps, *uses):
    """Call each of `uses` again and again in a thread of its own while the agent learns; counts and errors."""
    done, errors, counts = threading.Event(), [], [0] * len(uses)

    def repeat(i):
        try:
            while not done.is_set():
                uses[i]()
                counts[i] += 1
                time.sleep(0.001)  # threads that never wait leave no time to learn
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=repeat, args=(i,)) for i in range(len(uses))]
    for thread in threads:
        thread.start()
    try:
        agent.learn(steps, progress=False)
    finally:
        done.set()
        for thread in threads:
            thread.join()
    return counts, errors


@pytest.mark.parametrize(
    ("kind", "env"), [("ppo", "CartPole-v1"), ("ppo", "renshu/CartPole-v1"), ("dqn", "CartPole-v1")]
)
def test_other_threads_act_while_an_agent_learns(kind, env, tmp_path):
    agent, plain = make(kind, env), make(kind, env)
    snapshot, player = agent.snapshot(), agent.player()
    for act in (agent.predict, snapshot.predict, agent.explain):
        act(OBS)
    counts, errors = while_learning(
        agent,
        600,
        lambda: agent.predict(OBS),
        lambda: player(OBS, False),
        lambda: snapshot.explain(OBS),
        lambda: agent.evaluate(1),
        lambda: agent.save(tmp_path / "a.safetensors"),
    )
    assert errors == []
    assert min(counts) > 0
    plain.learn(600, progress=False)
    assert jax.tree.all(jax.tree.map(np.array_equal, agent.state, plain.state)), "acting leaves training alone"
    assert load(tmp_path / "a.safetensors").steps <= agent.steps


def test_a_snapshot_follows_each_update_and_costs_nothing_afterwards():
    agent = make("ppo", "CartPole-v1")
    held, seen = [agent.snapshot()], []

    def look(agent, metrics):
        thread = threading.Thread(target=lambda: seen.append((agent.steps, held[0].steps, agent.trainer.acting._copy)))
        thread.start()
        thread.join()

    agent.learn(80, progress=False, callbacks=look)
    assert [ours == theirs for ours, theirs, _ in seen] == [True] * len(seen)
    assert all(copy is not None for *_, copy in seen)
    before = held[0].explain(OBS)["value"]
    assert held[0].steps == agent.steps
    np.testing.assert_array_equal(before, agent.explain(OBS)["value"])
    held.clear()
    gc.collect()
    made = []
    agent.learn(80, progress=False, callbacks=lambda agent, metrics: made.append(agent.trainer.acting._copy))
    assert made
    assert all(copy is None for copy in made)


def test_acting_in_a_callback_uses_the_state_itself():
    agent = make("ppo", "CartPole-v1")
    found = []
    agent.learn(40, progress=False, callbacks=lambda agent, metrics: found.append(agent.predict(OBS)))
    assert set(found) <= {0, 1}
