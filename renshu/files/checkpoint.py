"""Saving and loading a tree of arrays: one safetensors file with a JSON header. Nothing in it can run.

The file's metadata has two entries: `renshu`, a JSON object with the format, the version of Renshu, the caller's header
and a SHA-256 digest of the arrays (`tensors`); and `sha256`, the digest of that text. So the header can be trusted
without reading the arrays. These two entries keep their meaning in every future format.
"""

from __future__ import annotations

import contextlib
import difflib
import hashlib
import importlib.metadata
import json
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from safetensors import safe_open

from renshu.errors import CheckpointError
from renshu.files.replacing import replacing
from renshu.types import PyTree

FORMAT = 3
"""The format that this version writes, and the only one that it reads: agents of earlier ones hold other arrays."""

_CODES = {"bool": "BOOL", "float16": "F16", "bfloat16": "BF16", "float32": "F32", "float64": "F64"}
_CODES |= {f"{sign}int{bits}": f"{sign.upper() or 'I'}{bits}" for sign in ("", "u") for bits in (8, 16, 32, 64)}
DTYPES = frozenset(_CODES)
"""Names of the dtypes that can be saved: those that safetensors has, and can be read as NumPy arrays."""
SLICE_BYTES = 2**24
"""Bytes of an array that are written at a time."""

# safetensors keeps its own metadata under this name, so no leaf can have it.
_RESERVED = "__metadata__"


def save_tree(path: str | os.PathLike[str], tree: PyTree, header: Mapping[str, Any]) -> None:
    """Write a tree of arrays and a header to one safetensors file, completely or not at all.

    A leaf is stored under its path in the tree, `params/actor/Dense_0/kernel`: dictionary keys, field names and
    positions joined by "/". In a key, "/" is written "~1" and "~" is written "~0" (as in JSON Pointer, RFC 6901).
    The bytes go to a temporary file in the same folder first, so a crash or a full disk leaves the old file as it was.

    path: where to write; missing folders are made, an older file is replaced.
    tree: any pytree of NumPy or JAX arrays, of any shape, with a dtype in `DTYPES`. Typed PRNG keys are not supported:
        save `jax.random.key_data(key)`.
    header: information about the arrays, of JSON types only. Tuples come back as lists, keys that are not strings as
        strings.

    Raises CheckpointError when a leaf or the header cannot be stored, or when the file cannot be written.
    """
    path = Path(path)
    named, _ = _named_leaves(tree)
    for name, leaf in named.items():
        _check_storable(name, leaf)
    metadata = _metadata(header, named)
    try:
        with replacing(path) as temporary:
            _write(temporary, named, metadata)
    except (OSError, UnicodeError) as error:
        raise CheckpointError(
            f"cannot write {path}: {error}. Nothing was changed there; check the folder, its permissions and the free "
            "space, and save again"
        ) from error


def read_header(path: str | os.PathLike[str]) -> dict[str, Any]:
    """Return the header of a file written by `save_tree`, verified, without reading the arrays.

    Raises CheckpointError as `load_tree` does, but does not notice a change in the arrays.
    """
    with _opened(Path(path)) as file:
        return _parsed(Path(path), file.metadata())["header"]


def load_tree(path: str | os.PathLike[str]) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """Return header and arrays, by name, of a file written by `save_tree`. Everything is verified.

    Raises CheckpointError when there is no such file (naming near matches), when it is not a safetensors file or not
    Renshu's, when it was cut short or changed since it was saved, or when a newer version of Renshu made it.
    """
    path = Path(path)
    with _opened(path) as file:
        entry = _parsed(path, file.metadata())
        leaves = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - the file is not a mapping
    if _digest(leaves) != entry["tensors"]:
        raise CheckpointError(_changed(path, "its arrays do not match their digest"))
    return entry["header"], leaves


def restore(tree_like: PyTree, leaves: Mapping[str, np.ndarray]) -> PyTree:
    """Fill the structure of `tree_like` with loaded arrays, by name.

    tree_like: a pytree whose leaves have a shape and a dtype: arrays, or `jax.ShapeDtypeStruct` from `jax.eval_shape`.
    leaves: what `load_tree` returned. The arrays are put in as they are: NumPy arrays in host memory.

    Raises CheckpointError when a name is missing or unexpected, or when a shape or a dtype differs.
    """
    wanted, structure = _named_leaves(tree_like)
    faults = {
        "missing": [name for name in wanted if name not in leaves],
        "unexpected": [name for name in leaves if name not in wanted],
        "of another shape or dtype": [
            f"{name} is {_kind(leaves[name])}, should be {_kind(like)}"
            for name, like in wanted.items()
            if name in leaves and _kind(leaves[name]) != _kind(like)
        ],
    }
    if any(faults.values()):
        listed = "; ".join(f"{len(names)} {fault}: {_first(names)}" for fault, names in faults.items() if names)
        raise CheckpointError(
            f"the saved arrays do not fit. {listed}. Build with the algorithm, hyperparameters and spaces that they "
            "were saved with"
        )
    return jax.tree_util.tree_unflatten(structure, [leaves[name] for name in wanted])


