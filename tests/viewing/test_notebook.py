"""Results as a notebook shows them: short as text, tables and pictures as HTML."""

import base64
import re
from pathlib import Path

import pytest
from PIL import Image
from rich.table import Table
from rich.text import Text

import renshu
from renshu import DQN, PPO, SAC
from renshu.viewing.notebook import Shown, html_of
from tests.contract.algorithms import Choices


def test_a_table_and_a_picture(tmp_path):
    table = Table("name", "return")
    table.add_row(Text("<b>PPO</b> [gamma=0.9]"), "1")

    def draw(path):
        Image.new("RGB", (30, 20)).save(path)

    assert "<img" not in html_of(table)
    page = html_of(table, draw)
    assert "<b>" not in page, "a name is text"
    assert "gamma=0.9" in page
    picture = base64.b64decode(re.search(r'src="data:image/png;base64,([^"]+)"', page)[1])
    (tmp_path / "a.png").write_bytes(picture)
    assert Image.open(tmp_path / "a.png").size == (30, 20)


def test_an_algorithm_says_what_was_chosen():
    assert repr(PPO()) == "PPO()"
    assert repr(DQN(gamma=0.9, batch_size=8)) == "DQN(batch_size=8, gamma=0.9)"
    assert eval(repr(SAC(tau=0.1))) == SAC(tau=0.1)


def test_results_are_short_as_text_and_whole_as_html():
    a2c = renshu.A2C(n_steps=8, net_arch=[8])
    found = renshu.experiment(a2c, Choices(), seeds=2, steps=200, num_envs=2, progress=False)
    how = {"ranges": {"learning_rate": (1e-4, 1e-2)}, "steps": 200, "population_size": 2, "num_envs": 2}
    population = renshu.pbt(a2c, Choices(), **how, progress=False)
    for one in (found, population, found.agents[0], found.agents[0].evaluate(2), a2c):
        assert len(repr(one)) < 600
    assert "2 agents, A2C on Choices" in repr(found)
    for one, column in ((found, "95% interval"), (population, "learning_rate")):
        assert "<img" in one._repr_html_()
        assert column in one._repr_html_()


@pytest.mark.parametrize(("name", "tag"), [("a.mp4", "<video controls"), ("a.gif", "<img alt"), ("a.png", "<img alt")])
def test_a_file_shows_itself(tmp_path, name, tag):
    path = Shown(tmp_path / name)
    assert path._repr_html_() is None  # it is not there yet
    path.write_bytes(b"content")
    assert path._repr_html_().startswith(tag)
    assert base64.b64encode(b"content").decode() in path._repr_html_()
    assert path == tmp_path / name
    assert isinstance(path.parent, Path)


def test_other_and_large_files_show_nothing(tmp_path, monkeypatch):
    Shown(tmp_path / "a.csv").write_text("x")
    assert Shown(tmp_path / "a.csv")._repr_html_() is None
    monkeypatch.setattr("renshu.viewing.notebook._LARGEST", 2)
    Shown(tmp_path / "a.gif").write_text("xxx")
    assert Shown(tmp_path / "a.gif")._repr_html_() is None
