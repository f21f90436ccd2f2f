"""`renshu cluster`, and training by a cluster from the shell."""

import importlib.util
import json

import pytest
from typer.testing import CliRunner

from renshu.cli import app
from renshu.tracking.run import Run
from renshu.tracking.workers import read_workers, write_workers

ROW = {"worker": 3, "host": "there", "pid": 7, "steps": 1234, "steps_per_second": 56.7, "lag": 2, "lost": 1}
ACCOUNT = {"cluster/requested": 5.0, "cluster/learned": 4.0, "cluster/lost": 1.0}


def test_the_table_of_a_runs_workers(tmp_path):
    path = Run.create(tmp_path / "run", {}).path
    told = CliRunner().invoke(app, ["cluster", str(path)])
    assert told.exit_code == 2
    write_workers(path, [{**ROW, "last_fault": "it was broken"}], ACCOUNT)
    shown = CliRunner().invoke(app, ["cluster", str(path)]).stdout
    for text in ("there:7", "1,234", "57", "it was broken", "requested 5", "lost 1"):
        assert text in shown


@pytest.mark.parametrize("content", ["", "[]", '{"workers": 3, "account": {}}', '{"workers": []}'])
def test_a_table_that_is_none(tmp_path, content):
    (tmp_path / "workers.json").write_text(content)
    assert read_workers(tmp_path) is None


@pytest.mark.skipif(importlib.util.find_spec("ray") is None, reason="Ray is not installed")
def test_training_from_the_shell(tmp_path):
    command = ["train", "impala", "CartPole-v1", "--workers", "2", "--envs", "2", "--steps", "600", "--seed", "0"]
    command += ["--run", str(tmp_path / "run"), "--eval-every", "300", "--eval-episodes", "2", "--no-progress"]
    done = CliRunner().invoke(app, command)
    assert done.exit_code == 0, done.output
    rows = (tmp_path / "run" / "evaluations.csv").read_text().splitlines()
    assert len(rows) == 3
    assert (tmp_path / "run" / "best.safetensors").exists()
    account = json.loads((tmp_path / "run" / "workers.json").read_text())["account"]
    assert account["cluster/in_flight"] == 0
    assert account["cluster/requested"] == account["cluster/learned"] + account["cluster/stale"]


def test_without_ray_the_error_says_what_to_install(monkeypatch, tmp_path):
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *rest: None if name == "ray" else find(name, *rest))
    command = ["train", "impala", "CartPole-v1", "--workers", "2", "--steps", "100", "--run", str(tmp_path / "run")]
    done = CliRunner().invoke(app, command)
    assert done.exit_code == 2
    assert 'pip install "renshu[cluster]"' in done.output
    assert not (tmp_path / "run").exists()
