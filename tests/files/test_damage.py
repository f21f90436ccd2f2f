"""Damaged and hostile files, seeded: each loads, or is refused by a CheckpointError, in little time and memory."""

import random
import resource
import shutil
import time

import gymnasium
import numpy as np
import pytest
from gymnasium import spaces

from bench import damage
from renshu import DQN, PPO, Dataset, load
from renshu.errors import CheckpointError
from renshu.tracking import Run, read_episodes, read_evaluations, read_metrics

PARTS = {"a": spaces.Box(-1, 1, (2,)), "b": spaces.Discrete(3), "c": spaces.Tuple([spaces.MultiBinary(2)])}


class Nested(gymnasium.Env):
    observation_space = spaces.Dict(PARTS)
    action_space = spaces.Box(-1, 1, (2,))

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        return self.observation_space.sample(), {}

    def step(self, action):
        return self.observation_space.sample(), 0.0, False, False, {}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("whole")
    PPO(n_steps=16, batch_size=16, net_arch=[8], norm_obs=True).on("renshu/CartPole-v1", seed=0).learn(
        40, progress=False
    ).save(folder / "ppo.safetensors")
    dqn = DQN(buffer_size=64, batch_size=8, learning_starts=8, net_arch=[8]).on(Nested, seed=0, frame_stack=2, bins=3)
    dqn.save(folder / "dqn.safetensors")
    dqn.collect(20, to=folder / "data")
    with Run.create(folder / "run", {"algorithm": "PPO", "eval_every": 5, "stop_at": None}) as run:
        run.log_episodes([1, 2, 3], [0, 0, 0], [1.0, 2.0, 3.0], [1, 1, 1], [0.1, 0.2, 0.3])
        run.log_metrics(3, {"loss": 0.5})
        run.log_evaluation(3, [1.0], [1])
    return folder


def named(refused):
    """The number of refusals, each of which names its file."""
    assert [message for name, message in refused if name not in message] == []
    return len(refused)


def memory():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


@pytest.mark.parametrize("name", ["ppo", "dqn"])
def test_every_damaged_agent_loads_or_is_refused(folder, tmp_path, name):
    source, path = folder / f"{name}.safetensors", tmp_path / "a.safetensors"
    load(source)
    before, refused = memory(), []
    for seed in range(100):
        damage.file_of(source, path, random.Random(seed))
        begin = time.monotonic()
        try:
            load(path)
        except CheckpointError as error:
            refused.append((str(path), str(error)))
        assert time.monotonic() - begin < 5, seed
    assert 60 < named(refused) < 100
    assert memory() - before < 500, "MB"


def test_every_damaged_data_set_opens_or_is_refused(folder, tmp_path):
    refused = []
    for seed in range(60):
        path, rng = tmp_path / str(seed), random.Random(seed)
        shutil.copytree(folder / "data", path)
        (chunk,) = path.glob("*.safetensors")
        if seed % 2:
            damage.text_of(path / "spec.json", rng)
        else:
            damage.file_of(chunk, chunk, rng)
        try:
            rows = sum(len(rollout.reward) for rollout in Dataset.open(path).chunks())
            assert rows == Dataset.open(path).rows
        except CheckpointError as error:
            refused.append((str(path), str(error)))
    assert 30 < named(refused) < 60


def test_every_edited_run_folder_is_read_or_its_fault_is_named(folder, tmp_path):
    refused = []
    for seed in range(80):
        path, rng = tmp_path / str(seed), random.Random(seed)
        shutil.copytree(folder / "run", path)
        files = ["settings.json", "episodes.csv", "metrics.csv", "evaluations.csv"]
        damage.text_of(path / files[seed % 4], rng)
        try:
            with Run.open(path) as run:
                tables = [read(path) for read in (read_episodes, read_metrics, read_evaluations)]
                assert all(np.diff(table["step"]).size >= 0 for table in tables)
                run.truncate(2)
                run.log_episodes([9], [0], [1.0], [1], [1.0])
                run.log_metrics(9, {"loss": 1.0})
            assert read_episodes(path)["step"][-1] == 9
        except CheckpointError as error:
            refused.append((str(path / files[seed % 4]), str(error)))
    assert 30 < named(refused) < 80
