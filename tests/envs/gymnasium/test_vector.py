"""Whatever environments do, in this process or in others: one fault that names it, and nothing left behind."""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
import threading
import time
from collections.abc import Callable
from typing import Any

import gymnasium
import numpy as np
import pytest
from gymnasium.vector import AsyncVectorEnv, SyncVectorEnv

from renshu.envs.gymnasium.vector import HostEnvs, start_workers, stop_workers
from renshu.envs.source import EnvSource
from renshu.errors import EnvironmentFault
from tests.envs.faulty import OBS, Batch, Counting, Noisy, Reusing, dying, hanging, raising, returning

ACTIONS = np.zeros(2, np.int64)


def host(make: Callable[[], Any], processes: bool = False, num_envs: int = 2, timeout: float = 60.0) -> HostEnvs:
    source = EnvSource.of(make)
    return HostEnvs(source.vector(num_envs, processes), timeout, "MyEnv")


def run(envs: HostEnvs, steps: int = 4) -> list[Any]:
    envs.reset(0)
    return [envs.step(ACTIONS) for _ in range(steps)]


def pids(envs: HostEnvs) -> list[int]:
    assert envs._workers is not None
    return [process.pid for process in envs._workers.processes if process.pid]


def alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def one_bad(fault: Callable[[int], Any]) -> Callable[[], Any]:
    """A function whose environments are right, but for the one that is number 1 among the workers."""

    def make() -> Counting:
        name = multiprocessing.current_process().name
        return Counting(fault if name.endswith("-1") else None)

    return make


@pytest.mark.parametrize("processes", [False, True])
def test_steps_and_resets_by_the_next_step_rule(processes: bool) -> None:
    envs = host(lambda: Counting(length=2), processes)
    obs = envs.reset(0)
    assert (obs.shape, obs.dtype) == ((2, 4), np.float32)
    steps = [envs.step(ACTIONS) for _ in range(4)]
    assert [obs[0, 0] for obs, *_ in steps] == [1, 2, 0, 1]
    assert [reward[1] for _, reward, *_ in steps] == [1, 2, 0, 1]
    assert [terminated.tolist() for _, _, terminated, _ in steps] == [[False] * 2, [True] * 2, [False] * 2, [False] * 2]
    envs.close()
    envs.close()
    with pytest.raises(EnvironmentFault, match="MyEnv is closed"):
        envs.step(ACTIONS)


def test_processes_give_the_same_trajectories() -> None:
    rng = np.random.default_rng(0)
    actions = rng.integers(0, 2, (60, 2))
    found = []
    for processes in (False, True):
        envs = host(Noisy, processes)
        rows = [envs.reset(7)] + [part for action in actions for part in envs.step(action)]
        envs.close()
        found.append(np.concatenate([np.ravel(row).astype(np.float64) for row in rows]))
    np.testing.assert_array_equal(*found)
    assert found[0].std() > 0


@pytest.mark.parametrize("processes", [False, True])
def test_an_environment_that_reuses_its_array(processes: bool) -> None:
    envs = host(Reusing, processes)
    first = envs.reset(0)
    rows = [envs.step(ACTIONS)[0] for _ in range(4)]
    envs.close()
    assert [row[0, 0] for row in [first, *rows]] == [0, 1, 2, 3, 0]


def test_episodes_of_one_step_and_both_flags_at_once() -> None:
    envs = host(lambda: Counting(lambda step: (OBS, 1.0, True, True, {})))
    steps = run(envs)
    assert [terminated[0] for _, _, terminated, _ in steps] == [True, False, True, False]
    assert [truncated[0] for _, _, _, truncated in steps] == [True, False, True, False]
    assert [reward[0] for _, reward, _, _ in steps] == [1, 0, 1, 0]


