"""Data sets: written, read, cut anew; from arrays and from Minari."""

import json

import gymnasium
import jax
import numpy as np
import pytest
from gymnasium import spaces
from hypothesis import given, settings
from hypothesis import strategies as st

from renshu import Dataset
from renshu.errors import CheckpointError, SpaceError
from renshu.files import datasets
from renshu.files.checkpoint import load_tree, nested, save_tree
from renshu.files.datasets import DatasetWriter, in_memory
from renshu.ops.rollouts import blocks, joined
from renshu.types import EnvSpec
from tests.loops.tiny import same
from tests.replay.experience import episodes, ids_of, make_rollouts, observe, rows_of, transitions_of

SPACE = spaces.Dict(
    {"position": spaces.Box(-np.inf, np.inf, (2,), np.float32), "screen": spaces.Box(0, 255, (2, 3), np.uint8)}
)
SPEC = EnvSpec(SPACE, spaces.Discrete(1000), 2)


def transitions(rollout):
    """What can be learned from it, by the id of the observation, environment by environment."""
    found = {}
    for env in range(rollout.reward.shape[1]):
        for episode in episodes(rows_of(rollout, env)):
            found |= transitions_of(episode, 1, 0.5, 1)
    return found


@pytest.mark.parametrize("seed", range(3))
def test_a_folder_gives_back_what_was_written(seed, tmp_path, monkeypatch):
    monkeypatch.setattr(datasets, "CHUNK_BYTES", 2000)
    rollouts = make_rollouts(seed, 20, 5, 2, anew=0.0)
    writer = DatasetWriter(tmp_path / "data", SPEC)
    for rollout in rollouts:
        writer.append(rollout)
    writer.close()
    found = Dataset.open(tmp_path / "data")
    assert len(list((tmp_path / "data").glob("*.safetensors"))) > 2
    assert (found.rows, found.spec.num_envs) == (100, 2)
    whole, wanted = joined(list(found.chunks())), joined(rollouts)
    assert same(whole, wanted._replace(carry=(), extras=()))
    assert found.steps == wanted.valid.sum()
    copy = Dataset.open(found.save(tmp_path / "copy"))
    assert same(joined(list(copy.chunks())), whole)


@given(st.lists(st.integers(1, 9), min_size=1, max_size=6), st.integers(1, 8))
@settings(max_examples=40, deadline=None)
def test_blocks_are_the_same_rollouts_cut_anew(lengths, rows):
    parts = []
    stream = joined(make_rollouts(0, sum(lengths), 1, 2, anew=0.0))
    start = 0
    for length in lengths:
        cut = next(blocks(iter([jax.tree.map(lambda x, s=start: x[s:], stream)]), length))
        parts.append(cut)
        start += length
    found = list(blocks(iter(parts), rows))
    assert [len(block.reward) for block in found[:-1]] == [rows] * (len(found) - 1)
    assert same(joined(found), joined(parts))


def test_a_folder_that_is_taken_or_damaged_is_named(tmp_path):
    path = in_memory(make_rollouts(0, 1, 5, 2)[0], SPEC, "it").save(tmp_path / "data")
    with pytest.raises(CheckpointError, match="taken"):
        in_memory(make_rollouts(0, 1, 5, 2)[0], SPEC, "it").save(path)
    with pytest.raises(CheckpointError, match="is no data set"):
        Dataset.open(tmp_path / "nothing")
    about = json.loads((path / "spec.json").read_text())
    for wrong, message in (
        ({"format": 2}, "format 2"),
        ({"spec": {}}, "cannot be read"),
        ({"files": [{"file": "../other.safetensors"}]}, "not one of its folder"),
    ):
        (path / "spec.json").write_text(json.dumps(about | wrong))
        with pytest.raises(CheckpointError, match=message):
            Dataset.open(path)
    (path / "spec.json").write_text(json.dumps(about))
    file = path / "rollouts-00000.safetensors"
    file.write_bytes(file.read_bytes()[:-9])
    with pytest.raises(CheckpointError, match="damaged"):
        list(Dataset.open(path).chunks())


