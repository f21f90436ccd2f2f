import os
import shutil
import signal
import subprocess
import sys
import threading
import time

import jax
import numpy as np
import pytest

from renshu import Agent, load
from renshu.agent import training
from renshu.agent.callbacks import Callback
from renshu.errors import EnvironmentFault, NotFiniteError, RenshuError
from renshu.loops.interruption import Interruptions, Terminated
from renshu.tracking import Run, read_episodes
from tests import probes
from tests.envs.faulty import Counting, returning

# A test run in the background may ignore Ctrl-C, and its children would too.
LISTEN = "import signal; signal.signal(signal.SIGINT, signal.default_int_handler)"
SCRIPT = f"""
{LISTEN}
from renshu import PPO
agent = PPO(n_steps=16, batch_size=32, n_epochs=1, net_arch=[8]).on("CartPole-v1", num_envs=2, seed=0)
agent.learn(10_000_000, progress=False, run="run", callbacks=lambda agent, metrics: print("going", flush=True))
"""
TRAIN = "train ppo CartPole-v1 --no-preset --envs 2 --steps 300000 --eval-every 0 --checkpoint-every 0 --run run"
TINY = "--set n_steps=16 --set batch_size=32 --set n_epochs=1 --set net_arch=[8]"
RENSHU = [sys.executable, "-c", f"{LISTEN}; from renshu.cli import main; main()"]


def test_signals_become_exceptions():
    before = signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)
    for number, error in ((signal.SIGINT, KeyboardInterrupt), (signal.SIGTERM, Terminated)):
        with Interruptions(), pytest.raises(error):
            signal.raise_signal(number)
    assert Terminated().code == 143
    assert (signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)) == before


@pytest.mark.parametrize(("number", "error"), [(signal.SIGINT, KeyboardInterrupt), (signal.SIGTERM, Terminated)])
def test_a_signal_inside_deferred_waits(number, error):
    done = []

    def work(interruptions):
        with interruptions.deferred():
            with interruptions.deferred():
                signal.raise_signal(number)
                done.append("inner")
            done.append("outer")
        done.append("beyond")

    with Interruptions() as interruptions, pytest.raises(error):
        work(interruptions)
    assert done == ["inner", "outer"]


def test_nothing_waits_where_nothing_came():
    with Interruptions() as interruptions:
        with interruptions.deferred():
            pass
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
        with interruptions.deferred():
            done = True
    assert done


def test_an_ignored_signal_stays_ignored():
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        with Interruptions():
            signal.raise_signal(signal.SIGINT)
        assert signal.getsignal(signal.SIGINT) == signal.SIG_IGN
    finally:
        signal.signal(signal.SIGINT, before)


def test_training_in_another_thread(tiny):
    handlers, agent = [], tiny()
    thread = threading.Thread(
        target=lambda: agent.learn(
            40, progress=False, callbacks=lambda a, m: handlers.append(signal.getsignal(signal.SIGINT))
        )
    )
    thread.start()
    thread.join()
    assert agent.steps >= 40
    assert set(handlers) == {signal.getsignal(signal.SIGINT)}


def test_learn_again_after_ctrl_c(tiny):
    agent = tiny()

    def interrupt(agent, metrics):
        signal.raise_signal(signal.SIGINT)

    with pytest.raises(KeyboardInterrupt):
        agent.learn(640, progress=False, callbacks=interrupt)
    steps = agent.steps
    assert 0 < steps <= 32
    agent.learn(64, progress=False)
    assert agent.steps >= steps + 64
    assert int(agent.state.counters.steps) == agent.steps


def test_ctrl_c_in_an_environment_throws_the_half_rollout_away(tiny):
    interrupted = []

    def fault(step):
        if step == 20 and not interrupted:
            interrupted.append(step)
            signal.raise_signal(signal.SIGINT)

    agent = tiny(lambda: Counting(fault, length=10**9))
    with pytest.raises(KeyboardInterrupt):
        agent.learn(640, progress=False)
    assert agent.trainer.iteration == 1
    assert int(agent.state.counters.steps) == agent.steps == 32
    assert agent.learn(32, progress=False).trainer.iteration == 2


