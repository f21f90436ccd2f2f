import hashlib
import json
import os
import pickle
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from renshu.errors import CheckpointError
from renshu.files import checkpoint
from renshu.files.checkpoint import DTYPES, load_tree, nested, read_header, restore, save_tree
from renshu.files.replacing import replacing


class Moments(NamedTuple):
    mean: Any
    count: Any


TREE = {
    "params": {"actor": {"Dense_0": {"kernel": np.arange(6, dtype=np.float32).reshape(2, 3)}}},
    "moments": Moments(np.full(3, 0.5, ml_dtypes.bfloat16), np.int32(7)),
    "stack": (np.zeros((0, 2), np.uint8), [np.array([True, False])]),
}
HEADER = {
    "algorithm": "PPO",
    "gamma": 0.99,
    "clip": float("inf"),
    "net_arch": [64, 64],
    "note": "練習 \n \ud800",
    "n": None,
}


def same(first, second):
    """Equal structure, dtypes, shapes and bytes."""
    a, b = jax.tree_util.tree_flatten(first), jax.tree_util.tree_flatten(second)
    return a[1] == b[1] and all(
        (x.dtype, x.shape, np.asarray(x).tobytes()) == (y.dtype, y.shape, np.asarray(y).tobytes())
        for x, y in zip(a[0], b[0], strict=True)
    )


@pytest.fixture
def saved(tmp_path):
    path = tmp_path / "agent.safetensors"
    save_tree(path, TREE, HEADER)
    return path


def raw(header: str | bytes, data: bytes = b"") -> bytes:
    header = header.encode() if isinstance(header, str) else header
    return len(header).to_bytes(8, "little") + header + data


def sealed(text: str, file: bytes = b"\2" + bytes(7) + b"{}") -> bytes:
    """The file with `text` as its entry, by someone who makes the digest fit."""
    end = 8 + int.from_bytes(file[:8], "little")
    metadata = {"renshu": text, "sha256": hashlib.sha256(text.encode()).hexdigest()}
    return raw(json.dumps(json.loads(file[8:end]) | {"__metadata__": metadata}), file[end:])


def resealed(path: Path, **changes: Any) -> bytes:
    content = path.read_bytes()
    outer = json.loads(content[8 : 8 + int.from_bytes(content[:8], "little")])
    entry = json.loads(outer["__metadata__"]["renshu"]) | changes
    return sealed(json.dumps({key: value for key, value in entry.items() if value is not None}), content)


def test_what_is_saved_comes_back(saved):
    header, leaves = load_tree(saved)
    assert header == HEADER == read_header(saved)
    assert set(leaves) == {"params/actor/Dense_0/kernel", "moments/mean", "moments/count", "stack/0", "stack/1/0"}
    assert same(restore(jax.eval_shape(lambda: jax.tree.map(jnp.asarray, TREE)), leaves), TREE)
    assert all(leaf.flags.writeable for leaf in leaves.values())


@pytest.mark.parametrize("dtype", sorted(DTYPES))
def test_every_dtype_comes_back(dtype, tmp_path):
    tree = [np.array([[0, 1, 100]], dtype), np.array(1, dtype)]
    save_tree(tmp_path / "x", tree, {})
    assert same(restore(tree, load_tree(tmp_path / "x")[1]), tree)


@pytest.mark.parametrize(
    "array",
    [
        np.arange(6.0).reshape(2, 3).T,
        np.asfortranarray(np.arange(6.0).reshape(2, 3)),
        np.arange(6.0)[::-2],
        np.broadcast_to(np.float32(3), (2, 2)),
        np.arange(3, dtype=">i4"),
        jnp.arange(4.0, dtype=jnp.bfloat16),
        jax.random.key_data(jax.random.key(3)),
    ],
)
def test_arrays_of_any_layout(array, tmp_path):
    save_tree(tmp_path / "x", {"a": array}, {})
    np.testing.assert_array_equal(load_tree(tmp_path / "x")[1]["a"], np.asarray(array))


def test_a_tree_without_leaves_and_a_tree_that_is_a_leaf(tmp_path):
    save_tree(tmp_path / "x", {"a": (), "b": None}, {"k": 1})
    assert restore({"a": (), "b": None}, load_tree(tmp_path / "x")[1]) == {"a": (), "b": None}
    save_tree(tmp_path / "x", np.ones(2), {})
    assert same(restore(np.zeros(2), load_tree(tmp_path / "x")[1]), np.ones(2))


def test_awkward_keys_stay_apart(tmp_path):
    tree = {"a": {"b": np.array(1)}, "a/b": np.array(2), "a~1b": np.array(3), "": {"": np.array(4)}, "é": np.array(5)}
    save_tree(tmp_path / "x", tree, {})
    assert same(restore(tree, load_tree(tmp_path / "x")[1]), tree)


