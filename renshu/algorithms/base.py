"""The contract: an algorithm is hyperparameters; bound to an environment it is a learner, three pure functions.

`init` makes the state, `act` chooses actions, `learn` improves the state by a rollout. Loops know no more.
"""

from __future__ import annotations

import dataclasses
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Generic, Protocol, TypeVar

from renshu.algorithms.hyperparameters import kind_of
from renshu.algorithms.registry import agent_class
from renshu.errors import HyperparameterError, did_you_mean
from renshu.ops.masks import split
from renshu.types import Accepts, ActorOutput, Array, Counters, EnvSpec, Key, Metrics, PyTree, Rollout

if TYPE_CHECKING:
    from typing import Self

    from renshu.agent.agent import Agent


KINDS = frozenset({"box", "discrete", "multi_discrete", "multi_binary"})
"""Kinds of actions in `Accepts`; of observations too, besides images and nested ones."""
OBSERVATIONS = KINDS | {"nested"}
"""Kinds of observations for networks that make one vector of an observation."""


@dataclass(frozen=True, kw_only=True)
class Algorithm(ABC):
    """Hyperparameters: plain, documented, validated, hashable, printable. Nothing else."""

    accepts: ClassVar[Accepts]

    def __new__(cls, *args: Any, **hyperparameters: Any) -> Self:
        """Refuse unknown hyperparameters with their near matches, before the dataclass would with less."""
        if args:
            raise HyperparameterError(f"{cls.__name__} takes its hyperparameters by name, as in {cls.__name__}(name=1)")
        known = [field.name for field in dataclasses.fields(cls)]
        for name in hyperparameters:
            if name not in known:
                raise HyperparameterError(f"{cls.__name__} has no hyperparameter {name!r}.{did_you_mean(name, known)}")
        return super().__new__(cls)

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):
            value = kind_of(field).check(f"{type(self).__name__}: {field.name}", getattr(self, field.name))
            object.__setattr__(self, field.name, value)

    @abstractmethod
    def build(self, spec: EnvSpec) -> Learner:
        """Bind the algorithm to the shapes of an environment. Raises HyperparameterError for what cannot fit."""

    def on(self, env: Any, **options: Any) -> Agent:
        """Put the algorithm on an environment: the agent that learns there. Options: see `renshu.Agent`."""
        return agent_class()(self, env, **options)

    def to_json(self) -> dict[str, Any]:
        """Hyperparameters as plain JSON data."""
        return {field.name: kind_of(field).to_json(getattr(self, field.name)) for field in dataclasses.fields(self)}

    @classmethod
    def from_json(cls, data: Mapping[str, Any], **overrides: Any) -> Self:
        """Make the algorithm again from `to_json`'s data; `overrides` replace entries (and what JSON cannot hold)."""
        fields = {field.name: field for field in dataclasses.fields(cls)}
        values = {
            name: kind_of(fields[name]).from_json(name, value) if name in fields else value
            for name, value in data.items()
            if name not in overrides
        }
        return cls(**values, **overrides)

    @classmethod
    def parse(cls, assignments: Mapping[str, str]) -> dict[str, Any]:
        """Hyperparameters from text, as typed on a command line: `{"learning_rate": "linear:1e-3"}`."""
        fields = {field.name: field for field in dataclasses.fields(cls)}
        return {
            name: kind_of(fields[name]).parse(name, text) if name in fields else text
            for name, text in assignments.items()
        }


class LearnerState(Protocol):
    """Fields of every learner's state. The rest is the algorithm's own: optimiser, replay, normaliser, ..."""

    @property
    def params(self) -> PyTree:
        """The weights: a pytree of arrays."""
        ...

    @property
    def counters(self) -> Counters:
        """Progress of learning; loops set its `start` and `target`."""
        ...

    def _replace(self, **changes: Any) -> Any: ...


State = TypeVar("State", bound=LearnerState)


class Learner(ABC, Generic[State]):
    """An algorithm bound to the shapes of an environment: networks and optimiser. It holds no arrays; all is pure."""

    rollout_length: int
    """T: steps of each environment in a rollout."""
    max_lag: int | None = 0
    """Largest age of experience in updates: 0 on-policy, k with a correction, None any."""

    def __init__(self, algorithm: Algorithm, spec: EnvSpec) -> None:
        self.algorithm: Any = algorithm
        self.spec = spec

    @abstractmethod
    def init(self, key: Key) -> State:
        """Make parameters, optimiser, normaliser, counters."""

    @abstractmethod
    def actor_state(self, state: State) -> PyTree:
        """Select the part of the state that acting needs. It only selects, it computes nothing."""

    def initial_carry(self, num_envs: int) -> PyTree:
        """Return the actor's memory at the start of an episode, `[num_envs, ...]`; () for feed-forward policies."""
        return ()

    @abstractmethod
    def act(
        self, actor_state: PyTree, carry: PyTree, obs: PyTree, first: Array, key: Key, *, explore: bool
    ) -> ActorOutput:
        """Choose actions for N observations. `explore=False`: the greedy ones."""

    @abstractmethod
    def learn(self, state: State, rollout: Rollout, key: Key) -> tuple[State, Metrics]:
        """Learn from a rollout: all gradient steps of it. Must leave the parameters as they were if they went NaN."""

    def explain(self, actor_state: PyTree, carry: PyTree, obs: PyTree) -> dict[str, Array]:
        """Explain N observations: probabilities, action values, value. Optional."""
        raise NotImplementedError(f"{type(self.algorithm).__name__} has nothing to explain")

    def split(self, obs: PyTree) -> tuple[PyTree, Array | None]:
        """Split observations `[B, ...]` into the network's input and the mask of actions, `[B, A]` bool or None.

        Of several observations at once, `[B, frame_stack, ...]`, the mask of the newest counts.
        """
        return split(obs) if self.spec.masks else (obs, None)

    def check_steps(self, start: int, target: int) -> None:
        """Raise HyperparameterError where training from step `start` to step `target` could not work. Optional."""

    def resize(self, state: State) -> State:
        """Fit a state that was learned with another number of environments to this one. Default: as it is."""
        return state
