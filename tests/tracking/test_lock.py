"""One process at a time writes to a folder, whatever becomes of the others."""

import os
import platform
import signal
import subprocess
import sys
import threading
import time

import pytest

from renshu.errors import RenshuError
from renshu.tracking.lock import FolderLock

HOLD = (
    "import sys, time, pathlib\nfrom renshu.tracking.lock import FolderLock\n"
    "lock = FolderLock(pathlib.Path(sys.argv[1]))\nlock.acquire()\nprint('held', flush=True)\ntime.sleep(600)"
)


@pytest.fixture
def holder(tmp_path):
    process = subprocess.Popen([sys.executable, "-c", HOLD, str(tmp_path)], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "held\n"
    yield process
    process.kill()
    process.wait()


def test_what_another_process_holds_is_refused_and_named(holder, tmp_path):
    for _ in range(2):
        with pytest.raises(RenshuError, match=rf"{tmp_path.name} is being written to by process {holder.pid}; .*kill"):
            FolderLock(tmp_path).acquire()


@pytest.mark.skipif(os.name != "posix", reason="needs SIGKILL")
def test_a_process_that_is_killed_leaves_no_lock(holder, tmp_path):
    holder.send_signal(signal.SIGKILL)
    holder.wait()
    lock = FolderLock(tmp_path)
    lock.acquire()
    assert (tmp_path / "lock").read_text() == f"{os.getpid()} {platform.node()}"
    lock.release()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_lock_that_only_a_child_of_a_dead_process_keeps_is_taken_over(tmp_path):
    fork = "import os\npid = os.fork()\nif pid: os.write(1, b'%d\\n' % pid)"
    code = HOLD.replace("print('held', flush=True)", fork)
    code = code.replace("time.sleep(600)", "sys.exit() if pid else time.sleep(600)")
    process = subprocess.Popen([sys.executable, "-c", code, str(tmp_path)], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    child = int(process.stdout.readline())
    process.wait()
    try:
        FolderLock(tmp_path).acquire()
    finally:
        os.kill(child, signal.SIGKILL)


def test_two_holders_in_one_process(tmp_path):
    first, second = FolderLock(tmp_path), FolderLock(tmp_path)
    first.acquire()
    first.acquire()
    with pytest.raises(RenshuError, match="this process, in another call of learn"):
        second.acquire()
    first.release()
    second.acquire()
    assert (first.held, second.held) == (False, True)
    first.release()
    assert second.held
    second.release()


def test_of_many_one_holds_it_at_any_time(tmp_path):
    inside, taken, most = 0, 0, 0

    def work():
        nonlocal inside, taken, most
        for _ in range(50):
            lock = FolderLock(tmp_path)
            try:
                lock.acquire()
            except RenshuError:
                time.sleep(0.0005)
                continue
            inside += 1
            most, taken = max(most, inside), taken + 1
            time.sleep(0.0002)
            inside -= 1
            lock.release()

    threads = [threading.Thread(target=work) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert most == 1
    assert taken >= 50
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_was_deleted_is_named(tmp_path):
    lock = FolderLock(tmp_path / "run")
    with pytest.raises(RenshuError, match="cannot write"):
        lock.acquire()
    (tmp_path / "run").mkdir()
    lock.acquire()
    (tmp_path / "run" / "lock").unlink()
    (tmp_path / "run").rmdir()
    lock.release()
