"""The compiled loop: the same training as the host loop's, to be cut off and gone on with to the bit."""

import signal
import subprocess
import sys
from contextlib import nullcontext

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from examples.own_algorithm import Reinforce
from renshu import PPO, Agent, Linear, load
from renshu.agent.agent import training
from renshu.envs.builtin.classic import CartPole, Pendulum
from renshu.envs.builtin.grid import Grid
from renshu.files.checkpoint import named
from renshu.loops import compiled
from renshu.tracking import read_episodes
from tests.envs.test_device import Keys
from tests.loops.tiny import NORMED_A2C, NORMED_PPO, SMALL, TINY_A2C, TINY_PPO, advanced, same, without_target

# --- one definition ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("algorithm", "env"),
    [
        (NORMED_A2C, CartPole()),
        (Reinforce(n_steps=8), CartPole()),
        (NORMED_PPO, Pendulum()),
        (TINY_PPO, Grid()),
    ],
    ids=lambda x: type(x).__name__,
)
@pytest.mark.usefixtures("exact")
def test_host_loop_and_compiled_loop_are_the_same_to_the_bit(algorithm, env):
    (host, theirs), (ours, mine) = (
        (agent := algorithm.on(env, num_envs=4, seed=3, loop=loop), advanced(agent, 30))
        for loop in ("host", "compiled")
    )
    assert (host.trainer.backend.loop_name, ours.trainer.backend.loop_name) == ("host", "compiled")
    assert same(host.state, ours.state)
    assert not same(ours.parameters, algorithm.on(env, num_envs=4, seed=3).parameters), "something was learned"
    assert host.steps == ours.steps == int(ours.state.counters.steps)
    assert len(mine[0]) or isinstance(env, Pendulum)
    for a, b in ((0, "steps"), (1, "envs"), (3, "lengths")):
        np.testing.assert_array_equal(theirs[a], mine[a], err_msg=b)
    np.testing.assert_allclose(mine[2], theirs[2], rtol=1e-5)  # one sums in float32, the other in float64


def test_learn_is_the_same_too():
    agents = [TINY_PPO.on("renshu/CartPole-v1", num_envs=2, seed=1, loop=loop) for loop in ("host", None)]
    host, ours = (agent.learn(200, progress=False) for agent in agents)
    assert ours.trainer.backend.loop_name == "compiled"
    assert same(host.state, ours.state)
    assert list(host.recent_returns) == list(ours.recent_returns)
    assert list(host.recent_lengths) == list(ours.recent_lengths)


def test_agent_and_environments_share_no_key():
    """An action must not be drawn by the number by which its environment moves, nor the weights by those of a start."""
    agent = TINY_A2C.on(Keys(), num_envs=4, seed=5)
    loop = agent.trainer.start_loop(nullcontext)
    loop_state, envs = loop.loop_state, loop.envs
    seen = [np.asarray(loop_state.obs)]
    state = loop_state.envs
    for _ in range(8):
        state, outcome = envs.step(state, np.zeros(4, int))
        seen.append(np.asarray(outcome.obs))
    theirs = {tuple(key) for key in np.concatenate(seen).tolist()}
    acting = [agent.trainer.programs.keys(agent.trainer.keys[1], iteration) for iteration in range(9)]
    ours = np.concatenate([jax.random.key_data(keys) for keys in [*acting, jnp.stack(agent.trainer.keys)]])
    assert len(theirs) == 9 * 4
    assert not theirs & {tuple(key) for key in ours.tolist()}


# --- the same again ---------------------------------------------------------------------------------------------------

GO_ON = """
import sys
from renshu import load
_, path, total, then = sys.argv
agent = load(path)
agent.learn(int(total) - agent.steps, progress=False).save(then)
"""


