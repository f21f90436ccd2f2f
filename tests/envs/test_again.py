"""Environments of files that are named again keep the arguments and the time limit that they were made with."""

from functools import partial

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
