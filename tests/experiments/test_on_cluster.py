"""Experiments whose trainings are tasks of Ray: the same curves, and a task that dies goes on from its checkpoint."""

import importlib.util
import os

import gymnasium
import numpy as np
import pytest

import renshu
from renshu import A2C
from renshu.errors import EnvironmentFault, SpaceError
from tests.loops.test_cluster import Lock

pytestmark = pytest.mark.skipif(importlib.util.find_spec("ray") is None, reason="Ray is not installed")
SMALL = A2C(n_steps=8, net_arch=[8])


def test_curves_are_those_of_one_process_and_a_task_that_dies_goes_on(tmp_path):
    options = {"seeds": 2, "steps": 2_000, "num_envs": 2, "points": 10, "progress": False}
    alone = renshu.experiment(SMALL, "CartPole-v1", **options)
    dealt = renshu.experiment(SMALL, "CartPole-v1", **options, workers=2)
    np.testing.assert_array_equal(alone.curves[0].returns, dealt.curves[0].returns)
    for ours, theirs in zip(alone.agents, dealt.agents, strict=True):
        assert ours.steps == theirs.steps
        weights = [agent.parameters["value_head"]["kernel"] for agent in (ours, theirs)]
        np.testing.assert_array_equal(*weights)

    def dying():
        class Dying(gymnasium.Wrapper):
            steps = 0

            def step(self, action):
                Dying.steps += 1
                if Dying.steps == 700 and not (tmp_path / "died").exists():
                    (tmp_path / "died").touch()
                    os._exit(3)
                return self.env.step(action)

        return Dying(gymnasium.make("CartPole-v1"))

    found = renshu.experiment(SMALL, dying, **{**options, "seeds": [0]}, workers=2)
    assert (tmp_path / "died").exists()
    assert found.agents[0].steps >= 2_000
    assert np.isfinite(found.curves[0].returns).sum() >= 8


def test_an_environment_that_raises_ends_the_experiment_by_its_own_error():
    def broken():
        raise ZeroDivisionError("never made")

    with pytest.raises(EnvironmentFault, match="never made"):
        renshu.experiment(SMALL, broken, seeds=1, steps=100, progress=False, workers=1)


def test_what_cannot_be_sent_is_named_before_anything_trains():
    lock = Lock()

    def make():
        assert lock
        return gymnasium.make("CartPole-v1")

    with pytest.raises(SpaceError, match="lock = the lock"):
        renshu.experiment(SMALL, make, seeds=1, steps=100, progress=False, workers=1)