def test_ctrl_c_during_an_update_waits_until_it_is_counted(tiny, tmp_path, monkeypatch):
    agent, plain = tiny(probes.TimeLimit), tiny(probes.TimeLimit)
    learn = agent.trainer.programs.learn

    def interrupted(*inputs):
        signal.raise_signal(signal.SIGINT)
        return learn(*inputs)

    monkeypatch.setattr(agent.trainer.programs, "learn", interrupted)
    with pytest.raises(KeyboardInterrupt) as caught:
        agent.learn(640, progress=False, run=tmp_path / "run")
    plain.learn(1, progress=False)
    assert agent.steps == plain.steps == int(agent.state.counters.steps)
    assert jax.tree.all(jax.tree.map(np.array_equal, agent.parameters, plain.parameters))
    assert read_episodes(tmp_path / "run")["return"].tolist() == list(plain.recent_returns)
    assert f"as of step {agent.steps}" in caught.value.__notes__[0]
    again = Agent.resume(tmp_path / "run", env=probes.TimeLimit)
    assert again.steps == int(again.state.counters.steps) == agent.steps


def start(command, folder):
    return subprocess.Popen(
        command,
        cwd=folder,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONUNBUFFERED": "1"},
    )


def wait_for_training(process, folder):
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline and process.poll() is None:
        if (folder / "run" / "episodes.csv").exists():
            return
        time.sleep(0.02)
    process.kill()
    pytest.fail(f"training did not begin: {process.communicate()}")


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_the_command_line_saves_says_so_and_goes_on(number, code, tmp_path):
    process = start([*RENSHU, *TRAIN.split(), *TINY.split(), "--no-progress"], tmp_path)
    wait_for_training(process, tmp_path)
    process.send_signal(number)
    _, told = process.communicate(timeout=30)
    assert process.returncode == code, told
    (checkpoint,) = Run.open(tmp_path / "run").checkpoints
    assert told.splitlines()[0] == "stopped"
    assert f"saved in {os.path.relpath(checkpoint, tmp_path)}" in told
    assert "renshu train --resume run" in told
    assert "Traceback" not in told
    assert load(checkpoint).steps == int(checkpoint.stem[5:]) > 0
    if number == signal.SIGTERM:
        again = Agent.resume(tmp_path / "run").learn(100, progress=False)
        assert (np.diff(read_episodes(tmp_path / "run")["step"]) >= 0).all()
        assert load(Run.open(tmp_path / "run").agent_path).steps == again.steps


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, -signal.SIGINT), (signal.SIGTERM, 143)])
def test_a_script_saves_and_says_so(number, code, tmp_path):
    process = start([sys.executable, "-c", SCRIPT], tmp_path)
    assert process.stdout is not None
    assert process.stdout.readline() == "going\n"
    process.send_signal(number)
    _, told = process.communicate(timeout=30)
    assert process.returncode == code, told
    (checkpoint,) = Run.open(tmp_path / "run").checkpoints
    assert load(checkpoint).trainer.target == 10_000_000
    assert "renshu train --resume run" in told
    assert f"saved in {os.path.relpath(checkpoint, tmp_path)}" in told
    assert ("KeyboardInterrupt" if number == signal.SIGINT else "stopped") in told


def test_sigterm_without_a_run_folder_says_that_nothing_is_saved(tiny, capsys):
    def terminate(agent, metrics):
        signal.raise_signal(signal.SIGTERM)

    with pytest.raises(Terminated):
        tiny().learn(640, progress=False, callbacks=terminate)
    told = capsys.readouterr().err
    assert told.startswith("stopped\n")
    assert "Nothing was saved at step " in told


# --- faults ---------------------------------------------------------------------------------------------------------

NAN = (np.full(4, np.nan, np.float32), 0.0, False, False, {})
INFINITE = (np.zeros(4, np.float32), np.inf, False, False, {})


def falling(step):
    if step == 100:
        raise ValueError("the robot fell over")


@pytest.mark.parametrize(
    ("fault", "error", "match"),
    [
        (falling, EnvironmentFault, "the robot fell over"),
        (returning(NAN, at=100), NotFiniteError, "observation"),
        (returning(INFINITE, at=100), NotFiniteError, "reward"),
    ],
)
def test_a_fault_while_training_leaves_a_checkpoint(tiny, tmp_path, fault, error, match):
    agent = tiny(lambda: Counting(fault, length=10**9))
    with pytest.raises(error, match=match) as caught:
        agent.learn(640, progress=False, run=tmp_path / "run")
    notes = "\n".join(caught.value.__notes__)
    (checkpoint,) = Run.open(tmp_path / "run").checkpoints
    assert str(checkpoint) in notes
    assert f'renshu.Agent.resume("{tmp_path / "run"}", env=MyEnv).learn()' in notes, "the shell cannot name a lambda"
    assert agent.steps == 32 * 6, "the seventh rollout met the fault in its fourth step"
    saved = load(checkpoint, env=lambda: Counting(length=10**9))
    assert jax.tree.all(jax.tree.map(np.array_equal, saved.state, agent.state))
    assert int(saved.state.counters.steps) == saved.steps == agent.steps
    assert np.isfinite(np.concatenate([np.ravel(x) for x in jax.tree.leaves(saved.parameters)])).all()
    assert (tmp_path / "run" / "curve.png").exists()
    assert saved.learn(64, progress=False).steps == agent.steps + 64