@given(st.recursive(st.integers(0, 9).map(np.int32), lambda t: st.dictionaries(st.text("a/~0", max_size=3), t)))
@settings(max_examples=100, deadline=None)
def test_any_keys_stay_apart(tree):
    leaves = checkpoint.named(tree)
    assert len(leaves) == len(jax.tree.leaves(tree))
    assert same(restore(tree, leaves), tree)


@pytest.mark.parametrize(
    ("tree", "match"),
    [
        ({"k": jax.random.key(0)}, "key_data"),
        ({"a": {"b": 3}}, "'a/b' is a int"),
        ({"a": np.zeros(2, np.complex64)}, "complex64.*float32"),
        ({"a": np.array(["text"])}, "dtype str"),
        ({"a": np.array([object()])}, "dtype object"),
        ({"a": np.zeros(2, ml_dtypes.float8_e5m2)}, "float8"),
        ({"__metadata__": np.zeros(2)}, "__metadata__"),
        ({"\ud800": np.zeros(2)}, "cannot write"),
    ],
)
def test_trees_that_cannot_be_saved(tree, match, tmp_path):
    with pytest.raises(CheckpointError, match=match):
        save_tree(tmp_path / "x", tree, {})
    assert list(tmp_path.iterdir()) == []


@jax.tree_util.register_pytree_with_keys_class
class Twins:
    def tree_flatten_with_keys(self):
        return [(jax.tree_util.DictKey(1), np.zeros(1)), (jax.tree_util.DictKey("1"), np.zeros(1))], None

    @classmethod
    def tree_unflatten(cls, aux, children):
        return cls()


def test_leaves_of_one_name_are_refused(tmp_path):
    with pytest.raises(CheckpointError, match="have the name 'a/1'"):
        save_tree(tmp_path / "x", {"a": Twins()}, {})


def test_headers_that_cannot_be_saved(tmp_path):
    circle: dict = {}
    circle["me"] = circle
    for header in ({"a": np.float32(1)}, {"a": {1, 2}}, circle):
        with pytest.raises(CheckpointError, match="JSON"):
            save_tree(tmp_path / "x", {}, header)
    assert list(tmp_path.iterdir()) == []


def test_restore_names_what_does_not_fit():
    leaves = {"a": np.zeros(2, np.float32), "b": np.zeros(3, np.float32), "x": np.zeros(1), "d": np.zeros(1, np.int32)}
    like = {"a": np.zeros(2, np.float32), "b": np.zeros(4, np.float32), "c": np.zeros(1), "d": np.zeros(1, np.float32)}
    with pytest.raises(CheckpointError) as caught:
        restore(like, leaves)
    for part in ("1 missing: c", "1 unexpected: x", "b is float32[3], should be float32[4]", "d is int32[1]"):
        assert part in str(caught.value)
    with pytest.raises(CheckpointError, match=r"5 unexpected: 0, 1, 2, \.\.\."):
        restore({}, {str(i): np.zeros(1) for i in range(5)})


def test_folders_are_made_and_files_replaced(tmp_path):
    path = tmp_path / "runs" / "one" / "agent.safetensors"
    save_tree(path, [np.zeros(2)], {"step": 1})
    save_tree(str(path), [np.ones(3)], {"step": 2})
    assert load_tree(str(path))[0] == {"step": 2}
    assert [p.name for p in path.parent.iterdir()] == ["agent.safetensors"]
    ordinary = tmp_path / "ordinary"
    ordinary.touch()
    assert path.stat().st_mode == ordinary.stat().st_mode


@pytest.mark.parametrize("call", ["replace", "fsync"])
def test_a_failure_leaves_the_old_file(call, saved, monkeypatch):
    before = saved.read_bytes()

    def fail(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(checkpoint.os, call, fail)
    with pytest.raises(CheckpointError, match="No space left") as caught:
        save_tree(saved, {"a": np.ones(9)}, {})
    assert str(saved) in str(caught.value)
    assert isinstance(caught.value.__cause__, OSError)
    assert saved.read_bytes() == before
    assert list(saved.parent.iterdir()) == [saved]


def test_no_room_for_the_file_leaves_the_old_one(saved):
    resource = pytest.importorskip("resource")
    before, limits = saved.read_bytes(), resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (65536, limits[1]))
    try:
        with pytest.raises(CheckpointError, match="too large"):
            save_tree(saved, {"a": np.zeros(200_000)}, {})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert saved.read_bytes() == before
    assert list(saved.parent.iterdir()) == [saved]


