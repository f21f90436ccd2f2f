"""Training by the compiled loop: faults, callbacks, and that it stays as quick and as small as it was."""

import signal
from contextlib import nullcontext

import jax
import numpy as np
import pytest

from examples.own_algorithm import Reinforce
from renshu import Agent, load
from renshu.agent import callbacks, training
from renshu.envs.builtin.classic import Pendulum
from renshu.errors import NotFiniteError
from renshu.loops import compiled
from renshu.tracking import Run, read_episodes, read_evaluations, read_metrics
from tests.loops.tiny import (
    NORMED_A2C,
    NORMED_PPO,
    TINY_A2C,
    TINY_PPO,
    Faulty,
    advanced,
    copied,
    same,
    without_target,
)

# --- NaN --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("algorithm", "env", "match"),
    [
        (TINY_PPO, Faulty("observation"), "an observation of Faulty is NaN or infinite.*update 3, step 48"),
        (NORMED_PPO, Faulty("observation", value=np.inf), "an observation of Faulty is NaN or infinite"),
        (NORMED_A2C, Faulty("reward", value=-np.inf), "an? reward of Faulty is NaN or infinite"),
        (TINY_A2C, Faulty("reward", value=1e38), "update 3, step 48 went wrong: .*value_loss is inf"),
        (Reinforce(n_steps=8), Faulty("observation"), "an observation of Faulty is NaN or infinite"),
    ],
    ids=["nan obs", "inf obs", "inf reward", "loss", "own algorithm"],
)
def test_not_finite(algorithm, env, match, tmp_path, monkeypatch):
    """In the middle of a visit: the parameters, in the file too, are those of the rollout before, and it learns on."""
    monkeypatch.setattr(training, "REPORTS", 1)
    clean, agent = (algorithm.on(each, num_envs=2, seed=0) for each in (Faulty(), env))
    advanced(clean, 2)
    with pytest.raises(NotFiniteError, match=match):
        agent.learn(640, progress=False, run=tmp_path / "run")
    assert agent.trainer.iteration == 3
    assert agent.steps == 48
    assert same(agent.parameters, clean.parameters)
    assert same(agent.state.opt_state, clean.state.opt_state)
    (checkpoint,) = Run.open(tmp_path / "run").checkpoints
    assert same(load(checkpoint, env=env, algorithm=type(algorithm)).parameters, agent.parameters)
    before = copied(agent.parameters)
    agent.learn(16, progress=False)  # new environments, where step 20 is to come
    assert agent.steps == 64
    assert not same(agent.parameters, before)


def test_infinity_that_no_loss_shows_ends_the_visit_too():
    """Clipped, the observation looks like any other."""
    agent = NORMED_PPO.on(Faulty("observation", value=np.inf), num_envs=2, seed=0)
    with pytest.raises(NotFiniteError, match=r"an observation of Faulty is NaN or infinite.*update 3, step 48"):
        advanced(agent, 10)
    assert (agent.trainer.iteration, agent.steps) == (3, 48)


def test_parameters_that_are_nan_show_in_the_actions():
    agent = TINY_A2C.on(Pendulum(), seed=0)
    agent.trainer.state = agent.state._replace(params=jax.tree.map(lambda x: x * np.nan, agent.parameters))
    with pytest.raises(NotFiniteError, match=r"an action of renshu/Pendulum-v1|observation of renshu/Pendulum-v1"):
        agent.learn(8, progress=False)
    with pytest.raises(NotFiniteError, match="in the evaluation"):
        agent.evaluate(1)


# --- callbacks --------------------------------------------------------------------------------------------------------


