"""Trials that train together: who goes on, what shares a program, and who comes through is as if trained alone."""

import csv
import dataclasses
import itertools

import jax
import numpy as np
import pytest

from renshu import A2C, Linear
from renshu.errors import HyperparameterError
from renshu.experiments import halving
from renshu.experiments import tune as module
from renshu.experiments.halving import Group, train_batch
from renshu.experiments.plan import begun
from renshu.experiments.study import Study
from renshu.experiments.tune import train_and_evaluate, tune
from renshu.ops.schedules import value_of
from tests.contract.algorithms import Choices

pytestmark = pytest.mark.usefixtures("compiled_fast")
START = A2C(n_steps=8, net_arch=[8])
RANGES = {"learning_rate": "1e-5..1e-1", "gamma": [0.9, 0.99], "n_steps": [4, 8]}
SMALL = {"num_envs": 2, "steps": 400, "seeds": 2, "eval_episodes": 4}
NONE = ("trials", "bins", "frame_stack", "masks", "env_kwargs", "sampler", "pruner", "batch")


def planned(start=START, env=None, **given):
    given = {**dict.fromkeys(NONE), "ranges": RANGES, **SMALL, "batch": 8, **given}
    return begun(start, Choices() if env is None else env, given)


def with_rates(*rates, **changes):
    return {i: dataclasses.replace(START, learning_rate=rate, **changes) for i, rate in enumerate(rates)}


def test_half_goes_on_at_each_rung_and_the_start_always():
    plan, said = planned(), []
    algorithms = with_rates(*np.geomspace(1e-4, 1e-1, 8))
    algorithms[7] = dataclasses.replace(START, learning_rate=0.0)  # learns nothing
    found = train_batch(plan, algorithms, kept=[7], say=said.append)
    counts = [len(one.reports) for one in found.values()]
    assert len(said) == 3
    assert found[7].state == "complete"
    assert {one.state for one in found.values()} == {"complete", "pruned"}
    assert all(
        (one.score is not None) == (one.state == "complete") == (len(one.reports) == 4) for one in found.values()
    )
    assert sorted(counts).count(1) == 3  # four of seven go on, and the start
    firsts = [one.reports[0] for number, one in found.items() if number != 7]
    gone = [one.reports[0] for number, one in found.items() if len(one.reports) == 1]
    assert max(gone) <= sorted(firsts)[3]


def test_who_gets_to_the_end_was_trained_as_if_alone():
    plan = planned()
    algorithms = with_rates(3e-3, 1e-2) | {2: dataclasses.replace(START, learning_rate=1e-2, n_steps=4)}
    found = train_batch(plan, algorithms, kept=algorithms)
    for number, algorithm in algorithms.items():
        alone, _ = train_and_evaluate(plan, algorithm, plan.seeds)
        assert found[number].score.returns == pytest.approx(alone.returns, rel=1e-3), number


def test_a_schedule_keeps_its_form_and_runs_to_the_full_number_of_steps():
    plan = planned(dataclasses.replace(START, learning_rate=Linear(1e-2, 1e-3)))
    algorithms = {i: plan.space.algorithm_of({"learning_rate": height}) for i, height in enumerate((1e-2, 2e-2))}
    [group] = halving._groups(plan, algorithms, {})
    values = {"learning_rate": np.float32(2e-2), "gamma": np.float32(0.9)}
    config = group.trainer.train_iteration(values).learner.config
    assert float(value_of(config.learning_rate, 0.5)) == pytest.approx(1.1e-2)
    assert [row.values["learning_rate"] for row in group.rows] == pytest.approx([1e-2, 1e-2, 2e-2, 2e-2])
    group.begin()
    assert (np.asarray(group.state.state.counters.target) == plan.steps).all()


@pytest.mark.parametrize("at_once", [1, 3])
def test_any_number_of_rows_at_once_gives_the_same(monkeypatch, at_once):
    plan, algorithms = planned(), with_rates(1e-3, 1e-2, 3e-2)
    compiled = []
    compile_ = halving.TrialsTrainer.compile
    monkeypatch.setattr(
        halving.TrialsTrainer, "compile", lambda self, rows, n: compiled.append(len(rows)) or compile_(self, rows, n)
    )
    whole = train_batch(plan, algorithms)
    monkeypatch.setattr(halving, "rows_per_program", lambda *_: at_once)
    found = train_batch(plan, algorithms)
    assert compiled[1:] == [at_once]  # one size, however many are left
    for number, one in whole.items():
        assert found[number].state == one.state
        np.testing.assert_allclose(found[number].reports, one.reports, rtol=1e-4)


def test_only_what_cannot_be_traced_makes_programs():
    plan = planned()
    steps = itertools.cycle((4, 8))
    algorithms = {i: dataclasses.replace(one, n_steps=next(steps)) for i, one in with_rates(1e-3, 2e-3, 3e-3).items()}
    groups = halving._groups(plan, algorithms, {})
    assert [sorted(set(group.numbers.tolist())) for group in groups] == [[0, 2], [1]]
    assert plan.traceable == ["learning_rate", "gamma"]


