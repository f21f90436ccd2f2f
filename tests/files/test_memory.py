"""Replay memories in files: left out of saved agents, kept by checkpoints, large ones in a file beside these."""

import numpy as np
import pytest

import renshu
from renshu import DQN, Agent
from renshu.errors import CheckpointError
from renshu.files import agents, checkpoint
from tests.loops.tiny import same, without_target

SMALL = {"net_arch": [8], "batch_size": 8, "buffer_size": 200, "learning_starts": 60, "train_freq": 4}


def made(**changes):
    algorithm = DQN(**SMALL | changes, exploration_by="episodes")
    return algorithm.on("renshu/CartPole-v1", num_envs=2, seed=0)


def test_a_saved_agent_has_no_memory_and_learns_again_when_it_has_filled(tmp_path):
    agent = made().learn(400, progress=False)
    whole, plain = agent.save(tmp_path / "whole.safetensors", memory=True), agent.save(tmp_path / "plain.safetensors")
    assert plain.stat().st_size < whole.stat().st_size - 200 * 4 * 4
    again = renshu.load(plain)
    assert same(again.parameters, agent.parameters)
    assert again.trainer.held.memory == ()  # made when learning begins: to play takes as little as the weights do
    again.evaluate(1)
    again.predict(np.zeros(4, np.float32))
    again.summary()
    assert again.trainer.held.memory == ()
    assert renshu.load(again.save(tmp_path / "copy.safetensors", memory=True)).steps == again.steps
    assert int(again.state.memory.ring.size) == 0
    before = int(again.state.counters.updates)
    again.learn(48, progress=False)
    assert int(again.state.counters.updates) == before
    assert same(again.parameters, agent.parameters)
    again.learn(48, progress=False)
    assert int(again.state.counters.updates) > before
    other = renshu.load(whole).learn(48, progress=False)
    assert int(other.state.counters.updates) > before


def test_a_best_agent_has_none_and_a_checkpoint_has_it(tmp_path):
    made().learn(400, run=tmp_path / "a", eval_every=200, eval_episodes=1, checkpoint_every=200, progress=False)
    held = [int(renshu.load(path).state.memory.ring.size) for path in sorted((tmp_path / "a").glob("*.safetensors"))]
    assert held == [0, 0]  # agent and best
    assert int(Agent.resume(tmp_path / "a").state.memory.ring.size) == 100


def test_a_large_memory_is_one_file_for_all_checkpoints(tmp_path, monkeypatch):
    monkeypatch.setattr(agents, "LARGE", 1)
    monkeypatch.setattr("renshu.agent.loading.LARGE", 1)
    whole = made().learn(800, progress=False)
    half = made()
    half.learn(400, run=tmp_path / "a", checkpoint_every=100, progress=False)
    names = sorted(path.name for path in (tmp_path / "a" / "checkpoints").iterdir())
    assert (len(names), names[0]) == (4, "memory.safetensors")
    again = Agent.resume(tmp_path / "a")
    assert same(again.state.memory, half.state.memory)
    again.learn(800 - again.steps, progress=False)
    assert same(without_target(again.state), without_target(whole.state)), "as if nothing had been between"
    newest = sorted((tmp_path / "a" / "checkpoints").glob("step_*"))[-1]
    newest.write_bytes(newest.read_bytes()[:1000])
    with pytest.warns(UserWarning, match=r"memory.safetensors is the memory of step 80\d, and .*training goes on"):
        older = Agent.resume(tmp_path / "a")
    assert older.steps < again.steps
    older.learn(40, progress=False)


def test_a_memory_that_is_gone_or_damaged_is_named(tmp_path, monkeypatch):
    monkeypatch.setattr("renshu.agent.loading.LARGE", 1)
    made().learn(400, run=tmp_path / "a", checkpoint_every=400, progress=False)
    memory = tmp_path / "a" / "checkpoints" / "memory.safetensors"
    content = memory.read_bytes()
    memory.write_bytes(content[:-1])
    with pytest.raises(CheckpointError, match=r"memory.safetensors is damaged"):
        Agent.resume(tmp_path / "a")
    memory.unlink()
    with pytest.raises(CheckpointError, match=r"no file .*memory.safetensors"):
        Agent.resume(tmp_path / "a")


@pytest.mark.parametrize("size", [1, 7, 64, 2**20])
def test_arrays_are_written_in_slices(tmp_path, monkeypatch, size):
    """Whatever their size: what is read is what was written, by any reader of the format."""
    from safetensors.numpy import load_file

    rng = np.random.default_rng(0)
    tree = {
        "frames": rng.integers(0, 256, (13, 5, 3), np.uint8),
        "numbers": rng.normal(size=(7, 11)),
        "flags": rng.random((3, 2)) < 0.5,
        "scalar": np.float32(1.5),
        "nothing": np.zeros((0, 4), np.float32),
        "turned": rng.normal(size=(4, 6)).astype(np.float32).T,
    }
    monkeypatch.setattr(checkpoint, "SLICE_BYTES", size)
    checkpoint.save_tree(tmp_path / "a.safetensors", tree, {"a": 1})
    header, leaves = checkpoint.load_tree(tmp_path / "a.safetensors")
    assert header == {"a": 1}
    other = load_file(tmp_path / "a.safetensors")
    for name, value in tree.items():
        np.testing.assert_array_equal(leaves[name], value)
        np.testing.assert_array_equal(other[name], value)
