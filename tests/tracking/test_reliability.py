import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from matplotlib.image import imread
from scipy.stats import mannwhitneyu, trim_mean

from renshu.errors import RenshuError
from renshu.tracking import reliability
from renshu.tracking.reliability import aggregate, performance_profile, plot_profiles, probability_of_improvement

AGGREGATES = ["iqm", "mean", "median", "optimality_gap"]

# Printed by `python bench/run_rliable.py`, with rliable 1.2.0, arch 7.2.0, numpy 2.4.6 and scipy 1.17.1. Of each
# statistic: value, low and high end. Scores are [runs, tasks].
X = [
    [1.4, 0.9, 1.4, 2.2, 2.2, 1.0],
    [1.0, 0.6, 0.8, 1.3, 1.4, 2.2],
    [0.9, 0.8, 1.1, 1.3, 2.0, 1.4],
    [0.7, 0.3, -0.4, 1.4, 1.7, 1.1],
    [1.6, 0.0, 0.9, 1.0, 2.1, 2.2],
    [0.6, 0.9, 0.5, 0.1, 1.1, 1.6],
    [1.1, 1.3, 0.7, 0.9, 0.8, 0.8],
]
Y = [
    [-0.5, 1.6, 0.5, 0.8, 0.6, 1.8],
    [-0.4, 0.5, 0.4, 1.2, 0.9, 0.8],
    [0.4, 0.8, 0.8, 1.2, 0.9, 1.2],
    [0.1, 0.4, 0.4, 0.1, 1.3, 1.2],
    [-0.4, 0.8, 0.3, 1.0, 1.6, 1.5],
]
THRESHOLDS = [-0.5, 0.0, 0.3, 0.7, 1.0, 1.4, 2.0]
RLIABLE = {
    "iqm": [1.0818181818, 0.9454545455, 1.21375],
    "mean": [1.1166666667, 0.9642857143, 1.2548214286],
    "median": [1.1071428571, 0.8928571429, 1.3144642857],
    "optimality_gap": [0.1714285714, 0.0976190476, 0.2571428571],
    "profile": [
        [1.0, 0.9523809524, 0.9047619048, 0.7857142857, 0.5, 0.2142857143, 0.119047619],
        [1.0, 0.880952381, 0.8095238095, 0.6666666667, 0.3571428571, 0.119047619, 0.0476190476],
        [1.0, 1.0, 0.9761904762, 0.880952381, 0.619047619, 0.3095238095, 0.2142857143],
    ],
    "improvement": [0.7214285714, 0.5975595238, 0.8333333333],
}
RLIABLE_SEED = 7
EXACT = 1e-9

TWO_RUNS = [[1.0, 2.0], [3.0, 4.0]]


def numbers(runs=(1, 8), tasks=(1, 5)):
    """Matrices of scores, many of which equal each other."""
    shapes = st.tuples(st.integers(*runs), st.integers(*tasks))
    return arrays(np.float64, shapes, elements=st.integers(-8, 16).map(lambda eighths: eighths / 8))


@pytest.fixture
def draws_of_rliable(monkeypatch):
    """Let the bootstrap draw the runs that rliable draws: for each resample one number of a run for each score."""

    def draws(sizes, resamples, seed, at_once):
        state = np.random.RandomState(RLIABLE_SEED)
        shapes = [(runs, sizes.count(runs)) for runs in dict.fromkeys(sizes)]  # of X, and of Y
        drawn = [[state.choice(shape[0], shape) for shape in shapes] for _ in range(resamples)]
        yield [column for matrices in zip(*drawn, strict=True) for column in np.moveaxis(np.stack(matrices), 2, 0)]

    monkeypatch.setattr(reliability, "_draws", draws)


@pytest.mark.usefixtures("draws_of_rliable")
def test_values_and_intervals_are_those_of_rliable():
    for statistic in AGGREGATES:
        np.testing.assert_allclose(aggregate(X, statistic), RLIABLE[statistic], rtol=0, atol=EXACT)
    np.testing.assert_allclose(performance_profile(X, THRESHOLDS), RLIABLE["profile"], rtol=0, atol=EXACT)
    np.testing.assert_allclose(probability_of_improvement(X, Y), RLIABLE["improvement"], rtol=0, atol=EXACT)


def test_own_draws_give_nearly_the_intervals_of_rliable():
    many = {"resamples": 20_000, "seed": 1}
    for statistic in AGGREGATES:
        np.testing.assert_allclose(aggregate(X, statistic, **many), RLIABLE[statistic], atol=0.02)
    np.testing.assert_allclose(performance_profile(X, THRESHOLDS, **many), RLIABLE["profile"], atol=0.03)
    np.testing.assert_allclose(probability_of_improvement(X, Y, **many), RLIABLE["improvement"], atol=0.02)