def test_a_fault_in_this_process_closes_everything() -> None:
    envs = host(lambda: Counting(raising))
    with pytest.raises(EnvironmentFault) as caught:
        run(envs)
    assert str(caught.value) == "environment 0 (lambda) raised in step 3 of episode 1: ValueError: 50% bad"
    assert isinstance(caught.value.__cause__, ValueError)
    assert isinstance(envs.vector_env, SyncVectorEnv)
    assert all(env.get_wrapper_attr("closed") for env in envs.vector_env.envs)
    for call in (lambda: envs.step(ACTIONS), envs.reset):
        with pytest.raises(EnvironmentFault, match=r"closed after a fault .*50% bad.*make the environments again"):
            call()
    envs.close()


def test_a_fault_in_a_worker_arrives_whole_and_quietly(capfd: pytest.CaptureFixture, recwarn: Any) -> None:
    envs = host(one_bad(raising), processes=True)
    workers = pids(envs)
    assert all(map(alive, workers))
    with pytest.raises(EnvironmentFault) as caught:
        run(envs)
    assert str(caught.value) == "environment 1 (make) raised in step 3 of episode 1: ValueError: 50% bad"
    assert 'raise ValueError("50% bad")' in "".join(caught.value.__notes__)
    assert not any(map(alive, workers))
    assert not recwarn.list
    assert capfd.readouterr().err == ""
    with pytest.raises(EnvironmentFault, match="closed after a fault"):
        envs.reset()


def test_a_wrong_shape_in_a_worker() -> None:
    envs = host(one_bad(returning((np.zeros(5), 0.0, False, False, {}))), processes=True)
    with pytest.raises(EnvironmentFault, match=r"environment 1 \(make\) returned in step 3 .*shape \(5,\)"):
        run(envs)


def test_a_worker_that_exits() -> None:
    envs = host(one_bad(dying), processes=True)
    workers = pids(envs)
    with pytest.raises(EnvironmentFault, match="MyEnv died in step 3: worker 1 exited with code 3"):
        run(envs)
    assert not any(map(alive, workers))


def test_a_worker_that_is_killed_between_two_steps() -> None:
    envs = host(Counting, processes=True)
    run(envs, 2)
    os.kill(pids(envs)[0], signal.SIGKILL)
    with pytest.raises(EnvironmentFault, match=r"worker 0 was ended by SIGKILL \(out of memory\?\)"):
        run(envs, 2)


def test_a_worker_that_hangs() -> None:
    envs = host(one_bad(hanging), processes=True, timeout=2.0)
    workers = pids(envs)
    began = time.monotonic()
    with pytest.raises(EnvironmentFault, match="MyEnv hung in step 3: worker 1 did not answer within 2 seconds"):
        run(envs)
    assert time.monotonic() - began < 30
    assert not any(map(alive, workers))


@pytest.mark.skipif("max_concurrency" not in AsyncVectorEnv.__init__.__code__.co_varnames, reason="gymnasium < 1.4")
def test_taking_turns_and_a_death_in_ones_turn() -> None:
    source = EnvSource.of(one_bad(dying))
    envs = HostEnvs(source.vector(2, processes=1, timeout=30.0), 30.0, "MyEnv")
    began = time.monotonic()
    with pytest.raises(EnvironmentFault, match="worker 1 exited with code 3"):
        run(envs)
    assert time.monotonic() - began < 20


def test_workers_that_cannot_start() -> None:
    def make() -> Counting:
        if multiprocessing.parent_process():
            os._exit(5)
        return Counting()

    with pytest.raises(EnvironmentFault, match="X died in starting: worker 0 exited with code 5"):
        start_workers(make, 1, "X", 30.0)

    def slow() -> Counting:
        if multiprocessing.parent_process():
            time.sleep(600)
        return Counting()

    with pytest.raises(EnvironmentFault, match="X hung in starting: worker 0 did not answer within 1 seconds"):
        start_workers(slow, 1, "X", 1.0)


def only_here(does: Callable[[], Any]) -> None:
    """Do something in the process of the test alone, which it would take along."""
    if multiprocessing.parent_process() is None:
        does()


class Deadly(Counting):
    """Ends, crashes or hangs its process: as it is made, or as it is closed."""

    def __init__(self, in_init: Callable[[], Any] | None, in_close: Callable[[], Any] | None) -> None:
        super().__init__()
        self.in_close = in_close
        if in_init:
            in_init()

    def close(self) -> None:
        if self.in_close:
            self.in_close()