def named(tree: PyTree) -> dict[str, Any]:
    """Return the leaves of a tree by the names that they have in a file."""
    return _named_leaves(tree)[0]


def nested(leaves: Mapping[str, Any]) -> dict[str, Any]:
    """Make a tree of dicts whose leaves have these names: `named(nested(leaves)) == leaves`.

    Raises CheckpointError where a name is both a leaf's and the beginning of another's.
    """
    tree: dict[str, Any] = {}
    for name, leaf in leaves.items():
        *folders, last = (part.replace("~1", "/").replace("~0", "~") for part in name.split("/"))
        at: Any = tree
        for folder in folders:
            at = at.setdefault(folder, {}) if isinstance(at, dict) else None
        if not isinstance(at, dict) or last in at:
            raise CheckpointError(f"the saved arrays do not fit: {name!r} is both an array and a folder of arrays")
        at[last] = leaf
    return tree


def _named_leaves(tree: PyTree) -> tuple[dict[str, Any], Any]:
    """Return the leaves of a tree by name, in order, and the tree's structure."""
    with_paths, structure = jax.tree_util.tree_flatten_with_path(tree)
    named: dict[str, Any] = {}
    for path, leaf in with_paths:
        parts = (jax.tree_util.keystr((key,), simple=True) for key in path)
        name = "/".join(part.replace("~", "~0").replace("/", "~1") for part in parts)
        if name in named or name == _RESERVED:
            raise CheckpointError(f"two leaves, or a leaf and the file's own metadata, have the name {name!r}: rename")
        if not (hasattr(leaf, "shape") and hasattr(leaf, "dtype")):
            raise CheckpointError(f"leaf {name!r} is a {type(leaf).__name__}, not an array: use numpy.asarray on it")
        if jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key):
            raise CheckpointError(f"leaf {name!r} is a typed PRNG key: use jax.random.key_data(key) in its place")
        named[name] = leaf
    return named, structure


def _check_storable(name: str, leaf: Any) -> None:
    dtype = np.dtype(leaf.dtype)
    if dtype.name not in DTYPES:
        raise CheckpointError(f"leaf {name!r} has dtype {dtype.name}, which cannot be saved: use {_first(DTYPES, 99)}")


