"""The cluster loop with Ray's actors: the same numbers, faults of every kind, and nothing left behind."""

import importlib.util
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import gymnasium
import numpy as np
import pytest

import renshu
from renshu import A2C, IMPALA, PPO, Cluster
from renshu.errors import EnvironmentFault, HyperparameterError, RenshuError
from renshu.loops import ray_actors
from renshu.loops.actors import versions
from renshu.loops.ray_actors import RemoteActor, Unprepared
from tests.loops.test_cluster import SMALL, updates
from tests.loops.tiny import same

pytestmark = pytest.mark.skipif(importlib.util.find_spec("ray") is None, reason="Ray is not installed")


class Faulty(gymnasium.Env):
    """Counts its steps in a file; what `fault` names happens in the step of that number, of all processes together."""

    observation_space = gymnasium.spaces.Box(-1.0, 1.0, (2,), np.float32)
    action_space = gymnasium.spaces.Discrete(2)

    def __init__(self, path=None, fault="", at=0):
        self.path, self.fault, self.at, self.t = path, fault, at, 0

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.t = 0
        return np.zeros(2, np.float32), {}

    def step(self, action):
        self.t += 1
        if self.path is not None and self.t == self.at and not os.path.exists(self.path):
            Path(self.path).touch()
            if self.fault == "raise":
                raise ValueError("on purpose")
            if self.fault == "hang":
                time.sleep(60)
            if self.fault == "exit":
                os._exit(3)
        return np.zeros(2, np.float32), float(action), self.t % 10 == 0, False, {}


@pytest.fixture(scope="module")
def ray():
    """One session of Ray for all tests, as a user may have one."""
    importlib.import_module("ray").shutdown()  # one that another module's test may have left
    folder = ray_actors.connect(None, 4)
    yield importlib.import_module("ray")
    importlib.import_module("ray").shutdown()
    shutil.rmtree(folder)


def test_one_worker_is_the_host_loop(ray):
    algorithm = PPO(**SMALL, batch_size=16, n_epochs=2)
    host = updates(algorithm.on("CartPole-v1", num_envs=4, seed=3), 5)
    with algorithm.on("CartPole-v1", num_envs=4, seed=3, workers=1) as agent:
        assert same(host, updates(agent, 5))


def test_print_stays_the_one_of_python(ray):
    importlib.import_module("ray.experimental.tqdm_ray").instance()  # as Ray calls it for what workers print
    assert print.__module__ == "builtins"


@pytest.mark.parametrize("fault", ["raise", "hang", "exit"])
def test_a_fault_costs_a_rollout(ray, tmp_path, fault):
    def make():
        return Faulty(tmp_path / "done", fault, 7)

    make.__module__ = "__main__"  # sent by value: workers cannot import this file
    # Where none hangs, a busy machine is no fault either.
    how = {"cluster": Cluster(workers=2, max_workers=2), "timeout": 8.0 if fault == "hang" else 60.0}
    with IMPALA(**SMALL).on(make, num_envs=2, seed=0, max_episode_steps=50, **how) as agent:
        agent.learn(600, progress=False)
        loop = agent.trainer._loop
        account = loop.account
        told = [group.last_fault for group in loop.groups.values() if group.last_fault]
    assert (account.lost, account.in_flight) == (1, 0)
    assert account.requested == account.learned + account.stale + account.lost
    expected = {"raise": "on purpose", "hang": "did not answer for 8 s", "exit": "worker [01] was lost"}[fault]
    assert len(told) == 1
    assert re.search(expected, told[0])


def test_an_environment_that_always_raises_stops_the_run_with_its_own_traceback(ray):
    def make():
        env = gymnasium.make("CartPole-v1")
        env.unwrapped.step = lambda action: broken_inside()
        return env

    def broken_inside():
        raise ZeroDivisionError("inside of the environment")

    with (
        A2C(**SMALL).on(make, seed=0, workers=1) as agent,
        pytest.raises(EnvironmentFault, match="inside of the environment") as caught,
    ):
        agent.learn(1_000, progress=False)
    assert "broken_inside" in "\n".join(caught.value.__notes__)


