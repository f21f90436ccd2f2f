"""Agents in files: the header that describes them beside the arrays, written and read back."""

from __future__ import annotations

import reprlib
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import numpy as np

from renshu.algorithms.hyperparameters import NetArch
from renshu.algorithms.registry import algorithm as algorithm_by_name
from renshu.envs.adapt import SpaceConfig
from renshu.envs.spec import spec_from_json, spec_to_json
from renshu.errors import CheckpointError, HyperparameterError, UnknownNameError
from renshu.files.checkpoint import load_tree, nested, restore, save_tree
from renshu.types import EnvSpec, PyTree

if TYPE_CHECKING:
    from renshu.algorithms.base import Algorithm


MEMORY = ("inside", "beside", "none")
"""Places of a replay memory: in the agent's file, in one of its own beside it, or nowhere."""
LARGE = 2**28
"""Bytes from which on the memory of a checkpoint is a file of its own, of which there is one for all checkpoints."""


def beside(path: Path) -> Path:
    """Return the path of the memory beside an agent's file."""
    return path.parent / "memory.safetensors"


@dataclass(frozen=True)
class AgentRecord:
    """Description of an agent in the header of its file.

    algorithm: name of its class. hyperparameters: as `Algorithm.to_json` gives them. spec: of its environments.
    environment: their name. seed, steps, iteration: of the training. processes, loop: as for Agent. spaces: the options
    by which the environment was fitted. memory: where the replay memory is, one of MEMORY. cluster: settings of the
    cluster loop, where that trains.
    """

    algorithm: str
    hyperparameters: dict[str, Any]
    spec: EnvSpec
    environment: str
    seed: int
    steps: int
    iteration: int
    processes: bool
    loop: str | None
    spaces: SpaceConfig
    memory: str = "inside"
    cluster: dict[str, Any] | None = None

    def write(self, path: Path, state: PyTree, snapshot: PyTree) -> None:
        """Write the agent's state to `path`, completely or not at all; the replay memory as `memory` says.

        state: of the learner. snapshot: of the environments, or None. Raises CheckpointError where that is not
        possible.
        """
        if hasattr(state, "memory") and self.memory != "inside":
            if self.memory == "beside":  # first, so that no agent is without one
                save_tree(beside(path), state.memory, {"steps": self.steps})
            state = state._replace(memory=())
        header = {name: getattr(self, name) for name in self.__dataclass_fields__}
        header |= {"spec": spec_to_json(self.spec), "spaces": self.spaces.to_json()}
        save_tree(path, {"learner": state, "loop": snapshot}, header)

    def make_algorithm(self, path: Path, kind: type[Algorithm] | None, overrides: Mapping[str, Any]) -> Algorithm:
        """Make the algorithm with its hyperparameters.

        path: of the file, for messages. kind: the class, where the file's name for it is not enough. overrides:
        hyperparameters in place of the file's. Raises CheckpointError where that is not possible.
        """
        if kind is None:
            try:
                kind = algorithm_by_name(self.algorithm)
            except UnknownNameError as error:
                raise CheckpointError(
                    f"{path} holds an agent of {self.algorithm}, which Renshu does not know: pass its class, as in "
                    f"load(path, algorithm={self.algorithm})"
                ) from error
        elif kind.__name__ != self.algorithm:
            raise CheckpointError(f"{path} holds an agent of {self.algorithm}, not of {kind.__name__}")
        try:
            return kind.from_json(self.hyperparameters, **overrides)
        except HyperparameterError as error:
            raise CheckpointError(f"{path}: {error}") from error
        # A stranger's numbers and lists can make nearly anything fail.
        except Exception as error:
            raise CheckpointError(
                f"{path}: {kind.__name__} cannot have the hyperparameters {reprlib.repr(self.hyperparameters)} "
                f"({type(error).__name__}: {error}). Use another copy or save it again"
            ) from error


