"""Agents in files: the header that describes them beside the arrays, written and read back."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import numpy as np

from renshu.algorithms.registry import algorithm as algorithm_by_name
from renshu.envs.adapt import SpaceConfig
from renshu.envs.spec import spec_from_json, spec_to_json
from renshu.errors import CheckpointError, HyperparameterError, UnknownNameError
from renshu.files.checkpoint import load_tree, nested, restore, save_tree
from renshu.types import EnvSpec, PyTree

if TYPE_CHECKING:
    from renshu.algorithms.base import Algorithm


@dataclass(frozen=True)
class AgentRecord:
    """Description of an agent in the header of its file.

    algorithm: name of its class. hyperparameters: as `Algorithm.to_json` gives them. spec: of its environments.
    environment: their name. seed, steps, iteration: of the training. processes, loop: as for Agent. spaces: the options
    by which the environment was fitted.
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

    def write(self, path: Path, state: PyTree, snapshot: PyTree) -> None:
        """Write the agent's whole state to `path`, completely or not at all.

        state: of the learner. snapshot: of the environments, or None. Raises CheckpointError where that is not
        possible.
        """
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


@dataclass(frozen=True)
class AgentFile:
    """Contents of a file: the record, and arrays by name."""

    path: Path
    record: AgentRecord
    leaves: dict[str, np.ndarray]

    @classmethod
    def read(cls, path: str | Path, loops: tuple[str, ...]) -> AgentFile:
        """Read a file that `AgentRecord.write` wrote; nothing in it is run. loops: names of the loops that exist.

        Raises CheckpointError for a file that is missing, cut short, changed, not Renshu's, or from a newer version.
        """
        path = Path(path)
        header, leaves = load_tree(path)
        try:
            record = AgentRecord(
                algorithm=str(header["algorithm"]),
                hyperparameters=dict(header["hyperparameters"]),
                spec=spec_from_json(header["spec"]),
                environment=str(header.get("environment")),
                seed=int(header["seed"]),
                steps=int(header["steps"]),
                iteration=int(header["iteration"]),
                processes=bool(header["processes"]),
                loop=header.get("loop"),
                spaces=SpaceConfig.from_json(header["spaces"]),
            )
            if record.loop not in (None, *loops):
                raise ValueError(f"a loop named {record.loop!r}")
        except (KeyError, TypeError, ValueError) as error:
            raise CheckpointError(f"{path} holds no agent: {type(error).__name__}: {error}") from error
        return cls(path, record, leaves)

    def state(self, shapes: PyTree, passed: list[str]) -> PyTree:
        """Fill the learner's state with the arrays of the file.

        shapes: of the state. passed: names of what the user passed to load, for the message.
        Raises CheckpointError where the arrays do not fit.
        """
        learned = {name: leaf for name, leaf in self.leaves.items() if not name.startswith("loop/")}
        try:
            state = restore({"learner": shapes}, learned)["learner"]
        except CheckpointError as error:
            what = " or ".join(passed)
            hint = f". The {what} passed to load may not be what the agent was made with" if what else ""
            raise CheckpointError(f"{self.path}, made for {self.record.environment}: {error}{hint}") from error
        return jax.tree.map(jnp.asarray, state)

    @property
    def snapshot(self) -> PyTree:
        """State of the environments as the file holds it, or None."""
        return nested(self.leaves).get("loop")
