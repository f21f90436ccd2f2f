import numpy as np
import pytest

from renshu.envs.builtin.drawing import box, canvas, disc, line

BLACK, RED = (0, 0, 0), (255, 0, 0)


def ink(image: np.ndarray) -> float:
    """How many pixels of black were drawn."""
    return float((255 - image[..., 0].astype(np.float64)).sum() / 255)


def test_canvas_is_white():
    image = canvas(3, 5)
    assert image.shape == (3, 5, 3)
    assert image.dtype == np.uint8
    assert (image == 255).all()


def test_box_covers_its_area_and_mixes_at_the_edges():
    image = canvas(10, 10)
    box(image, 2, 3, 5.5, 5, BLACK)
    assert (image[3:5, 2:5] == 0).all()
    assert (image[3:5, 5] == 128).all()
    assert ink(image) == pytest.approx(7, abs=0.05)
    assert (image[5:] == 255).all()


def test_box_takes_corners_in_any_order():
    one, other = canvas(10, 10), canvas(10, 10)
    box(one, 2, 3, 5.5, 5, RED)
    box(other, 5.5, 5, 2, 3, RED)
    assert (one == other).all()
    assert (one[3, 2] == RED).all()


def test_disc_covers_its_area():
    image = canvas(40, 40)
    disc(image, 20, 20, 10, BLACK)
    assert ink(image) == pytest.approx(np.pi * 100, rel=0.01)
    assert (image[20, 20] == 0).all()
    assert (image == image[::-1]).all()
    assert (image == image[:, ::-1]).all()


@pytest.mark.parametrize(("x1", "y1"), [(50, 10), (10, 50), (40, 40), (45, 22)])
def test_line_covers_its_length_times_its_width(x1, y1):
    image = canvas(60, 60)
    line(image, 10, 10, x1, y1, 4, BLACK)
    length = np.hypot(x1 - 10, y1 - 10)
    assert ink(image) == pytest.approx(4 * length + np.pi * 4, rel=0.02)
    assert (image[int(5 + y1 / 2), int(5 + x1 / 2)] == 0).all()


def test_shapes_are_cut_off_at_the_borders():
    image = canvas(10, 10)
    box(image, -1e9, -5, 2, 1e9, BLACK)
    assert (image[:, :2] == 0).all()
    assert (image[:, 2:] == 255).all()
    whole = canvas(10, 10)
    box(whole, -50, -50, -20, -20, BLACK)
    box(whole, 50, 3, 80, 4, BLACK)
    line(whole, -50, -50, -20, -20, 3, BLACK)
    line(whole, 50, 3, 80, 4, 3, BLACK)
    disc(whole, 5, 100, 20, BLACK)
    assert (whole == 255).all()


def test_line_half_outside_draws_the_half_inside():
    image = canvas(10, 10)
    line(image, -100, 5, 5, 5, 2, BLACK)
    assert (image[4:6, :5] == 0).all()
    assert (image[:, 7:] == 255).all()
