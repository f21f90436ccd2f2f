"""Seeds in processes: the same agents as in turn, run folders, and nothing left behind when one goes wrong."""

import os
import signal
import subprocess
import sys
import time

import gymnasium
import numpy as np
import pytest

from renshu import PPO, Agent, experiment
from renshu.errors import HyperparameterError, RenshuError, SpaceError
from renshu.experiments.processes import run_name, train_in_processes
from renshu.experiments.single import Setup
from renshu.experiments.vmapped import Row
from renshu.tracking.run import Run
from tests.algorithms.rollouts import assert_same

SMALL = PPO(n_steps=16, batch_size=16, n_epochs=1, net_arch=[8])
OPTIONS = {"steps": 200, "num_envs": 2, "points": 5, "progress": False}


def short(fault=None):
    """A class that no other process can import: CartPole of ten steps."""

    class Short(gymnasium.Wrapper):
        def __init__(self):
            super().__init__(gymnasium.wrappers.TimeLimit(gymnasium.make("CartPole-v1").unwrapped, 10))
            self.fault, self.steps = fault, 0

        def step(self, action):
            self.steps += 1
            if self.steps == 20 and self.fault == "raise":
                raise ArithmeticError("the wheel is off")
            if self.steps == 20 and self.fault == "die":
                os.kill(os.getpid(), signal.SIGKILL)
            return self.env.step(action)

    return Short


Short = short()


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    folder = tmp_path_factory.mktemp("seeds") / "runs"
    return experiment(SMALL, Short, seeds=[1], grid={"gamma": [0.9, 0.99]}, processes=2, run=folder, **OPTIONS), folder


def test_the_same_as_in_turn(found):
    there, _ = found
    here = experiment(SMALL, Short, seeds=[1], grid={"gamma": [0.9, 0.99]}, processes=1, **OPTIONS)
    assert [curves.label for curves in there.curves] == [curves.label for curves in here.curves]
    for one, other in zip(there.curves, here.curves, strict=True):
        np.testing.assert_array_equal(one.steps, other.steps)
        np.testing.assert_allclose(one.returns, other.returns)
    for one, other in zip(there.agents, here.agents, strict=True):
        assert one.steps == other.steps
        assert_same(one.parameters, other.parameters)


def test_each_has_a_run_folder(found):
    there, folder = found
    names = sorted(path.name for path in folder.iterdir())
    assert names == ["ppo-gamma=0.9-1", "ppo-gamma=0.99-1"]
    for row, agent in zip(there.rows, there.agents, strict=True):
        run = Run.open(folder / run_name(row))
        assert run.settings["seed"] == row.seed
        assert run.settings["hyperparameters"]["gamma"] == row.values["gamma"]
        assert_same(Agent.load(run.agent_path, env=Short).parameters, agent.parameters)
    with pytest.raises(RenshuError, match="is not empty"):
        experiment(SMALL, Short, seeds=2, run=folder, **OPTIONS)


def test_processes_are_the_default_and_a_device_env_has_runs_too(tmp_path, monkeypatch):
    monkeypatch.setattr("renshu.experiments.experiment.cores", lambda: 2)
    monkeypatch.setattr("renshu.experiments.experiment.train_in_turn", None)
    assert len(experiment(SMALL, Short, seeds=2, **OPTIONS).agents) == 2
    experiment(SMALL, "renshu/CartPole-v1", seeds=1, run=tmp_path / "runs", **OPTIONS)
    assert Run.open(tmp_path / "runs" / "ppo-0").settings["loop"] == "compiled"


def test_an_object_trains_itself_here():
    env = Short()
    experiment(SMALL, env, seeds=2, **(OPTIONS | {"num_envs": 1}))
    assert env.steps > 200


def test_what_goes_wrong_there_is_raised_here(tmp_path):
    began = time.monotonic()
    with pytest.raises(RenshuError, match="the wheel is off") as raised:
        experiment(SMALL, short("raise"), seeds=[3, 4], processes=2, run=tmp_path / "runs", **OPTIONS)
    assert "In the training of PPO with seed" in "".join(raised.value.__notes__)
    assert time.monotonic() - began < 60
    with pytest.raises(RenshuError, match="is gone"):
        experiment(SMALL, short("die"), seeds=2, processes=2, **OPTIONS)


def test_a_process_ends_with_the_one_that_began_it(tmp_path):
    script = tmp_path / "long.py"
    script.write_text(
        "from renshu import PPO, experiment\n"
        "experiment(PPO(n_steps=64), 'CartPole-v1', seeds=2, steps=10**7, processes=2, run='runs', progress=False)\n"
    )
    with subprocess.Popen([sys.executable, script], cwd=tmp_path, stderr=subprocess.DEVNULL) as process:
        until = time.monotonic() + 120
        while not all((tmp_path / "runs" / f"ppo-{i}" / "metrics.csv").exists() for i in range(2)):
            assert time.monotonic() < until
            assert process.poll() is None
            time.sleep(0.1)
        process.kill()
    runs = [Run.open(tmp_path / "runs" / f"ppo-{i}") for i in range(2)]
    while not all(run.checkpoints for run in runs):  # each saves first, and its lock is free then
        assert time.monotonic() < until
        time.sleep(0.1)
    for run in runs:
        agent = Agent.resume(run.path)
        assert 0 < agent.steps < 10**7


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"processes": 0}, HyperparameterError, "processes"),
        ({"processes": 2, "workers": 2}, HyperparameterError, "are Ray's"),
        ({"run": "x", "workers": 2}, HyperparameterError, "are Ray's"),
    ],
)
def test_bad_input(options, error, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(error, match=message):
        experiment(SMALL, Short, seeds=2, **OPTIONS, **options)
    assert list(tmp_path.iterdir()) == []


def test_an_environment_that_cannot_be_sent(tmp_path):
    with open(tmp_path / "x", "w") as file:

        def make():
            return Short() if file else None

        with pytest.raises(SpaceError, match="cannot be sent"):
            experiment(SMALL, make, seeds=2, processes=2, **OPTIONS)


class Odd(Exception):
    """It cannot be made from its arguments alone, as pickle would."""

    def __init__(self, code, text):
        super().__init__(f"{text} ({code})")


def test_what_cannot_be_sent_back_is_told_in_words_and_prints_are_no_steps():
    def make():
        print("12345")
        raise Odd(3, "no licence")

    steps = []
    setup = Setup(make, {"num_envs": 1}, 100, 5)
    with pytest.raises(RenshuError, match=r"no licence \(3\)"):
        train_in_processes(setup, [Row("PPO", SMALL, {}, 0)], steps.append, count=1, folder=None)
    assert steps == []


def test_two_agents_in_one_folder_are_refused(tmp_path):
    with pytest.raises(HyperparameterError, match="two agents would be in 'a-0'"):
        experiment({"A": SMALL, "a!": SMALL}, Short, seeds=1, run=tmp_path / "runs", **OPTIONS)
    assert list(tmp_path.iterdir()) == []


def test_names_of_runs():
    assert run_name(Row("基準", SMALL, {}, 0)) == "基準-0"
    assert run_name(Row("PPO+ x=1e+06", SMALL, {}, 0)) == "ppo+-x=1e+06-0"
    assert run_name(Row("A/B ../x learning_rate=0.001", SMALL, {}, 3)) == "a-b-..-x-learning_rate=0.001-3"
