"""Episodes in a window, where there is a screen for one."""

import sys

import pytest

from renshu.errors import RenshuError
from renshu.viewing.play import has_screen


@pytest.fixture
def screens(monkeypatch):
    """A function that sets the variables that tell of screens, and clears the others."""
    monkeypatch.setattr(sys, "platform", "linux")

    def tell(**variables):
        for name in ("DISPLAY", "WAYLAND_DISPLAY", "SDL_VIDEODRIVER"):
            monkeypatch.delenv(name, raising=False)
        for name, value in variables.items():
            monkeypatch.setenv(name, value)

    return tell


@pytest.mark.parametrize(
    ("variables", "expected"),
    [
        ({}, False),
        ({"SDL_VIDEODRIVER": ""}, False),
        ({"SDL_VIDEODRIVER": "dummy"}, False),
        ({"DISPLAY": ""}, False),
        ({"DISPLAY": ":0", "SDL_VIDEODRIVER": "dummy"}, False),
        ({"DISPLAY": ":0"}, True),
        ({"WAYLAND_DISPLAY": "wayland-0"}, True),
        ({"SDL_VIDEODRIVER": "kmsdrm"}, True),
    ],
    ids=str,
)
def test_a_screen_is_a_display_that_windows_reach(screens, variables, expected):
    screens(**variables)
    assert has_screen() is expected


@pytest.mark.parametrize("variables", [{}, {"SDL_VIDEODRIVER": ""}, {"SDL_VIDEODRIVER": "dummy"}], ids=str)
def test_watching_without_a_screen_says_what_else_there_is(tiny, screens, variables):
    screens(**variables)
    with pytest.raises(
        RenshuError, match=r'no screen here.*agent\.record\("agent\.mp4"\).*agent\.watch\(terminal=True\)'
    ):
        tiny().watch()