@pytest.mark.skipif(os.name != "posix", reason="kills itself with SIGKILL")
def test_a_kill_during_a_save_leaves_the_old_file(saved):
    before = saved.read_bytes()
    code = (
        "import os, signal, sys, numpy as np\nfrom renshu.files import checkpoint\n"
        "checkpoint.os.fsync = lambda fd: os.kill(os.getpid(), signal.SIGKILL)\n"
        "checkpoint.save_tree(sys.argv[1], {'a': np.ones(9)}, {})"
    )
    root = Path(checkpoint.__file__).parents[2]
    assert subprocess.run([sys.executable, "-c", code, str(saved)], cwd=root).returncode == -9
    assert saved.read_bytes() == before


def test_places_that_cannot_be_written(tmp_path):
    (tmp_path / "file").touch()
    for path in (tmp_path, tmp_path / "file" / "x", tmp_path / ("n" * 300)):
        with pytest.raises(CheckpointError, match="cannot write"):
            save_tree(path, {}, {})
    assert [p.name for p in tmp_path.iterdir()] == ["file"]


def test_missing_files_name_near_matches(saved, tmp_path):
    with pytest.raises(CheckpointError, match=r"did you mean agent\.safetensors"):
        load_tree(tmp_path / "agnet.safetensors")
    with pytest.raises(CheckpointError, match=r"did you mean agent\.safetensors"):
        read_header(tmp_path / "agent")
    with pytest.raises(CheckpointError, match="there is no folder"):
        load_tree(tmp_path / "nowhere" / "agent.safetensors")
    with pytest.raises(CheckpointError, match="is not a file"):
        load_tree(tmp_path)


def test_other_files_are_named_for_what_they_are(tmp_path):
    path = tmp_path / "x.safetensors"

    class Bomb:
        def __reduce__(self):
            return (os.mkdir, (str(tmp_path / "boom"),))

    with zipfile.ZipFile(tmp_path / "sb3.zip", "w") as archive:
        archive.writestr("data", "{}")
    contents = {
        b"": "is empty",
        (tmp_path / "sb3.zip").read_bytes(): "zip archive.*Stable-Baselines3",
        pickle.dumps(Bomb(), 4): "pickle",
        b"algorithm: ppo\nsteps: 10\n": "but text",
        '{"algorithm": "ppo", "name": "練習"}'.encode(): "but text",
        b"\x10\x02\x00": "only 3 bytes",
        b"\x7fELF" + bytes(60): "something else",
        raw("{}"): "did not save it",
        raw('{"__metadata__":{"format":"pt"}}'): "did not save it",
    }
    for content, match in contents.items():
        path.write_bytes(content)
        for read in (load_tree, read_header):
            with pytest.raises(CheckpointError, match=match):
                read(path)
    assert not (tmp_path / "boom").exists()


def test_newer_and_malformed_entries(saved):
    cases = {
        resealed(saved, format=checkpoint.FORMAT + 1, version="9.1", header=[]): "made by Renshu '9.1'.*upgrade",
        resealed(
            saved, format=checkpoint.FORMAT - 1, version="0.1"
        ): "made by Renshu '0.1'.*format 2.*load it with the version",
        resealed(saved, format=0): "names no format",
        resealed(saved, format="1"): "names no format",
        resealed(saved, version=None): "missing or of the wrong type: version",
        resealed(saved, header=[1], tensors=3): "missing or of the wrong type: header, tensors",
        resealed(saved, tensors="0" * 64): "arrays do not match",
    }
    for content, match in cases.items():
        saved.write_bytes(content)
        with pytest.raises(CheckpointError, match=match):
            load_tree(saved)


def tensor(dtype: str, shape: str, end: int) -> bytes:
    return raw(f'{{"a":{{"dtype":"{dtype}","shape":{shape},"data_offsets":[0,{end}]}}}}', b"x" * end)


def test_hostile_headers(tmp_path):
    path = tmp_path / "x"
    contents = [
        b"\xff" * 8 + b"{}",
        (2**40).to_bytes(8, "little") + b"{}",
        raw('{"a":' + "[" * 50_000),
        sealed("[" * 50_000),
        sealed("1" * 10_000),
        sealed("[]"),
        sealed("null"),
        raw('{"__metadata__":{"renshu":1}}'),
        raw('{"__metadata__":[]}'),
        raw(b'{"\xff":1}'),
        raw("{"),
        tensor("F32", "[-1]", 4),
        tensor("F32", "[9223372036854775807,9223372036854775807]", 4),
        tensor("F32", "[0,18446744073709551615]", 0),
        tensor("U8", str([1] * 100), 1),
        tensor("F8_E4M3", "[1]", 1),
        tensor("WHAT", "[1]", 1),
    ]
    for content in contents:
        path.write_bytes(content)
        for read in (load_tree, read_header):
            with pytest.raises(CheckpointError):
                read(path)