@dataclass(frozen=True)
class AgentFile:
    """Contents of a file: the record, and arrays by name."""

    path: Path
    record: AgentRecord
    leaves: dict[str, np.ndarray]
    memory: dict[str, np.ndarray] | None = None
    """Arrays of a replay memory that is in a file of its own."""

    @classmethod
    def read(cls, path: str | Path, loops: tuple[str, ...]) -> AgentFile:
        """Read a file that `AgentRecord.write` wrote; nothing in it is run. loops: names of the loops that exist.

        Raises CheckpointError for a file that is missing, cut short, changed, not Renshu's, or from a newer version.
        """
        path = Path(path)
        header, leaves = load_tree(path)
        try:
            record = AgentRecord(
                algorithm=_field(header, "algorithm", str),
                hyperparameters=_field(header, "hyperparameters", dict),
                spec=spec_from_json(header["spec"]),
                environment=_field(header, "environment", str),
                seed=_field(header, "seed", int, most=2**32 - 1),
                steps=_field(header, "steps", int, most=2**31 - 1),
                iteration=_field(header, "iteration", int, most=2**31 - 1),
                # Earlier files may hold their number.
                processes=header["processes"] in range(1, 2**16) or _field(header, "processes", bool),
                loop=header.get("loop"),
                spaces=SpaceConfig.from_json(header["spaces"]),
                memory=_field({"memory": "inside", **header}, "memory", str),
                cluster=header.get("cluster") and _field(header, "cluster", dict),
            )
            if record.memory not in MEMORY:
                raise ValueError(f"a memory that is {reprlib.repr(record.memory)}")
            if record.loop not in (None, *loops):
                raise ValueError(f"a loop named {reprlib.repr(record.loop)}")
        except Exception as error:  # a stranger's numbers and lists can make nearly anything fail
            raise CheckpointError(f"{path} holds no agent: {type(error).__name__}: {error}") from error
        if record.memory != "beside":
            return cls(path, record, leaves)
        about, memory = load_tree(beside(path))
        if about.get("steps") != record.steps:
            warnings.warn(
                f"{beside(path)} is the memory of step {about.get('steps')}, and {path} the agent of step "
                f"{record.steps}: training goes on with both",
                stacklevel=4,
            )
        return cls(path, record, leaves, memory)

    def check_depth(self, algorithm: Algorithm) -> None:
        """Raise CheckpointError where networks have more layers than the file has arrays: minutes of tracing."""
        sizes = [getattr(algorithm, name) for name in self.record.hyperparameters if hasattr(algorithm, name)]
        layers = sum(len(widths) for value in sizes if isinstance(value, NetArch) for widths in value)
        if layers > len(self.leaves):
            raise CheckpointError(f"{self.path} claims {layers} layers and holds {len(self.leaves)} arrays: damaged")

    def shapes_of(self, whole: PyTree) -> PyTree:
        """Return the part of a learner's state, given as shapes, that the file holds: () for a memory that it lacks."""
        lacks = hasattr(whole, "memory") and self.record.memory == "none"
        return whole._replace(memory=()) if lacks else whole

    def state(self, shapes: PyTree, passed: list[str]) -> PyTree:
        """Fill the learner's state with the arrays of the file; a memory that it lacks is ().

        shapes: of the whole state. passed: names of what the user passed to load, for the message. Raises
        CheckpointError where the arrays do not fit.
        """
        learned = {name: leaf for name, leaf in self.leaves.items() if not name.startswith("loop/")}
        shapes = self.shapes_of(shapes)
        beside = self.memory if hasattr(shapes, "memory") else None
        try:
            inside = shapes if beside is None else shapes._replace(memory=())
            state = restore({"learner": inside}, learned)["learner"]
            if beside is not None:
                state = state._replace(memory=restore(shapes.memory, beside))
        except CheckpointError as error:
            what = " or ".join(passed)
            hint = f". The {what} passed to load may not be what the agent was made with" if what else ""
            raise CheckpointError(f"{self.path}, made for {self.record.environment}: {error}{hint}") from error
        return jax.tree.map(jnp.asarray, state)

    @property
    def snapshot(self) -> PyTree:
        """State of the environments as the file holds it, or None. Raises CheckpointError where it makes no tree."""
        try:
            return nested(self.leaves).get("loop")
        except CheckpointError as error:
            raise CheckpointError(f"{self.path}: {error}") from error


def _field(header: Mapping[str, Any], name: str, kind: type, most: int = 2**63 - 1) -> Any:
    """Return an entry of a header. Raises ValueError where it is not of the kind; numbers are from 0 to `most`."""
    value = header[name]
    number = kind is int
    if not isinstance(value, kind) or (number and (isinstance(value, bool) or not 0 <= value <= most)):
        expected = f"a whole number from 0 to {most}" if number else kind.__name__
        raise ValueError(f"{name} is {reprlib.repr(value)}, expected {expected}")
    return value
