import io
import math
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays
from matplotlib.image import imread
from rich.console import Console

from renshu.errors import CheckpointError, RenshuError
from renshu.tracking.comparison import (
    Curves,
    bootstrap_band,
    carried,
    final_returns,
    interquartile_mean,
    plot_curves,
    read_csv,
    smooth,
    table,
    write_csv,
)

NUMBERS = st.floats(-1e6, 1e6) | st.just(math.nan)


def make_curves(label="PPO", seeds=4, points=20, level=100.0):
    rng = np.random.default_rng(seeds)
    steps = np.arange(1, points + 1) * 1000
    return Curves(label, steps, level + rng.normal(0, 5, (seeds, points)), list(range(seeds)))


def naive_iqm(column):
    known = sorted(value for value in column if math.isfinite(value))
    kept = known[len(known) // 4 : len(known) - len(known) // 4]
    return sum(kept) / len(kept) if kept else math.nan


def colours(png):
    """The colours of all pixels, each as one number 0xRRGGBB."""
    picture = (imread(png)[..., :3] * 255).round().astype(int)
    assert picture.shape == (675, 1200, 3)
    return set((picture @ [1 << 16, 1 << 8, 1]).ravel().tolist())


def printed(shown, width=120):
    console = Console(file=io.StringIO(), width=width)
    console.print(shown)
    return console.file.getvalue()


def test_interquartile_mean_of_known_numbers():
    assert interquartile_mean([-1000.0, 1, 2, 3, 4, 5, 6, 1e9]) == 3.5
    assert interquartile_mean([1.0, 2.0, 6.0]) == 3, "fewer than four values: nothing is cut"
    assert interquartile_mean([[0.0, 4, 8, 900]] * 2, axis=1).tolist() == [6, 6]
    assert math.isnan(interquartile_mean([math.nan, math.inf]))


@given(arrays(np.float64, array_shapes(min_dims=2, max_dims=2, max_side=12), elements=NUMBERS))
def test_interquartile_mean_equals_the_naive_one(values):
    np.testing.assert_allclose(interquartile_mean(values), [naive_iqm(row) for row in values.T], rtol=1e-9, atol=1e-6)
    np.testing.assert_array_equal(interquartile_mean(values.T, axis=1), interquartile_mean(values))


@pytest.mark.parametrize("statistic", ["mean", "iqm"])
@pytest.mark.parametrize("confidence", [0.8, 0.95])
def test_the_band_covers_the_true_value_as_often_as_it_says(statistic, confidence):
    # 2,000 points are 2,000 independent experiments of 40 seeds whose true mean is 3.
    values = np.random.default_rng(0).normal(3, 2, (40, 2000))
    low, high = bootstrap_band(values, statistic, confidence)
    assert abs(((low <= 3) & (high >= 3)).mean() - confidence) < 0.035


def test_the_band_of_the_mean_has_the_width_of_theory():
    low, high = bootstrap_band(np.random.default_rng(1).normal(0, 1, (100, 100)), resamples=20_000)
    assert (high - low).mean() == pytest.approx(2 * 1.96 / math.sqrt(100), rel=0.03)


def test_the_band_of_the_interquartile_mean_equals_resampling_by_hand():
    values = np.random.default_rng(2).normal(0, 1, (9, 1))
    drawn = values[np.random.default_rng(7).integers(9, size=(20_000, 9)), 0]
    expected = np.quantile(interquartile_mean(drawn, axis=1), [0.05, 0.95])
    band = bootstrap_band(values, "iqm", confidence=0.9, resamples=20_000)
    np.testing.assert_allclose(np.ravel(band), expected, atol=0.03)


def test_the_band_is_the_same_for_the_same_seed():
    values = make_curves(seeds=12).returns
    np.testing.assert_array_equal(bootstrap_band(values, seed=3), bootstrap_band(values, seed=3))
    assert (bootstrap_band(values, seed=3)[0] != bootstrap_band(values, seed=4)[0]).any()


def test_the_band_wants_more_than_half_of_the_seeds_and_at_least_two():
    values = np.array([[1, 1, 1, math.nan], [2, 2, math.nan, math.nan], [3, math.inf, math.nan, math.nan], [4] * 4])
    low, high = bootstrap_band(values)
    assert np.isnan(low).tolist() == np.isnan(high).tolist() == [False, False, True, True]
    assert np.isnan(bootstrap_band(np.ones((1, 3)))).all(), "one seed says nothing about others"
    assert bootstrap_band(np.zeros((3, 0)))[0].shape == (0,)


@settings(deadline=None, max_examples=50)
@given(
    arrays(np.float64, array_shapes(min_dims=2, max_dims=2, max_side=8), elements=NUMBERS),
    st.sampled_from(["mean", "iqm"]),
)
def test_the_band_lies_within_the_values(values, statistic):
    low, high = bootstrap_band(values, statistic, resamples=50)
    shown = np.isfinite(low)
    part = values[:, shown]
    slack = 1e-9 * (1 + np.abs(np.nan_to_num(part)).max(initial=0))
    assert (low[shown] <= high[shown]).all()
    assert (np.nanmin(part, axis=0, initial=math.inf) - slack <= low[shown]).all()
    assert (high[shown] <= np.nanmax(part, axis=0, initial=-math.inf) + slack).all()
    known = np.isfinite(values).sum(axis=0)
    np.testing.assert_array_equal(shown, (known >= 2) & (2 * known > len(values)))


@pytest.mark.parametrize(
    ("values", "options"),
    [(np.zeros(3), {}), (np.zeros((2, 2)), {"confidence": 1}), (np.zeros((2, 2)), {"resamples": 0})],
)
def test_the_band_refuses_nonsense(values, options):
    with pytest.raises(RenshuError, match="a confidence between 0 and 1"):
        bootstrap_band(values, **options)


def test_an_unknown_statistic_is_refused(tmp_path):
    for use in (
        lambda: bootstrap_band(np.zeros((2, 2)), "median"),
        lambda: plot_curves([make_curves()], tmp_path / "out.png", "median"),
        lambda: table([make_curves()], "median"),
    ):
        with pytest.raises(RenshuError, match="no statistic 'median'; choose from 'mean', 'iqm'"):
            use()


@pytest.mark.parametrize(
    ("steps", "returns", "seeds", "words"),
    [
        ([1, 2], [[1.0, 2.0, 3.0]], [0], "must have the shape"),
        ([1, 2], [[1.0, 2.0]], [0, 1], "must have the shape"),
        ([1, 2], np.zeros((0, 2)), [], "one seed or more"),
        ([2, 1], [[1.0, 2.0]], [0], "steps must grow"),
        ([1], [[1.0], [2.0]], [5, 5], "every seed must be another"),
    ],
)
def test_curves_that_do_not_fit_are_refused(steps, returns, seeds, words):
    with pytest.raises(RenshuError, match=words):
        Curves("PPO", steps, returns, seeds)


def test_smooth_averages_each_seed_and_keeps_what_is_unknown_at_the_start():
    rough = Curves("PPO", [1, 2, 3, 4], [[math.nan, 2, 4, 9], [1, math.nan, 5, 7]], [0, 1])
    smoothed = smooth(rough, 2)
    np.testing.assert_array_equal(smoothed.returns, [[math.nan, 2, 3, 6.5], [1, 1, 5, 6]])
    assert (smoothed.label, smoothed.steps.tolist(), smoothed.seeds) == ("PPO", [1, 2, 3, 4], [0, 1])
    assert rough.returns[0, 2] == 4


def test_final_returns_are_the_means_of_the_last_tenth():
    returns = np.tile(np.arange(30.0), (3, 1))
    returns[1, 28] = math.nan
    returns[2, 27:] = math.nan
    np.testing.assert_array_equal(final_returns(Curves("a", np.arange(30), returns, [0, 1, 2])), [28, 28, math.nan])
    assert final_returns(Curves("a", [1, 2], [[3.0, 5.0]], [0])).tolist() == [5]
    assert np.isnan(final_returns(Curves("a", [], np.zeros((1, 0)), [0]))).tolist() == [True]


def test_the_table_says_what_was_computed():
    exact = Curves("PPO [gamma=0.9]", [50_000, 100_000], [[0, level] for level in (100.0, 200, 200, 600)], [3, 4, 5, 6])
    text = printed(table([exact], "iqm"))
    low, high = bootstrap_band([[100.0], [200], [200], [600]], "iqm")
    for words in (
        "PPO [gamma=0.9]",
        "200.0",
        "600.0",
        "100,000",
        "interquartile mean",
        f"{low[0]:.1f} to {high[0]:.1f}",
    ):
        assert words in text
    assert "275.0" in printed(table([exact], "mean"))


def test_the_table_says_which_seeds_are_missing():
    some = Curves("some", [1], [[1.0], [math.nan], [3.0]], [0, 1, 2])
    none = Curves("none", [1], [[math.nan]], [0])
    empty = Curves("empty", [], np.zeros((1, 0)), [0])
    text = printed(table([some, none, empty], "mean"))
    assert "2 of 3" in text
    assert text.count("0 of 1") == 2
    assert "nan" not in text


def test_what_varies_has_columns_of_its_own_and_all_fits_into_80():
    many = [
        Curves(
            f"PPO learning_rate={a:g}, gamma={b:g}",
            [100_000],
            [[-1234.5], [-1200], [-1100]],
            [0, 1, 2],
            "PPO",
            {"learning_rate": a, "gamma": b},
        )
        for a in (1e-3, 3e-4)
        for b in (0.99, 0.999)
    ]
    text = printed(table(many), width=80)
    assert "..." not in text
    assert "…" not in text
    assert max(map(len, text.splitlines())) <= 80
    for a, b in ((0.001, 0.99), (0.001, 0.999), (0.0003, 0.99), (0.0003, 0.999)):
        assert sum(f"{a:g} " in line and f" {b:g} " in line for line in text.splitlines()) == 1
    assert "after 100,000 steps" in text
    assert "PPO" not in text
    both = [*many, Curves("A2C", [50], [[1.0]], [0])]
    text = printed(table(both), width=90)
    assert "A2C" in text
    assert "after 50 to 100,000 steps" in text


def test_values_are_carried_on_until_the_next():
    unknown = math.nan
    found = carried([[unknown, 1, unknown, unknown, 3], [2, unknown, math.inf, 4, unknown]])
    np.testing.assert_array_equal(found, [[unknown, 1, 1, 1, 3], [2, 2, 2, 4, 4]])
    assert carried(np.zeros((2, 0))).shape == (2, 0)


LABELS = st.text(st.characters(exclude_categories=["Cs"]), max_size=12)


@st.composite
def several_curves(draw):
    many = []
    for label in draw(st.lists(LABELS, unique=True, max_size=3)):
        steps = sorted(draw(st.lists(st.integers(0, 2**53), unique=True, min_size=1, max_size=5)))
        seeds = draw(st.lists(st.integers(-(2**31), 2**31), unique=True, min_size=1, max_size=4))
        many.append(Curves(label, steps, draw(arrays(np.float64, (len(seeds), len(steps)))), seeds))
    return many


@settings(deadline=None, max_examples=60)
@given(several_curves())
def test_csv_gives_back_what_was_written(tmp_path_factory, many):
    path = tmp_path_factory.getbasetemp() / "curves.csv"
    write_csv(many, path)
    back = read_csv(path)
    assert [(one.label, one.seeds) for one in back] == [(one.label, one.seeds) for one in many]
    for one, other in zip(back, many, strict=True):
        np.testing.assert_array_equal(one.steps, other.steps)
        np.testing.assert_array_equal(one.returns, other.returns)
        assert (one.steps.dtype, one.returns.dtype) == (np.int64, np.float64)


def test_csv_is_long_and_replaced_in_one_go(tmp_path):
    path = tmp_path / "curves.csv"
    path.write_text("old")
    write_csv([Curves("A, B", [10, 20], [[0.5, math.nan]], [7])], path)
    assert path.read_text() == 'label,seed,step,return\n"A, B",7,10,0.5\n"A, B",7,20,nan\n'
    assert [file.name for file in tmp_path.iterdir()] == ["curves.csv"]
    with pytest.raises(RenshuError, match="not all different"):
        write_csv([make_curves(), make_curves()], path)
    with pytest.raises(RenshuError, match="cannot write"):
        write_csv([make_curves()], tmp_path / "nowhere" / "curves.csv")


def test_csv_with_seeds_of_different_steps(tmp_path):
    path = tmp_path / "curves.csv"
    path.write_text("label,seed,step,return\nA,1,20,2\nA,1,10,1\nA,0,30,3\n")
    (curves,) = read_csv(path)
    assert (curves.seeds, curves.steps.tolist()) == ([1, 0], [10, 20, 30])
    np.testing.assert_array_equal(curves.returns, [[1, 2, math.nan], [math.nan, math.nan, 3]])


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "line 1: it does not begin with"),
        ("step,return\n", "line 1: it does not begin with"),
        ("label,seed,step,return\nA,0,1,2\nA,0,1\n", "line 3: 3 fields"),
        ("label,seed,step,return\nA,0,1,two\n", "line 2: could not convert"),
        ("label,seed,step,return\nA,0,1,2\nA,0,1,2\n", "line 3: seed 0 of 'A' has step 1 twice"),
    ],
)
def test_a_damaged_csv_is_refused(tmp_path, text, words):
    path = tmp_path / "curves.csv"
    path.write_text(text)
    with pytest.raises(CheckpointError, match=words):
        read_csv(path)