def test_everybody_is_told(tmp_path, capsys):
    agent, stats = TINY_PPO.on("renshu/CartPole-v1", num_envs=2, seed=0), []
    evaluate = callbacks.Evaluate(200, episodes=2)
    agent.learn(
        800,
        progress=True,
        run=tmp_path / "run",
        callbacks=[evaluate, lambda agent, metrics: stats.append((agent.steps, metrics))],
        checkpoint_every=200,
    )
    run = Run.open(tmp_path / "run")
    assert "ppo CartPole-v1" in capsys.readouterr().err
    assert len(evaluate.history) == len(read_evaluations(run.path)["step"]) == 4
    assert load(run.best_path).steps in [steps for steps, _ in evaluate.history]
    assert len(run.checkpoints) == 3
    assert [steps for steps, _ in stats] == read_metrics(run.path)["step"].tolist()
    assert {"policy_loss", "steps", "steps_per_second", "return_mean", "length_mean"} <= stats[-1][1].keys()
    episodes = read_episodes(run.path)
    assert (episodes["return"] == episodes["length"]).all(), "CartPole pays 1 a step"
    assert (np.diff(episodes["step"]) >= 0).all()
    np.testing.assert_array_equal(episodes["return"][-100:], agent.recent_returns)
    assert same(load(run.agent_path).state, agent.state)
    assert '"loop": "compiled"' in (run.path / "settings.json").read_text()
    assert (run.path / "curve.png").exists()


def test_callbacks_stop():
    agent = TINY_PPO.on("renshu/CartPole-v1", num_envs=2, seed=0)
    assert agent.learn(100_000, progress=False, callbacks=lambda agent, metrics: False).steps < 100_000 // 50
    steps = agent.steps
    agent.learn(10**6, progress=False, stop_at=5.0)
    assert len(agent.recent_returns) == 100
    assert np.mean(agent.recent_returns) >= 5
    assert steps < agent.steps < 10**6


def test_ctrl_c_during_a_visit_waits_until_it_is_counted(tmp_path):
    agent, plain = (TINY_PPO.on("renshu/CartPole-v1", num_envs=2, seed=0) for _ in range(2))
    loop = agent.trainer.start_loop(nullcontext)
    chunk = loop._chunk

    def interrupted(*inputs):
        signal.raise_signal(signal.SIGINT)
        return chunk(*inputs)

    loop._chunk = interrupted
    with pytest.raises(KeyboardInterrupt) as caught:
        agent.learn(400, progress=False, run=tmp_path / "run")
    plain.learn(400, progress=False, callbacks=lambda agent, metrics: False)
    assert agent.steps == plain.steps == int(agent.state.counters.steps)
    assert same(agent.parameters, plain.parameters)
    assert f"as of step {agent.steps}" in caught.value.__notes__[0]
    again = Agent.resume(tmp_path / "run")
    assert again.steps == int(again.state.counters.steps) == agent.steps
    plain.learn(400 - plain.steps, progress=False)
    assert same(without_target(again.learn(progress=False).state), without_target(plain.state))


# --- steady -----------------------------------------------------------------------------------------------------------


def test_compiled_once_and_memory_stays(tmp_path):
    agent = TINY_PPO.on("renshu/CartPole-v1", num_envs=2, seed=0).learn(64, progress=False)
    loop, alive = agent.trainer.start_loop(nullcontext), []
    for steps in (16, 500, 40):
        agent.learn(steps, progress=False)
        alive.append(len(jax.live_arrays()))
    assert agent.trainer.start_loop(nullcontext) is loop
    assert loop._chunk._cache_size() == 1
    assert len(set(alive)) == 1
    again = load(agent.save(tmp_path / "a.safetensors"))
    for _ in range(2):
        again.learn(32, progress=False)
    assert again.trainer.start_loop(nullcontext)._chunk._cache_size() == 1


def test_a_visit_stays_within_its_bounds(monkeypatch):
    """As many rollouts as fit, at least one, and no more than a visit holds."""
    monkeypatch.setattr(compiled, "CHUNK_STEPS", 64)
    agent = TINY_PPO.on(Faulty(), num_envs=2, seed=0)
    agent.trainer.set_target(10**6)
    loop = agent.trainer.start_loop(nullcontext)
    assert [loop.advance(steps).iterations for steps in (0, 15, 16, 47, 48, 10**9)] == [1, 1, 1, 2, 3, 4]
    assert loop.iteration == 12
    assert loop.episodes.steps == 12 * 16


def test_environments_that_went_nan_are_in_no_checkpoint(tmp_path):
    """Training goes on in new ones."""
    agent = TINY_PPO.on(Faulty("observation"), num_envs=2, seed=0)
    with pytest.raises(NotFiniteError):
        agent.learn(640, run=tmp_path / "run", progress=False)
    again = Agent.resume(tmp_path / "run", env=Faulty())
    again.learn(64, progress=False)
    assert again.steps >= agent.steps + 64
