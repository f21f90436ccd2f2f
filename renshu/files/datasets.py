"""Data sets: experience that was recorded, in a folder, in memory, or as Minari keeps it.

A folder holds `spec.json`, which describes the environments, and files of rollouts that follow on each other:
`rollouts-00000.safetensors` with obs and first `[T+1, N, ...]`, action, reward and terminated `[T, N, ...]`. Actions
are the environment's own. Nothing in a file can run.
"""

from __future__ import annotations

import json
import reprlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import jax
import numpy as np
from gymnasium import spaces

from renshu.envs.again import named_again
from renshu.envs.source import EnvSource
from renshu.envs.spec import spec_from_json, spec_to_json
from renshu.errors import CheckpointError, SpaceError
from renshu.files.checkpoint import load_tree, save_tree
from renshu.files.recorded import from_arrays, from_minari
from renshu.files.replacing import replacing
from renshu.ops.rollouts import begun_anew, blocks, joined
from renshu.ops.spaces import flatten, leaf_spaces, unflatten
from renshu.types import EnvSpec, PyTree, Rollout

FORMAT = 1
"""The format of folders that this version writes and reads."""
SPEC = "spec.json"
SEGMENT = 256
"""Rows that stay together where data are read in another order than that of their recording."""
CHUNK_BYTES = 2**25
"""Size of a file of rollouts, about; it is read whole."""
FIELDS = ("obs", "first", "action", "reward", "terminated")
MINARI = "minari:"
"""Beginning of the names of data sets that Minari reads."""


class Dataset:
    """Experience of N environments, in chunks that follow on each other. Make one with `Dataset.open`.

    spec: of the environments. rows: steps of each, those that only reset included. steps: real ones of all together.
    parts: each reads one chunk. name: in messages. env: the environment that it is of, as for an Agent; None: the one
    that the spec names.
    """

    def __init__(
        self,
        spec: EnvSpec,
        rows: int,
        steps: int,
        parts: Sequence[Callable[[], Rollout]],
        name: str,
        env: Any = None,
    ) -> None:
        if steps < 1:
            raise SpaceError(f"{name} holds no step to learn from")
        self.spec, self.rows, self.steps, self.parts, self.name, self.env = spec, rows, steps, parts, name, env

    def __repr__(self) -> str:
        of = f" of {self.spec.id}" if self.spec.id else ""
        return f"<Dataset {self.name}{of}: {self.steps:,} steps of {self.spec.num_envs} environments>"

    @classmethod
    def open(
        cls,
        source: Any,
        *,
        env: Any = None,
        observation_space: spaces.Space | None = None,
        action_space: spaces.Space | None = None,
    ) -> Dataset:
        """Open a data set.

        source: a folder that `agent.collect(steps, to=...)` or `Dataset.save` wrote; "minari:ID", one of Minari's
        (extra `offline`); or arrays of steps in a row, {"obs", "action", "reward", "terminated"}, each `[T, ...]`, and
        optionally "truncated" and "next_obs". env: the environment that the data are of, to evaluate in, as for an
        Agent; for arrays its spaces too, unless they are given.

        Raises CheckpointError for a folder or an ID that is missing or cannot be read, SpaceError for arrays that are
        not of the spaces.
        """
        if isinstance(source, Mapping):
            return in_memory(*from_arrays(source, env, observation_space, action_space), "arrays", env)
        if isinstance(source, str) and source.startswith(MINARI):
            return cls(*from_minari(source.removeprefix(MINARI)), source, env)
        return _open_folder(Path(source), env)

    def chunks(self) -> Iterator[Rollout]:
        """Read the data from their beginning: rollouts `[T, N]` of NumPy arrays, of any lengths."""
        for i, part in enumerate(self.parts):
            # What was before is not known, so that nothing may be summed or stacked across this line.
            yield part() if i else begun_anew(part())

    def shuffled(self, rng: np.random.Generator) -> Iterator[Rollout]:
        """Read all data in pieces of SEGMENT rows, in another order: by parts, and within each.

        Each piece begins anew, which costs the step before it: the observation that it led to is elsewhere.
        """
        for i in rng.permutation(len(self.parts)):
            pieces = list(blocks(iter([self.parts[i]()]), SEGMENT))
            for j in rng.permutation(len(pieces)):
                yield begun_anew(pieces[j])

    def save(self, path: str | Path) -> Path:
        """Write the data to a folder. Raises CheckpointError where there is something, or it cannot be written."""
        writer = DatasetWriter(path, self.spec)
        for chunk in self.chunks():
            writer.append(chunk)
        writer.close()
        return Path(path)


