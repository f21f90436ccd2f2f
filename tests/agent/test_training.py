"""One training and the next: the same again, and the folder that keeps everything about it."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from functools import partial

import gymnasium
import jax
import numpy as np
import pytest
from flax import linen

import renshu
from renshu import Agent, load
from renshu.agent.training import finish
from renshu.errors import CheckpointError, HyperparameterError, UnknownNameError
from renshu.tracking import Run, read_episodes, read_evaluations, read_metrics
from tests import probes
from tests.envs.faulty import Counting


class OwnNet(linen.Module):
    @linen.compact
    def __call__(self, obs):
        return linen.tanh(linen.Dense(8)(obs))


def same(a, b):
    return jax.tree.structure(a) == jax.tree.structure(b) and jax.tree.all(jax.tree.map(np.array_equal, a, b))


# --- the same again ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("env", ["CartPole-v1", probes.TimeLimit], ids=str)
def test_the_same_seed_gives_the_same_agent_to_the_bit(tiny, env):
    first, second, other = (tiny(env, seed=seed).learn(200, progress=False) for seed in (3, 3, 4))
    assert same(first.state, second.state)
    assert first.steps == second.steps
    assert not same(first.parameters, other.parameters)


def test_learning_twice_counts_as_once(tiny):
    env = lambda: Counting(length=10**9)  # noqa: E731
    once, twice = tiny(env), tiny(env)
    once.learn(128, progress=False)
    twice.learn(64, progress=False).learn(64, progress=False)
    assert once.steps == twice.steps == 128
    assert once.trainer.iteration == twice.trainer.iteration == 4
    assert int(twice.state.counters.steps) == 128
    assert same(once.parameters, twice.parameters), "a constant learning rate, so nothing depends on the target"


# --- run folders ------------------------------------------------------------------------------------------------------


def test_a_run_folder_holds_everything(tiny, tmp_path):
    agent = tiny(seed=5, learning_rate=renshu.Linear(1e-3))
    ended = []
    agent.learn(
        400,
        progress=False,
        run=tmp_path / "run",
        eval_every=100,
        eval_episodes=2,
        checkpoint_every=100,
        callbacks=lambda agent, metrics: ended.append((agent.steps, len(agent.recent_returns))),
    )
    run = Run.open(tmp_path / "run")
    assert agent.run is None
    assert agent.last_run.path == run.path
    settings = json.loads((run.path / "settings.json").read_text())
    expected = {
        "algorithm": "PPO",
        "environment": "CartPole-v1",
        "num_envs": 2,
        "seed": 5,
        "total_steps": 400,
        "eval_every": 100,
    }
    assert expected.items() <= settings.items()
    assert settings["hyperparameters"] == agent.algorithm.to_json()
    assert {"python", "renshu", "jax", "flax", "gymnasium", "numpy"} <= settings["versions"].keys()
    assert "git" in settings
    episodes = read_episodes(run.path)
    assert (np.diff(episodes["step"]) >= 0).all()
    np.testing.assert_array_equal(episodes["return"], agent.recent_returns)
    np.testing.assert_array_equal(episodes["length"], agent.recent_lengths)
    assert episodes["step"][-1] <= agent.steps
    assert (episodes["return"] == episodes["length"]).all(), "CartPole pays 1 a step"
    metrics = read_metrics(run.path)
    assert metrics["step"].tolist() == [steps for steps, _ in ended]
    assert np.isfinite(metrics["policy_loss"]).all()
    evaluations = read_evaluations(run.path)
    assert evaluations["step"].size == 4
    assert (evaluations["episodes"] == 2).all()
    assert [path.name for path in run.checkpoints][-1] == f"step_{agent.steps:09d}.safetensors"
    assert len(run.checkpoints) == 3
    assert same(load(run.agent_path).state, agent.state)
    assert load(run.best_path).steps == evaluations["step"][evaluations["mean"].argmax()]
    assert run.curve_path.read_bytes().startswith(b"\x89PNG")
    assert list(run.path.glob("events.out.tfevents.*"))
    assert not list(run.path.rglob(".*")), "no temporary file stays"


def test_run_true_counts_folders_up(tiny, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    agent = tiny()
    for _ in range(2):
        agent.learn(30, progress=False, run=True)
    agent.learn(30, progress=False, run=False)
    assert sorted(path.name for path in (tmp_path / "runs").iterdir()) == ["ppo-CartPole-v1-1", "ppo-CartPole-v1-2"]
    assert agent.last_run.path.name == "ppo-CartPole-v1-2"


def test_a_folder_that_holds_a_run_is_refused(tiny, tmp_path):
    agent = tiny().learn(30, progress=False, run=tmp_path / "run")
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    with pytest.raises(renshu.errors.RenshuError, match="already holds a run"):
        agent.learn(30, progress=False, run=tmp_path / "run")
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before
    assert agent.trainer.target == int(agent.state.counters.target) == 30, "what is refused moves no aim"


def interrupted(agent, run, at, total=640, **options):
    """Train in a run folder until Ctrl-C arrives after `at` steps."""

    def interrupt(agent, metrics):
        if agent.steps >= at:
            signal.raise_signal(signal.SIGINT)

    with pytest.raises(KeyboardInterrupt):
        agent.learn(total, progress=False, run=run, callbacks=interrupt, **options)


def test_a_resume_with_another_time_limit_says_so(tiny, tmp_path, recwarn):
    make = partial(gymnasium.make, "CartPole-v1")
    agent = tiny(make, max_episode_steps=20)
    interrupted(agent, tmp_path / "run", 200, checkpoint_every=64)
    with pytest.warns(UserWarning, match="was one of 20 steps, and that of the environment that was passed is one of"):
        Agent.resume(tmp_path / "run", env=make).close()
    recwarn.clear()
    Agent.resume(tmp_path / "run", env=partial(make, max_episode_steps=20)).close()
    assert not [str(told.message) for told in recwarn if "time limit" in str(told.message)]


def test_resume_goes_on_to_the_original_target(tiny, tmp_path):
    agent = tiny(learning_rate=renshu.Linear(1e-3))
    interrupted(agent, tmp_path / "run", 200, checkpoint_every=64)
    again = Agent.resume(tmp_path / "run")
    assert (again.steps, again.trainer.target, again.seed) == (agent.steps, 640, 0)
    assert same(again.state, agent.state)
    before = (tmp_path / "run" / "episodes.csv").read_text()
    again.learn(progress=False, checkpoint_every=64)
    assert 640 <= again.steps < 640 + 32
    text = (tmp_path / "run" / "episodes.csv").read_text()
    assert text.startswith(before)
    assert text.count("step,env") == 1
    for table in (read_episodes(tmp_path / "run"), read_metrics(tmp_path / "run")):
        assert (np.diff(table["step"]) >= 0).all()
    steps = read_metrics(tmp_path / "run")["step"]
    assert len(set(steps)) == len(steps)
    assert Run.open(tmp_path / "run").agent_path.exists()
    assert load(Run.open(tmp_path / "run").agent_path).steps == again.steps


def test_a_damaged_checkpoint_is_passed_over(tiny, tmp_path):
    agent = tiny()
    interrupted(agent, tmp_path / "run", 200, checkpoint_every=64)
    run = Run.open(tmp_path / "run")
    *_, older, newest = run.checkpoints
    newest.write_bytes(newest.read_bytes()[:-100])
    agent.save(run.best_path)
    aside = f"it is kept as best_step_{agent.steps:09d}.safetensors"  # of steps that are forgotten now
    with (
        pytest.warns(UserWarning, match=f"goes on from {older.name}, the one before it"),
        pytest.warns(UserWarning, match=aside),
    ):
        again = Agent.resume(run.path)
    assert not run.best_path.exists()
    assert again.steps == int(older.stem[5:]) < agent.steps
    assert read_episodes(run.path)["step"].max(initial=0) <= again.steps
    assert read_metrics(run.path)["step"].max() <= again.steps
    again.learn(progress=False)
    assert (np.diff(read_episodes(run.path)["step"]) >= 0).all()

    for path in run.checkpoints:
        path.write_bytes(b"")
    with pytest.raises(CheckpointError, match=r"is empty.*older ones"):
        Agent.resume(run.path)


def test_resume_without_a_checkpoint_or_a_run(tmp_path):
    Run.create(tmp_path / "run", {})
    with pytest.raises(CheckpointError, match="no checkpoint to go on from"):
        Agent.resume(tmp_path / "run")
    with pytest.raises(UnknownNameError, match=r"is not a run.*Did you mean run"):
        Agent.resume(tmp_path / "runn")


@pytest.mark.parametrize("left", ["settings.json", "checkpoints only"])
def test_a_run_that_was_killed_before_its_first_checkpoint_is_to_be_deleted(tiny, tmp_path, left):
    path = tmp_path / "run"
    if left == "settings.json":
        Run.create(path, {})
        with pytest.raises(CheckpointError, match=rf"no checkpoint to go on from.*rm -r {path}.*It was begun by: "):
            Agent.resume(path)
    else:
        (path / "checkpoints").mkdir(parents=True)
    agent = tiny()
    with pytest.raises(renshu.errors.RenshuError, match=rf"already holds a run, which has no.*rm -r {path}") as caught:
        agent.learn(30, progress=False, run=path)
    assert "--resume" not in str(caught.value)
    shutil.rmtree(path)
    assert Agent.resume(agent.learn(30, progress=False, run=path).last_run.path).steps == agent.steps


def test_a_run_is_trained_by_one_at_a_time(tiny, tmp_path):
    refused = []

    def meanwhile(agent, metrics):
        if agent.steps < 64:
            return
        agent.checkpoint()
        for use in (
            lambda: Agent.resume(tmp_path / "run"),
            lambda: tiny().learn(30, progress=False, run=Run.open(tmp_path / "run")),
        ):
            with pytest.raises(renshu.errors.RenshuError, match="is being written to by this process"):
                use()
            refused.append(agent.steps)

    agent = tiny().learn(128, progress=False, run=tmp_path / "run", callbacks=meanwhile)
    assert refused
    assert not (tmp_path / "run" / "lock").exists()
    assert (np.diff(read_metrics(tmp_path / "run")["step"]) > 0).all()
    assert Agent.resume(tmp_path / "run").steps == agent.steps


def test_a_run_that_has_gone_on_elsewhere_is_resumed_again(tiny, tmp_path):
    interrupted(tiny(), tmp_path / "run", 200)
    first, second = Agent.resume(tmp_path / "run"), Agent.resume(tmp_path / "run")
    first.learn(progress=False)
    with pytest.raises(renshu.errors.RenshuError, match="has gone on elsewhere since it was resumed here"):
        second.learn(progress=False)
    assert (np.diff(read_episodes(tmp_path / "run")["step"]) >= 0).all()
    assert Agent.resume(tmp_path / "run").learn(30, progress=False).steps > first.steps


RESUME = """
import sys, time, pathlib
from renshu import Agent
from renshu.errors import RenshuError
pathlib.Path(sys.argv[1] + "-ready").touch()
while not pathlib.Path("go").exists():
    time.sleep(0.001)