@settings(deadline=None)
@given(numbers())
def test_values_of_a_matrix_are_those_of_the_paper(scores):
    found = {statistic: aggregate(scores, statistic, resamples=1).value for statistic in AGGREGATES}
    of_tasks = [sum(runs) / len(runs) for runs in scores.T]
    expected = {
        "iqm": trim_mean(scores, 0.25, axis=None),
        "mean": sum(of_tasks) / len(of_tasks),
        "median": np.median(of_tasks),
        "optimality_gap": sum(max(1 - score, 0) for score in scores.ravel()) / scores.size,
    }
    assert found == pytest.approx(expected, abs=1e-12)
    profile, _, _ = performance_profile(scores, [0, 0.5, 1], resamples=1)
    above = [sum(score > level for score in scores.ravel()) / scores.size for level in (0, 0.5, 1)]
    assert profile.tolist() == pytest.approx(above, abs=1e-12)


@settings(deadline=None)
@given(numbers(tasks=(3, 3)), numbers(tasks=(3, 3)))
def test_the_probability_of_improvement_is_the_mann_whitney_statistic(x, y):
    expected = [
        mannwhitneyu(ours, theirs, alternative="greater").statistic / (len(ours) * len(theirs))
        for ours, theirs in zip(x.T, y.T, strict=True)
    ]
    there = probability_of_improvement(x, y, resamples=1).value
    assert there == pytest.approx(np.mean(expected), abs=1e-12)
    assert probability_of_improvement(y, x, resamples=1).value == pytest.approx(1 - there, abs=1e-12)


def test_tasks_with_different_numbers_of_runs():
    scores = {"a": [0.0, 0.0, 0.0, 0.0, 8.0], "b": [2.0, 4.0], "c": [0.5]}
    assert aggregate(scores, "mean").value == pytest.approx((1.6 + 3 + 0.5) / 3)
    assert aggregate(scores, "median").value == pytest.approx(1.6)
    assert aggregate(scores, "optimality_gap").value == pytest.approx((0.8 + 0 + 0.5) / 3)
    assert aggregate(scores, "iqm").value == pytest.approx((0 + 0 + 0.5 + 2) / 4), "of 0 0 0 0 0.5 2 4 8"
    assert performance_profile(scores, [1.0])[0] == pytest.approx([(0.2 + 1 + 0) / 3])
    better = probability_of_improvement(scores, {"c": [0.5, 0.0], "b": [5.0], "a": [0.0]})
    assert better.value == pytest.approx((0.6 + 0 + 0.75) / 3), "by name, whatever the order"


@pytest.mark.parametrize("statistic", AGGREGATES)
def test_a_dict_of_columns_is_the_matrix(statistic):
    columns = {str(task): runs for task, runs in enumerate(np.transpose(X))}
    assert aggregate(columns, statistic) == aggregate(X, statistic)


def test_runs_are_drawn_within_their_task():
    """Levels of tasks are not chance: mixed between tasks, the interval would be hundreds wide."""
    scores = np.random.default_rng(0).normal([0, 1000, 5000], [1, 2, 3], (50, 3))
    found = aggregate(scores, "mean", resamples=20_000)
    deviation = math.sqrt((scores.var(axis=0) / 50).sum()) / 3
    assert found.high - found.low == pytest.approx(2 * 1.96 * deviation, rel=0.03)
    narrower = aggregate(scores, "mean", confidence=0.5, resamples=20_000)
    assert narrower.high - narrower.low == pytest.approx(2 * 0.6745 * deviation, rel=0.03)


def test_every_task_has_draws_of_its_own():
    """Were the same runs drawn for all tasks, deviations that cancel out would leave no interval."""
    runs = np.arange(10.0)
    found = aggregate(np.stack([runs, -runs], axis=1), "mean")
    assert found.high - found.low > 1
    same = probability_of_improvement(runs[:, None], runs[:, None])
    assert same.value == 0.5
    assert same.low < 0.4 < 0.6 < same.high


def test_the_interval_contains_the_true_value_as_often_as_it_says():
    rng = np.random.default_rng(3)
    within = []
    for _ in range(400):
        found = aggregate(rng.normal([0, 3], [1, 2], (30, 2)), "mean", confidence=0.9, resamples=500)
        within.append(found.low <= 1.5 <= found.high)
    assert abs(np.mean(within) - 0.9) < 0.05


def test_draws_depend_on_the_seed_and_not_on_the_memory(monkeypatch):
    whole = aggregate(X, resamples=300), performance_profile(X, THRESHOLDS, resamples=300)
    assert aggregate(X, resamples=300, seed=1) != whole[0]
    monkeypatch.setattr(reliability, "_CELLS", 100)
    assert aggregate(X, resamples=300) == whole[0]
    np.testing.assert_array_equal(performance_profile(X, THRESHOLDS, resamples=300), whole[1])