def resaved(file, **changes):
    """Write the arrays of a file again, some of them changed, with digests that are right."""
    header, leaves = load_tree(file)
    save_tree(file, nested({**leaves, **{name: change(leaves[name]) for name, change in changes.items()}}), header)


@pytest.mark.parametrize(
    "change",
    [
        {"rows": 10**12},
        {"rows": 0},
        {"rows": 1e400},
        {"rows": True},
        {"rows": "5"},
        {"steps": 11},
        {"files": []},
        {"files": {}},
        {"files": [{"file": "rollouts-00000.safetensors"}]},
        {"files": [{"file": 3, "rows": 5}]},
        {"format": None},
        {"format": "x"},
    ],
    ids=str,
)
def test_a_description_that_does_not_fit_is_named(change, tmp_path):
    path = in_memory(make_rollouts(0, 1, 5, 2)[0], SPEC, "it").save(tmp_path / "data")
    about = json.loads((path / "spec.json").read_text())
    (path / "spec.json").write_text(json.dumps(about | change))
    with pytest.raises(CheckpointError, match=r"spec\.json"):
        Dataset.open(path)


@pytest.mark.parametrize("text", ["[" * 990 + "]" * 990, "[" * 100_000, "[]", "null", "", '{"format": 1}', "\0"])
def test_a_description_that_is_none_is_named(text, tmp_path):
    path = in_memory(make_rollouts(0, 1, 5, 2)[0], SPEC, "it").save(tmp_path / "data")
    (path / "spec.json").write_text(text)
    with pytest.raises(CheckpointError, match=r"spec\.json"):
        Dataset.open(path)


@pytest.mark.parametrize(
    ("name", "change", "message"),
    [
        ("reward", lambda x: x[:-1], "reward is float32 of shape"),
        ("reward", lambda x: x * np.float32(np.nan), "reward holds NaN"),
        ("reward", lambda x: x[:, :1], "reward is float32 of shape"),
        ("first", lambda x: x.astype(np.float32), "first is float32"),
        ("action", lambda x: x + 10**6, "action holds numbers that Discrete"),
        ("action", lambda x: x - 10**6, "action holds numbers that Discrete"),
        ("action", lambda x: x[..., None], "action is"),
        ("obs/0", lambda x: x.astype(np.float32) * np.inf, "obs/0 holds NaN"),
        ("obs/1", lambda x: x[..., :1], "obs/1 is"),
    ],
)
def test_arrays_of_a_file_that_do_not_fit_its_description_are_named(name, change, message, tmp_path):
    path = in_memory(make_rollouts(0, 1, 5, 2)[0], SPEC, "it").save(tmp_path / "data")
    resaved(path / "rollouts-00000.safetensors", **{name: change})
    with pytest.raises(CheckpointError, match=rf"rollouts-00000\.safetensors: {message}"):
        list(Dataset.open(path).chunks())


def steps_in_a_row(rollout):
    """Arrays as others record them: real steps alone, with the observations that they led to."""
    rows = rows_of(rollout, 0)
    ids = ids_of(rollout.obs)[:, 0]
    real = np.flatnonzero(rollout.valid[:, 0])
    ended = np.append(rollout.first[1:, 0][1:], False)[real]
    terminated = rollout.terminated[real, 0]
    return {
        "obs": observe(ids[real]),
        "action": rollout.action[real, 0],
        "reward": rollout.reward[real, 0].astype(np.float64),
        "terminated": terminated,
        "truncated": ended & ~terminated,
        "next_obs": observe(np.array([rows[i + 1].id for i in real])),
    }


SPACES = {"observation_space": SPACE, "action_space": spaces.Discrete(1000)}


@pytest.mark.parametrize("seed", range(5))
def test_arrays_give_the_transitions_that_they_hold(seed):
    rollout = joined(make_rollouts(seed, 10, 5, 1, anew=0.0))
    arrays = steps_in_a_row(rollout)
    found = Dataset.open(arrays, **SPACES)
    (whole,) = found.chunks()
    assert transitions(whole) == transitions(rollout)
    assert found.steps == len(arrays["reward"])
    # Where nothing says that an episode was cut off, the observations do.
    quiet = {name: x for name, x in arrays.items() if name != "truncated"}
    assert transitions(next(Dataset.open(quiet, **SPACES).chunks())) == transitions(rollout)


