import contextlib
import io
import re

import nbformat
import pytest
from nbclient import NotebookClient

from renshu.agent.progress import Progress, rollouts_note
from renshu.agent.summary import describe
from tests import probes


def test_progress_on_a_pipe_prints_lines(tiny, capsys):
    agent = tiny(probes.Value).learn(300)
    *lines, _ = capsys.readouterr().err.splitlines()
    assert 5 <= len(lines) <= 11
    assert all(re.fullmatch(r"ppo Value: \d+ of 300 steps, [\d,]+ a second, mean return -?[\d.]+", x) for x in lines)
    assert f"{agent.steps} of 300" in lines[-1]
    assert tiny(probes.Value).learn(60, progress=False).steps >= 60
    assert capsys.readouterr().err == ""


class Terminal(io.StringIO):
    def isatty(self):
        return True


def test_progress_on_a_terminal_draws_a_bar(tiny, monkeypatch):
    terminal = Terminal()
    monkeypatch.setattr("sys.stderr", terminal)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.delenv("NO_COLOR", raising=False)
    agent = tiny(probes.Value)
    bar = Progress(60, agent.steps)
    agent.learn(60, progress=False, callbacks=bar)
    shown = re.sub(r"\x1b\[[\d;?]*[A-Za-z]", "", terminal.getvalue())
    assert re.search(r"0/60 steps +compiling", shown)
    last = shown.strip().splitlines()[-2]
    assert re.search(r"ppo Value .*60/60 steps +[\d,]+/s return -?[\d.]+ 0:00:0", last)
    assert len(last.rsplit("\r", 1)[-1]) <= 80
    assert terminal.getvalue().count("\x1b[?25h") == 1, "the cursor must be shown again"


def test_progress_counts_on_after_a_resume(tiny, monkeypatch, capsys):
    agent = tiny(probes.Value).learn(100, progress=False)
    begun = agent.steps
    agent.learn(100)
    *lines, _ = capsys.readouterr().err.splitlines()
    numbers = [int(re.search(r"(\d+) of", line)[1]) for line in lines if " a second" in line]
    assert begun < numbers[0] < numbers[-1]
    assert f"of {begun + 100} steps" in lines[-1]


def test_the_last_line_says_how_it_went_and_why_it_ended(tiny, capsys):
    def enough(agent, metrics):
        return False

    def last(**options):
        agent = tiny(probes.TimeLimit)
        with contextlib.suppress(ZeroDivisionError):
            agent.learn(3200, **options)
        return capsys.readouterr().err.splitlines()[-1]

    words = r"ppo TimeLimit: [\d,]+ steps in [\d.]+ s, [\d,]+ a second without compilation; "
    assert re.fullmatch(words + "all steps are done", last())
    assert re.fullmatch(words + "enough returned False", last(callbacks=enough))
    assert re.fullmatch(words + "the mean return of the recent episodes reached -5", last(stop_at=-5))
    assert re.fullmatch(words + "ZeroDivisionError", last(callbacks=lambda agent, metrics: 1 / 0))


@pytest.mark.parametrize(
    ("steps", "said"),
    [(20, "learns in rollouts of 32 steps (16 of each of 2 environments): it will make about 32, not 20"), (3200, "")],
)
def test_more_steps_than_asked_for_are_said_beforehand(tiny, capsys, steps, said):
    agent = tiny(probes.Value)
    assert rollouts_note(agent, steps).removeprefix("ppo Value ") == said
    assert "32 together; training ends with a whole one" in " ".join(describe(agent.trainer).split())
    agent.learn(20)
    assert "about 32, not 20" in capsys.readouterr().err.splitlines()[0]


def test_a_notebook_shows_bars_results_pictures_and_videos(tmp_path):
    cells = [
        "import renshu\nalgorithm = renshu.PPO(n_steps=16, batch_size=32, n_epochs=1, net_arch=[8])",
        "agent = algorithm.on('renshu/CartPole-v1', num_envs=2, seed=0)\nagent.learn(2_000)",
        "renshu.experiment(algorithm, 'renshu/CartPole-v1', seeds=2, steps=400, num_envs=2)",
        "agent.record('cart.mp4')",
    ]
    book = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(cell) for cell in cells])
    NotebookClient(book, timeout=120, kernel_name="python3", resources={"metadata": {"path": str(tmp_path)}}).execute()
    _, trained, compared, recorded = book.cells
    bars = [one["data"]["text/html"] for one in trained.outputs if "text/html" in one.get("data", {})]
    assert len(bars) == 1, "one bar, which moved"
    assert re.search(r'<progress value="2000" max="2000"></progress> <b>ppo CartPole-v1</b> 2,000/2,000 steps', bars[0])
    assert "return" in bars[0]
    said = "".join(one["text"] for one in trained.outputs if one["output_type"] == "stream")
    assert re.fullmatch(r"ppo CartPole-v1: [\d,]+ steps in .* all steps are done\n", said)
    result = next(one for one in compared.outputs if one["output_type"] == "execute_result")
    assert "<img" in result["data"]["text/html"]
    assert len(result["data"]["text/plain"]) < 600
    video = recorded.outputs[-1]["data"]
    assert video["text/html"].startswith("<video controls")
    assert "data:video/mp4;base64," in video["text/html"]
    assert "cart.mp4" in video["text/plain"]
    assert len(video["text/plain"]) < 600