def test_a_single_run_has_no_interval():
    scores = {"a": [1.0, 2.0], "b": [3.0]}
    value, low, high = aggregate(scores, "mean")
    assert (value, math.isnan(low), math.isnan(high)) == (2.25, True, True)
    profile, below, above = performance_profile(scores, [1.0, 2.0])
    assert profile.tolist() == [0.75, 0.5]
    assert below.shape == above.shape == (2,)
    assert np.isnan([below, above]).all()
    assert np.isnan(probability_of_improvement({"a": [1.0, 2.0]}, {"a": [1.0]})[1:]).all()


@pytest.mark.parametrize("unknown", [math.nan, math.inf, -math.inf])
def test_an_unknown_score_is_refused_with_its_run_and_task(unknown):
    scores = [[1.0, 2.0], [3.0, 4.0], [5.0, unknown]]
    with pytest.raises(RenshuError, match=f"scores: run 2 of task 1 scored {unknown}"):
        aggregate(scores)
    with pytest.raises(RenshuError, match="scores: run 1 of task 'Pong' scored"):
        performance_profile({"Breakout": [1.0], "Pong": [0.0, unknown]}, [0.5])
    with pytest.raises(RenshuError, match="y: run 2 of task 1 scored"):
        probability_of_improvement(TWO_RUNS, scores)


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: aggregate(TWO_RUNS, "iqr"), "no statistic 'iqr'; choose from 'iqm', 'mean'"),
        (lambda: aggregate(TWO_RUNS, confidence=1.0), "confidence 1.0"),
        (lambda: aggregate(TWO_RUNS, resamples=0), "0 resamples"),
        (lambda: aggregate([[1.0]], resamples=0), "0 resamples"),
        (lambda: aggregate([1.0, 2.0]), "a matrix"),
        (lambda: aggregate(np.zeros((0, 3))), "a matrix"),
        (lambda: aggregate(np.zeros((3, 0))), "a matrix"),
        (lambda: aggregate({}), "a matrix"),
        (lambda: aggregate({"a": []}), "a matrix"),
        (lambda: aggregate({"a": 1.0}), "a matrix"),
        (lambda: aggregate({"a": TWO_RUNS}), "a matrix"),
        (lambda: aggregate([[1.0, 2.0], [3.0]]), "give a dict"),
        (lambda: aggregate({"a": ["good"]}), r"scores\['a'\] are not an array of numbers"),
        (lambda: performance_profile(TWO_RUNS, 0.5), "thresholds: expected numbers"),
        (lambda: performance_profile(TWO_RUNS, [0.5, math.nan]), "none of them NaN"),
        (lambda: probability_of_improvement(TWO_RUNS, [[1.0], [2.0]]), r"\[0, 1\] and \[0\]"),
        (lambda: probability_of_improvement({"a": [1.0]}, {"b": [1.0]}), r"\['a'\] and \['b'\]"),
    ],
)
def test_what_cannot_be_computed_is_refused(call, words):
    with pytest.raises(RenshuError, match=words):
        call()


@pytest.mark.filterwarnings("error")
def test_profiles_of_several_algorithms_in_one_picture(tmp_path, monkeypatch):
    axes, save = [], reliability.save_figure
    monkeypatch.setattr(reliability, "save_figure", lambda figure, path: (axes.extend(figure.axes), save(figure, path)))
    scores = {"PPO $x$": X, "A2C": {"a": [0.5, 0.7], "b": [-1.0]}}
    plot_profiles(scores, tmp_path / "out.png", title="by $ name")
    assert imread(tmp_path / "out.png").shape[:2] == (675, 1200)
    (panel,) = axes
    first, second = panel.get_lines()
    levels = first.get_xdata()
    assert (levels[0], levels[-1]) == (-1.0, 2.2), "the lowest and the highest of all scores"
    np.testing.assert_array_equal(first.get_ydata(), performance_profile(X, levels)[0])
    np.testing.assert_array_equal(second.get_ydata(), performance_profile(scores["A2C"], levels)[0])
    assert panel.get_xlim() == (-1.0, 2.2), "a score, unlike a step, may be negative"
    assert [line.get_label() for line in (first, second)] == list(scores)
    assert (panel.get_xlabel(), panel.get_title(loc="left")) == ("score", "by $ name")
    plot_profiles({"A2C": Y}, tmp_path / "out.png", thresholds=THRESHOLDS)
    assert axes[1].get_lines()[0].get_xdata().tolist() == THRESHOLDS


def test_profiles_that_cannot_be_drawn_are_refused(tmp_path):
    with pytest.raises(RenshuError, match="at least one algorithm"):
        plot_profiles({}, tmp_path / "out.png")
    with pytest.raises(RenshuError, match="cannot write"):
        plot_profiles({"PPO": X}, tmp_path / "nowhere" / "out.png")
    with pytest.raises(RenshuError, match="PPO: run 0 of task 1"):
        plot_profiles({"PPO": [[1.0, math.nan]]}, tmp_path / "out.png", thresholds=[0.5])
