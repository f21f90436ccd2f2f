"""Environments of files that are named again keep the arguments and the time limit that they were made with."""

import dataclasses
import json
import sys
from functools import partial

import numpy as np
import pytest

import renshu
from renshu import Dataset
from renshu.errors import CheckpointError
from tests import probes


class Counting(probes.Value):
    """Episodes of `size` steps, or without an end for None."""

    def __init__(self, size=1, ends=bool):
        super().__init__()
        self.size, self.ends, self.count = size, ends, 0

    def reset(self, **how):
        self.count = 0
        return super().reset(**how)

    def step(self, action):
        observation, reward, *_ = super().step(action)
        self.count += 1
        return observation, reward, self.ends(self.count == self.size), False, {}


class Other(Counting):
    """Of another name."""


def lengths(path, env):
    return set(renshu.load(path, env=env).evaluate(3).lengths)


def test_a_class_by_its_arguments(tiny, tmp_path):
    path = tmp_path / "agent.safetensors"
    tiny(Counting, env_kwargs={"size": 4}).save(path)
    assert lengths(path, Counting) == {4}
    assert lengths(path, partial(Counting, size=2)) == {2}
    assert lengths(path, Counting(3)) == {3}
    assert lengths(path, Other) == {1}


def test_a_class_by_its_time_limit(tiny, tmp_path):
    path = tmp_path / "agent.safetensors"
    tiny(Counting, env_kwargs={"size": None}, max_episode_steps=5).save(path)
    assert lengths(path, Counting) == {5}


def test_an_argument_that_no_file_holds(tiny, tmp_path):
    path = tmp_path / "agent.safetensors"
    tiny(Counting, env_kwargs={"size": 4, "ends": lambda end: end}).save(path)
    with pytest.raises(CheckpointError, match=r"made with ends=\.\.\., .*partial\(Counting, size=4, ends=\.\.\.\)"):
        renshu.load(path, env=Counting)
    assert lengths(path, partial(Counting, size=4, ends=bool)) == {4}


def test_a_data_set(tiny, tmp_path):
    agent = tiny(Counting, env_kwargs={"size": 4})
    agent.collect(20, to=tmp_path / "data")
    data = Dataset.open(tmp_path / "data", env=Counting)
    learner = renshu.DQN(net_arch=[8], learning_starts=1).on(data, seed=0)
    assert set(learner.evaluate(3).lengths) == {4}


class Shaped(probes.Value):
    """A value for each kind of argument."""

    def __init__(self, shape=(), layers=None):
        super().__init__()
        assert isinstance(shape, tuple), shape
        self.shape, self.layers = shape, layers


def test_arguments_come_back_as_they_were(tiny, tmp_path):
    path = tmp_path / "agent.safetensors"
    tiny(Shaped, env_kwargs={"shape": (2, (3,)), "layers": [{"a": (1,)}, None, 0.5]}).save(path)
    again = renshu.load(path, env=Shaped)
    assert again.spec.kwargs == {"shape": (2, (3,)), "layers": [{"a": (1,)}, None, 0.5]}
    assert again.evaluate(1).episodes == 1
    tiny(Shaped, env_kwargs={"layers": {0: "a"}}).save(path)  # a key that JSON would make a text of
    with pytest.raises(CheckpointError, match=r"made with layers=\.\.\."):
        renshu.load(path, env=Shaped)


def test_an_id_whose_arguments_no_file_holds_is_not_made_without_them(tiny, tmp_path):
    path = tmp_path / "agent.safetensors"
    tiny("CartPole-v1", env_kwargs={"sutton_barto_reward": np.bool_(True)}).save(path)
    with pytest.raises(CheckpointError, match=r'partial\(gymnasium.make, "CartPole-v1", sutton_barto_reward=\.\.\.\)'):
        renshu.load(path, env="CartPole-v1")


def test_a_data_set_imports_nothing(tiny, tmp_path, monkeypatch):
    agent = tiny("CartPole-v1")
    agent.collect(20, to=(data := tmp_path / "data"))
    about = json.loads((data / "spec.json").read_text())
    about["spec"]["id"] = "data.payload:X-v0"
    (data / "spec.json").write_text(json.dumps(about))
    (data / "payload.py").write_text("raise SystemExit('ran')")
    monkeypatch.syspath_prepend(str(tmp_path))
    learner = renshu.DQN(net_arch=[8], learning_starts=1).on(Dataset.open(data), seed=0)
    learner.learn(2, run=tmp_path / "run", progress=False)
    assert not [name for name in sys.modules if name.endswith("never_imported")]


def test_nor_does_the_file_of_an_agent(tiny, tmp_path, monkeypatch, capsys):
    (tmp_path / "payload2.py").write_text("raise SystemExit('ran')")
    monkeypatch.syspath_prepend(str(tmp_path))
    agent = tiny("CartPole-v1")
    agent.trainer.spec = dataclasses.replace(agent.trainer.spec, id="payload2:ALE/X")
    agent.save(tmp_path / "agent.safetensors")
    renshu.load(tmp_path / "agent.safetensors").summary()
    assert "payload2" not in sys.modules


@dataclasses.dataclass
class Equal(probes.Value):
    """Environments that equal each other, and have no hash."""

    size: int = 1

    def __post_init__(self):
        super().__init__()


def test_environments_may_equal_each_other(tiny):
    assert tiny(Equal, num_envs=2).evaluate(2).episodes == 2