def test_an_environment_of_ones_own_is_evaluated_elsewhere(ray, tmp_path):
    def make():
        return Faulty()

    with IMPALA(**SMALL).on(make, num_envs=2, seed=0, workers=1, max_episode_steps=50) as agent:
        agent.learn(300, progress=False, run=tmp_path / "run", eval_every=100, eval_episodes=2)
        here = agent.evaluate(2)
    rows = (tmp_path / "run" / "evaluations.csv").read_text().splitlines()[1:]
    assert len(rows) == 3
    assert {row.split(",")[5] for row in rows} == {"10.0"}  # the length of an episode
    assert list(here.lengths) == [10, 10]
    with renshu.load(tmp_path / "run" / "best.safetensors", env=make) as best:
        assert best.steps in (int(row.split(",")[0]) for row in rows)


def test_an_address_at_which_nothing_answers(ray):
    began = time.monotonic()
    with pytest.raises(HyperparameterError, match="no Ray cluster answers"):
        ray_actors._reach("127.0.0.1:1")
    assert time.monotonic() - began < 15


SCRIPT = """
import sys
from renshu import IMPALA
if __name__ == "__main__":
    agent = IMPALA(n_steps=8, net_arch=[8]).on("CartPole-v1", num_envs=2, seed=0, workers=2)
    agent.learn(10**7, progress=False, run=sys.argv[1], checkpoint_every=500)
"""


def ray_processes(folder):
    found = subprocess.run(["ps", "-ewwo", "args"], capture_output=True, text=True, check=True).stdout
    return [line for line in found.splitlines() if str(folder) in line]


@pytest.mark.parametrize("end", [signal.SIGINT, signal.SIGKILL])
def test_a_driver_that_ends_leaves_nothing_behind(tmp_path, end):
    script = tmp_path / "train.py"
    script.write_text(SCRIPT)
    sessions = Path(tempfile.mkdtemp(prefix="rn", dir="/tmp"))  # paths of sockets must be short
    process = subprocess.Popen(
        [sys.executable, script, tmp_path / "run"],
        env={**os.environ, "TMPDIR": str(sessions), "PYTHONPATH": os.getcwd()},
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )
    try:
        until = time.monotonic() + 120
        while not list((tmp_path / "run" / "checkpoints").glob("*.safetensors")) and time.monotonic() < until:
            assert process.poll() is None, process.stderr.read()
            time.sleep(0.2)
        assert ray_processes(sessions)
        process.send_signal(end)
        process.wait(60)
        until = time.monotonic() + 30
        while ray_processes(sessions) and time.monotonic() < until:
            time.sleep(0.2)
        assert ray_processes(sessions) == []
        if end == signal.SIGINT:
            assert list(sessions.iterdir()) == []
    finally:
        shutil.rmtree(sessions)
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)


def test_versions_that_differ_are_named():
    wanted = {**versions(), "jax": "0.0.1", "python": "2.7"}
    actor = RemoteActor(0)
    with pytest.raises(Unprepared):
        actor.collect((0, None), 0)
    actor.prepare(wanted, b"")
    with pytest.raises(RenshuError, match=r"python 3\.\d+ here and 2\.7 there, .*jax .* here and 0\.0\.1 there"):
        actor.collect((0, None), 0)


def test_a_session_is_shared_and_ends_with_its_last_agent():
    ray_actors = pytest.importorskip("renshu.loops.ray_actors")
    ray = pytest.importorskip("ray")
    if ray.is_initialized():
        ray.shutdown()
    first = ray_actors.connect(None, 1)
    try:
        assert ray_actors.connect(None, 1) == first
        with pytest.raises(HyperparameterError, match="a session of Ray of its own"):
            ray_actors.connect("127.0.0.1:1", 1)
        ray_actors.disconnect(first)
        assert ray.is_initialized(), "one uses it still"
    finally:
        ray_actors.disconnect(first)
    assert not ray.is_initialized()