@pytest.mark.parametrize("algorithm", [NORMED_PPO, NORMED_A2C], ids=lambda a: type(a).__name__)
def test_half_save_load_in_a_new_process_and_the_other_half(algorithm, tmp_path):
    whole, half = (algorithm.on("renshu/CartPole-v1", num_envs=3, seed=2) for _ in range(2))
    whole.learn(600, progress=False)
    path = half.learn(300, progress=False).save(tmp_path / "half.safetensors")
    assert half.steps < whole.steps
    subprocess.run([sys.executable, "-c", GO_ON, path, "600", tmp_path / "done.safetensors"], check=True, timeout=120)
    done = load(tmp_path / "done.safetensors")
    assert (done.steps, done.trainer.iteration) == (whole.steps, whole.trainer.iteration)
    assert same(without_target(done.state), without_target(whole.state))
    assert same(named(done.trainer.loop_snapshot()), named(whole.trainer.loop_snapshot()))
    here = load(path)
    assert same(without_target(here.learn(600 - here.steps, progress=False).state), without_target(whole.state))


def test_without_the_environments_it_would_not_be_the_same(tmp_path):
    """The test above would notice: who goes on in fresh environments learns something else."""
    agent = TINY_PPO.on("renshu/CartPole-v1", num_envs=2, seed=0).learn(100, progress=False)
    again = load(agent.save(tmp_path / "a.safetensors"))
    again.close()  # forgets where the environments stood
    assert not same(agent.learn(100, progress=False).parameters, again.learn(100, progress=False).parameters)


def test_resume_from_a_run_folder_to_the_bit(tmp_path):
    """Schedules, too: the aim is that of the run."""

    def agent():
        algorithm = PPO(**SMALL, batch_size=8, n_epochs=1, learning_rate=Linear(1e-3))
        return algorithm.on("renshu/Pendulum-v1", num_envs=2, seed=4)

    def interrupt(agent, metrics):
        if agent.steps >= 500:
            signal.raise_signal(signal.SIGINT)

    whole = agent().learn(1000, progress=False, run=tmp_path / "whole")
    with pytest.raises(KeyboardInterrupt):
        agent().learn(1000, progress=False, run=tmp_path / "cut", callbacks=interrupt)
    again = Agent.resume(tmp_path / "cut")
    assert 500 <= again.steps < 1000
    assert same(again.learn(progress=False).state, whole.state)
    ours, theirs = (read_episodes(tmp_path / name) for name in ("cut", "whole"))
    for column in ("step", "env", "return", "length"):
        np.testing.assert_array_equal(ours[column], theirs[column])
    assert len(ours["step"])


def test_how_often_the_host_looks_in_changes_no_bit(monkeypatch):
    def trained():
        looks = []
        agent = TINY_PPO.on("renshu/CartPole-v1", num_envs=2, seed=6)
        agent.learn(400, progress=False, callbacks=lambda agent, metrics: looks.append(agent.steps))
        return agent, looks

    usual, looks = trained()
    monkeypatch.setattr(training, "REPORTS", 3)
    seldom, few = trained()
    monkeypatch.setattr(compiled, "CHUNK_STEPS", 1)
    often, many = trained()
    assert len(few) < len(looks) <= len(many) == often.trainer.iteration
    assert many[-1] == few[-1]
    assert same(usual.state, seldom.state)
    assert same(usual.state, often.state)
    assert list(usual.recent_returns) == list(seldom.recent_returns) == list(often.recent_returns)


def test_the_same_seed_gives_the_same_curve(tmp_path):
    for name, seed in (("a", 3), ("b", 3), ("c", 4)):
        TINY_A2C.on("renshu/CartPole-v1", num_envs=2, seed=seed).learn(300, progress=False, run=tmp_path / name)
    a, b, c = ({k: v for k, v in read_episodes(tmp_path / name).items() if k != "seconds"} for name in "abc")
    assert all(np.array_equal(a[column], b[column]) for column in ("step", "env", "return", "length"))
    assert not np.array_equal(a["return"], c["return"])