def test_nan_fails_a_trial_alone():
    found = train_batch(planned(), with_rates(1e-2, 1e38, 1e-3), kept=[0, 1, 2])
    assert [one.state for one in found.values()] == ["complete", "failed", "complete"]
    assert "NaN" in found[1].reason


def test_a_group_that_cannot_train_is_the_fate_of_its_trials_alone(monkeypatch):
    begin = Group.begin

    def begun(self):
        if self.trainer.learner.needs.steps == 4:
            raise MemoryError("too much")
        begin(self)

    monkeypatch.setattr(Group, "begin", begun)
    found = train_batch(planned(), {0: START, 1: dataclasses.replace(START, n_steps=4)}, kept=[0, 1])
    assert [one.state for one in found.values()] == ["complete", "failed"]
    assert found[1].reason == "MemoryError: too much"


def test_a_value_that_is_none_cannot_be_traced():
    plan = planned(dataclasses.replace(START, learning_rate=1e-3))
    assert "learning_rate" in plan.traceable
    object.__setattr__(plan.start, "learning_rate", None)
    assert plan.traceable == ["gamma"]


def test_lost_trials_come_before_what_a_batch_would_share(tmp_path):
    plan = planned(ranges={**RANGES, "n_steps": [2, 4, 8, 16]})
    Study.create(tmp_path, plan.space)
    study = Study(tmp_path, plan.space, "random", "halving", 0)
    for _ in range(2):
        for trial in study.claim(100, count=8, shared=["n_steps"]):
            study.end(trial, "lost")
    assert sum(one.state == "waiting" for one in study.records()) <= 8
    study.close()


def test_trials_without_an_episode_are_judged_later():
    assert halving._best({0: 1.0, 1: np.nan, 2: 3.0, 3: 2.0}, ()) == {1, 2, 3}
    assert halving._best({0: 1.0, 2: 3.0, 3: 2.0}, [0]) == {0, 2, 3}
    assert halving._best({0: 1.0, 1: 1.0}, ()) == {0}
    assert halving._best({}, [4]) == set()


def test_a_whole_search(tmp_path):
    found = tune(START, Choices(), ranges=RANGES, trials=20, batch=16, run=tmp_path / "a", progress=False, **SMALL)
    states = [one.state for one in found.records]
    assert len(states) == 20
    assert found.records[0].start
    assert found.records[0].state == "complete"
    assert 3 <= states.count("complete") <= 6
    assert {one.params["n_steps"] for one in found.records[:16]} == {8}  # the start's: one program
    assert len({one.params["learning_rate"] for one in found.records}) == 20
    assert found.score == train_and_evaluate(found.plan, found.algorithm, [2, 3])[0]
    assert "pruner halving" in found.preset.read_text()
    header, *rows = csv.reader((tmp_path / "a" / "trials.csv").read_text().splitlines())
    assert header == ["trial", "state", "start", "return", "std", "learning_rate", "gamma", "n_steps"]
    assert [row[1] for row in rows] == states
    shares = dict(csv.reader((tmp_path / "a" / "importance.csv").read_text().splitlines()))
    assert set(shares) == {"hyperparameter", *RANGES}


def test_what_breaks_off_is_done_again(tmp_path, monkeypatch):
    how = {"ranges": RANGES, "trials": 4, "batch": 4, "progress": False, **SMALL}

    def broken(*_, **__):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(module, "train_batch", broken)
        with pytest.raises(KeyboardInterrupt):
            tune(START, Choices(), run=tmp_path / "a", **how)
    found = tune(START, Choices(), resume=tmp_path / "a", **how)
    assert [one.state for one in found.records].count("lost") == 4
    assert sum(one.counts for one in found.records) == 4
    with pytest.raises(HyperparameterError, match="begun with batch=4, not 8"):
        tune(START, Choices(), resume=tmp_path / "a", **{**how, "batch": 8})


@pytest.mark.parametrize(
    ("env", "changes", "message"),
    [
        ("CartPole-v1", {}, "CartPole-v1 steps in Python"),
        (None, {"ranges": {"n_steps": [4, 8]}}, "can vary none of n_steps"),
        (None, {"pruner": "median"}, "leave pruner out"),
        (None, {"batch": 0}, "batch"),
    ],
)
def test_bad_input(env, changes, message):
    with pytest.raises(HyperparameterError, match=message):
        planned(env=env, **changes)


def test_rows_that_do_not_fit_are_refused_early(monkeypatch):
    plan = planned()
    monkeypatch.setattr("renshu.runtime.os.sysconf", lambda name: 1)  # a machine of one byte
    [group] = halving._groups(plan, with_rates(1e-3), {})
    with pytest.raises(HyperparameterError, match="this machine has"):
        group.begin()
    assert isinstance(group, Group)
    assert jax.default_backend() == "cpu"
