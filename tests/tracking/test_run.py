import json
import math
import os
import shutil
import struct
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Barrier

import numpy as np
import pytest
from tensorboardX.proto.event_pb2 import Event, SessionLog  # pyright: ignore[reportAttributeAccessIssue]

from renshu.errors import CheckpointError, RenshuError, UnknownNameError
from renshu.tracking import Run, git_state, machine, read_episodes, read_evaluations, read_metrics, versions
from renshu.tracking.provenance import write_atomically

full_disk = pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs a device that is always full")


@pytest.fixture
def run(tmp_path):
    with Run.create(tmp_path / "ppo-1", {"algorithm": "PPO"}) as run:
        yield run


def log_steps(run, steps):
    """One episode at each step, with a return of step / 10 and a length of step / 100."""
    steps = np.asarray(steps)
    run.log_episodes(steps, steps * 0 + 3, steps / 10, steps // 100, steps / 1000)


def events(run):
    """All events in the folder, in TensorBoard's order. A record: length, its checksum, data, their checksum."""
    found = []
    for path in sorted(run.path.glob("events.out.tfevents.*")):
        data = path.read_bytes()
        while data:
            (length,) = struct.unpack("<Q", data[:8])
            found.append(Event.FromString(data[12 : 12 + length]))
            data = data[16 + length :]
    return found


def scalars(run):
    return {(value.tag, event.step): value.simple_value for event in events(run) for value in event.summary.value}


def test_settings_come_back_with_their_provenance(tmp_path):
    settings = {"algorithm": "PPO", "net_arch": (64, 64), "gamma": np.float32(0.5), "limit": math.inf, 3: print}
    created = Run.create(tmp_path / "a" / "b", settings)
    assert Run.open(str(tmp_path / "a" / "b")).settings == created.settings
    expected = {"algorithm": "PPO", "net_arch": [64, 64], "gamma": 0.5, "limit": "inf", "3": "print"}
    assert {key: created.settings[key] for key in expected} == expected
    assert created.settings["versions"] == versions()
    assert created.settings["machine"] == machine()
    assert created.settings["started"].endswith("+00:00")
    assert os.path.basename(sys.argv[0]) in created.settings["command"]
    assert sorted(path.name for path in created.path.iterdir()) == ["checkpoints", "settings.json"]


def test_a_folder_takes_one_run(run):
    before = (run.path / "settings.json").read_bytes()
    with pytest.raises(RenshuError, match="already holds a run"):
        Run.create(run.path, {})
    assert (run.path / "settings.json").read_bytes() == before


def test_of_many_creators_at_once_one_wins(tmp_path):
    barrier = Barrier(8)

    def create(number):
        barrier.wait()
        try:
            return Run.create(tmp_path / "run", {"number": number}).settings["number"]
        except RenshuError:
            return None

    with ThreadPoolExecutor(8) as pool:
        winners = [number for number in pool.map(create, range(8)) if number is not None]
    assert winners == [Run.open(tmp_path / "run").settings["number"]]


def test_new_paths_never_collide(tmp_path):
    barrier = Barrier(8)

    def take(_):
        barrier.wait()
        return [Run.new_path(tmp_path / "runs", "ppo-ALE/Pong-v5").name for _ in range(5)]

    with ThreadPoolExecutor(8) as pool:
        names = [name for taken in pool.map(take, range(8)) for name in taken]
    assert sorted(names) == sorted(f"ppo-ALE-Pong-v5-{number}" for number in range(1, 41))
    assert Run.create(tmp_path / "runs" / names[0], {}).path.is_dir()


def test_opening_no_run_names_near_matches(run):
    with pytest.raises(UnknownNameError, match=r"ppo-2 is not a run.*Did you mean ppo-1\?"):
        Run.open(run.path.parent / "ppo-2")
    with pytest.raises(UnknownNameError, match=r"No run in .* has a name like it"):
        Run.open(run.path / "nowhere" / "x")


@pytest.mark.parametrize(
    "content",
    [b'{"algorithm": "P', b"[1]", b"\xff\xfe", b"", b"\n\n", b'{"a":' * 990 + b"1" + b"}" * 990, b"[" * 100_000],
)
def test_damaged_settings_are_named(run, content):
    (run.path / "settings.json").write_bytes(content)
    with pytest.raises(CheckpointError, match=r"settings\.json"):
        Run.open(run.path)


@pytest.mark.parametrize(
    "change",
    [
        {"algorithm": ["PPO"]},
        {"environment": {}},
        {"reward_threshold": [1]},
        {"stop_at": {"x": 1}},
        {"eval_every": "100"},
        {"eval_every": -5},
        {"eval_episodes": True},
        {"checkpoint_every": 0.5},
    ],
    ids=str,
)
def test_settings_of_the_wrong_type_are_named(run, change):
    (run.path / "settings.json").write_text(json.dumps(run.settings | change))
    ((name, _),) = change.items()
    for read in (Run.open, read_episodes):
        with pytest.raises(CheckpointError, match=rf'settings\.json was changed: "{name}" is .*, expected'):
            read(run.path)


@pytest.mark.parametrize(
    ("at", "line"),
    [
        (1, ""),
        (2, ""),
        (3, "   "),
        (2, "100,3,1,1"),
        (3, "nan,3,1,1,1"),
        (2, "1e400,3,1,1,1"),
        (1, "step,env"),
        (1, "a,a,b,c,d"),
    ],
    ids=str,
)
def test_lines_that_were_edited_are_named_by_whoever_reads_them(run, at, line):
    log_steps(run, [100, 200, 300])
    run.close()
    file = run.path / "episodes.csv"
    lines = file.read_text().splitlines()
    lines[at - 1] = line
    file.write_text("\n".join(lines) + "\n")
    uses = [lambda: read_episodes(run.path), lambda: Run.open(run.path).truncate(500)]
    if at == 1:
        uses.append(lambda: log_steps(Run.open(run.path), [400]))
    for use in uses:
        with pytest.raises(CheckpointError, match=rf"line {at} of .*episodes\.csv"):
            use()


def test_checkpoints_are_ordered_by_their_step(run):
    assert run.checkpoints == []
    assert run.latest_checkpoint is None
    steps = [50_000, 7, 12_345_678_901, 100]
    for step in steps:
        run.checkpoint_path(step).write_bytes(b"x")
    (run.path / "checkpoints" / "step_half.safetensors").write_bytes(b"x")
    run.best_path.write_bytes(b"x")
    assert run.checkpoint_path(50_000).name == "step_000050000.safetensors"
    assert run.checkpoints == [run.checkpoint_path(step) for step in sorted(steps)]
    assert run.latest_checkpoint == run.checkpoint_path(12_345_678_901)
    run.keep_checkpoints(9)
    assert len(run.checkpoints) == 4
    run.keep_checkpoints(1)
    assert run.checkpoints == [run.checkpoint_path(12_345_678_901)]
    run.keep_checkpoints(0)
    assert run.checkpoints == []
    assert run.best_path.exists()
    with pytest.raises(RenshuError, match="0 or more"):
        run.keep_checkpoints(-1)


def test_rows_come_back_exactly(run):
    returns = [np.float32(0.1), math.nan, -1e300]
    run.log_episodes([10, 20, 20], [0, 1, 2], returns, np.array([5, 6, 7]), [0.25, 1.0, 1.00049])
    run.log_episodes([], [], [], [], [])
    run.log_evaluation(20, [1.0, 2.0, 6.0], [10, 20, 60])
    run.flush()
    episodes, evaluations = read_episodes(run.path), read_evaluations(run.path)
    np.testing.assert_array_equal(episodes["step"], [10, 20, 20])
    np.testing.assert_array_equal(episodes["env"], [0, 1, 2])
    np.testing.assert_array_equal(episodes["return"], np.asarray(returns, np.float64))
    np.testing.assert_array_equal(episodes["length"], [5, 6, 7])
    np.testing.assert_array_equal(episodes["seconds"], [0.25, 1.0, 1.0])
    assert [episodes[name].dtype.kind for name in episodes] == ["i", "i", "f", "i", "f"]
    assert {name: column.tolist() for name, column in evaluations.items()} == {
        "step": [20],
        "mean": [3.0],
        "std": [math.sqrt(14 / 3)],
        "min": [1.0],
        "max": [6.0],
        "length": [30.0],
        "episodes": [3],
    }


@pytest.mark.filterwarnings("error")
def test_infinities_are_logged_like_any_number(run):
    run.log_episodes([1, 2], [0, 0], [math.inf, -math.inf], [1, 1], [0, 0])
    run.log_metrics(2, {"loss": -math.inf})
    run.log_evaluation(2, [math.inf, 1.0], [1, 1])
    run.flush()
    assert read_episodes(run.path)["return"].tolist() == [math.inf, -math.inf]
    assert read_evaluations(run.path)["max"].tolist() == [math.inf]
    assert read_metrics(run.path)["loss"].tolist() == [-math.inf]


def test_rows_wait_for_flush(run):
    log_steps(run, [100])
    assert read_episodes(run.path)["step"].size == 0
    run.flush()
    assert read_episodes(run.path)["step"].tolist() == [100]


def test_new_metric_names_become_columns(run):
    run.log_metrics(1, {"loss": 0.5, "entropy, mean": np.float32(0.25)})
    run.log_metrics(2, {"loss": math.nan, "kl": 3})
    run.close()
    run.log_metrics(3, {"lr": np.array(1e-4)})
    run.close()
    with Run.open(run.path) as again:
        again.log_metrics(4, {"kl": math.inf, "new": True})
    metrics = read_metrics(run.path)
    assert list(metrics) == ["step", "loss", "entropy, mean", "kl", "lr", "new"]
    nan = math.nan
    expected = [[1, 2, 3, 4], [0.5, nan, nan, nan], [0.25, nan, nan, nan], [nan, 3, nan, math.inf]]
    expected += [[nan, nan, 1e-4, nan], [nan, nan, nan, 1]]
    np.testing.assert_array_equal(list(metrics.values()), expected)
    assert not [path for path in run.path.iterdir() if path.name.startswith(".")]


@pytest.mark.parametrize(
    ("log", "message"),
    [
        (lambda run: run.log_metrics(1, {"loss": np.zeros(3)}), r"'loss' must be one number"),
        (lambda run: run.log_metrics(1, {"loss": None}), r"'loss' must be one number, got None"),
        (lambda run: run.log_metrics(1, {"step": 1}), 'must not be named "step"'),
        (lambda run: run.log_episodes([1, 2], [0], [1.0], [1], [1.0]), r"one length, got the shapes \(2,\), \(1,\)"),
        (lambda run: run.log_evaluation(1, [], []), "one or more episodes"),
        (lambda run: run.log_evaluation(1, [1.0, 2.0], [3]), r"shapes \(2,\) and \(1,\)"),
    ],
)
def test_what_cannot_be_logged_is_refused_whole(run, log, message):
    with pytest.raises(RenshuError, match=message):
        log(run)
    run.close()
    assert not list(run.path.glob("*.csv"))


def test_a_line_that_a_crash_cut_short_is_ignored_then_dropped(run):
    log_steps(run, [100, 200, 300])
    run.close()
    file = run.path / "episodes.csv"
    whole = file.read_bytes()
    for cut in range(whole.rindex(b"300,"), len(whole)):
        file.write_bytes(whole[:cut])
        assert read_episodes(run.path)["step"].tolist() == [100, 200]
    with Run.open(run.path) as again:
        log_steps(again, [400])
    assert read_episodes(run.path)["step"].tolist() == [100, 200, 400]


def test_a_header_that_a_crash_cut_short_is_written_anew(run):
    file = run.path / "episodes.csv"
    file.write_text("step,env,ret")
    assert read_episodes(run.path)["step"].size == 0
    run.truncate(10)
    log_steps(run, [100])
    run.close()
    assert file.read_text() == "step,env,return,length,seconds\n100,3,10.0,1,0.1\n"


def test_a_damaged_line_is_named(run):
    log_steps(run, [100, 200])
    run.close()
    file = run.path / "episodes.csv"
    damaged = file.read_text().replace("100,3,", "100,\0,")
    file.write_text(damaged)
    with pytest.raises(CheckpointError, match=r"episodes\.csv"):
        read_episodes(run.path)
    with pytest.raises(CheckpointError, match=r"line 2 of .*episodes\.csv"):
        run.truncate(150)
    assert file.read_text() == damaged


def test_truncate_forgets_what_a_resumed_run_repeats(run):
    for step in (100, 200, 300):
        log_steps(run, [step, step])
        run.log_metrics(step, {"loss": step})
        run.log_evaluation(step, [step], [1])
    run.close()
    with open(run.path / "metrics.csv", "a") as file:
        file.write("400,")
    with Run.open(run.path) as again:
        again.truncate(200)
        assert read_metrics(run.path)["step"].tolist() == [100, 200]
        log_steps(again, [300])
        again.log_metrics(300, {"loss": 1.0})
    assert read_episodes(run.path)["step"].tolist() == [100, 100, 200, 200, 300]
    assert read_metrics(run.path)["loss"].tolist() == [100, 200, 1.0]
    assert read_evaluations(run.path)["step"].tolist() == [100, 200]
    starts = [event.step for event in events(run) if event.session_log.status == SessionLog.START]
    assert starts == [201], "TensorBoard hides the steps from here on, in the files before"
    assert scalars(run)["rollout/return_mean", 300] == pytest.approx((10 + 10 + 20 + 20 + 30) / 5)


def test_truncating_an_empty_run_does_nothing(run):
    run.truncate(0)
    assert not list(run.path.glob("*.csv"))


def test_tensorboard_gets_the_scalars(run):
    assert not list(run.path.glob("events*"))
    run.log_metrics(50, {"loss": 0.5})
    run.flush()
    (file,) = run.path.glob("events.out.tfevents.*")
    size = file.stat().st_size
    log_steps(run, np.arange(1, 151) * 100)
    run.log_metrics(15_000, {"loss": math.nan})
    run.log_evaluation(15_000, [1.0, 2.0], [3, 4])
    run.flush()
    assert file.stat().st_size > size
    assert events(run)[0].file_version == "brain.Event:2"
    found = scalars(run)
    assert found["train/loss", 50] == 0.5
    assert ("rollout/return_mean", 50) not in found
    assert math.isnan(found["train/loss", 15_000])
    assert found["rollout/return_mean", 15_000] == pytest.approx(np.arange(51, 151).mean() * 10)
    assert found["rollout/length_mean", 15_000] == pytest.approx(np.arange(51, 151).mean())
    assert found["eval/mean", 15_000] == 1.5


def test_tensorboard_gets_the_means_of_recent_episodes(run):
    """Those of the last 10,000 steps, as `metrics` and the curve do: long episodes are not held back by old ones."""
    log_steps(run, np.arange(1, 151) * 1_000)
    run.log_metrics(150_000, {"loss": 0.5})
    run.flush()
    assert scalars(run)["rollout/return_mean", 150_000] == pytest.approx(np.arange(131, 151).mean() * 100)


def test_an_event_file_is_never_overwritten(run):
    for step in range(5):
        run.log_metrics(step, {"loss": step})
        run.close()
    assert len(list(run.path.glob("events.out.tfevents.*"))) == 5
    assert [event.step for event in events(run) if event.summary.value] == list(range(5))


@full_disk
def test_a_full_disk_is_named(run):
    (run.path / "episodes.csv").symlink_to("/dev/full")
    log_steps(run, [100])
    with pytest.raises(RenshuError, match=r"cannot write .*episodes\.csv: No space left on device"):
        run.flush()
    with pytest.raises(RenshuError, match="No space left"):
        run.close()
    run.close()


@full_disk
def test_a_full_disk_under_tensorboard_is_named(run, monkeypatch):
    monkeypatch.setattr("tensorboardX.record_writer.open_file", lambda _: open("/dev/full", "wb"))  # noqa: SIM115
    run.log_metrics(1, {"loss": 1.0})
    with pytest.raises(RenshuError, match=r"cannot write .*tfevents.*: No space left on device"):
        run.close()
    assert read_metrics(run.path)["loss"].tolist() == [1.0], "the other files are closed all the same"


def test_a_folder_that_cannot_be_is_named(tmp_path):
    (tmp_path / "file").write_text("not a folder")
    for make in (lambda path: Run.create(path, {}), lambda path: Run.new_path(path, "ppo")):
        with pytest.raises(RenshuError, match=r"cannot write .*file.*: (Not a directory|File exists)"):
            make(tmp_path / "file" / "run")


def test_settings_that_cannot_be_written_leave_no_half_run(tmp_path, monkeypatch):
    def fail(*_):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", fail)
        with pytest.raises(RenshuError, match=r"settings\.json: No space left"):
            Run.create(tmp_path / "run", {})
    assert list((tmp_path / "run").iterdir()) == []
    assert Run.create(tmp_path / "run", {"seed": 1}).settings["seed"] == 1


def test_a_file_is_replaced_whole_or_not_at_all(tmp_path):
    def chunks():
        yield b"half"
        raise KeyboardInterrupt

    file = tmp_path / "file"
    write_atomically(file, [b"old"])
    with pytest.raises(KeyboardInterrupt):
        write_atomically(file, chunks())
    assert [path.name for path in tmp_path.iterdir()] == ["file"]
    assert file.read_bytes() == b"old"


def test_versions_and_machine_are_known():
    found = versions()
    assert list(found) == ["python", "renshu", "jax", "jaxlib", "flax", "optax", "gymnasium", "numpy"]
    assert found["numpy"] == np.__version__
    assert machine()["cpus"] == os.cpu_count()
    assert machine()["processor"]
    json.dumps([found, machine()])


@pytest.mark.skipif(shutil.which("git") is None, reason="needs git")
def test_git_state_follows_the_repository(tmp_path, monkeypatch):
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))

    def git(*arguments):
        identity = ["-c", "user.name=a", "-c", "user.email=a@example.org", "-c", "commit.gpgsign=false"]
        done = subprocess.run(
            ["git", "-C", tmp_path, *identity, *arguments], check=True, capture_output=True, text=True
        )
        return done.stdout.strip()

    assert git_state(tmp_path) is None
    git("init", "-b", "work")
    assert git_state(tmp_path) == {"commit": None, "branch": "work", "dirty": False}
    (tmp_path / "code.py").write_text("1")
    git("add", ".")
    git("commit", "-m", "first")
    commit = git("rev-parse", "HEAD")
    (tmp_path / "untracked").write_text("")
    assert git_state(tmp_path) == {"commit": commit, "branch": "work", "dirty": False}
    (tmp_path / "code.py").write_text("2")
    git("checkout", "--detach")
    assert git_state(tmp_path) == {"commit": commit, "branch": None, "dirty": True}
    monkeypatch.setenv("PATH", "")
    assert git_state(tmp_path) is None


def test_heavy_modules_load_when_used():
    code = "import sys, renshu.tracking; print([m for m in ('jax', 'matplotlib', 'tensorboardX') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=Path.cwd())
    assert done.stdout.strip() == "[]"
