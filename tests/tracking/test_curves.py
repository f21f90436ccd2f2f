import math
import sys

import numpy as np
import pytest
from matplotlib.image import imread
from PIL import Image

from renshu.errors import CheckpointError, RenshuError, UnknownNameError
from renshu.tracking import Run, moving_average, plot_runs, read_episodes, read_evaluations, read_metrics
from renshu.tracking.curves import _moving_moments


def make_run(path, episodes, evaluations=0, **settings):
    rng = np.random.default_rng(episodes)
    with Run.create(path, {"algorithm": "PPO", "environment": "CartPole-v1", **settings}) as run:
        steps = np.arange(1, episodes + 1) * 50
        run.log_episodes(steps, steps % 4, rng.normal(steps / 10, 5), steps // 50, steps / 1000)
        for step in range(1, evaluations + 1):
            run.log_evaluation(step * 100, rng.normal(step, 1, 5), [9] * 5)
    return path


def naive_moments(x, window):
    for place in range(len(x)):
        part = [value for value in x[max(0, place - window + 1) : place + 1] if math.isfinite(value)]
        yield (np.mean(part), np.std(part)) if part else (math.nan, math.nan)


def pixels(png):
    """[675 * 1200] every pixel's colour as one number, 0xRRGGBB."""
    picture = (imread(png)[..., :3] * 255).round().astype(int)
    assert picture.shape == (675, 1200, 3)
    return (picture @ [1 << 16, 1 << 8, 1]).ravel()


def has_colour(png, hexadecimal):
    return bool((pixels(png) == int(hexadecimal[1:], 16)).any())


def test_moving_average_grows_at_the_start():
    assert moving_average(np.array([1, 3, 5, 7, 9]), window=3).tolist() == [1, 2, 3, 5, 7]
    assert moving_average(np.array([4.0, 2.0]), window=100).tolist() == [4, 3]
    assert moving_average(np.array([4.0, 2.0]), window=1).tolist() == [4, 2]
    assert moving_average(np.array([])).shape == (0,)


@pytest.mark.parametrize("window", [1, 2, 7, 50, 200])
def test_moving_moments_equal_the_naive_ones(window):
    x = np.random.default_rng(0).normal(1e6, 3, 120)
    x[[0, 40, 41, 42]] = math.nan
    x[70] = math.inf
    mean, std = _moving_moments(x, window)
    expected = np.array(list(naive_moments(x, window)))
    np.testing.assert_allclose(mean, expected[:, 0], rtol=1e-12)
    np.testing.assert_allclose(std, expected[:, 1], atol=1e-5)


def test_moving_average_of_a_constant_is_that_constant():
    assert set(moving_average(np.full(1000, 0.1), window=7).tolist()) == {0.1}


@pytest.mark.parametrize(("x", "window"), [(np.zeros((2, 2)), 3), (np.zeros(3), 0)])
def test_moving_average_refuses_nonsense(x, window):
    with pytest.raises(RenshuError, match="one row of numbers and a window of 1 or more"):
        moving_average(x, window)


def test_an_empty_run_reads_as_empty_arrays(tmp_path):
    path = make_run(tmp_path / "run", 0)
    episodes, evaluations = read_episodes(path), read_evaluations(path)
    assert list(episodes) == ["step", "env", "return", "length", "seconds"]
    assert list(evaluations) == ["step", "mean", "std", "min", "max", "length", "episodes"]
    assert list(read_metrics(path)) == ["step"]
    assert {column.shape for column in (*episodes.values(), *evaluations.values())} == {(0,)}
    assert episodes["step"].dtype == np.int64
    assert episodes["return"].dtype == np.float64


@pytest.mark.parametrize("read", [read_episodes, read_evaluations, read_metrics])
def test_reading_what_is_no_run_is_refused(tmp_path, read):
    with pytest.raises(UnknownNameError, match="is not a run"):
        read(tmp_path)


@pytest.mark.parametrize("line", ["1,2,3", "1,2,3,4,five", "1,2,3,4,5#"])
def test_reading_a_damaged_table_is_refused(tmp_path, line):
    path = make_run(tmp_path / "run", 2)
    with open(path / "episodes.csv", "a") as file:
        file.write(line + "\n")
    with pytest.raises(CheckpointError, match=r"line 4 of .*episodes\.csv is not a row of 5 numbers"):
        read_episodes(path)


@pytest.mark.filterwarnings("error")
def test_one_run_shows_episodes_mean_evaluations_and_threshold(tmp_path):
    loaded = set(sys.modules)
    run = make_run(tmp_path / "run", 300, evaluations=10)
    plot_runs([run], tmp_path / "plain.png")
    with_threshold = make_run(tmp_path / "other", 300, evaluations=10, reward_threshold=20.0)
    plot_runs([with_threshold], str(tmp_path / "threshold.png"), window=10)
    for name in ("plain.png", "threshold.png"):
        assert has_colour(tmp_path / name, "#2563c9"), "moving average"
        assert has_colour(tmp_path / name, "#d9542b"), "evaluations"
    assert (pixels(tmp_path / "plain.png") != pixels(tmp_path / "threshold.png")).any()
    assert "matplotlib.pyplot" not in set(sys.modules) - loaded, "it would hold global state"


@pytest.mark.filterwarnings("error")
def test_several_runs_have_a_colour_each(tmp_path):
    runs = [make_run(tmp_path / f"cost$-{number}$", 20 + number) for number in range(3)]
    runs += [make_run(tmp_path / "empty", 0), make_run(tmp_path / "one", 1)]
    plot_runs(runs, tmp_path / "out.png", title="a $ b $ c")
    for colour in ("#2563c9", "#d9542b", "#2a9161", "#8455c6", "#c98a00"):
        assert has_colour(tmp_path / "out.png", colour)
    assert not has_colour(tmp_path / "out.png", "#0f98ad")


def test_several_environments_are_several_panels_and_other_folders_are_named(tmp_path):
    runs = [make_run(tmp_path / name, 20, environment=name[0]) for name in ("a1", "b1", "a2")]
    (tmp_path / "none").mkdir()
    with pytest.warns(UserWarning, match=r"left out: .*none"):
        plot_runs([*runs, tmp_path / "none"], tmp_path / "out.png")
    assert Image.open(tmp_path / "out.png").size == (1200, 1020)
    plot_runs(runs[::2], tmp_path / "alike.png")
    assert Image.open(tmp_path / "alike.png").size == (1200, 675)
    with pytest.raises(UnknownNameError, match=r"holds no settings\.json"):
        plot_runs([tmp_path / "none"], tmp_path / "out.png")
    with pytest.warns(UserWarning, match="left out"), pytest.raises(UnknownNameError, match="is the folder of a run"):
        plot_runs([tmp_path / "none", tmp_path / "nothing"], tmp_path / "out.png")


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize(("episodes", "evaluations"), [(0, 0), (1, 0), (0, 1), (0, 3), (2, 1)])
def test_short_runs_can_be_drawn(tmp_path, episodes, evaluations):
    run = make_run(tmp_path / "run", episodes, evaluations, reward_threshold=475.0)
    plot_runs([run], run / "curve.png")
    assert has_colour(run / "curve.png", "#2563c9") == (episodes > 0)
    assert has_colour(run / "curve.png", "#d9542b") == (evaluations > 0)
    assert len(np.unique(pixels(run / "curve.png"))) > 10
    assert not [path for path in run.iterdir() if path.name.startswith(".")]


@pytest.mark.filterwarnings("error")
def test_returns_that_are_not_finite_can_be_drawn(tmp_path):
    with Run.create(tmp_path / "run", {}) as run:
        run.log_episodes([1, 2, 3], [0, 0, 0], [math.nan, math.inf, 1.0], [1, 1, 1], [0, 0, 0])
        run.log_evaluation(3, [math.nan], [1])
    plot_runs([run.path], tmp_path / "one.png")
    plot_runs([run.path, run.path], tmp_path / "two.png")
    assert (tmp_path / "one.png").stat().st_size > 5000
    assert (tmp_path / "two.png").stat().st_size > 5000


def test_an_empty_run_says_so(tmp_path, monkeypatch):
    from matplotlib.axes import Axes

    said = []
    original = Axes.text
    monkeypatch.setattr(Axes, "text", lambda self, x, y, s, *a, **k: said.append(s) or original(self, x, y, s, *a, **k))
    plot_runs([make_run(tmp_path / "run", 0)], tmp_path / "out.png")
    assert said == ["no finished episode yet"]
    plot_runs([make_run(tmp_path / "other", 1)], tmp_path / "out.png")
    assert len(said) == 1


def test_what_cannot_be_drawn_is_refused(tmp_path):
    with pytest.raises(RenshuError, match="at least one run"):
        plot_runs([], tmp_path / "out.png")
    with pytest.raises(UnknownNameError, match="is not a run"):
        plot_runs([tmp_path], tmp_path / "out.png")
    with pytest.raises(RenshuError, match="cannot write"):
        plot_runs([make_run(tmp_path / "run", 3)], tmp_path / "nowhere" / "out.png")
