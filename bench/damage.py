"""Damage to files, seeded: flipped and cut bytes, and headers and arrays that lie with digests that are right."""

from __future__ import annotations

import json
import math
import random
from pathlib import Path
from typing import Any

import numpy as np

from renshu.files.checkpoint import load_tree, nested, save_tree


def deep(depth: int = 900) -> Any:
    """Make a list in a list in a list."""
    tree: Any = []
    for _ in range(depth):
        tree = [tree]
    return tree


VALUES: list[Any] = [None, True, False, -1, 0, 1, 3, 1000, 2**31, 2**32, 2**53, 2**63, 2**64, 10**30, 10**400]
VALUES += [
    0.5,
    -1e-300,
    1e308,
    math.nan,
    math.inf,
    -math.inf,
    "",
    "inf",
    "x" * 1000,
    "../../etc/passwd",
    "\0",
    "\ud800",
]
VALUES += [
    [],
    {},
    [[]],
    {"": {}},
    [None],
    [2**24] * 3,
    [0, 2**63],
    list(range(1000)),
    deep(),
    deep(100),
    {"type": "Box"},
]
BIG_BOX = {"type": "Box", "shape": [2**24], "dtype": "float64", "low": 0, "high": 1}
VALUES += [BIG_BOX, {"type": "Tuple", "spaces": [BIG_BOX] * 60}, {"type": "Discrete", "n": 2**62, "start": 0}]
"""Values that an entry of a header, of settings or of a description may be replaced with."""


def bytes_of(content: bytes, rng: random.Random) -> bytes:
    """Damage bytes as disks and editors do: flip, cut, lengthen, blank, move."""
    at, other = rng.randrange(len(content)), rng.randrange(len(content))
    low, high = min(at, other), max(at, other)
    match rng.randrange(6):
        case 0:
            return content[:at]
        case 1:
            return content[:at] + bytes([content[at] ^ (1 << rng.randrange(8))]) + content[at + 1 :]
        case 2:
            return content[:low] + bytes(high - low) + content[high:]
        case 3:
            return content[:low] + content[high:]
        case 4:
            return content[:at] + rng.randbytes(rng.randrange(1, 40)) + content[at:]
        case _:
            return content[high:] + content[:high]


def json_of(data: Any, rng: random.Random) -> Any:
    """Change one place of JSON data: another value, an entry more, less, or many times."""
    data = json.loads(json.dumps(data))
    places = list(_places(data))
    holder, key = rng.choice(places)
    match rng.randrange(8):
        case 0:
            del holder[key]
        case 1 if isinstance(holder, list):
            holder[:] = holder * rng.choice([2, 100, 3000])
        case 1 | 2:
            if isinstance(holder, dict):
                holder[rng.choice(["self", "", "loop", "x" * 50, "type", str(key) + "_"])] = rng.choice(VALUES)
            else:
                holder.insert(key, rng.choice(VALUES))
        case 3:
            holder[key] = [holder[key]]
        case 4 if isinstance(holder[key], int | float) and not isinstance(holder[key], bool):
            holder[key] = holder[key] * rng.choice([-1, 2, 10**3, 10**6, 10**9, 10**12])
        case _:
            holder[key] = rng.choice(VALUES)
    return data


def _places(data: Any) -> Any:
    """Yield every (container, key) in JSON data."""
    for key in list(data) if isinstance(data, dict) else range(len(data)):
        yield data, key
        if isinstance(data[key], dict | list):
            yield from _places(data[key])


def leaves_of(leaves: dict[str, Any], rng: random.Random) -> dict[str, Any]:
    """Change one array of a file: its name, its shape, its type, its numbers; or leave it out."""
    leaves = dict(leaves)
    name = rng.choice(sorted(leaves))
    match rng.randrange(6):
        case 0:
            del leaves[name]
        case 1:
            leaves[f"{name}/{rng.choice(['', 'b', '0'])}"] = np.zeros(2, np.float32)
        case 2:
            leaves[rng.choice(["loop/a", "loop/a/b", "loop", "learner", "loop/read", ""])] = np.zeros(3)
        case 3:
            shape = rng.choice([(0,), (1,), (3, 2), (1,) * 12])
            leaves[name] = np.zeros(shape, leaves[name].dtype)
        case 4:
            leaves[name] = leaves[name].astype(rng.choice([np.float64, np.int8, np.bool_, np.uint32]))
        case _:
            fill = rng.choice([0, -1, 127])
            leaves[name] = np.full_like(leaves[name], fill)
    return leaves


def file_of(path: Path, out: Path, rng: random.Random) -> None:
    """Write a damaged copy of a Renshu file: its bytes, or its header or arrays with digests that are right."""
    kind = rng.randrange(4)
    if kind == 0:
        out.write_bytes(bytes_of(path.read_bytes(), rng))
        return
    header, leaves = load_tree(path)
    leaves_only = kind == 3
    changed = leaves_of(leaves, rng) if leaves_only else leaves
    _write(out, header if leaves_only else json_of(header, rng), changed)


def text_of(path: Path, rng: random.Random) -> None:
    """Damage a text file in its place: its bytes, its lines, or what its JSON says."""
    content = path.read_bytes()
    if path.suffix == ".json" and rng.random() < 0.7:
        path.write_text(json.dumps(json_of(json.loads(content), rng)))
        return
    lines = content.split(b"\n")
    at = rng.randrange(len(lines))
    blank = [b"", b"  ", b",", b"nan,nan,nan,nan,nan", b"1e400,0,0,0,0", b"\0", b'"', b"step", b"9" * 400]
    match rng.randrange(4):
        case 0:
            lines.insert(at, rng.choice(blank))
        case 1:
            lines[at] = rng.choice(blank)
        case 2:
            lines[at : at + 1] = []
        case _:
            path.write_bytes(bytes_of(content, rng))
            return
    path.write_bytes(b"\n".join(lines))


def _write(out: Path, header: Any, leaves: dict[str, Any]) -> None:
    """Write a file with right digests. Names that make no tree are written flat, as a stranger could."""
    from renshu.errors import CheckpointError
    from renshu.files import checkpoint

    try:
        tree = nested(leaves)
    except CheckpointError:
        tree = None
    if tree is not None and checkpoint.named(tree).keys() == leaves.keys():
        save_tree(out, tree, header)
        return
    from safetensors.numpy import save_file

    leaves = {name: np.asarray(leaf, order="C") for name, leaf in leaves.items()}
    save_file(leaves, out, checkpoint._metadata(header, leaves))
