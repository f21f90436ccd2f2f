"""The examples run as they stand, with fewer steps."""

import importlib.util
from pathlib import Path

import numpy as np
import pytest

from renshu.tracking.comparison import final_returns

EXAMPLES = Path(__file__).parent.parent / "examples"


def example(name):
    spec = importlib.util.spec_from_file_location(name, EXAMPLES / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_own_environment(tmp_path):
    agent = example("own_environment").main(steps=40_000)
    assert agent.predict(np.array([12.0], np.float32))[0] > 0.5
    assert agent.predict(np.array([28.0], np.float32))[0] < -0.5
    assert agent.record(tmp_path / "room.gif").stat().st_size > 1000


def test_own_device_env(tmp_path):
    agent, experiment = example("own_device_env").main(seeds=4)
    assert agent.evaluate(50).mean > 0.9
    assert (final_returns(experiment.curves[0]) > 0.85).all()
    assert experiment.plot(tmp_path / "river.png").stat().st_size > 1000


def test_own_network(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    agent = example("own_network").main(steps=30_000)
    assert agent.evaluate(10).mean > 150


def test_own_algorithm(tmp_path):
    import renshu
    from renshu.errors import CheckpointError

    module = example("own_algorithm")
    agent = module.main(steps=60_000)
    assert agent.evaluate(10).mean > 100
    path = agent.save(tmp_path / "reinforce.safetensors")
    with pytest.raises(CheckpointError, match="algorithm=Reinforce"):
        renshu.load(path)
    again = renshu.load(path, algorithm=module.Reinforce)
    assert again.evaluate(3).returns == agent.evaluate(3).returns