def test_an_environment_that_fails_to_close_does_not_hide_the_fault(tiny, tmp_path):
    class Stuck(Counting):
        def close(self):
            raise OSError("stuck")

    def broken(agent, metrics):
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError) as caught:
        tiny(Stuck).learn(64, progress=False, run=tmp_path / "run", callbacks=broken)
    notes = "\n".join(caught.value.__notes__)
    assert "could not be closed: Stuck raised while closing: OSError: stuck" in notes
    assert load(Run.open(tmp_path / "run").checkpoints[0]).steps > 0


def test_a_run_that_cannot_be_saved_says_so(tiny, tmp_path):
    def broken(agent, metrics):
        agent.run.path.joinpath("checkpoints").rmdir()
        agent.run.path.joinpath("checkpoints").write_text("a file")
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError) as caught:
        tiny().learn(64, progress=False, run=tmp_path / "run", callbacks=broken)
    assert "could not be saved" in "\n".join(caught.value.__notes__)


class Failing(Callback):
    def on_end(self, agent):
        raise OSError("the curtain does not fall")


def undrawable(*_):
    raise OSError("no colours left")


@pytest.mark.parametrize("error", [ZeroDivisionError, KeyboardInterrupt, SystemExit])
def test_what_fails_at_the_end_does_not_hide_the_error(tiny, tmp_path, monkeypatch, error):
    """A curve, a callback, an agent, environments, none of which can be brought to an end."""

    class Stuck(Counting):
        def close(self):
            raise OSError("stuck")

    def broken(agent, metrics):
        monkeypatch.setattr(Agent, "checkpoint", lambda agent: 1 / 0)
        raise error("the first")

    monkeypatch.setattr(training, "plot_runs", undrawable)
    agent = tiny(Stuck)
    with pytest.raises(error, match="the first") as caught:
        agent.learn(64, progress=False, run=tmp_path / "run", callbacks=[broken, Failing()])
    notes = "\n".join(caught.value.__notes__)
    for part in ("no colours left", "the curtain does not fall", "stuck", "could not be saved", "division by zero"):
        assert part in notes
    assert f"is saved in {tmp_path / 'run-step_000000030.safetensors'}" in notes
    assert load(tmp_path / "run-step_000000030.safetensors", env=Counting).steps == agent.steps == 30
    assert agent.run is None


def test_a_curve_that_cannot_be_drawn_is_a_warning(tiny, tmp_path, monkeypatch):
    monkeypatch.setattr(training, "plot_runs", undrawable)
    with pytest.warns(UserWarning, match=r"curve could not be drawn.*no colours left.*renshu plot"):
        agent = tiny().learn(64, progress=False, run=tmp_path / "run")
    assert load(tmp_path / "run" / "agent.safetensors").steps == agent.steps


def test_a_run_folder_that_is_deleted_is_noticed_and_nothing_is_lost(tiny, tmp_path):
    steps = []

    def delete(agent, metrics):
        steps.append(agent.steps)
        if agent.steps == 320:
            shutil.rmtree(tmp_path / "run")

    agent = tiny(lambda: Counting(length=10**9))
    with pytest.raises(RenshuError, match="run is gone: it was deleted or moved") as caught:
        agent.learn(100_000, progress=False, run=tmp_path / "run", callbacks=delete)
    assert 320 < agent.steps < 1000, "noticed at the next rows that are written"
    assert not (tmp_path / "run").exists(), "half a run that nothing can go on from"
    (saved,) = tmp_path.glob("*.safetensors")
    assert str(saved) in "\n".join(caught.value.__notes__)
    again = load(saved, env=lambda: Counting(length=10**9))
    assert again.steps == agent.steps
    assert agent.learn(64, progress=False).steps == again.steps + 64, "the agent can go on"