def test_arrays_without_next_observations_leave_out_what_nothing_tells():
    rollout = joined(make_rollouts(1, 10, 5, 1, anew=0.0))
    arrays = steps_in_a_row(rollout)
    del arrays["next_obs"]
    with pytest.warns(UserWarning, match="left out"):
        found = Dataset.open(arrays, **SPACES)
    cut = arrays["truncated"].copy()
    cut[-1] |= not arrays["terminated"][-1]
    lost = set(ids_of(arrays["obs"])[cut].tolist())
    wanted = {i: t for i, t in transitions(rollout).items() if i not in lost}
    kept = transitions(next(found.chunks()))
    assert kept.keys() == wanted.keys()
    assert all(kept[i].next_obs == t.next_obs for i, t in wanted.items() if t.discount)
    assert all(kept[i][:4] == t[:4] for i, t in wanted.items())


def test_arrays_that_are_not_of_the_spaces_are_refused():
    arrays = steps_in_a_row(joined(make_rollouts(1, 4, 5, 1, anew=0.0)))
    for wrong, message in (
        ({"reward": arrays["reward"][:-1]}, "steps in a row"),
        ({"obs": {"position": arrays["obs"]["position"]}}, "obs is not of"),
        ({"obs": {**arrays["obs"], "position": arrays["obs"]["position"] * np.nan}}, "NaN or infinity, at step 0"),
        ({"actoin": 1}, "unknown: actoin"),
    ):
        with pytest.raises(SpaceError, match=message):
            Dataset.open({**arrays, **wrong}, **SPACES)
    floats = {
        "observations": np.zeros((4, 2)),
        "actions": np.zeros((4, 1)),
        "rewards": np.ones(4),
        "terminals": [0] * 4,
    }
    with pytest.raises(SpaceError, match="bounds of the actions"):
        Dataset.open(floats)
    with pytest.warns(UserWarning, match="1 of 4 steps"):
        assert Dataset.open(floats, action_space=spaces.Box(-1, 1, (1,))).steps == 3


def test_the_environment_tells_the_spaces():
    arrays = {"obs": np.zeros((5, 4)), "action": np.ones(5, int), "reward": np.ones(5), "terminated": np.arange(5) == 4}
    found = Dataset.open(arrays, env="CartPole-v1")
    assert found.spec.id == "CartPole-v1"
    assert found.spec.observation_space == gymnasium.make("CartPole-v1").observation_space
    assert found.spec.max_episode_steps == 500


def test_what_minari_wrote(tmp_path, monkeypatch):
    minari = pytest.importorskip("minari", reason="the extra `offline` is not installed")
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path))
    env = minari.DataCollector(gymnasium.make("Pendulum-v1", max_episode_steps=30))
    seen = []
    for episode in range(4):
        obs, _ = env.reset(seed=episode)
        for t in range(30 if episode % 2 else 7):
            action = np.array([np.sin(t + episode)], np.float32)
            after, reward, *_ = env.step(action)
            seen.append((obs, action, reward, after))
            obs = after
    env.create_dataset("pendulum/waves-v0")
    found = Dataset.open("minari:pendulum/waves-v0")
    assert found.spec.id == "Pendulum-v1"
    assert found.steps == len(seen) == 74
    (whole,) = found.chunks()
    real = np.flatnonzero(whole.valid[:, 0])
    assert len(whole.reward) == found.rows
    for i, (obs, action, reward, after) in zip(real, seen, strict=True):
        np.testing.assert_array_equal(whole.obs[i, 0], obs)
        np.testing.assert_array_equal(whole.obs[i + 1, 0], after)
        np.testing.assert_array_equal(whole.action[i, 0], action)
        assert whole.reward[i, 0] == np.float32(reward)
    assert not whole.terminated.any()
    with pytest.raises(CheckpointError, match="minari download"):
        Dataset.open("minari:pendulum/no-v0")
