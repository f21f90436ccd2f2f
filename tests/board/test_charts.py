import csv
import io
import json

import numpy as np
import pytest

from renshu.board.charts import (
    comparison,
    empty_tables,
    history,
    importance,
    learning_curve,
    lengths,
    metric,
    numbers,
    population,
    slice_of,
)
from renshu.board.comparing import tables_of
from renshu.tracking.comparison import Curves
from tests.board.runs import write_run


def drawn(chart, name, kind="line"):
    return [
        one["data"] for one in chart["series"] if one["name"] == name and one["type"] == kind and "stack" not in one
    ]


def test_a_learning_curve_holds_episodes_their_mean_and_evaluations(tmp_path):
    tables, faults = tables_of(write_run(tmp_path / "a"))
    assert faults == []
    chart = learning_curve(tables, "steps", 90.0)
    (dots,) = drawn(chart, "episode", "scatter")
    assert (len(dots), dots[0], dots[-1]) == (60, [10, 0], [600, 100])
    (mean,) = drawn(chart, "mean of recent episodes")
    assert mean[-1] == [600, pytest.approx(50.0)]
    (evaluated,) = drawn(chart, "evaluation ± std")
    assert [step for step, _ in evaluated] == [10, 210, 410]
    low, high = (one["data"] for one in chart["series"] if "stack" in one)
    assert low[1][1] == pytest.approx(evaluated[1][1] - 1)
    assert high[1][1] == pytest.approx(2)
    assert chart["series"][1]["markLine"]["data"][0]["yAxis"] == 90.0


def test_wall_time_is_that_of_the_episodes_around(tmp_path):
    tables, _ = tables_of(write_run(tmp_path / "a"))
    chart = learning_curve(tables, "minutes")
    assert drawn(chart, "episode", "scatter")[0][-1][0] == pytest.approx(6 / 60)
    assert drawn(chart, "evaluation ± std")[0][1][0] == pytest.approx(2.1 / 60)
    assert chart["xAxis"]["name"] == "minutes"


def test_charts_of_a_run_that_has_not_begun_are_empty():
    for chart in (learning_curve(empty_tables(), "steps"), lengths(empty_tables(), "minutes")):
        assert all(one["data"] == [] for one in chart["series"])


def test_charts_are_json_also_where_values_are_not_numbers():
    tables = empty_tables()
    tables["metrics"] = {"step": np.array([1, 2, 3]), "loss": np.array([1.0, np.nan, np.inf])}
    chart = metric(tables, "loss", "steps")
    assert json.loads(json.dumps(chart, allow_nan=False))["series"][0]["data"] == [[1, 1.0], [2, None], [3, None]]


def test_tooltips_cannot_hold_html():
    assert learning_curve(empty_tables(), "steps")["tooltip"]["renderMode"] == "richText"


def test_a_comparison_draws_the_interquartile_mean_a_band_and_each_seed():
    returns = np.array([[0.0, 1], [1, 2], [2, 3], [100, 100]])
    chart = comparison([Curves("PPO", np.array([10, 20]), returns, [0, 1, 2, 3])], 90.0, ("RL Zoo PPO", 95.0))
    middle, *seeds = drawn(chart, "PPO")
    assert [line[-1][1] for line in seeds] == [1, 2, 3, 100]
    assert middle == [[10, 1.5], [20, 2.5]]
    assert sum("stack" in one for one in chart["series"]) == 2
    (marks,) = (one["markLine"]["data"] for one in chart["series"] if "markLine" in one)
    assert {mark["yAxis"] for mark in marks} == {90.0, 95.0}
    rows = list(csv.reader(io.StringIO(numbers(chart))))
    assert ["PPO, seed 3", "10", "100.0"] in rows
    low, high = (float(next(y for name, x, y in rows if (name, x) == (f"PPO, {end}", "20"))) for end in ("low", "high"))
    assert low < 2.5 < high


def test_the_mean_ends_where_half_of_the_seeds_have_ended():
    returns = np.array([[1.0, 1, 1], [2, 2, np.nan], [3, np.nan, np.nan]])
    chart = comparison([Curves("PPO", np.array([10, 20, 30]), returns, [0, 1, 2])])
    assert [height for _, height in drawn(chart, "PPO")[0]] == [2.0, 1.5, None]


def test_one_run_is_no_statistic():
    chart = comparison([Curves("PPO", np.array([10, 20]), np.array([[1.0, 2.0]]), [0])])
    assert chart["yAxis"]["name"] == "training return"


def test_a_population_is_a_line_for_each_member():
    members = {"member": np.array([0.0, 1, 0, 1]), "steps": np.array([1, 1, 2, 2]), "return": np.array([5.0, 6, 7, 8])}
    chart = population(members, "return")
    assert drawn(chart, "member 1") == [[[1, 6.0], [2, 8.0]]]


def test_numbers_are_those_of_the_picture_and_no_formulas(tmp_path):
    curves = [Curves("=HYPERLINK(1)", np.array([10, 20]), np.array([[1.0, np.nan]]), [0])]
    rows = list(csv.reader(io.StringIO(numbers(comparison(curves)))))
    assert rows == [["series", "x", "y"], ["'=HYPERLINK(1)", "10", "1.0"]]


def test_a_million_episodes_are_at_most_two_thousand_points():
    tables = empty_tables()
    count = 100_000
    tables["episodes"] = {name: np.arange(1, count + 1) for name in tables["episodes"]}
    assert len(drawn(learning_curve(tables, "steps"), "mean of recent episodes")[0]) == 2000


def test_the_history_of_a_search_has_the_best_so_far():
    chart = history(np.arange(4.0), np.array([2.0, np.nan, 5.0, 3.0]))
    assert drawn(chart, "trial", "scatter") == [[[0, 2], [2, 5], [3, 3]]]
    assert drawn(chart, "best so far") == [[[0, 2], [1, 2], [2, 5], [3, 5]]]
    assert history(np.zeros(0), np.zeros(0))["series"][0]["data"] == []


@pytest.mark.parametrize(
    ("values", "kind"),
    [([1e-4, 1e-2], "log"), ([0.9, 0.99], "value"), ([0.0, 1.0], "value"), (["tanh", "relu"], "category")],
)
def test_a_slice_is_drawn_on_an_axis_that_fits(values, kind):
    chart = slice_of("x", values, np.array([1.0, 2.0]))
    assert chart["xAxis"]["type"] == kind
    assert drawn(chart, "x", "scatter") == [[[values[0], 1.0], [values[1], 2.0]]]
    json.dumps(chart)
    assert len(numbers(chart).splitlines()) == 3


def test_importance_has_the_largest_at_the_top():
    chart = importance({"gamma": 0.2, "learning_rate": 0.7, "n_steps": 0.1})
    assert chart["yAxis"]["data"] == ["n_steps", "gamma", "learning_rate"]
    assert numbers(chart).splitlines()[-1] == "share,0.7,learning_rate"
