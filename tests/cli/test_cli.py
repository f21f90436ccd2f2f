import os
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest
from PIL import Image
from typer.testing import CliRunner

import renshu
import renshu.agent.agent  # these two before a test replaces the registry's function
import renshu.presets
from examples.own_algorithm import Reinforce
from renshu.cli import app
from renshu.errors import HyperparameterError
from renshu.tracking import Run, read_episodes

pytestmark = pytest.mark.usefixtures("compiled_fast")

SETTINGS = {"n_steps": 16, "batch_size": 32, "n_epochs": 1, "net_arch": [8]}
TINY = ["--no-preset", "--envs", "2", *(f"--set={name}={value}" for name, value in SETTINGS.items())]
QUIET = ["--eval-every", "0", "--checkpoint-every", "0", "--no-progress"]


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "120")
    monkeypatch.setenv("SDL_VIDEODRIVER", "dummy")


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A run folder with everything in it. It is only read."""
    path = tmp_path_factory.mktemp("cli") / "trained"
    line = ["train", "ppo", "CartPole-v1", *TINY, "--steps", "100", "--seed", "3", "--run", str(path)]
    result = CliRunner().invoke(app, line)
    assert result.exit_code == 0, result.output
    return path


def invoke(*line, code=0):
    result = CliRunner().invoke(app, [str(word) for word in line])
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    assert result.exit_code == code, result.output
    return result.output


def refused(*line):
    """What is told when a command line is refused: readable, on stderr, with exit code 2."""
    output = " ".join(invoke(*line, code=2).replace("│", " ").split())
    assert "Traceback" not in output
    assert not Path("runs").exists()
    return output


# --- train ----------------------------------------------------------------------------------------------------------


def test_train(trained):
    run = Run.open(trained)
    assert run.settings["hyperparameters"]["n_steps"] == 16
    assert run.settings["hyperparameters"]["net_arch"] == {"pi": [8], "vf": [8]}
    assert (run.settings["seed"], run.settings["num_envs"], run.settings["total_steps"]) == (3, 2, 100)
    assert (run.settings["eval_every"], run.settings["checkpoint_every"]) == (10, 10)
    assert run.settings["command"]
    for path in (run.agent_path, run.best_path, run.curve_path, *run.checkpoints):
        assert path.exists()
    agent = renshu.load(run.agent_path)
    assert agent.algorithm == renshu.PPO(**SETTINGS)
    assert 100 <= agent.steps < 132


def test_train_tells_what_it_does():
    output = invoke("train", "PPO", "CartPole", *TINY, *QUIET, "--steps", 40, "--seed", 3)
    assert "PPO on CartPole-v1, untrained, seed 3" in output
    assert "n_steps=16, net_arch=NetArch(pi=(8,), vf=(8,)), batch_size=32, n_epochs=1" in output
    assert max(map(len, output.splitlines())) <= 120
    for label in ("evaluation   ", "run folder   ", "curve        ", "agent        ", "watch it     renshu watch "):
        assert f"\n{label}" in output
    path = Path(next(line.split()[-1] for line in output.splitlines() if line.startswith("run folder")))
    assert path == Path("runs/ppo-CartPole-v1-1")
    assert Run.open(path).agent_path.exists()
    assert not Run.open(path).best_path.exists()
    invoke("train", "ppo", "CartPole-v1", *TINY, *QUIET, "--steps", 40)
    assert Path("runs/ppo-CartPole-v1-2").is_dir()


def test_presets_are_found_and_overridden():
    from renshu.cli.train import settings

    known = renshu.preset("ppo", "CartPole-v1")
    for name in ("CartPole-v1", "CartPole"):
        chosen = settings("ppo", name, ["n_epochs=3"], True)
        assert chosen.num_envs == known.num_envs
        assert chosen.algorithm.n_steps == known.algorithm.n_steps
        assert chosen.algorithm.n_epochs == 3
    assert settings("ppo", "CartPole-v1", [], False).algorithm == renshu.PPO()
    assert settings("ppo", "CartPole-v0", [], True).algorithm == renshu.PPO()
    chosen = settings("a2c", "CartPole-v1", ["learning_rate=linear:1e-3", "net_arch=[4]", "norm_obs=True"], False)
    assert chosen.algorithm == renshu.A2C(learning_rate=renshu.Linear(1e-3), net_arch=[4], norm_obs=True)


def test_arguments_of_the_environment():
    invoke("train", "ppo", "CartPole-v1", *TINY, *QUIET, "--steps", 200, "--env-set", "sutton_barto_reward=true")
    run = Run.open("runs/ppo-CartPole-v1-1")
    assert run.settings["env_kwargs"] == {"sutton_barto_reward": True}
    assert set(read_episodes(run.path)["return"]) == {-1.0}


def test_stop_at():
    invoke("train", "ppo", "CartPole-v1", *TINY, *QUIET, "--steps", 100_000, "--stop-at", 5, "--run", "a")
    assert len(read_episodes("a")["step"]) >= 100
    assert renshu.load("a/agent.safetensors").steps < 10_000
    assert Run.open("a").settings["stop_at"] == 5.0
    assert "has no registered reward threshold: give a number" in refused(
        "train", "ppo", "Pendulum-v1", *TINY, "--stop-at", "threshold"
    )


@pytest.mark.parametrize(("text", "bins"), [("3", 3), ("3,", None)], ids=str)
def test_bins(text, bins, monkeypatch):
    """Of an algorithm that takes only Discrete actions."""
    monkeypatch.setattr("renshu.algorithms.registry.algorithm", lambda name: Reinforce)
    line = ["train", "reinforce", "Pendulum-v1", "--set", "n_steps=8", *QUIET, "--steps", 16, "--run", "a", "--bins"]
    if bins is None:
        assert "--bins wants whole numbers with commas between them, not '3,'" in refused(*line, text)
        return
    assert "3 points: 3 actions" in invoke(*line, text)
    assert Run.open("a").settings["spaces"] == {"bins": 3, "frame_stack": 1}
    assert "keeps its settings" in refused("train", "--resume", "a", "--bins", 3)
    assert "bins=1: expected a whole number of at least 2" in refused(*line, 1)
    assert "sees one observation at a time and takes no frame_stack=4" in refused(*line, 3, "--frame-stack", 4)


def test_population_based_training(tmp_path):
    how = ("experiment", "a2c", "renshu/CartPole-v1", "--members", 3, "--steps", 600, "--envs", 2, "--no-progress")
    how = (*how, "--set", "net_arch=[8]")
    shown = invoke(*how, "--pbt", "learning_rate=1e-4..1e-2", "--out", tmp_path / "a")
    assert "3 members" in shown
    assert "learning_rate" in shown
    assert sorted(path.name for path in (tmp_path / "a").iterdir()) == ["best.safetensors", "pbt.csv", "pbt.png"]
    assert renshu.load(tmp_path / "a" / "best.safetensors").steps >= 600
    assert "1e-5..1e-2" in refused(*how, "--pbt", "learning_rate=0.1")
    assert "--pbt varies one" in refused(*how, "--pbt", "learning_rate=1e-4..1e-2", "--grid", "gamma=0.9,0.99")
    assert "--members says" in refused(*how, "--pbt", "learning_rate=1e-4..1e-2", "--seeds", 4)
    assert "--members is for --pbt" in refused(*how)


def test_bins_and_history_of_experiments(monkeypatch):
    given = {}

    def experiment(*_, **options):
        given.update(options)
        raise HyperparameterError("enough")

    monkeypatch.setattr("renshu.experiments.experiment.experiment", experiment)
    refused("experiment", "ppo", "renshu/Pendulum-v1", "--bins", "3,5", "--frame-stack", 2)
    assert (given["bins"], given["frame_stack"]) == ((3, 5), 2)


def test_resume():
    invoke("train", "ppo", "CartPole-v1", *TINY, *QUIET, "--steps", 40, "--run", "a")
    steps = renshu.load("a/agent.safetensors").steps
    output = invoke("train", "--resume", "a")
    assert f"a is complete: {steps} steps" in output
    output = invoke("train", "--resume", "a", "--steps", 50, "--no-progress")
    assert f"ppo CartPole-v1 goes on in a from step {steps}" in output
    assert steps + 50 <= renshu.load("a/agent.safetensors").steps < steps + 82
    assert "keeps its settings" in refused("train", "--resume", "a", "--set", "n_epochs=2")
    assert "is not a run" in refused("train", "--resume", "b")


@pytest.mark.parametrize(
    ("line", "match"),
    [
        ("train", "an algorithm and an environment, as in: renshu train ppo CartPole-v1"),
        ("train ppo", "an algorithm and an environment"),
        ("train pqo CartPole-v1", "there is no algorithm 'pqo'. There are: A2C, "),
        ("train ppo CartPol-v1", "Did you mean CartPole-v1"),
        ("train ppo CartPole-v1 --set lr=1", "PPO has no hyperparameter 'lr'"),
        ("train ppo CartPole-v1 --set gama=1", "Did you mean gamma"),
        ("train ppo CartPole-v1 --set gamma=2", "gamma must be"),
        ("train ppo CartPole-v1 --set learning_rate=fast", "'fast' is not a number"),
        ("train ppo CartPole-v1 --set gamma", "name=value, not 'gamma'"),
        ("train ppo CartPole-v1 --set network=Net", "from Python only"),
        ("train ppo CartPole-v1 --no-preset --set batch_size=100", "batch_size=100 does not divide"),
        ("train ppo CartPole-v1 --env-set colour=red", "colour"),
        ("train ppo CartPole-v1 --steps 0", "Invalid value for '--steps'"),
        ("train ppo CartPole-v1 --steps many", "Invalid value for '--steps'"),
        ("train ppo CartPole-v1 --envs 0", "Invalid value for '--envs'"),
        ("train ppo CartPole-v1 --seed -1", "Invalid value for '--seed'"),
        ("train ppo CartPole-v1 --stop-at soon", "a number or \"threshold\", not 'soon'"),
        ("train ppo FrozenLake-v1 --set norm_obs=maybe", "norm_obs must be True or False"),
        ("evaluate nowhere.safetensors", "there is no file nowhere.safetensors"),
        ("evaluate .", "not a run"),
        ("watch nowhere --record a.gif", "nowhere"),
        ("plot nowhere", "nowhere is not a run"),
        ("list pqo", "there is nothing called 'pqo' to list. Did you mean pqn or ppo"),
        ("list foo", "It has: algorithms, presets, environments, a2c, "),
        ("train ppo CartPole-v1 --set learning_rate=abc", "learning_rate: 'abc' is not a number; a schedule"),
        ("train ppo CartPole-v1 --steps 1.5", "expected a whole number, as 100000, 100_000 or 1e5, not '1.5'"),
        ("train ppo CartPole-v1 --eval-every often", "Invalid value for '--eval-every'"),
        ("fly", "No such command 'fly'"),
    ],
)
def test_what_is_refused(line, match):
    assert match in refused(*line.split())


# --- evaluate, watch, plot, list --------------------------------------------------------------------------------------


def test_evaluate(trained):
    output = invoke("evaluate", trained, "--episodes", 5)
    assert f"agent        {trained / 'best.safetensors'}" in output
    expected = renshu.load(trained / "best.safetensors").evaluate(5)
    assert f"return       {expected} (min {min(expected.returns):.1f}, max {max(expected.returns):.1f})" in output
    assert "episodes     5, greedy actions" in output
    output = invoke("evaluate", trained / "agent.safetensors", "--episodes", 5, "--sampled", "--seed", 4)
    sampled = renshu.load(trained / "agent.safetensors").evaluate(5, deterministic=False, seed=4)
    assert output.splitlines()[0].startswith(f"return       {sampled} ")
    assert "sampled actions" in output
    assert "made for CartPole-v1" in refused("evaluate", trained, "--env", "Acrobot-v1")
    assert "return " in invoke("evaluate", trained, "--env", "CartPole-v0", "--episodes", 2)
    output = invoke("evaluate", trained, "--env-set", "sutton_barto_reward=true", "--episodes", 2)
    assert "return       -1.00 ± 0.00" in output  # nothing for a step, -1 for the fall
    assert "kept in" not in output


def test_evaluate_falls_back(trained, tmp_path):
    run = tmp_path / "copy"
    shutil.copytree(trained, run)
    for name in ("best.safetensors", "agent.safetensors"):
        assert f"agent        {run / name}" in invoke("evaluate", run, "--episodes", 1)
        (run / name).unlink()
    assert "agent        " + str(Run.open(run).checkpoints[-1]) in invoke("evaluate", run, "--episodes", 1)
    shutil.rmtree(run / "checkpoints")
    assert "holds no agent yet" in refused("evaluate", run)


def test_watch_makes_a_video_without_noise(trained, tmp_path):
    code = "from renshu.cli import main; main()"
    line = [sys.executable, "-c", code, "watch", str(trained), "--record", "x.gif", "--seed", "1"]
    screens = ("DISPLAY", "WAYLAND_DISPLAY", "XDG_RUNTIME_DIR", "SDL_VIDEODRIVER")
    environment = {name: value for name, value in os.environ.items() if name not in screens}
    done = subprocess.run(line, capture_output=True, text=True, env=environment, check=True)
    assert done.stdout.splitlines()[-1] == "video        x.gif"
    assert done.stderr == ""
    with Image.open("x.gif") as image:
        assert image.is_animated


def test_watch_without_a_screen(trained, monkeypatch):
    monkeypatch.setattr(sys, "platform", "linux")
    for name in ("DISPLAY", "WAYLAND_DISPLAY", "SDL_VIDEODRIVER"):
        monkeypatch.delenv(name, raising=False)
    assert "there is no screen here. Make a video: renshu watch" in refused("watch", trained)


def test_watch_in_a_window(trained, monkeypatch):
    monkeypatch.setattr("renshu.viewing.play.has_screen", lambda: True)
    output = invoke("watch", trained, "--seed", 1)
    returns = [float(line.split("return ")[1].split(",")[0]) for line in output.splitlines() if "return" in line]
    assert len(returns) == 1
    assert returns[0] > 1


def test_watch_in_a_terminal(trained, monkeypatch):
    monkeypatch.delenv("SDL_VIDEODRIVER")
    output = invoke("watch", trained, "--terminal", "--episodes", 2, "--sampled", "--seed", 1)
    played = re.findall(r"^episode (\d)    return ([\d.]+), (\d+) steps$", output, re.MULTILINE)
    assert [number for number, _, _ in played] == ["1", "2"]
    assert [int(x) for x in re.findall(r"^step (\d+) of", output, re.MULTILINE)] == [
        step for _, _, length in played for step in range(int(length) + 1)
    ]
    assert "probability" in output
    assert "choose one of them" in refused("watch", trained, "--terminal", "--record", "a.gif")


def test_plot(trained, tmp_path):
    curve = tmp_path / "one.png"
    assert f"curve        {curve}" in invoke("plot", trained, "--out", curve)
    assert Image.open(curve).size == (1200, 675)
    other = tmp_path / "other"
    shutil.copytree(trained, other)
    (other / "curve.png").unlink()
    invoke("plot", other)
    assert (other / "curve.png").exists()
    assert "curve        curves.png" in invoke("plot", trained, other, "--window", 5)
    assert Image.open("curves.png").size == (1200, 675)


def test_list():
    output = invoke("list")
    for word in ("algorithms", "presets", "environments", "a2c ", "ppo ", "CartPole-v1", "Pendulum-v1"):
        assert word in output
    assert max(map(len, output.splitlines())) <= 120
    assert "CartPole-v0" not in invoke("list", "environments"), "the newest versions only"
    assert len(invoke("list", "environments").splitlines()) < 30
    assert "500,000 steps" in invoke("list", "presets")
    assert "algorithms" not in invoke("list", "algorithms").splitlines()[0]


@pytest.mark.parametrize("name", ["ppo", "PPO"])
def test_list_an_algorithm(name):
    output = invoke("list", name)
    for words in (
        "learning_rate             0.0003    step size",
        "net_arch                  None      widths",
        "target_kl",
    ):
        assert words in output
    assert "None" in output


def test_version_and_help():
    assert invoke("--version").strip() == f"renshu {renshu.__version__}"
    for command in ("train", "evaluate", "watch", "plot", "list"):
        assert command in invoke("--help")
    assert "--stop-at" in invoke("train", "--help")


def test_help_in_80_columns_cuts_nothing(monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    output = invoke("train", "--help")
    assert max(map(len, output.splitlines())) <= 80
    assert "…" not in output
    assert "learning_rate=linear:1e-3" in output


@pytest.mark.parametrize(("text", "number"), [("1e5", 100_000), ("100_000", 100_000), ("7", 7)])
def test_numbers_of_steps(text, number):
    from renshu.cli.agents import whole

    assert whole(text) == number


def test_help_is_quick():
    times = []
    for _ in range(5):
        began = time.perf_counter()
        subprocess.run(
            [sys.executable, "-c", "from renshu.cli import main; main()", "--help"], capture_output=True, check=True
        )
        times.append(time.perf_counter() - began)
        if times[-1] < 0.5:
            break
    assert min(times) < 0.5


def test_errors_of_a_real_process_are_one_paragraph():
    code = "from renshu.cli import main; main()"
    line = [sys.executable, "-c", code, "train", "ppo", "CartPole-v1", "--set", "gamma=2"]
    done = subprocess.run(line, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert len(done.stderr.splitlines()) == 1
    assert done.stderr.startswith("error: PPO: gamma must be")


def test_an_unforeseen_error_is_not_hidden(monkeypatch):
    def broken(*_):
        raise ZeroDivisionError

    monkeypatch.setattr("renshu.algorithms.registry.algorithms", broken)
    with pytest.raises(ZeroDivisionError):
        invoke("list", "algorithms")


def test_options_of_presets_and_of_the_line(monkeypatch):
    data = {"num_envs": 1, "total_steps": 64, "bins": 3, "frame_stack": 2, "learning_starts": 8, "net_arch": [4]}
    monkeypatch.setattr("renshu.presets.presets", lambda: {"dqn": {"Pendulum-v1": data}})
    invoke("train", "dqn", "Pendulum-v1", *QUIET, "--run", "a")
    assert Run.open("a").settings["spaces"] == {"bins": 3, "frame_stack": 2}
    invoke("train", "dqn", "Pendulum-v1", *QUIET, "--run", "b", "--bins", 4)
    assert Run.open("b").settings["spaces"] == {"bins": 4, "frame_stack": 2}


def test_masks():
    line = ["train", "qlearning", "Taxi-v4", "--no-preset", *QUIET, "--steps", 40]
    assert "action_mask" in invoke(*line, "--masks", "--run", "a")
    assert "action_mask" not in invoke(*line, "--no-masks", "--run", "b")
    assert "masks=True, but there are none" in " ".join(
        invoke("train", "ppo", "CartPole-v1", *TINY, "--masks", "--run", "c", code=2).split()
    )
