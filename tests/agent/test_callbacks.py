import math
import time
from types import SimpleNamespace

import jax
import numpy as np
import pytest

from renshu import load
from renshu.agent.callbacks import (
    Callback,
    Checkpoint,
    Evaluate,
    StopAtReturn,
    StopWithoutImprovement,
)
from renshu.errors import HyperparameterError
from renshu.files.checkpoint import read_header
from renshu.loops.evaluation import Evaluation
from renshu.tracking import Run, read_evaluations
from tests import probes
from tests.envs.faulty import Counting


def endless():
    """One episode without end: every update learns from 32 steps."""
    return Counting(length=10**9)


class Recorder(Callback):
    """Notes what is called, and in which order."""

    def __init__(self):
        self.calls = []

    def on_start(self, agent):
        self.calls.append("start")

    def on_update(self, agent, metrics):
        self.calls.append("update")
        assert metrics["steps"] == agent.steps

    def on_end(self, agent):
        self.calls.append("end")


def scripted(agent, monkeypatch, means):
    """Let the agent's evaluations give these means."""
    answers = iter(means)
    monkeypatch.setattr(agent, "evaluate", lambda episodes: Evaluation([next(answers)] * episodes, [1] * episodes))


@pytest.mark.parametrize(
    ("answer", "updates"), [(False, 1), (np.False_, 1), (None, 3), (True, 3), (0, 3), ("", 3)], ids=repr
)
def test_only_false_stops(tiny, answer, updates):
    seen = []

    def callback(agent, metrics):
        seen.append(metrics)
        return answer

    agent = tiny(endless).learn(96, progress=False, callbacks=callback)
    assert len(seen) == updates
    assert agent.steps == 32 * updates


def test_metrics(tiny):
    seen = []
    agent = tiny(probes.TimeLimit).learn(20, progress=False, callbacks=lambda agent, metrics: seen.append(metrics))
    assert len(seen) == 1
    assert {"policy_loss", "value_loss", "steps", "steps_per_second", "return_mean", "length_mean"} <= seen[0].keys()
    assert (seen[0]["return_mean"], seen[0]["length_mean"]) == (5.0, 5.0)
    assert seen[0]["steps"] == agent.steps
    assert all(isinstance(value, float | int) for value in seen[0].values())


def test_callbacks_are_called_in_order(tiny):
    recorder = Recorder()
    tiny(endless).learn(60, progress=False, callbacks=[recorder])
    assert recorder.calls == ["start", "update", "update", "end"]


def test_the_end_is_told_also_when_training_fails(tiny):
    first, last = Recorder(), Recorder()

    def broken(agent, metrics):
        raise ZeroDivisionError("in a callback")

    with pytest.raises(ZeroDivisionError):
        tiny().learn(60, progress=False, callbacks=[first, broken, last])
    assert first.calls == ["start", "update", "end"]
    assert last.calls == ["start", "end"]


def test_one_that_fails_at_its_end_does_not_keep_the_others_from_theirs(tiny):
    class Broken(Callback):
        def on_end(self, agent):
            raise ZeroDivisionError

    recorder = Recorder()
    with pytest.raises(ZeroDivisionError):
        tiny().learn(30, progress=False, callbacks=[recorder, Broken()])
    assert recorder.calls[-1] == "end"


@pytest.mark.parametrize("wrong", [3, [3], ["progress"], Recorder, [Recorder]], ids=repr)
def test_what_is_no_callback_is_refused(tiny, wrong, tmp_path):
    agent = tiny()
    with pytest.raises(HyperparameterError, match="function of \\(agent, metrics\\) or a Callback"):
        agent.learn(30, progress=False, callbacks=wrong, run=tmp_path / "run")
    assert not (tmp_path / "run").exists()
    assert agent.trainer.target is None
    assert int(agent.state.counters.target) == 0


def test_evaluate_keeps_the_best(tiny, tmp_path, monkeypatch):
    agent, path = tiny(endless), tmp_path / "best.safetensors"
    evaluate, kept = Evaluate(64, 3, path=path), []
    scripted(agent, monkeypatch, [5.0, 4.0, 7.0, 7.0])

    def note(agent, metrics):
        kept.append(read_header(path)["steps"] if path.exists() else None)

    agent.learn(256, progress=False, callbacks=[evaluate, note])
    assert [(steps, result.mean) for steps, result in evaluate.history] == [(64, 5), (128, 4), (192, 7), (256, 7)]
    assert evaluate.best == 7
    assert kept == [None, 64, 64, 64, 64, 192, 192, 192]
    assert load(path, env=endless).steps == 192


def test_evaluate_stops(tiny, monkeypatch):
    agent = tiny()
    scripted(agent, monkeypatch, [1.0, 2.0, 3.0, 2.5, 3.0, 9.0, 9.0])
    patient = Evaluate(1, 1, patience=2)
    agent.learn(10_000, progress=False, callbacks=patient)
    assert [result.mean for _, result in patient.history] == [1.0, 2.0, 3.0, 2.5, 3.0]

    agent = tiny()
    scripted(agent, monkeypatch, [1.0, 2.0, 3.0, 9.0])
    reaching = Evaluate(1, 1, stop_at=3.0)
    agent.learn(10_000, progress=False, callbacks=reaching)
    assert [result.mean for _, result in reaching.history] == [1.0, 2.0, 3.0]


def test_patience_begins_anew_with_each_learn(tiny, monkeypatch):
    agent = tiny()
    scripted(agent, monkeypatch, [3.0, 2.0, 2.0, 2.0])
    patient = Evaluate(1, 1, patience=1)
    agent.learn(10_000, progress=False, callbacks=patient)
    assert len(patient.history) == 2
    agent.learn(10_000, progress=False, callbacks=patient)
    assert len(patient.history) == 3