class DatasetWriter:
    """Writer of a folder, which can be opened after every file of it.

    spec: of the environments. Raises CheckpointError where the path is taken, SpaceError for spaces that no file can
    describe.
    """

    def __init__(self, path: str | Path, spec: EnvSpec) -> None:
        self.path, self.spec = Path(path), spec
        self.about = {"format": FORMAT, "spec": spec_to_json(spec)}
        if self.path.exists() and (not self.path.is_dir() or any(self.path.iterdir())):
            raise CheckpointError(f"{self.path} is taken: name a folder that does not exist, or is empty")
        self.rows = self.steps = 0
        self._files: list[dict[str, Any]] = []
        self._parts: list[Rollout] = []
        self._held = self._most = 0

    def append(self, rollout: Rollout) -> None:
        """Add a rollout that follows on the latest one. Its actions are the environment's."""
        rollout = jax.tree.map(np.asarray, Rollout(*(getattr(rollout, field) for field in FIELDS)))
        if not self._most:
            bytes_of_row = sum(x.nbytes for x in jax.tree.leaves(rollout)) // len(rollout.first)
            self._most = max(1, CHUNK_BYTES // max(1, bytes_of_row))
        self._parts.append(rollout)
        self._held += len(rollout.reward)
        if self._held >= self._most:
            self._write()

    def close(self) -> None:
        """Write what is held yet."""
        if self._parts:
            self._write()

    def _write(self) -> None:
        chunk, self._parts, self._held = joined(self._parts), [], 0
        file = f"rollouts-{len(self._files):05d}.safetensors"
        rows, steps = len(chunk.reward), int(chunk.valid.sum())
        leaves = {field: getattr(chunk, field) for field in FIELDS}
        leaves["obs"] = _numbered(self.spec.observation_space, chunk.obs)
        save_tree(self.path / file, leaves, {"rows": rows})
        self._files.append({"file": file, "rows": rows})
        self.rows, self.steps = self.rows + rows, self.steps + steps
        about = {**self.about, "rows": self.rows, "steps": self.steps, "files": self._files}
        try:
            with replacing(self.path / SPEC) as temporary:
                temporary.write_text(json.dumps(about, indent=1))
        except OSError as error:
            raise CheckpointError(f"cannot write {self.path / SPEC}: {error}") from error


def in_memory(rollout: Rollout, spec: EnvSpec, name: str, env: Any = None) -> Dataset:
    """Make a data set of one rollout of NumPy arrays, whose actions are the environment's."""
    spec = replace(spec, num_envs=rollout.reward.shape[1], frame_stack=1, rollout_envs=None)
    rows, steps = len(rollout.reward), int(rollout.valid.sum())
    return Dataset(spec, rows, steps, [lambda: rollout], name, env)


def source_of(dataset: Dataset) -> EnvSource | None:
    """Return the environment that the data are of, to evaluate in; None where nothing says how to make it.

    A file must not decide what is imported: an id with a module in it counts only where the user has given it.
    """
    if dataset.env is not None:
        return named_again(dataset.env, dataset.spec)
    id = dataset.spec.id
    return None if id is None or ":" in id else EnvSource.of(id, dict(dataset.spec.kwargs))


def _open_folder(path: Path, env: Any) -> Dataset:
    try:
        about = json.loads((path / SPEC).read_bytes())
        if not isinstance(about, dict) or not isinstance(about.get("format"), int):
            raise CheckpointError(f"{path / SPEC} is not what Renshu wrote: it names no format")
        if about["format"] != FORMAT:
            raise CheckpointError(
                f"{path} is a data set of format {about['format']}; this version of Renshu reads {FORMAT}"
            )
        spec = spec_from_json(about["spec"])
        files = [(_name(entry["file"]), _count(entry["rows"])) for entry in about["files"]]
        rows, steps = _count(about["rows"]), _count(about["steps"])
        if rows != sum(count for _, count in files) or steps > rows * spec.num_envs:
            raise ValueError(f"{rows} rows and {steps} steps of {spec.num_envs} environments do not fit its files")
    except FileNotFoundError as error:
        raise CheckpointError(
            f"{path} is no data set: there is no {path / SPEC}. Give a folder that agent.collect(steps, to=...) wrote, "
            f'or "{MINARI}ID"'
        ) from error
    except CheckpointError as error:
        raise CheckpointError(f"{path / SPEC}: {error}") from error
    except Exception as error:  # a stranger's numbers and lists can make nearly anything fail
        raise CheckpointError(f"{path / SPEC} cannot be read: {type(error).__name__}: {error}") from error

    parts = [partial(_read_file, path / name, spec, count) for name, count in files]
    return Dataset(spec, rows, steps, parts, path.name, env)


def _name(value: Any) -> str:
    if not isinstance(value, str) or Path(value).name != value:
        raise CheckpointError(f"it names the file {reprlib.repr(value)}, which is not one of its folder")
    return value


def _count(value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value < 2**63:
        raise ValueError(f"{reprlib.repr(value)} is no number of rows or steps")
    return value


def _read_file(path: Path, spec: EnvSpec, rows: int) -> Rollout:
    """Read a file of `rows` steps of each environment. Raises CheckpointError where it is not of the spec."""
    _, leaves = load_tree(path)
    obs_spaces = leaf_spaces(spec.observation_space)
    N, actions = spec.num_envs, spec.action_space
    wanted: dict[str, tuple[tuple[int, ...], Any]] = {
        f"obs/{i}": ((rows + 1, N, *(space.shape or ())), space.dtype) for i, space in enumerate(obs_spaces)
    }
    wanted |= {"first": ((rows + 1, N), np.bool_), "action": ((rows, N, *(actions.shape or ())), actions.dtype)}
    wanted |= {"reward": ((rows, N), np.float32), "terminated": ((rows, N), np.bool_)}
    if set(leaves) != set(wanted):
        raise CheckpointError(f"{path} holds {sorted(leaves)}; a file of this data set holds {sorted(wanted)}")
    for name, (shape, dtype) in wanted.items():
        leaf = leaves[name]
        if leaf.shape != shape or not np.can_cast(leaf.dtype, dtype, "same_kind"):
            raise CheckpointError(
                f"{path}: {name} is {leaf.dtype} of shape {leaf.shape}; a file of this data set has {np.dtype(dtype)} "
                f"of shape {shape}"
            )
        if leaf.dtype.kind == "f" and not np.isfinite(leaf).all():
            raise CheckpointError(f"{path}: {name} holds NaN or infinity; record the data set again")
    real = ~leaves["first"][1:]  # what was chosen in a step that only resets is ignored
    kinds = [(f"obs/{i}", leaves[f"obs/{i}"], space) for i, space in enumerate(obs_spaces)]
    for name, values, space in [*kinds, ("action", leaves["action"][real], actions)]:
        if not _numbers_fit(values, space):
            raise CheckpointError(f"{path}: {name} holds numbers that {space} does not have; record it again")
    obs = unflatten(spec.observation_space, [leaves[f"obs/{i}"] for i in range(len(obs_spaces))])
    return Rollout(obs, *(leaves[field] for field in FIELDS[1:]))


def _numbers_fit(values: np.ndarray, space: spaces.Space) -> bool:
    """Tell whether numbered choices are among those of their space; a Box is left to the environment."""
    match space:
        case spaces.Discrete():
            low, count = space.start, space.n
        case spaces.MultiDiscrete():
            low, count = space.start, space.nvec
        case spaces.MultiBinary():
            low, count = 0, 2
        case _:
            return True
    return bool(((values >= low) & (values - low < count)).all())


def _numbered(space: spaces.Space, obs: PyTree) -> dict[str, Any]:
    """Return the leaves of observations by their number: keys of a space may be anything."""
    return {str(i): leaf for i, leaf in enumerate(flatten(space, obs))}
