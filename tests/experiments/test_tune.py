"""Search for hyperparameters: what is tried, what is kept when processes die, and what the preset says."""

import dataclasses
import io
import os
import signal
import subprocess
import sys
import time
import tomllib

import numpy as np
import pytest
import typer
from rich.console import Console
from typer.testing import CliRunner

from renshu import A2C, ES, PPO, Agent, Linear, Piecewise, load
from renshu.algorithms.hyperparameters import kind_of
from renshu.algorithms.registry import algorithms
from renshu.cli.tune import tune as command
from renshu.errors import CheckpointError, HyperparameterError, RenshuError, UnknownNameError
from renshu.experiments import tune as module
from renshu.experiments.plan import begun
from renshu.experiments.ranges import Space, check_ranges, declared, peak
from renshu.experiments.study import Score, Study
from renshu.experiments.tune import train_and_evaluate, tune
from renshu.presets import preset
from tests.contract.algorithms import Choices

pytestmark = pytest.mark.usefixtures("compiled_fast")
START = A2C(n_steps=8, net_arch=[8])
RANGES = {"learning_rate": "1e-5..1e-1", "gamma": [0.9, 0.99]}
SMALL = {"ranges": RANGES, "num_envs": 2, "steps": 400, "seeds": 2, "eval_episodes": 4, "progress": False}


# --- whole searches ---------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    return tune(START, Choices(), trials=3, run=tmp_path_factory.mktemp("a") / "tune", **SMALL)


def test_the_first_trial_is_the_algorithm_as_it_is(found):
    assert [one.state for one in found.records] == ["complete"] * 3
    assert [one.start for one in found.records] == [True, False, False]
    assert found.records[0].params == {"learning_rate": pytest.approx(7e-4), "gamma": 0.99}
    assert found.records[0].score == train_and_evaluate(found.plan, START, [0, 1])[0]
    assert len({one.params["learning_rate"] for one in found.records}) == 3


def test_the_score_is_of_fresh_seeds(found):
    assert found.plan.fresh_seeds == [2, 3]
    assert found.score == train_and_evaluate(found.plan, found.algorithm, [2, 3])[0]
    assert found.start_score == train_and_evaluate(found.plan, START, [2, 3])[0]
    assert found.score.mean >= found.start_score.mean
    assert load(found.folder / "best.safetensors", env=Choices()).algorithm == found.algorithm
    record = found.records[found.trial]
    assert found.algorithm == found.plan.space.algorithm_of({} if record.start else record.params)
    assert found.values == {name: getattr(found.algorithm, name) for name in RANGES}


def test_pruners_see_returns_while_seeds_train_side_by_side(found):
    seen = {}
    assert train_and_evaluate(found.plan, START, [0, 1], seen.__setitem__)[0] == found.records[0].score
    assert set(seen) <= set(range(1, 10))
    assert len(seen) >= 8
    assert all(0 <= value <= 4 for value in seen.values())  # of 4 steps at most


def test_the_preset_loads_and_trains(found, monkeypatch):
    assert found.preset.name == "a2c.toml"
    monkeypatch.setattr("renshu.presets.resources.files", lambda name: found.folder)
    read = preset("A2C", "Choices")
    assert (read.algorithm, read.num_envs, read.total_steps) == (found.algorithm, 2, 400)
    agent = read.algorithm.on(Choices(), num_envs=read.num_envs, seed=0).learn(64, progress=False)
    assert agent.steps >= 64
    head = found.preset.read_text().split("[")[0]
    for words in ("A2C on Choices", "3 trials (3 complete)", "400 steps", "seeds 0, 1", "seeds 2, 3", "optuna"):
        assert words in head
    assert f"{found.start_score} before, " in head
    assert str(found.records[0].score) in head


def test_the_table_fits(found):
    out = io.StringIO()
    Console(file=out, width=80).print(found.table())
    assert max(map(len, out.getvalue().splitlines())) <= 80
    assert "as before the search" in out.getvalue()
    assert "3 trials" in repr(found)
    assert "3 trials" in found._repr_html_()


def test_more_trials_in_the_same_folder(found):
    with pytest.raises(CheckpointError, match="name the environment again"):
        tune(resume=found.folder)
    with pytest.raises(HyperparameterError, match="begun with steps=400, not 500"):
        tune(START, Choices(), resume=found.folder, **{**SMALL, "steps": 500})
    with pytest.raises(HyperparameterError, match="begun with ranges="):
        tune(resume=found.folder, env=Choices(), ranges={"gamma": [0.9, 0.99]})
    with pytest.raises(HyperparameterError, match="begun with algorithm="):
        tune(A2C(), Choices(), resume=found.folder)
    again = tune(START, Choices(), resume=found.folder, trials=4, **SMALL)
    assert again.records[:3] == found.records
    assert len(again.records) == 4


