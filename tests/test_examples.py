"""The examples run as they stand, with fewer steps."""

import importlib.util
import re
import socket
from pathlib import Path

import gymnasium
import numpy as np
import pytest

import renshu
from renshu.errors import CheckpointError
from renshu.tracking.comparison import final_returns
from renshu.tracking.curves import read_episodes

HOME = Path(__file__).parent.parent
EXAMPLES = HOME / "examples"


def example(name):
    spec = importlib.util.spec_from_file_location(name, EXAMPLES / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def needs(package, extra):
    missing = importlib.util.find_spec(package) is None
    return pytest.mark.skipif(missing, reason=f"needs {package}: pip install 'renshu[{extra}]'")


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    """An empty folder to run in, for those that write beside themselves."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_all_are_listed_and_short():
    table = (HOME / "README.md").read_text().partition("## Examples")[2].partition("\n## ")[0]
    names = {path.name for path in EXAMPLES.glob("*.py")}
    assert set(re.findall(r"\(examples/(\w+\.py)\)", table)) == names
    lines = {name: len((EXAMPLES / name).read_text().splitlines()) for name in names}
    assert {name: count for name, count in lines.items() if count > 95} == {}


def test_own_environment(folder):
    module = example("own_environment")
    report = renshu.check_env(module.Rocket)
    assert report.ok, report
    agent = module.main(steps=45_000, video="rocket.gif")
    assert agent.evaluate(50, seed=1).success_rate > 0.9
    # From the right at rest it flies to the left; at the origin, moving to the right, it brakes.
    assert agent.predict(np.array([0.9, 0.0], np.float32))[0] < -0.3
    assert agent.predict(np.array([0.0, 0.9], np.float32))[0] < -0.3
    assert agent.predict(np.array([-0.9, 0.0], np.float32))[0] > 0.3
    assert (folder / "rocket.gif").stat().st_size > 1000


def test_the_rocket_flies_as_the_compiled_one():
    """One physics: the example's and `renshu/Rocket-v0`'s, from one start under the same thrusts."""
    ours = example("own_environment").Rocket(dt=0.01, render_mode="rgb_array")
    ours.reset(seed=0)
    theirs = gymnasium.make("renshu/Rocket-v0", x=float(ours.x), v=float(ours.v), reward="rest", goal=False)
    theirs.reset(seed=0)
    for thrust in np.random.default_rng(0).uniform(-1.5, 1.5, (60, 1)).astype(np.float32):
        a, b = ours.step(thrust), theirs.step(thrust)
        np.testing.assert_allclose(a[0], b[0], atol=1e-5)
        assert (a[1], a[2]) == (pytest.approx(b[1], abs=1e-5), b[2])
    ours.thrust = 1.0
    for ours.x in (-2.5, 0.0, 2.5):  # drawn beyond the ends of the track too
        assert ours.render().shape == (60, 240, 3)


def test_own_device_env(folder):
    agent, experiment = example("own_device_env").main(seeds=4)
    assert agent.evaluate(50).mean > 0.9
    assert (final_returns(experiment.curves[0]) > 0.85).all()
    assert experiment.plot(folder / "river.png").stat().st_size > 1000


def test_own_network():
    agent = example("own_network").main(steps=30_000)
    assert agent.evaluate(10).mean > 150


def test_own_algorithm(folder):
    module = example("own_algorithm")
    agents = module.main(steps=60_000)
    assert {agent.loop_name for agent in agents.values()} == {"host", "compiled"}
    assert all(agent.evaluate(10).mean > 100 for agent in agents.values())
    agent = agents["CartPole-v1"]
    path = agent.save(folder / "reinforce.safetensors")
    with pytest.raises(CheckpointError, match="algorithm=Reinforce"):
        renshu.load(path)
    again = renshu.load(path, algorithm=module.Reinforce)
    assert again.evaluate(3).returns == agent.evaluate(3).returns


@needs("mujoco", "mujoco")
def test_vec_normalize(folder):
    agent, loaded = example("vec_normalize").main(steps=4_000, episodes=5, folder=str(folder), net_arch=[16])
    assert (folder / "reacher.safetensors").exists()
    assert loaded.evaluate(5).returns == agent.evaluate(5).returns
    for ours, theirs in ((agent.state.obs_stats, loaded.state.obs_stats), (agent.state.reward_stats,) * 2):
        assert ours.count >= 4_000
        np.testing.assert_array_equal(ours.mean, theirs.mean)
        np.testing.assert_array_equal(ours.var, theirs.var)
    assert np.ptp(np.asarray(loaded.state.obs_stats.var)) > 1, "scales differ"
    observations = np.random.default_rng(0).normal(size=(20, 10)).astype(np.float32)
    before = loaded.predict(observations)
    np.testing.assert_array_equal(before, agent.predict(observations))
    fresh = loaded.state.obs_stats._replace(mean=np.zeros(10, np.float32), var=np.ones(10, np.float32))
    loaded.trainer.state = loaded.state._replace(obs_stats=fresh)
    assert np.abs(before - loaded.predict(observations)).max() > 0.1, "without the statistics it acts otherwise"


@needs("Box2D", "box2d")
def test_bipedal_dqn(folder):
    small = {"net_arch": [16], "learning_starts": 200, "batch_size": 16, "buffer_size": 5_000, "train_freq": 16}
    agent = example("bipedal_dqn").main(steps=5_000, run="walker", window=3, **small)
    assert agent.fitted.spec.action_space.n == 81
    assert (agent.algorithm.train_freq, agent.algorithm.double) == (16, True)
    assert len(read_episodes(folder / "walker")["return"]) > 3
    assert (folder / "walker" / "curve.png").stat().st_size > 10_000


class TestMnist:
    """Handwritten digits, without the net: the small ones of scikit-learn, and a stand-in for OpenML's."""

    pytestmark = needs("sklearn", "examples")

    def test_it_recognises_digits(self, folder, monkeypatch, capsys):
        def nowhere(*_, **__):
            raise socket.gaierror("no net")

        monkeypatch.setattr(socket, "getaddrinfo", nowhere)
        monkeypatch.setenv("SCIKIT_LEARN_DATA", str(folder))  # nor anything that was fetched earlier
        assert example("mnist").main() >= 0.95
        assert "scikit-learn, since OpenML cannot be reached (<urlopen error no net>)" in capsys.readouterr().out
        assert socket.getdefaulttimeout() is None

    def test_pictures_of_openml(self, monkeypatch, capsys):
        rng = np.random.default_rng(0)

        def fetch(name, **_):
            assert name == "mnist_784"
            return rng.integers(0, 256, (700, 784)), rng.integers(0, 10, 700).astype(str).astype(object)

        monkeypatch.setattr("sklearn.datasets.fetch_openml", fetch)
        x, y, epochs = example("mnist").load()
        assert (x.shape, x.min() >= 0, x.max() <= 1, y.dtype.kind, epochs) == ((700, 784), True, True, "i", 3)
        assert "MNIST from OpenML" in capsys.readouterr().out

    def test_other_faults_are_not_hidden(self, monkeypatch):
        def fetch(*_, **__):
            raise ValueError("damaged")

        monkeypatch.setattr("sklearn.datasets.fetch_openml", fetch)
        with pytest.raises(ValueError, match="damaged"):
            example("mnist").load()

    def test_without_scikit_learn(self, monkeypatch):
        monkeypatch.setitem(__import__("sys").modules, "sklearn", None)
        with pytest.raises(SystemExit, match=r"pip install -e .*examples"):
            example("mnist").load()


@needs("ale_py", "atari")
class TestAtari:
    """Games with tiny networks behind the convolutions: those take the time."""

    def test_breakout_random(self, folder):
        assert example("breakout_random").main("random", max_steps=60) >= 0
        assert {path.name for path in (folder / "random").iterdir()} == {"screen.png", "random.mp4"}

    def test_breakout_learned_and_played(self, folder, capsys):
        learn, play = example("breakout_a2c"), example("breakout_play")
        agent = learn.main(steps=4_000, run="run", every=20, save_every=40, net_arch=[16])
        lines = re.findall(r"^ *([\d,]+) steps   mean .* median .* min .* max", capsys.readouterr().out, re.MULTILINE)
        assert lines
        assert lines == list(dict.fromkeys(lines)), "each once"
        assert [path.name for path in (folder / "run").glob("weights_*")] == ["weights_000040.safetensors"]
        assert learn.main(steps=4_000, run="run").steps == agent.steps, "nothing was left to do"
        more = learn.main(steps=4_200, run="run", every=1)
        assert (more.steps >= 4_200, more.last_run.path) == (True, Path("run"))

        assert play.main("run", score=-1, out="videos/game.mp4") >= 0
        assert {path.name for path in (folder / "videos").iterdir()} == {"game.mp4"}
        assert play.main("run/agent.safetensors", score=1_000, out="never.mp4", games=1) < 1_000
        assert not list(folder.glob("*.mp4"))

    def test_transfer(self):
        scores = example("transfer").main(steps=300, games=1, net_arch=[16])
        assert list(scores) == ["untrained", "after ALE/DemonAttack-v5", "after ALE/SpaceInvaders-v5 too"]
        assert all(score.mean >= 0 and score.episodes == 1 for score in scores.values())
