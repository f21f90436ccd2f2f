"""Learning from replay: the same in both loops, and from a file, to the bit."""

import dataclasses

import numpy as np
import pytest

from renshu import load
from renshu.algorithms.value_based.dqn import DQN
from renshu.envs.builtin.classic import CartPole, Pendulum
from tests.loops.tiny import advanced, same, without_target

pytestmark = pytest.mark.usefixtures("compiled_fast")

SMALL = {"learning_rate": 1e-2, "batch_size": 8, "buffer_size": 200, "learning_starts": 20, "train_freq": 4}
PLAIN = DQN(**SMALL, net_arch=[8], target_update_interval=16)
IDEAS = {"double": True, "dueling": True, "prioritized": True, "n_steps": 3, "noisy": True, "distributional": "qr"}
MANY = DQN(**SMALL, net_arch=[8], target_update_interval=16, gradient_steps=2, n_quantiles=5, **IDEAS)


@pytest.mark.parametrize(
    ("algorithm", "env", "options"),
    [
        (MANY, CartPole(), {"frame_stack": 3}),
        (PLAIN, Pendulum(), {"bins": 3}),
    ],
    ids=["many-frame_stack", "plain-bins"],
)
@pytest.mark.usefixtures("exact")
def test_host_loop_and_compiled_loop_are_the_same_to_the_bit(algorithm, env, options):
    agents = [algorithm.on(env, num_envs=2, seed=3, loop=loop, **options) for loop in ("host", "compiled")]
    for agent in agents:
        advanced(agent, 60)
    host, ours = agents
    assert same(host.state, ours.state)
    assert int(ours.state.counters.updates) > 40
    assert not same(ours.parameters, algorithm.on(env, num_envs=2, seed=3, **options).parameters)


@pytest.mark.parametrize("algorithm", [PLAIN, MANY], ids=["plain", "many"])
def test_a_file_holds_the_memory(algorithm, tmp_path):
    """Half, save, load, and the other half: as if nothing had been between; the memory has gone round by then."""
    algorithm = dataclasses.replace(algorithm, exploration_by="episodes")  # not by what share of training is done
    whole, half = (algorithm.on("renshu/CartPole-v1", num_envs=2, seed=2) for _ in range(2))
    whole.learn(600, progress=False)
    path = half.learn(300, progress=False).save(tmp_path / "half.safetensors", memory=True)
    done = load(path)
    done.learn(600 - done.steps, progress=False)
    assert same(without_target(done.state), without_target(whole.state))
    assert int(done.state.memory.ring.size) == 100


def test_history_is_what_the_policy_remembers():
    """The player's second action is that of both observations; predict knows the newest only."""
    agent = DQN(**SMALL, net_arch=[16]).on("renshu/CartPole-v1", num_envs=2, seed=0, frame_stack=2)
    rng, differs = np.random.default_rng(0), 0
    for _ in range(50):
        policy, (first, second) = agent.player(deterministic=True), rng.normal(size=(2, 4)).astype(np.float32)
        assert policy(first, True) == agent.predict(first)
        values = agent.trainer.learner.values(agent.parameters, np.stack([first, second])[None])
        action = policy(second, False)
        assert action == int(np.argmax(values))
        differs += action != agent.predict(second)
    assert differs > 0