def test_from_a_shell(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    app = typer.Typer()
    app.command()(command)
    line = "ppo renshu/CartPole-v1 --no-preset --envs 2 --set n_steps=16 --set net_arch=[8] --set batch_size=32"
    line += " --set n_epochs=1 --range learning_rate=1e-4..1e-2 --trials 2 --steps 64 --seeds 1 --eval-episodes 2"
    first = CliRunner().invoke(app, line.split())
    assert first.exit_code == 0, first.output
    assert "trial 1: " in first.output
    assert "runs/tune-1/ppo.toml" in first.output
    written = tomllib.loads((tmp_path / "runs/tune-1/ppo.toml").read_text())["CartPole-v1"]
    assert written["n_steps"] == 16
    assert written["num_envs"] == 2
    # The same line goes on, and so does the folder alone; there is nothing left to do.
    for text in (f"{line} --resume runs/tune-1", "--resume runs/tune-1"):
        again = CliRunner().invoke(app, text.split())
        assert again.exit_code == 0, again.output
        assert "trial 1: " not in again.output
    wrong = CliRunner().invoke(app, ["ppo", "renshu/CartPole-v1", "--set", "gamma=0.9", "--range", "gamma=0.9..1"])
    assert wrong.exit_code == 2
    assert "either searched" in wrong.output


def test_nan_fails_a_trial_alone(tmp_path, capsys):
    how = {**SMALL, "ranges": {"learning_rate": [7e-4, 3e38]}, "seeds": [5], "progress": True, "sampler": "random"}
    result = tune(START, Choices(), trials=6, run=tmp_path / "tune", **how)
    failed = [one for one in result.records if one.params.get("learning_rate") == 3e38]
    assert failed
    assert {one.state for one in failed} == {"failed"}
    assert all("NotFiniteError" in one.reason for one in failed)
    assert result.algorithm.learning_rate == pytest.approx(7e-4)
    assert "failed (NotFiniteError" in capsys.readouterr().err


# --- the study's file: training is a function here, to be quick and to end when a test wants it -----------------------


def fake(monkeypatch, outcome):
    """Train by `outcome(algorithm, seeds, report)`, which returns one number a seed."""

    class Nothing:
        def save(self, path):
            path.write_text("")

    def trained(plan, algorithm, seeds, report=None):
        return Score(tuple(outcome(algorithm, seeds, report))), [Nothing() for _ in seeds]

    monkeypatch.setattr(module, "train_and_evaluate", trained)


def good(algorithm, seeds, report):
    """The nearer the learning rate to 1e-2, the better."""
    return [-abs(np.log10(algorithm.learning_rate) + 2) + 0.1 * (seed % 2) for seed in seeds]


def test_the_search_finds_the_best(monkeypatch, tmp_path):
    fake(monkeypatch, good)
    result = tune(START, Choices(), trials=25, run=tmp_path / "tune", **SMALL)
    assert 3e-3 < result.algorithm.learning_rate < 3e-2
    assert result.score.std == pytest.approx(0.05)
    again = tune(START, Choices(), trials=5, run=tmp_path / "again", **SMALL)
    assert [one.params for one in again.records] == [one.params for one in result.records[:5]]


def test_what_does_not_hold_up_is_not_kept(monkeypatch, tmp_path):
    def outcome(algorithm, seeds, report):
        return good(algorithm, seeds, report) if 0 in seeds else [-x for x in good(algorithm, seeds, report)]

    fake(monkeypatch, outcome)
    result = tune(START, Choices(), trials=8, run=tmp_path / "tune", **SMALL)
    assert result.records[result.trial].start
    assert result.algorithm == START
    assert result.score == result.start_score
    text = result.preset.read_text()
    assert "It was worse there" in text
    assert "learning_rate = " not in text.split("\n[")[1]


def test_failures_are_told_and_five_in_a_row_stop(monkeypatch, tmp_path):
    trials = []

    def outcome(algorithm, seeds, report):
        trials.append(algorithm)
        if len(trials) in (2, 4):
            raise ValueError(f"number {len(trials)}")
        return [np.nan] if len(trials) == 5 else [1.0]

    fake(monkeypatch, outcome)
    result = tune(START, Choices(), trials=6, run=tmp_path / "a", **SMALL)
    assert [one.state for one in result.records] == ["complete", "failed", "complete", "failed", "failed", "complete"]
    assert result.records[1].reason == "ValueError: number 2"
    assert "nan" in result.records[4].reason

    def broken(algorithm, seeds, report):
        raise ValueError("no good")

    fake(monkeypatch, broken)
    with pytest.raises(RenshuError, match="5 trials in a row failed, the last one: ValueError: no good") as raised:
        tune(START, Choices(), run=tmp_path / "b", **SMALL)
    assert isinstance(raised.value.__cause__, ValueError)
    with pytest.raises(RenshuError, match="no trial was completed: ValueError: no good"):
        tune(START, Choices(), trials=4, run=tmp_path / "c", **SMALL)


def test_refused_values_do_not_count(monkeypatch, tmp_path):
    def outcome(algorithm, seeds, report):
        if algorithm.gamma == 0.9:
            raise HyperparameterError("0.9 does not go together with it")
        return [1.0]

    fake(monkeypatch, outcome)
    result = tune(START, Choices(), trials=6, run=tmp_path / "a", sampler="random", **SMALL)
    states = [one.state for one in result.records]
    assert states.count("complete") == 6
    assert states.count("refused") >= 1
    assert set(states) == {"complete", "refused"}
    monkeypatch.setattr(module, "REFUSALS", 3)
    with pytest.raises(RenshuError, match=r"3 trials in a row had values that do not go together.*0\.9 does not"):
        tune(START, Choices(), run=tmp_path / "b", **{**SMALL, "ranges": {"gamma": [0.9]}})


def test_bad_trials_are_pruned_but_never_the_start(monkeypatch, tmp_path):
    count = []

    def outcome(algorithm, seeds, report):
        count.append(algorithm)
        value = 0.0 if len(count) in (1, 8) else 1.0
        for point in range(1, 10) if report else ():
            report(point, value)
        return [value]

    fake(monkeypatch, outcome)
    result = tune(START, Choices(), trials=8, run=tmp_path / "a", **{**SMALL, "seeds": 1})
    assert [one.state for one in result.records] == ["complete"] * 7 + ["pruned"]
    monkeypatch.setattr("optuna.Trial.should_prune", lambda trial: True)
    result = tune(START, Choices(), trials=3, run=tmp_path / "b", **SMALL)
    assert [one.state for one in result.records] == ["complete", "pruned", "pruned"]


def test_time_is_a_limit(monkeypatch, tmp_path):
    fake(monkeypatch, lambda *_: time.sleep(0.3) or [1.0])
    result = tune(START, Choices(), trials=1000, timeout=0.5, run=tmp_path / "a", **SMALL)
    assert 1 <= len(result.records) <= 3


def test_ctrl_c_says_how_to_go_on(monkeypatch, tmp_path):
    seen = []

    def outcome(algorithm, seeds, report):
        seen.append(algorithm)
        if len(seen) == 3:
            raise KeyboardInterrupt
        return good(algorithm, seeds, report)

    fake(monkeypatch, outcome)
    with pytest.raises(KeyboardInterrupt) as raised:
        tune(START, "renshu/CartPole-v1", trials=4, run=tmp_path / "a", **SMALL)
    note = "\n".join(raised.value.__notes__)
    assert "2 trials (2 complete)" in note
    assert f"renshu tune --resume {tmp_path / 'a'} --trials 4" in note
    result = tune(resume=tmp_path / "a", progress=False)
    assert [one.state for one in result.records] == ["complete", "complete", "lost", "complete", "complete"]
    assert seen[3] == seen[2]


SCRIPT = """
import sys, time
from pathlib import Path
import numpy as np
from renshu.experiments import tune as module
from renshu.experiments.study import Score
from tests.contract.algorithms import Choices
from tests.experiments.test_tune import SMALL, START, good

folder, what = Path(sys.argv[1]), sys.argv[2]

class Nothing:
    def save(self, path):
        path.write_text("")

def trained(plan, algorithm, seeds, report=None):
    (folder / f"began-{what}").touch()
    while what != "hang" and len(list(folder.glob("began-*"))) < 2:
        time.sleep(0.05)
    if what == "hang" and len(list((folder / "seen").iterdir())) == 2:
        (folder / "hangs").write_text(f"{algorithm.learning_rate!r}")
        time.sleep(600)
    with open(folder / "seen" / f"{time.time_ns()}", "x") as file:
        file.write(f"{algorithm.learning_rate!r}")
    time.sleep(0.2)
    return Score(tuple(good(algorithm, seeds, report))), [Nothing() for _ in seeds]

module.train_and_evaluate = trained
(folder / "seen").mkdir(exist_ok=True)
if what == "join":
    while not (folder / "tune/settings.json").exists():
        time.sleep(0.05)
    result = module.tune(resume=folder / "tune", env=Choices(), progress=False)
else:
    result = module.tune(START, Choices(), trials=12, run=folder / "tune", **SMALL)
print(sum(one.worker == "worker-1" for one in result.records), result.trial)
"""


def start(folder, what):
    environment = {**os.environ, "PYTHONPATH": os.getcwd()}
    return subprocess.Popen(
        [sys.executable, "-c", SCRIPT, str(folder), what], env=environment, stdout=subprocess.PIPE, text=True
    )


def test_two_processes_share_a_folder(tmp_path):
    processes = [start(tmp_path, "begin"), start(tmp_path, "join")]
    answers = [process.communicate(timeout=120)[0].split() for process in processes]
    assert [process.returncode for process in processes] == [0, 0]
    assert answers[0] == answers[1]
    assert 0 < int(answers[0][0]) < 12  # both did some
    # 12 trials, and start and best on fresh seeds by one of the processes.
    assert len(list((tmp_path / "seen").iterdir())) in (13, 14)
    assert tomllib.loads((tmp_path / "tune/a2c.toml").read_text())["Choices"]["num_envs"] == 2


def test_a_killed_process_leaves_its_trial_to_others(monkeypatch, tmp_path):
    process = start(tmp_path, "hang")
    try:
        until = time.monotonic() + 60
        while not (tmp_path / "hangs").exists() or not (tmp_path / "hangs").read_text():
            assert time.monotonic() < until
            assert process.poll() is None
            time.sleep(0.05)
        # While it lives, its trial is its own.
        plan = begun(START, Choices(), GIVEN)
        study = Study(tmp_path / "tune", plan.space, "tpe", "median", 0)
        assert study.claim(1) == []
        assert [one.state for one in study.records()] == ["complete", "complete", "running"]
        study.close()
    finally:
        process.send_signal(signal.SIGKILL)
        process.communicate()
    seen = []
    fake(monkeypatch, lambda algorithm, *rest: seen.append(algorithm.learning_rate) or good(algorithm, *rest))
    result = tune(START, Choices(), resume=tmp_path / "tune", trials=5, **SMALL)
    assert [one.state for one in result.records] == ["complete", "complete", "lost"] + ["complete"] * 3
    assert seen[0] == float((tmp_path / "hangs").read_text())
    assert result.records[3].params == result.records[2].params


# --- ranges and bad input ---------------------------------------------------------------------------------------------

NAMES = ("trials", "steps", "seeds", "num_envs", "bins", "frame_stack", "masks", "env_kwargs", "sampler", "pruner")
GIVEN = {**dict.fromkeys((*NAMES, "eval_episodes", "batch")), "ranges": RANGES, "num_envs": 2}


def test_declared_ranges_are_allowed_and_begin_at_the_default():
    with_ranges = []
    for name, kind in algorithms().items():
        fields = [field for field in dataclasses.fields(kind) if kind_of(field).tune is not None]
        algorithm = kind()
        assert set(declared(algorithm)) == {field.name for field in fields}
        if not fields:
            continue
        with_ranges.append(name)
        ranges = check_ranges(algorithm, None)
        for field in fields:
            kept = Space(algorithm, ranges).start()
            if field.name not in kept:  # zero has no logarithm
                assert getattr(algorithm, field.name) == 0
    assert {"A2C", "PPO", "DQN", "SAC", "TD3", "PQN", "DDPG", "TQC", "CrossQ", "QLearning"} <= set(with_ranges)


def test_a_schedule_keeps_its_form():
    algorithm = PPO(learning_rate=Linear(1e-3, 1e-4), clip_range=Piecewise(((0.0, 0.1), (1.0, 0.2))))
    space = Space(algorithm, check_ranges(algorithm, {"learning_rate": "1e-4..1e-2", "clip_range": [0.1, 0.4]}))
    assert space.start() == {"learning_rate": 1e-3}
    made = space.algorithm_of({"learning_rate": 1e-2, "clip_range": 0.4})
    assert made.learning_rate.start == pytest.approx(1e-2)
    assert made.learning_rate.end == pytest.approx(1e-3)
    assert [height for _, height in made.clip_range.points] == pytest.approx([0.2, 0.4])
    own = PPO(learning_rate=lambda progress_remaining: 1e-3)
    assert peak(own.learning_rate) is None
    assert "learning_rate" not in declared(own)


def test_choices_of_any_kind():
    ranges = {"net_arch": "[8],[16,16]", "activation_fn": "relu,tanh", "n_epochs": (1, 20), "norm_obs": [True, False]}
    space = Space(PPO(), check_ranges(PPO(), ranges))
    assert space.ranges["activation_fn"] == ["relu", "tanh"]
    arch = list(space.labels("net_arch"))[1]
    assert space.algorithm_of({"net_arch": arch, "norm_obs": True}) == PPO(net_arch=[16, 16], norm_obs=True)
    assert space.start() == {"n_epochs": 10, "norm_obs": False}


@pytest.mark.parametrize(
    ("algorithm", "changes", "error", "message"),
    [
        (START, {"ranges": {"learning_rat": "1e-5..1e-2"}}, UnknownNameError, "learning_rate"),
        (START, {"ranges": {"gamma": "0.9..1.5"}}, HyperparameterError, "gamma must be"),
        (START, {"ranges": {"gamma": "0.9..0.8"}}, HyperparameterError, "least and the greatest"),
        (START, {"ranges": {"gamma": "0.9..x"}}, HyperparameterError, "range as 1e-5..1e-2"),
        (START, {"ranges": {"gamma": []}}, HyperparameterError, "one choice at least"),
        (START, {"ranges": {"gamma": [0.9, "x"]}}, HyperparameterError, "gamma must be"),
        (START, {"ranges": {"n_steps": (1.5, 3)}}, HyperparameterError, "whole number"),
        (START, {"ranges": {"activation_fn": (1, 2)}}, HyperparameterError, "or a list"),
        (START, {"ranges": {}}, HyperparameterError, "no ranges"),
        (START, {"sampler": "tpee"}, UnknownNameError, "There are: tpe, random"),
        (START, {"pruner": "x"}, UnknownNameError, "There are: median"),
        (START, {"trials": 0}, HyperparameterError, "trials"),
        (START, {"seeds": [1, 1]}, HyperparameterError, "seeds"),
        (START, {"seeds": 0}, HyperparameterError, "seeds"),
        (START, {"timeout": 0}, HyperparameterError, "timeout=0"),
        (START, {"steps": 0}, HyperparameterError, "steps"),
        (START, {"trails": 3}, HyperparameterError, "trials"),
        (START, {"run": "a", "resume": "b"}, HyperparameterError, "one of them"),
        (START, {"resume": "nowhere"}, UnknownNameError, "nowhere"),
        ("pqo", {}, UnknownNameError, "PPO"),
        (None, {}, HyperparameterError, "an algorithm and an environment"),
        (ES(), {"ranges": None}, HyperparameterError, "declares none"),
        (PPO(n_steps=8, batch_size=7), {}, HyperparameterError, "batch_size"),
        (START, {"num_envs": 0}, HyperparameterError, "num_envs"),
    ],
)
def test_bad_input(tmp_path, monkeypatch, algorithm, changes, error, message):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(error, match=message):
        tune(algorithm, Choices(), **{**SMALL, "trials": 1, **changes})
    assert list(tmp_path.iterdir()) == []


def test_what_no_file_can_hold(tmp_path, monkeypatch):
    import gymnasium

    monkeypatch.chdir(tmp_path)
    with pytest.raises(HyperparameterError, match="learning_rate of A2C is a Python object"):
        tune(A2C(learning_rate=lambda progress_remaining: 1e-3), Choices(), ranges={"gamma": [0.9]})
    with pytest.raises(HyperparameterError, match="give it an id, a class or a function"):
        tune(START, gymnasium.make("CartPole-v1"), **SMALL)
    with pytest.raises(HyperparameterError, match="TOML has no None"):
        tune("dqn", "CartPole-v1", ranges={"max_grad_norm": [None, 1.0]})
    agent = Agent(START, Choices(), seed=0).learn(16, run=tmp_path / "run", progress=False)
    assert agent.steps
    with pytest.raises(UnknownNameError, match="holds a training"):
        tune(resume=tmp_path / "run")
    with pytest.raises(RenshuError, match="is not empty"):
        tune(START, Choices(), run=tmp_path / "run", **SMALL)


def test_without_optuna(monkeypatch):
    monkeypatch.setitem(sys.modules, "optuna", None)
    with pytest.raises(HyperparameterError, match=r'pip install "renshu\[tune\]"'):
        tune("ppo", "renshu/CartPole-v1")
