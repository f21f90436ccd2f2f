import json
import os
import platform
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from renshu.board.catalogue import Catalogue, regular
from renshu.errors import RenshuError
from renshu.tracking.run import Run
from renshu.tracking.scores import note_score
from tests.board.runs import write_run


def test_runs_are_found_in_folders_of_folders(tmp_path):
    write_run(tmp_path / "a")
    write_run(tmp_path / "games" / "pong" / "b", algorithm="DQN", environment="ALE/Pong-v5", seed=3, level=20)
    (tmp_path / "empty").mkdir()
    catalogue = Catalogue(tmp_path)
    catalogue.refresh()
    assert set(catalogue.runs) == {"a", "games/pong/b"}
    row = catalogue.runs["games/pong/b"]
    assert (row.algorithm, row.environment, row.seed) == ("DQN", "ALE/Pong-v5", 3)
    assert (row.steps, row.total_steps, row.train_return, row.seconds) == (600, 600, 20, 6)
    assert row.evaluated is not None
    assert row.evaluated.step == 410
    assert row.evaluated.mean == pytest.approx(20 * 410 / 600)
    assert catalogue.environments() == ["ALE/Pong-v5", "CartPole-v1"]


def test_the_folder_itself_may_be_a_run(tmp_path):
    catalogue = Catalogue(write_run(tmp_path / "alone"))
    catalogue.refresh()
    assert list(catalogue.runs) == ["alone"]


def test_a_folder_that_does_not_exist_is_refused(tmp_path):
    with pytest.raises(RenshuError, match="is not a folder"):
        Catalogue(tmp_path / "nothing")


def test_a_run_trains_while_its_process_holds_the_lock(tmp_path):
    path = write_run(tmp_path / "a", ended=False)
    catalogue = Catalogue(tmp_path)
    catalogue.refresh()
    assert catalogue.runs["a"].state == "stopped"
    with Run.open(path) as run:
        run.lock()
        catalogue.refresh()
        assert catalogue.runs["a"].state == "training"
    catalogue.refresh()
    assert catalogue.runs["a"].state == "stopped"
    # A process that was killed leaves its lock.
    (path / "lock").write_text(f"{2**22 + 12345} {platform.node()}")
    catalogue.refresh()
    assert catalogue.runs["a"].state == "stopped"
    (path / "agent.safetensors").write_bytes(b"")
    catalogue.refresh()
    assert catalogue.runs["a"].state == "ended"


def test_the_version_grows_with_each_change_and_else_stays(tmp_path):
    path = write_run(tmp_path / "a", evaluated=10)
    catalogue = Catalogue(tmp_path)
    first = catalogue.refresh()
    assert catalogue.refresh() == first
    note_score(path, 600, [99.0] * 100, [10] * 100)
    second = catalogue.refresh()
    assert second > first
    write_run(tmp_path / "b")
    assert catalogue.refresh() > second
    assert catalogue.refresh(at_most_every=60) == catalogue.version


def test_a_run_that_goes_and_comes_back_is_read_again(tmp_path):
    path = write_run(tmp_path / "a")
    catalogue = Catalogue(tmp_path)
    for there in (True, False, True):
        path.rename(path if there else tmp_path / ".hidden") if path.exists() else (tmp_path / ".hidden").rename(path)
        catalogue.refresh()
        assert list(catalogue.runs) == (["a"] if there else [])


def test_threads_wait_for_each_other(tmp_path):
    for number in range(100):
        write_run(tmp_path / f"{number:03}", episodes=1, evaluated=0)
    catalogue = Catalogue(tmp_path)
    with ThreadPoolExecutor(4) as threads:
        versions = list(threads.map(lambda _: catalogue.refresh(), range(8)))
    assert len(catalogue.runs) == 100
    assert set(versions) == {1}


@pytest.mark.skipif(os.name != "posix", reason="names of POSIX")
def test_text_that_is_no_unicode_is_written_as_it_can_be(tmp_path):
    path = write_run(Path(os.fsdecode(os.fsencode(tmp_path) + b"/bad\xff")))
    settings = json.loads((path / "settings.json").read_text()) | {"algorithm": "\ud800"}
    (path / "settings.json").write_text(json.dumps(settings))
    catalogue = Catalogue(tmp_path)
    catalogue.refresh()
    ((name, row),) = catalogue.runs.items()
    assert (name, row.algorithm) == ("bad\\udcff", "\\ud800")


def test_steps_that_cannot_be_are_left_out(tmp_path):
    path = write_run(tmp_path / "a", evaluated=0)
    with open(path / "episodes.csv", "a") as file:
        file.write("1e300,0,1,1,1\n-5,0,1,1,1\n")
    catalogue = Catalogue(tmp_path)
    catalogue.refresh()
    assert catalogue.runs["a"].steps == 600


def test_the_lock_of_another_machine_counts_while_something_is_written(tmp_path):
    path = write_run(tmp_path / "a", ended=False)
    (path / "lock").write_text("1 elsewhere")
    catalogue = Catalogue(tmp_path)
    catalogue.refresh()
    assert catalogue.runs["a"].state == "training"
    for file in path.iterdir():
        os.utime(file, (1e9, 1e9))
    catalogue.refresh()
    assert catalogue.runs["a"].state == "stopped"


def test_one_that_went_on_after_its_end_and_was_killed_is_stopped(tmp_path):
    path = write_run(tmp_path / "a", total_steps=6000)
    os.utime(path / "agent.safetensors", (1e9, 1e9))
    write_run(tmp_path / "b", total_steps=600)
    os.utime(tmp_path / "b" / "agent.safetensors", (1e9, 1e9))
    catalogue = Catalogue(tmp_path)
    catalogue.refresh()
    assert (catalogue.runs["a"].state, catalogue.runs["b"].state) == ("stopped", "ended")


