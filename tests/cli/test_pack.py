import pytest
import typer
from typer.testing import CliRunner

from renshu.cli import pack
from renshu.errors import RenshuError
from renshu.files.checkpoint import save_tree
from renshu.tracking import Run


@pytest.fixture
def call(tmp_path, monkeypatch):
    """A function that runs a command line in an empty folder with a run in it, and returns what was printed."""
    monkeypatch.chdir(tmp_path)
    app = typer.Typer()
    app.command("pack")(pack.pack)
    app.command("unpack")(pack.unpack)
    with Run.create("pong", {"algorithm": "PPO"}) as run:
        run.log_evaluation(3, [1.0], [1])
        save_tree(run.checkpoint_path(3), {}, {"algorithm": "PPO"})

    def call(*line):
        result = CliRunner().invoke(app, line)
        if isinstance(result.exception, RenshuError):
            raise result.exception
        assert result.exit_code == 0, result.output
        return result.output

    return call


def test_pack_and_unpack(call):
    assert call("pack", "pong") == "packed       pong.renshu.zip (0.0 MB)\n"
    assert call("unpack", "pong.renshu.zip", "--to", "again") == "run folder   again\n"
    assert Run.open("again").settings == Run.open("pong").settings
    assert Run.open("again").latest_checkpoint is None
    with pytest.raises(RenshuError, match="pong exists already"):
        call("unpack", "pong.renshu.zip")


def test_pack_with_the_newest_checkpoint_into_another_file(call):
    call("pack", "pong", "--checkpoints", "--out", "shared/pong-3.renshu.zip")
    assert call("unpack", "shared/pong-3.renshu.zip") == "run folder   pong-3\n"
    assert Run.open("pong-3").latest_checkpoint is not None


def test_the_help_names_the_options(call):
    assert "--checkpoints" in call("pack", "--help")
    assert "--to" in call("unpack", "--help")