def _slices(leaf: Any) -> Iterator[Any]:
    """Yield the bytes of an array, in C order and little-endian, a slice at a time: it may be larger than what is free.

    Of an array that is on another device no more is fetched than that.
    """
    dtype = np.dtype(leaf.dtype).newbyteorder("<")
    rows = leaf.shape[0] if leaf.ndim else 0
    each = max(1, SLICE_BYTES * max(rows, 1) // max(1, leaf.nbytes))
    parts = (leaf[i : i + each] for i in range(0, rows, each)) if leaf.ndim else iter([leaf])
    for part in parts:
        # bfloat16 arrays have no buffer of their own to read from.
        yield np.asarray(part, dtype=dtype, order="C").reshape(-1).view(np.uint8).data


def _write(path: Path, named: Mapping[str, Any], metadata: Mapping[str, str]) -> None:
    """Write a safetensors file: the length of its header in 8 bytes, the header, all arrays one after the other."""
    header: dict[str, Any] = {_RESERVED: dict(metadata)}
    # Widest first, so that each begins at a multiple of its width.
    order = sorted(named, key=lambda name: (-np.dtype(named[name].dtype).itemsize, name))
    end = 0
    for name in order:
        leaf, begin = named[name], end
        end += leaf.size * np.dtype(leaf.dtype).itemsize
        kind = _CODES[np.dtype(leaf.dtype).name]
        header[name] = {"dtype": kind, "shape": list(leaf.shape), "data_offsets": [begin, end]}
    text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % 8)
    with path.open("wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        for name in order:
            for part in _slices(named[name]):
                file.write(part)


def _metadata(header: Mapping[str, Any], arrays: Mapping[str, Any]) -> dict[str, str]:
    entry = {"format": FORMAT, "version": _version(), "tensors": _digest(arrays), "header": dict(header)}
    try:
        text = json.dumps(entry)
    except (TypeError, ValueError, RecursionError) as error:
        raise CheckpointError(f"the header cannot be written as JSON ({error}): use only plain Python types") from error
    return {"renshu": text, "sha256": hashlib.sha256(text.encode()).hexdigest()}


def _digest(arrays: Mapping[str, Any]) -> str:
    """Return the SHA-256 over names, dtypes, shapes and bytes of all arrays, whatever their order."""
    digest = hashlib.sha256()
    for name in sorted(arrays):
        array = arrays[name]
        digest.update(json.dumps([name, np.dtype(array.dtype).name, array.shape]).encode())
        for part in _slices(array):
            digest.update(part)
    return digest.hexdigest()


def _version() -> str:
    try:
        return importlib.metadata.version("renshu")
    except importlib.metadata.PackageNotFoundError:
        return "unknown (run from its source folder)"


@contextlib.contextmanager
def _opened(path: Path) -> Iterator[Any]:
    """Open a safetensors file for reading; whatever goes wrong, here or while reading, becomes a CheckpointError."""
    try:
        if not path.exists():
            raise CheckpointError(_not_found(path))
        if not path.is_file():
            raise CheckpointError(f"{path} is not a file: name the .safetensors file itself")
        _check_kind(path)
        with safe_open(path, framework="numpy") as file:
            yield file
    except CheckpointError:
        raise
    except OSError as error:
        raise CheckpointError(f"cannot read {path}: {error}") from error
    # Malicious bytes can raise nearly anything: AttributeError for a dtype that NumPy lacks, ValueError for a shape
    # that it cannot hold.
    except Exception as error:
        if "not fully covered" in str(error):
            raise CheckpointError(_changed(path, "its arrays are cut short, or something was added")) from error
        raise CheckpointError(_changed(path, str(error))) from error


def _not_found(path: Path) -> str:
    if not path.parent.is_dir():
        return f"there is no file {path}: there is no folder {path.parent}"
    # By stem, so that a name without its suffix is found too.
    near = [name for name in os.listdir(path.parent) if difflib.get_close_matches(path.stem, [Path(name).stem])]
    return f"there is no file {path}" + (f": did you mean {_first(near)}?" if near else "")


def _check_kind(path: Path) -> None:
    """Raise CheckpointError when the first bytes are not those of a safetensors file, saying what they are instead."""
    with path.open("rb") as file:
        head = file.read(512)
        size = os.fstat(file.fileno()).st_size
    if not head:
        raise CheckpointError(f"{path} is empty: it holds no checkpoint")
    if head[8:9] == b"{":
        length = int.from_bytes(head[:8], "little")
        if length > size - 8:
            raise CheckpointError(
                _changed(path, f"cut short: its header should have {length} bytes, {size - 8} are there")
            )
        return
    if len(head) <= 8:
        kind = f"only {len(head)} bytes: it was cut short, or it never was one"
    elif head.startswith(b"PK\x03\x04"):
        kind = "a zip archive, as Stable-Baselines3 and PyTorch write; Renshu cannot load those"
    elif head[0] == 0x80 and head[1:2] in (b"\x02", b"\x03", b"\x04", b"\x05"):
        kind = "a Python pickle; loading one could run any code, so Renshu never does"
    elif all(byte >= 32 or byte in b"\t\n\r" for byte in head):
        kind = "text"
    else:
        kind = "something else, or its first bytes were changed"
    raise CheckpointError(f"{path} is not a safetensors file but {kind}. Give a file that agent.save wrote")


def _parsed(path: Path, metadata: Mapping[str, str] | None) -> dict[str, Any]:
    """Return the verified `renshu` entry of a file's metadata."""
    if not metadata or "renshu" not in metadata:
        raise CheckpointError(
            f"{path} is a safetensors file, but Renshu did not save it. Its arrays can be read with "
            "safetensors.numpy.load_file"
        )
    text = metadata["renshu"]
    if hashlib.sha256(text.encode()).hexdigest() != metadata.get("sha256"):
        raise CheckpointError(_changed(path, "its header does not match its digest"))
    try:
        entry = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise CheckpointError(_changed(path, f"its header is not JSON: {error}")) from error
    types = {"format": int, "version": str, "header": dict, "tensors": str}
    if not isinstance(entry, dict) or not isinstance(entry.get("format"), int) or entry["format"] < 1:
        raise CheckpointError(_changed(path, "its header names no format"))
    if entry["format"] < FORMAT:
        raise CheckpointError(
            f"{path} was made by Renshu {entry.get('version')!r} in format {entry['format']}, whose agents hold other "
            f"arrays than those of format {FORMAT}, which Renshu {_version()} reads: load it with the version "
            "that made it, or train the agent again"
        )
    if entry["format"] > FORMAT:
        raise CheckpointError(
            f"{path} was made by Renshu {entry.get('version')!r} in format {entry['format']}; this is Renshu "
            f"{_version()}, which reads format {FORMAT}: upgrade Renshu"
        )
    wrong = [key for key, kind in types.items() if not isinstance(entry.get(key), kind)]
    if wrong:
        raise CheckpointError(_changed(path, f"in its header, missing or of the wrong type: {_first(wrong)}"))
    return entry


def _changed(path: Path, reason: str) -> str:
    return f"{path} is damaged: {reason}. It is not as it was saved; use another copy or save it again"


def _kind(array: Any) -> str:
    return f"{np.dtype(array.dtype).name}{list(array.shape)}"


def _first(names: Any, count: int = 3) -> str:
    names = sorted(names)
    return ", ".join(names[:count]) + (", ..." if len(names) > count else "")
