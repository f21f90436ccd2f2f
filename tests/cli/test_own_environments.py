"""Environments of one's own in the shell: registered by a module, or a class in it, from the current folder."""

import os
import subprocess
import sys

import pytest

import renshu
from renshu.tracking import Run
from tests import probes
from tests.cli.test_cli import QUIET, TINY, folder, invoke, refused  # noqa: F401

MODULE = """
import os
import gymnasium
import numpy as np
from tests import probes

class MyEnv(probes.Value):
    def step(self, action):
        if os.path.exists("crash"):
            raise ValueError("the robot fell over")
        return super().step(action)

class Sized(MyEnv):
    def __init__(self, size=1):
        super().__init__()
        self.size, self.count = size, 0

    def reset(self, **how):
        self.count = 0
        return super().reset(**how)

    def step(self, action):
        observation, reward, *_ = super().step(action)
        self.count += 1
        return observation, reward, self.count == self.size, False, {}

gymnasium.register("MyEnv-v0", MyEnv)
"""


@pytest.fixture
def module(tmp_path, monkeypatch):
    """The name of a module in the current folder that has environments. The name is new each time."""
    monkeypatch.setattr(sys, "path", [path for path in sys.path if path])
    name = f"mymodule_{tmp_path.name.replace('-', '_')}"
    (tmp_path / f"{name}.py").write_text(MODULE)
    return name


def test_an_id_that_a_module_registers(module):
    name = f"{module}:MyEnv-v0"
    invoke("train", "ppo", name, *TINY, *QUIET, "--steps", 40, "--run", "a")
    assert f"--env {name}" in refused("evaluate", "a")
    assert "episodes     5" in invoke("evaluate", "a", "--env", name, "--episodes", 5)
    assert f"renshu train ppo {name} --resume a" in refused("train", "--resume", "a", "--steps", 40)
    assert "goes on in a" in invoke("train", "ppo", name, "--resume", "a", "--steps", 40, "--no-progress")


def test_a_class_of_a_module(module):
    name = f"{module}:MyEnv"
    invoke("train", "ppo", name, *TINY, *QUIET, "--steps", 40, "--run", "a")
    assert Run.open("a").settings["environment"] == "MyEnv"
    assert "--env MODULE:MyEnv" in refused("evaluate", "a")
    assert "episodes     5" in invoke("evaluate", "a", "--env", name, "--episodes", 5)
    assert "episode 1" in invoke("watch", "a", "--env", name, "--terminal")
    assert "renshu train ppo MODULE:MyEnv --resume a" in refused("train", "--resume", "a", "--steps", 40)
    assert "goes on in a" in invoke("train", "ppo", name, "--resume", "a", "--steps", 40, "--no-progress")


def test_a_class_keeps_its_arguments(module):
    name = f"{module}:Sized"
    invoke("train", "ppo", name, *TINY, *QUIET, "--steps", 40, "--env-set", "size=3", "--run", "b")
    assert "length       3.0" in invoke("evaluate", "b", "--env", name, "--episodes", 5)
    invoke("train", "ppo", name, "--resume", "b", "--steps", 40, "--no-progress")
    assert "length       3.0" in invoke("evaluate", "b", "--env", name, "--episodes", 5)
    assert "length       2.0" in invoke("evaluate", "b", "--env", name, "--env-set", "size=2", "--episodes", 5)
    assert "is a training of ppo, not of dqn" in refused("train", "dqn", name, "--resume", "b")
    assert "keeps its settings" in refused("train", "ppo", name, "--resume", "b", "--eval-every", 0)


def test_a_run_made_in_python(module, tiny):
    tiny(probes.Value).learn(40, run="a", progress=False)
    assert "--env MODULE:Value" in refused("evaluate", "a")
    assert "episodes     5" in invoke("evaluate", "a", "--env", "tests.probes:Value", "--episodes", 5)
    line = ["train", "ppo", "tests.probes:Value", "--resume", "a", "--steps", 40, "--no-progress"]
    assert "goes on in a" in invoke(*line)


def test_what_is_not_there(module):
    for name, match in (
        (f"{module}:MyEnw", f"{module} has no 'MyEnw', and registers no environment as that. Did you mean MyEnv"),
        ("nowhere_at_all:MyEnv", "cannot import 'nowhere_at_all'"),
    ):
        assert match in refused("train", "ppo", name)


def test_the_advice_after_a_crash_works(module, tmp_path):
    """In a real process, started in the folder of the module."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path != str(tmp_path))}
    line = [sys.executable, "-c", "from renshu.cli import main; main()", "train", "ppo", f"{module}:MyEnv"]
    (tmp_path / "crash").touch()
    line += [*TINY, *QUIET, "--steps", "40", "--run", "a"]
    done = subprocess.run(line, capture_output=True, text=True, env=environment, cwd=tmp_path, check=False)
    assert "the robot fell over" in done.stderr
    advice = f"renshu train ppo {module}:MyEnv --resume a"
    assert advice in done.stderr
    assert 'renshu.Agent.resume("a", env=MyEnv).learn()' in done.stderr
    (tmp_path / "crash").unlink()
    assert "evaluation" in invoke(*advice.split()[1:], "--no-progress")
    assert renshu.load("a/agent.safetensors", env=probes.Value).steps >= 40