def test_a_missing_csv_is_refused(tmp_path):
    with pytest.raises(CheckpointError, match="cannot read"):
        read_csv(tmp_path / "curves.csv")


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("statistic", ["mean", "iqm"])
def test_every_label_has_its_colour_and_its_seeds_in_the_legend(tmp_path, statistic):
    from matplotlib.figure import Figure

    loaded = set(sys.modules)
    said = []

    class Watched(Figure):
        def legend(self, handles, labels, **options):
            said.extend(labels)
            return super().legend(handles, labels, **options)

    many = [make_curves("PPO $x$", 12), make_curves("A2C", 1, level=60), make_curves("one point", 3, 1, level=30)]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("matplotlib.figure.Figure", Watched)
        plot_curves(many, tmp_path / "out.png", statistic, title="a $ b $ c")
    assert said == ["PPO $x$ (12 seeds)", "A2C (1 seed)", "one point (3 seeds)"]
    assert {0x2563C9, 0xD9542B, 0x2A9161} <= colours(tmp_path / "out.png")
    assert 0x8455C6 not in colours(tmp_path / "out.png")
    assert "matplotlib.pyplot" not in set(sys.modules) - loaded, "it would hold global state"


@pytest.mark.filterwarnings("error")
def test_curves_with_little_in_them_can_be_drawn(tmp_path):
    unknown = Curves("unknown", [1, 2], np.full((2, 2), math.nan), [0, 1])
    empty = Curves("empty", [], np.zeros((1, 0)), [0])
    wild = Curves("wild", [1, 2, 3], [[math.nan, math.inf, 1], [1, -math.inf, 2]], [0, 1])
    plot_curves([unknown, empty], tmp_path / "nothing.png")
    assert len(colours(tmp_path / "nothing.png")) > 10
    plot_curves([wild], tmp_path / "wild.png")
    assert 0x2563C9 in colours(tmp_path / "wild.png")


def test_what_cannot_be_drawn_is_refused(tmp_path):
    with pytest.raises(RenshuError, match="at least one"):
        plot_curves([], tmp_path / "out.png")
    with pytest.raises(RenshuError, match="cannot write"):
        plot_curves([make_curves()], tmp_path / "nowhere" / "out.png")
