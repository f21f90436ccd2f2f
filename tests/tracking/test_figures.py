"""What all pictures of learning curves share."""

import numpy as np
import pytest
from PIL import Image

from renshu.errors import RenshuError
from renshu.tracking.figures import (
    colour_and_dashes,
    finish_axes,
    lone_marker,
    new_figure,
    save_figure,
    say_empty,
    thinned,
    wrapped,
)


def test_thinning_keeps_both_ends_and_every_short_curve():
    assert thinned(0).tolist() == []
    assert thinned(1).tolist() == [0]
    assert thinned(1999).tolist() == list(range(1999))
    long = thinned(1_000_000)
    assert (long[0], long[-1], long.size) == (0, 999_999, 2000)


def test_curves_look_different():
    looks = [colour_and_dashes(number) for number in range(40)]
    assert len(set(looks[:24])) == 24
    assert len({colour for colour, _ in looks[:8]}) == 8
    # Blue and violet, orange and ochre are one colour to one man in twelve.
    assert looks[0][1] != looks[3][1]
    assert looks[1][1] != looks[4][1]


def test_a_long_title_stays_within_the_picture():
    title = "; ".join(f"PPO learning_rate={x:g}, gamma=0.99" for x in range(8)) + " on CartPole-v1"
    lines = wrapped(title).split("\n")
    assert len(lines) == 2
    assert max(map(len, lines)) <= 78
    assert lines[1].endswith(" ...")
    assert wrapped("PPO on CartPole-v1") == "PPO on CartPole-v1"


@pytest.mark.parametrize(("size", "marker"), [(0, None), (1, "o"), (2, None)])
def test_only_a_single_point_needs_a_marker(size, marker):
    assert lone_marker(np.zeros(size)) == marker


@pytest.mark.filterwarnings("error")
def test_a_picture(tmp_path):
    figure, axes = new_figure()
    axes.plot([0, 1000], [1, 2], label="costs $5 a step", alpha=0.1)
    finish_axes(figure, axes, "$_bad^formula", "return: mean")
    save_figure(figure, tmp_path / "a.png")
    with Image.open(tmp_path / "a.png") as picture:
        assert picture.size == (1200, 675)
    assert (axes.get_title(loc="left"), axes.get_ylabel()) == ("$_bad^formula", "return: mean")
    (legend,) = figure.legends
    assert [text.get_text() for text in legend.get_texts()] == ["costs $5 a step"]
    assert [handle.get_alpha() for handle in legend.legend_handles] == [1]


@pytest.mark.filterwarnings("error")
def test_an_empty_picture(tmp_path):
    figure, axes = new_figure()
    say_empty(axes)
    finish_axes(figure, axes, "nothing")
    save_figure(figure, tmp_path / "a.png")
    assert not figure.legends
    assert [text.get_text() for text in axes.texts] == ["no finished episode yet"]
    with pytest.raises(RenshuError, match="cannot write"):
        save_figure(figure, tmp_path)