def crash() -> None:
    os.kill(os.getpid(), signal.SIGSEGV)


def hang() -> None:
    time.sleep(600)


@pytest.mark.parametrize(
    ("does", "message"),
    [
        (lambda: os._exit(5), "X died in starting: worker 0 exited with code 5"),
        (crash, "X died in starting: worker 0 was ended by SIGSEGV"),
        (hang, "X hung in starting: worker 0 did not answer within 3 seconds"),
        (lambda: sys.exit(7), "X raised in starting: SystemExit: 7"),
        (lambda: 1 / 0, "X raised in starting: ZeroDivisionError"),
    ],
)
def test_what_making_an_environment_does_is_done_in_a_worker(does: Callable[[], Any], message: str) -> None:
    with pytest.raises(EnvironmentFault, match=message):
        start_workers(lambda: Deadly(does, None), 2, "X", 3.0)
    assert multiprocessing.active_children() == []


@pytest.mark.parametrize("does", [lambda: os._exit(5), crash, hang])
def test_what_closing_an_environment_does_is_done_in_a_worker(
    does: Callable[[], Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("renshu.envs.gymnasium.probing.GRACE", 0.5)
    monkeypatch.setattr("renshu.envs.gymnasium.vector._GRACE", 0.5)
    envs = HostEnvs(start_workers(lambda: Deadly(None, does), 2, "X", 30.0), 30.0, "X")
    assert envs.reset(0).shape == (2, 4)
    envs.close()
    assert multiprocessing.active_children() == []


def test_no_environment_is_made_in_this_process() -> None:
    def make() -> Counting:
        only_here(lambda: pytest.fail("made in the process of training"))
        return Counting()

    workers = start_workers(make, 2, "X", 30.0)
    assert workers.single_observation_space == Counting().observation_space
    stop_workers(workers, 1.0)


def test_what_cannot_travel_is_refused() -> None:
    lock = threading.Lock()
    with pytest.raises(EnvironmentFault, match=r"X cannot be sent to another process .*lock"):
        start_workers(lambda: Counting(lambda step: lock.acquire()), 1, "X", 5.0)


def test_closing_is_gentle_first_and_forceful_then(monkeypatch: pytest.MonkeyPatch) -> None:
    class Stubborn(Counting):
        def close(self) -> None:
            if multiprocessing.parent_process():
                signal.signal(signal.SIGTERM, signal.SIG_IGN)
                time.sleep(600)

    monkeypatch.setattr("renshu.envs.gymnasium.vector._GRACE", 0.2)
    monkeypatch.setattr("renshu.envs.gymnasium.probing.GRACE", 0.2)
    envs = host(Stubborn, processes=True)
    workers = pids(envs)
    envs.close()
    assert not any(map(alive, workers))


def test_environments_in_workers_are_closed(tmp_path: Any) -> None:
    class Leaving(Counting):
        def close(self) -> None:
            (tmp_path / str(os.getpid())).touch()

    envs = host(Leaving, processes=True)
    workers = pids(envs)
    run(envs, 1)
    envs.close()
    assert {str(pid) for pid in workers} < {path.name for path in tmp_path.iterdir()}


def test_workers_ignore_ctrl_c_and_do_not_import_jax() -> None:
    def look(step: int) -> Any:
        handler = signal.getsignal(signal.SIGINT)
        return OBS, float("jax" in sys.modules) + 2 * (handler is not signal.SIG_IGN), False, False, {}

    envs = host(lambda: Counting(look), processes=True)
    (_, reward, _, _), *_ = run(envs, 1)
    envs.close()
    assert reward.tolist() == [0, 0]


@pytest.mark.parametrize("processes", [False, True])
def test_ctrl_c_passes_through(processes: bool) -> None:
    def ring(*_: Any) -> None:
        raise KeyboardInterrupt

    envs = host(lambda: Counting(lambda step: time.sleep(0.5)), processes)
    envs.reset(0)
    before = signal.signal(signal.SIGALRM, ring)
    signal.setitimer(signal.ITIMER_REAL, 0.2)
    try:
        with pytest.raises(KeyboardInterrupt):
            envs.step(ACTIONS)
    finally:
        signal.signal(signal.SIGALRM, before)
    with pytest.raises(EnvironmentFault, match="interrupted"):
        envs.step(ACTIONS)
    if not processes:
        envs.reset(0)
        assert envs.step(ACTIONS)[0].shape == (2, 4)
    envs.close()


def test_an_environment_that_raises_while_closing() -> None:
    class Bad(Counting):
        def close(self) -> None:
            raise RuntimeError("stuck")

    envs = host(Bad)
    with pytest.raises(EnvironmentFault, match="MyEnv raised while closing: RuntimeError: stuck"):
        envs.close()
    envs = host(lambda: Bad(raising))
    with pytest.raises(EnvironmentFault, match="50% bad") as caught:
        run(envs)
    assert "Closing it failed too: RuntimeError: stuck" in caught.value.__notes__


NO = np.zeros(2, bool)
ROWS = np.zeros((2, 4), np.float32)


@pytest.mark.parametrize(
    ("result", "message"),
    [
        (ValueError("no"), "Batch raised in step 1: ValueError: no"),
        ((ROWS, np.zeros(2), NO, NO), "step must return"),
        ((ROWS[:1], np.zeros(2), NO, NO, {}), r"must be an array of shape \(2, 4\), not float32 of shape \(1, 4\)"),
        ((ROWS.tolist(), np.zeros(2), NO, NO, {}), "not a list"),
        ((ROWS, np.zeros(3), NO, NO, {}), r"rewards must be numbers of shape \(2,\), not float64 of shape \(3,\)"),
        ((ROWS, None, NO, NO, {}), r"rewards must be numbers of shape \(2,\), not object"),
        ((ROWS, np.zeros(2), NO[:1], NO, {}), r"terminated must be bools of shape \(2,\), not bool of shape \(1,\)"),
        ((ROWS, np.zeros(2), NO, np.zeros(2), {}), r"truncated must be bools of shape \(2,\), not float64"),
    ],
)
def test_a_vector_environment_of_the_user_that_is_wrong(result: Any, message: str) -> None:
    envs = HostEnvs(Batch(result))
    with pytest.raises(EnvironmentFault, match=message):
        run(envs)


def test_nested_batches_are_checked() -> None:
    space = gymnasium.spaces.Dict({"a": gymnasium.spaces.Tuple([gymnasium.spaces.Box(0, 1, (3,))])})
    for obs, message in (
        ({"a": (np.zeros((2, 2)),)}, r"observations\['a'\]\[0\] must be an array of shape \(2, 3\)"),
        ({"a": np.zeros((2, 3))}, "must be a tuple of 1 arrays"),
        ({}, r"must be a dict with the keys \['a'\]"),
    ):
        batch = Batch(first=(obs, {}))
        batch.single_observation_space = space
        with pytest.raises(EnvironmentFault, match=message):
            HostEnvs(batch).reset()
    with pytest.raises(EnvironmentFault, match="reset must return"):
        HostEnvs(Batch(first=ROWS)).reset()


def test_a_plain_async_vector_env_of_the_user(recwarn: Any) -> None:
    plain = AsyncVectorEnv([one_bad(raising)] * 2, context="spawn")
    envs = HostEnvs(plain, 30.0)
    workers = pids(envs)
    with pytest.raises(EnvironmentFault, match="AsyncVectorEnv raised in step 3: ValueError: 50% bad"):
        run(envs)
    assert not any(map(alive, workers))
    assert not [warning for warning in recwarn if "Worker" in str(warning.message)]


def test_the_name_comes_from_the_spec_or_the_class() -> None:
    assert HostEnvs(gymnasium.make_vec("CartPole-v1", 2)).name == "CartPole-v1"
    assert HostEnvs(Batch()).name == "Batch"
