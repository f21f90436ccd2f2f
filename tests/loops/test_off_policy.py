"""Learners from replay with continuous actions: one definition for both loops, saved and gone on with to the bit."""

import numpy as np
import pytest

from renshu import load
from renshu.algorithms.continuous.sac import SAC
from renshu.algorithms.continuous.td3 import TD3
from renshu.envs.builtin.classic import CartPole, Pendulum
from tests.algorithms.transitions import moved

pytestmark = pytest.mark.usefixtures("compiled_fast")

SMALL = {"batch_size": 16, "buffer_size": 200, "learning_starts": 12, "net_arch": [8], "train_freq": 2}
CASES = {
    "td3": TD3(**SMALL, action_noise="parameter", gradient_steps=2),
    "sac": SAC(**SMALL, use_sde=True, policy_delay=2, n_target_critics=1),
    "choices": SAC(**SMALL, prioritized=True, n_steps=2),
}


def env_of(name):
    return CartPole() if name == "choices" else Pendulum()


@pytest.mark.parametrize("name", CASES)
@pytest.mark.usefixtures("exact")
def test_host_loop_and_compiled_loop_are_the_same_to_the_bit(name):
    host, ours = (
        CASES[name].on(env_of(name), num_envs=2, seed=3, loop=loop).learn(80, progress=False)
        for loop in ("host", "compiled")
    )
    assert (host.trainer.backend.loop_name, ours.trainer.backend.loop_name) == ("host", "compiled")
    assert not moved(host.state, ours.state)
    assert int(ours.state.counters.updates) > 0
    assert moved(ours.parameters, CASES[name].on(env_of(name), num_envs=2, seed=3).parameters)


@pytest.mark.parametrize("name", ["td3"])
def test_half_save_load_and_the_other_half(name, tmp_path):
    """Replay, late copies and noise are in the file."""
    whole, half = (CASES[name].on("renshu/Pendulum-v1", num_envs=2, seed=2) for _ in range(2))
    whole.learn(80, progress=False)
    again = load(half.learn(40, progress=False).save(tmp_path / "half.safetensors", memory=True))
    assert again.algorithm == CASES[name]
    again.learn(80 - again.steps, progress=False)
    assert not moved(again.parameters, whole.parameters)
    assert not moved(again.state.train, whole.state.train)
    obs = np.array([0.3, -0.4, 0.5], np.float32)
    np.testing.assert_array_equal(again.predict(obs), whole.predict(obs))