@pytest.mark.parametrize(
    ("dtype", "shape", "end"), [("F8_E4M3", "[1]", 1), ("U8", str([1] * 100), 1), ("F32", f"[0,{2**64 - 1}]", 0)]
)
def test_arrays_that_numpy_cannot_hold(dtype, shape, end, tmp_path):
    text = json.dumps({"format": checkpoint.FORMAT, "version": "0", "header": {}, "tensors": ""})
    (tmp_path / "x").write_bytes(sealed(text, tensor(dtype, shape, end)))
    assert read_header(tmp_path / "x") == {}
    with pytest.raises(CheckpointError, match="damaged"):
        load_tree(tmp_path / "x")


def loads_equal_or_raises(path: Path, content: bytes) -> bool:
    """Whether the bytes load; when they do, as what was saved. Nothing but a CheckpointError may be raised."""
    path.write_bytes(content)
    try:
        header, leaves = load_tree(path)
    except CheckpointError:
        return False
    assert header == HEADER
    assert same(restore(TREE, leaves), TREE)
    return True


def test_cut_short_at_every_length(saved):
    content = saved.read_bytes()
    for length in range(len(content)):
        saved.write_bytes(content[:length])
        with pytest.raises(CheckpointError, match="cut short" if length else "is empty"):
            load_tree(saved)
    assert not loads_equal_or_raises(saved, content + b"\0")


def test_one_changed_byte_anywhere(saved):
    content = saved.read_bytes()
    header_end = 8 + int.from_bytes(content[:8], "little")
    for at in range(len(content)):
        for flip in (0x01, 0x80, 0xFF):
            changed = bytearray(content)
            changed[at] ^= flip
            loaded = loads_equal_or_raises(saved, bytes(changed))
            assert not (loaded and at >= header_end)


@given(
    st.lists(st.tuples(st.integers(0, 10_000), st.integers(0, 255)), max_size=4),
    st.integers(0, 10_000) | st.none(),
    st.binary(max_size=8),
)
@settings(max_examples=300, deadline=None)
def test_any_damage_loads_equal_or_raises(tmp_path_factory, flips, length, tail):
    path = tmp_path_factory.getbasetemp() / "damaged.safetensors"
    save_tree(path, TREE, HEADER)
    content = bytearray(path.read_bytes())
    for at, value in flips:
        content[at % len(content)] = value
    loads_equal_or_raises(path, bytes(content[: length % len(content)] if length else content) + tail)


@given(st.binary(max_size=200) | st.binary(max_size=100).map(lambda b: raw(b"{" + b)))
@settings(max_examples=200, deadline=None)
def test_any_bytes_raise_a_checkpoint_error(tmp_path_factory, content):
    path = tmp_path_factory.getbasetemp() / "any.safetensors"
    path.write_bytes(content)
    for read in (load_tree, read_header):
        with pytest.raises(CheckpointError):
            read(path)


@pytest.mark.parametrize("names", [["a", "a/b"], ["a/b", "a"], ["x/a/b", "x/a/b/c/d"], ["", "/b"]], ids=str)
def test_a_name_is_not_both_an_array_and_a_folder(names):
    with pytest.raises(CheckpointError, match="both an array and a folder"):
        nested({name: np.zeros(2) for name in names})


# --- leftovers --------------------------------------------------------------------------------------------------------

KILLED = (
    "import os, signal, sys, numpy as np\nfrom renshu.files import checkpoint\n"
    "checkpoint.os.fsync = lambda fd: os.kill(os.getpid(), signal.SIGKILL)\n"
    "checkpoint.save_tree(sys.argv[1], {'a': np.ones(9)}, {})"
)


@pytest.mark.skipif(os.name != "posix", reason="kills itself with SIGKILL")
def test_the_next_save_removes_what_a_killed_one_left(saved):
    root = Path(checkpoint.__file__).parents[2]
    for _ in range(2):
        assert subprocess.run([sys.executable, "-c", KILLED, str(saved)], cwd=root).returncode == -9
        (left,) = [path for path in saved.parent.iterdir() if path != saved]
        assert list(left.iterdir()), "it was killed in the middle"
    other = saved.parent / ".renshu-notes.tmp"
    other.mkdir()
    save_tree(saved.parent / "other.safetensors", TREE, {})
    assert {path.name for path in saved.parent.iterdir()} == {saved.name, "other.safetensors", other.name}


def test_a_save_that_is_going_on_is_left_alone(saved):
    with replacing(saved) as first:
        first.write_bytes(b"first")
        with replacing(saved) as second:
            second.write_bytes(b"second")
    assert saved.read_bytes() == b"first"


def test_what_another_machine_left_is_removed_after_a_day(saved):
    left = saved.parent / ".renshu-00000000-1-00000000.tmp"
    left.mkdir()
    save_tree(saved, TREE, {})
    assert left.exists()
    os.utime(left, (0, 0))
    save_tree(saved, TREE, {})
    assert not left.exists()