def test_the_newest_evaluation_counts_wherever_it_was_made(tmp_path):
    path = write_run(tmp_path / "a")
    note_score(path, 100, [1.0] * 100, [10] * 100)
    catalogue = Catalogue(tmp_path)
    catalogue.refresh()
    ranked = catalogue.runs["a"].ranked
    assert ranked is not None
    assert ranked.step == 410
    note_score(path, 410, [1.0] * 100, [10] * 100)
    catalogue.refresh()
    assert catalogue.runs["a"].ranked == catalogue.runs["a"].evaluated
    assert catalogue.runs["a"].ranked.mean == 1


def test_only_evaluations_of_100_episodes_rank(tmp_path):
    path = write_run(tmp_path / "a", evaluated=10)
    catalogue = Catalogue(tmp_path)
    catalogue.refresh()
    assert catalogue.runs["a"].ranked is None
    note_score(path, 500, [80.0, 100.0] * 50, [10] * 100)
    note_score(path, 600, [90.0, 100.0] * 50, [10] * 100)
    note_score(path, 600, [100.0] * 5, [10] * 5)
    catalogue.refresh()
    ranked = catalogue.runs["a"].ranked
    assert ranked is not None
    assert (ranked.step, ranked.mean, ranked.std, ranked.lower, ranked.episodes) == (600, 95, 5, 90, 100)
    assert catalogue.runs["a"].solved


@pytest.mark.parametrize("content", [b"", b"[]", b"{", b"\xff\xfe", b"[" * 100_000])
def test_a_run_that_cannot_be_read_is_listed_with_the_reason(tmp_path, content):
    write_run(tmp_path / "a")
    write_run(tmp_path / "b")
    (tmp_path / "a" / "settings.json").write_bytes(content)
    catalogue = Catalogue(tmp_path)
    catalogue.refresh()
    assert catalogue.runs["b"].state == "ended"
    assert catalogue.runs["a"].state == "damaged"
    assert catalogue.runs["a"].fault


def test_values_of_other_kinds_count_as_unknown(tmp_path):
    write_run(tmp_path / "a")
    file = tmp_path / "a" / "settings.json"
    settings = json.loads(file.read_text())
    file.write_text(json.dumps(settings | {"reward_threshold": "<script>", "started": ["x"], "total_steps": None}))
    catalogue = Catalogue(tmp_path)
    catalogue.refresh()
    row = catalogue.runs["a"]
    assert (row.threshold, row.started, row.total_steps) == (None, "", None)


def test_tables_that_are_cut_or_damaged_give_what_is_whole(tmp_path):
    path = write_run(tmp_path / "a")
    data = (path / "episodes.csv").read_bytes()
    (path / "episodes.csv").write_bytes(data[:-8] + b"\n12,garbage\n1,2")
    (path / "evaluations.csv").write_bytes(b"\x00" * 10_000)
    catalogue = Catalogue(tmp_path)
    catalogue.refresh()
    row = catalogue.runs["a"]
    assert row.steps == 590
    assert row.evaluated is None


@pytest.mark.skipif(os.name != "posix", reason="links and pipes of POSIX")
def test_no_link_is_followed_and_no_pipe_waited_for(tmp_path):
    outside = write_run(tmp_path / "outside" / "secret")
    root = tmp_path / "runs"
    inside = write_run(root / "a")
    (root / "link").symlink_to(outside)
    (root / "b").mkdir()
    (root / "b" / "settings.json").symlink_to(outside / "settings.json")
    for name in ("episodes.csv", "evaluations.csv", "lock"):
        (inside / name).unlink(missing_ok=True)
    assert not regular(root / "link" / "settings.json"), "a folder on the way is a link"
    assert regular(root / "a" / "settings.json")
    (inside / "episodes.csv").symlink_to(outside / "episodes.csv")
    os.mkfifo(inside / "evaluations.csv")
    os.mkfifo(inside / "lock")
    catalogue = Catalogue(root)
    catalogue.refresh()
    assert list(catalogue.runs) == ["a"]
    assert catalogue.runs["a"].steps == 0
    assert catalogue.runs["a"].state == "ended"


def test_a_search_for_hyperparameters_is_no_run(tmp_path):
    (write_run(tmp_path / "tune-1") / "study.db").write_bytes(b"SQLite format 3")
    catalogue = Catalogue(tmp_path)
    catalogue.refresh()
    assert catalogue.runs == {}
    assert catalogue.searches == {}  # none of its trials has ended
    (tmp_path / "tune-1" / "trials.csv").write_text("trial,state\n")
    write_run(tmp_path / "tune-1" / "workers" / "x")
    catalogue.refresh()
    assert (list(catalogue.runs), list(catalogue.searches)) == ([], ["tune-1"])


def test_experiments_and_leagues_are_found(tmp_path):
    for folder, file in (("e", "curves.csv"), ("p", "pbt.csv"), ("l", "ratings.csv")):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / file).write_text("")
    catalogue = Catalogue(tmp_path)
    catalogue.refresh()
    assert (list(catalogue.experiments), list(catalogue.populations), list(catalogue.leagues)) == (["e"], ["p"], ["l"])


def test_a_thousand_runs_are_read_in_a_second(tmp_path):
    write_run(tmp_path / "0000")
    for number in range(1, 1000):
        folder = tmp_path / f"{number:04}"
        folder.mkdir()
        for name in ("settings.json", "episodes.csv", "evaluations.csv"):
            (folder / name).write_bytes((tmp_path / "0000" / name).read_bytes())
    catalogue = Catalogue(tmp_path)
    began = time.process_time()
    catalogue.refresh()
    assert len(catalogue.runs) == 1000
    assert time.process_time() - began < 1.0
