"""A learner of data sets, a family that is still to come: from one in a folder, and in both loops as any other."""

import dataclasses

import numpy as np
import pytest

from renshu import Dataset
from renshu.ops.rollouts import joined
from tests.contract.families.conservative import Conservative
from tests.contract.families.groups import Corridor
from tests.loops.tiny import same

pytestmark = pytest.mark.usefixtures("compiled_fast")

SMALL = Conservative(buffer_size=2000, batch_size=64, learning_rate=0.5, learning_starts=16, gamma=0.9)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Random steps, but for those to the left from the middle, which are left out with all that follows on them."""
    found = SMALL.on(Corridor(), num_envs=4, seed=0).collect(1200, to=tmp_path_factory.mktemp("data") / "random")
    whole = joined(list(found.chunks()))
    place, real = np.asarray(whole.obs[:-1]), whole.valid
    steps = {"obs": place, "action": whole.action, "reward": whole.reward, "terminated": whole.terminated}
    steps["next_obs"] = whole.obs[1:]
    known = real & ~((place >= 2) & (whole.action == 0))
    arrays = {name: np.asarray(x).T[known.T] for name, x in steps.items()}
    # Each step is an episode of its own, so that it does not matter which are left out.
    arrays["truncated"] = ~arrays["terminated"]
    path = tmp_path_factory.mktemp("data") / "shown"
    Dataset.open(arrays, env=Corridor()).save(path)
    return path


def test_what_the_data_do_not_show_is_not_done(folder):
    agents = [SMALL.on(Dataset.open(folder, env=Corridor()), seed=1).learn(800, progress=False) for _ in range(2)]
    assert same(agents[0].state, agents[1].state)
    assert agents[0].evaluate(4).mean == 1.0
    table = np.asarray(agents[0].parameters["table"])[1:-1]
    assert (table[:, 1] > table[:, 0]).all()
    # Values of what was never done stay as they were without the conservative term, and are followed.
    plain = dataclasses.replace(SMALL, alpha=0.0).on(Dataset.open(folder, env=Corridor()), seed=1)
    assert plain.learn(800, progress=False).evaluate(4).mean < 1.0


def test_the_same_learner_learns_in_both_loops():
    algorithm = dataclasses.replace(SMALL, exploration=0.5, train_freq=4, gradient_steps=2)
    host, compiled = (
        algorithm.on(Corridor(), num_envs=4, seed=0, loop=loop).learn(1600, progress=False)
        for loop in ("host", "compiled")
    )
    assert same(host.state, compiled.state)
    assert compiled.evaluate(4).mean == 1.0