try:
    agent = Agent.resume("run")
    print("resumed", flush=True)
    agent.learn(progress=False)
    print("trained")
except RenshuError as error:
    print("refused", error)
"""


def test_of_three_processes_that_resume_a_run_at_once_one_goes_on(tiny, tmp_path):
    interrupted(tiny(), tmp_path / "run", 200, total=3000)
    command = [sys.executable, "-c", RESUME]
    places = {
        "cwd": tmp_path,
        "stdout": subprocess.PIPE,
        "text": True,
        "env": {**os.environ, "PYTHONPATH": os.getcwd()},
    }
    processes = [subprocess.Popen([*command, str(i)], **places) for i in range(3)]
    while len(list(tmp_path.glob("*-ready"))) < 3:
        assert all(process.poll() is None for process in processes)
        time.sleep(0.01)
    (tmp_path / "go").touch()
    told = [process.communicate(timeout=60)[0] for process in processes]
    assert sorted(text.split()[-1] == "trained" for text in told) == [False, False, True], told
    refused = [text for text in told if "refused" in text]
    pids = {str(process.pid) for process in processes}
    assert all("gone on elsewhere" in text or pids & set(re.findall(r"process (\d+)", text)) for text in refused), told
    for table in (read_episodes(tmp_path / "run"), read_metrics(tmp_path / "run")):
        assert (np.diff(table["step"]) >= 0).all()
    steps = read_metrics(tmp_path / "run")["step"]
    assert len(set(steps)) == len(steps)


def test_resume_a_finished_run(tiny, tmp_path):
    agent = tiny().learn(60, progress=False, run=tmp_path / "run")
    again = Agent.resume(tmp_path / "run")
    assert same(again.state, agent.state)
    with pytest.raises(HyperparameterError, match=r"learn\(100_000\)"):
        again.learn(progress=False)
    again.learn(60, progress=False)
    assert again.steps >= agent.steps + 60
    assert [int(path.stem[5:]) for path in Run.open(tmp_path / "run").checkpoints] == [agent.steps, again.steps]
    assert not (tmp_path / "runs").exists()


def test_resume_with_an_own_environment_and_network(tiny, tmp_path):
    agent = tiny(probes.Value, network=OwnNet)
    interrupted(agent, tmp_path / "run", 100)
    with pytest.raises(CheckpointError, match="network=OwnNet"):
        Agent.resume(tmp_path / "run", env=probes.Value)
    again = Agent.resume(tmp_path / "run", env=probes.Value, network=OwnNet)
    assert 640 <= again.learn(progress=False).steps < 672


def test_finish_draws_the_curve(tmp_path):
    run = Run.create(tmp_path / "run", {})
    finish(run)
    assert run.curve_path.exists()