def test_a_resumed_run_keeps_its_best_agent(tiny, tmp_path, monkeypatch):
    agent = tiny(endless)
    scripted(agent, monkeypatch, [8.0])
    agent.learn(32, progress=False, run=tmp_path / "run", callbacks=Evaluate(16, 1))
    run = Run.open(tmp_path / "run")
    best = run.best_path.read_bytes()
    scripted(agent, monkeypatch, [5.0, 9.0])
    seen = []
    agent.learn(
        64,
        progress=False,
        run=run,
        callbacks=[Evaluate(16, 1), lambda a, m: seen.append(run.best_path.read_bytes() == best)],
    )
    assert seen == [True, False]
    assert read_evaluations(run.path)["mean"].tolist() == [8.0, 5.0, 9.0]


def test_checkpoint_keeps_the_newest(tiny, tmp_path):
    steps = []
    agent = tiny().learn(
        300,
        progress=False,
        callbacks=[Checkpoint(16, path=tmp_path, keep=2), lambda a, m: steps.append(a.steps)],
    )
    assert sorted(path.name for path in tmp_path.iterdir()) == [f"step_{step:09d}.safetensors" for step in steps[-2:]]
    assert load(tmp_path / f"step_{agent.steps:09d}.safetensors").steps == agent.steps


def test_checkpoint_needs_a_folder(tiny):
    with pytest.raises(HyperparameterError, match="path=FOLDER"):
        tiny().learn(32, progress=False, callbacks=Checkpoint(16))
    with pytest.raises(HyperparameterError, match="run folder"):
        tiny().learn(32, progress=False, checkpoint_every=16)


@pytest.mark.parametrize(
    ("make", "match"),
    [
        (lambda: Evaluate(0), "at least 1"),
        (lambda: Evaluate(10, 0), "episodes=0"),
        (lambda: Evaluate(10, patience=0), "patience=0"),
        (lambda: Checkpoint(-1), "at least 1"),
        (lambda: Checkpoint(10, keep=0), "keep must be at least 1"),
        (lambda: StopWithoutImprovement(0), "at least 1"),
        (lambda: StopAtReturn("solved"), 'a number or "threshold"'),
        (lambda: StopAtReturn(math.nan), "a number"),
    ],
)
def test_numbers_out_of_range(make, match):
    with pytest.raises(HyperparameterError, match=match):
        make()


def test_stop_at_return_waits_for_100_short_episodes(tiny):
    agent = tiny(probes.TimeLimit).learn(10_000, progress=False, stop_at=5.0)
    assert len(agent.recent_returns) == 100
    assert 500 <= agent.steps < 600


def test_stop_at_the_registered_threshold(tiny, tmp_path):
    agent = tiny()
    agent.recent_returns.extend([500.0] * 100)
    stopped = agent.learn(10_000, progress=False, stop_at="threshold").steps
    assert stopped <= 32
    agent.recent_returns.extend([470.0] * 100)
    assert agent.learn(64, progress=False, stop_at="threshold").steps >= stopped + 64

    with pytest.raises(HyperparameterError, match="Value has no registered reward threshold"):
        tiny(probes.Value).learn(32, progress=False, stop_at="threshold", run=tmp_path / "run")
    assert not (tmp_path / "run").exists()
    with pytest.raises(HyperparameterError, match="stop_at=200"):
        tiny(probes.Value).learn(32, progress=False, callbacks=StopAtReturn("threshold"))


def test_stop_without_improvement(tiny):
    agent = tiny(probes.TimeLimit).learn(10_000, progress=False, callbacks=StopWithoutImprovement(200))
    assert 200 <= agent.steps < 300


def test_a_gain_below_the_least_is_none():
    stop, agent = StopWithoutImprovement(10, least=1.0), SimpleNamespace(steps=0)
    stop.on_start(agent)
    agent.steps = 5
    assert stop.on_update(agent, {}) is None
    assert stop.on_update(agent, {"return_mean": 1.0}) is None
    agent.steps = 14
    assert stop.on_update(agent, {"return_mean": 1.9}) is None
    agent.steps = 15
    assert stop.on_update(agent, {"return_mean": 2.0}) is False
    assert stop.on_update(agent, {"return_mean": 2.1}) is None


def test_evaluation_does_not_disturb_training(tiny, tmp_path):
    runs = {name: tmp_path / name for name in ("plain", "evaluated")}
    plain = tiny().learn(320, progress=False, run=runs["plain"])
    evaluated = tiny().learn(320, progress=False, run=runs["evaluated"], eval_every=50, eval_episodes=2)
    assert len(read_evaluations(runs["evaluated"])["step"]) >= 5
    assert jax.tree.all(jax.tree.map(lambda a, b: np.array_equal(a, b), plain.parameters, evaluated.parameters))
    rows = [[row.split(",")[:4] for row in (run / "episodes.csv").read_text().splitlines()] for run in runs.values()]
    assert rows[0] == rows[1]
    assert len(rows[0]) > 5


def test_the_rate_leaves_compilation_out(tiny):
    rates = []
    agent = tiny("renshu/CartPole-v1", net_arch=[11])  # compiled anew
    began = time.perf_counter()
    agent.learn(20_000, progress=False, callbacks=lambda agent, metrics: rates.append(metrics["steps_per_second"]))
    assert rates[-1] > 2 * agent.steps / (time.perf_counter() - began)
