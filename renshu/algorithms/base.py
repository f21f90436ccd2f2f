"""The contract: an algorithm is hyperparameters; bound to an environment it is a learner, three pure functions.

`init` makes the state, `act` chooses actions, `learn` improves the state by a rollout. Loops know no more.
"""

from __future__ import annotations

import copy
import dataclasses
from abc import ABC, ABCMeta, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Generic, Protocol, TypeVar

from renshu.algorithms import migration
from renshu.algorithms.hyperparameters import kind_of
from renshu.algorithms.registry import agent_class
from renshu.errors import HyperparameterError, did_you_mean
from renshu.ops.masks import split
from renshu.types import Accepts, ActorOutput, Array, Counters, EnvSpec, Key, Metrics, Needs, PyTree, Rollout, TimeStep

if TYPE_CHECKING:
    from typing import Self

    from matplotlib.axes import Axes

    from renshu.agent.agent import Agent


Picture = Callable[["Axes", Sequence[str]], None]
"""A function that draws on axes of Matplotlib, with eight colours for what it likes."""
KINDS = frozenset({"box", "discrete", "multi_discrete", "multi_binary"})
"""Kinds of actions in `Accepts`; of observations too, besides images and nested ones."""
OBSERVATIONS = KINDS | {"nested", "image"}
"""Kinds of observations for networks that make one vector of an observation."""


def _shown(algorithm: Algorithm) -> str:
    chosen = (f"{name}={value!r}" for name, value in algorithm.changed().items())
    return f"{type(algorithm).__name__}({', '.join(chosen)})"


class _AlgorithmClass(ABCMeta):
    """Class of the algorithms' classes, which answers `PPO.load(...)` and the like."""

    def __new__(mcs, name: str, bases: tuple[type, ...], namespace: dict[str, Any], **options: Any) -> Any:
        """Have them print what was chosen; a dataclass would print all sixty hyperparameters."""
        namespace.setdefault("__repr__", _shown)
        return super().__new__(mcs, name, bases, namespace, **options)

    if not TYPE_CHECKING:  # or else every name would seem to be there

        def __getattr__(cls, name: str) -> Any:
            raise AttributeError(migration.without_agent(cls.__name__, name))


@dataclass(frozen=True, kw_only=True)
class Algorithm(metaclass=_AlgorithmClass):
    """Hyperparameters: plain, documented, validated, hashable, printable. Nothing else."""

    accepts: ClassVar[Accepts]
    renamed: ClassVar[Mapping[str, str]] = {}
    """Earlier names of hyperparameters, which files may still have, and their names now."""

    def __new__(cls, *args: Any, **hyperparameters: Any) -> Self:
        """Refuse unknown hyperparameters with their near matches, before the dataclass would with less."""
        known = {field.name: kind_of(field) for field in dataclasses.fields(cls)}
        for name in hyperparameters.keys() & cls.renamed.keys():
            raise HyperparameterError(f"{cls.__name__}: {name}= is called {cls.renamed[name]}= now")
        if answer := migration.constructor(cls.__name__, known, args, hyperparameters):
            raise HyperparameterError(answer)
        for name in hyperparameters:
            if name not in known:
                raise HyperparameterError(
                    f"{cls.__name__} has no hyperparameter {name!r}.{did_you_mean(name, [*known])}"
                )
        return super().__new__(cls)

    if not TYPE_CHECKING:

        def __getattr__(self, name: str) -> Any:
            raise AttributeError(migration.without_agent(type(self).__name__, name))

    @property
    def default_num_envs(self) -> int:
        """Environments that it is put on where no number is asked for."""
        return 1

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

    def changed(self) -> dict[str, Any]:
        """Hyperparameters that are not at their defaults, by name."""
        found = {}
        for field in dataclasses.fields(self):
            value, default = getattr(self, field.name), field.default
            # A default is compared as it is after checking, [64, 64] as NetArch; a field without one always shows.
            if default is dataclasses.MISSING or value != kind_of(field).check(field.name, default):
                found[field.name] = value
        return found

    def to_json(self) -> dict[str, Any]:
        """Hyperparameters as plain JSON data."""
        return {field.name: kind_of(field).to_json(getattr(self, field.name)) for field in dataclasses.fields(self)}

    def unsaved(self) -> dict[str, Any]:
        """Hyperparameters that no file can hold, by name: networks and functions, which are passed again to `load`."""
        found = {}
        for field in dataclasses.fields(self):
            kind, value = kind_of(field), getattr(self, field.name)
            try:
                kind.from_json(field.name, kind.to_json(value))
            except HyperparameterError:
                found[field.name] = value
        return found

    @classmethod
    def from_json(cls, data: Mapping[str, Any], **overrides: Any) -> Self:
        """Make the algorithm again from `to_json`'s data; `overrides` replace entries (and what JSON cannot hold)."""
        fields = {field.name: field for field in dataclasses.fields(cls)}
        if answer := migration.overridden(cls.__name__, fields, overrides):
            raise HyperparameterError(answer)
        named = {cls.renamed.get(name, name): value for name, value in data.items()}
        values = {
            name: kind_of(fields[name]).from_json(name, value) if name in fields else value
            for name, value in named.items()
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


Config = TypeVar("Config", bound=Algorithm)
State = TypeVar("State", bound=LearnerState)


class Learner(ABC, Generic[Config, State]):
    """An algorithm bound to the shapes of an environment: networks and optimiser. It holds no arrays; all is pure.

    config: the hyperparameters. needs: what it asks of a loop; set in the constructor.
    """

    needs: Needs
    idle_metrics: ClassVar[frozenset[str] | None] = None
    """Metrics that hold where `learn` took no gradient step; a loop drops the others then. None: all of them."""
    convolves: bool | None = None
    """Tell whether networks convolve, for which programs are compiled in another way. None: where images are seen."""
    guards_itself: ClassVar[bool] = False
    """True where `learn` itself keeps the state from before an update that went NaN; otherwise the library does."""

    def __init__(self, config: Config, spec: EnvSpec) -> None:
        self.config = config
        self.spec = spec

    @abstractmethod
    def init(self, key: Key) -> State:
        """Make parameters, optimiser, normaliser, counters."""

    @abstractmethod
    def actor_state(self, state: State) -> PyTree:
        """Select the part of the state that acting needs. It only selects, it computes nothing."""

    def prepare(self, actor_state: PyTree, env_id: Array) -> PyTree:
        """Make what acts from the actor state, once a rollout, where the actor is. Default: it as it is.

        env_id: [N] int32, the environments that it acts in; () for all of them, in order. In environments apart from
        those of training, as in an evaluation, they are counted from 0.
        """
        return actor_state

    def initial_carry(self, num_envs: int) -> PyTree:
        """Return the actor's memory at the start of an episode, `[num_envs, ...]`; () for feed-forward policies."""
        return ()

    @abstractmethod
    def act(self, acting: PyTree, carry: PyTree, timestep: TimeStep, key: Key, *, explore: bool) -> ActorOutput:
        """Choose actions for N environments. acting: from `prepare`. `explore=False`: the greedy ones."""

    @abstractmethod
    def learn(self, state: State, rollout: Rollout, key: Key) -> tuple[State, Metrics]:
        """Learn from a rollout: all gradient steps of it."""

    def explain(self, acting: PyTree, carry: PyTree, timestep: TimeStep) -> dict[str, Array]:
        """Explain N observations: probabilities, action values, value. Optional."""
        raise NotImplementedError(f"{type(self.config).__name__} has nothing to explain")

    def split(self, obs: PyTree) -> tuple[PyTree, Array | None]:
        """Split observations `[B, ...]` into the network's input and the mask of actions, `[B, A]` bool or None.

        Of several observations at once, `[B, frame_stack, ...]`, the mask of the newest counts.
        """
        return split(obs) if self.spec.masks else (obs, None)

    def pictures(self, state: State) -> dict[str, Picture]:
        """Return functions that draw what a state has to show, by the names of their pictures. Default: none."""
        return {}

    def member(self, state: State, which: str | int | Sequence[float]) -> State:
        """Return the state in which one of a population plays. Optional. Raises HyperparameterError without one."""
        raise HyperparameterError(f"{type(self.config).__name__} trains one policy, and no population")

    def with_values(self, values: Mapping[str, Array]) -> Self:
        """Return a shallow copy whose hyperparameters have other values, which may be traced numbers.

        For fields that are `traceable` alone: what a constructor read from the others stays as it was.
        """
        config = copy.copy(self.config)
        for name, value in values.items():
            object.__setattr__(config, name, value)  # past the checks, which a traced number cannot answer
        learner = copy.copy(self)
        learner.config = config
        return learner

    def check_steps(self, start: int, target: int) -> None:
        """Raise HyperparameterError where training from step `start` to step `target` could not work. Optional."""

    def start_from(self, state: State, params: PyTree) -> State:
        """Return the state of a learner that begins at weights of another's networks, where names are the same.

        Optional. Raises HyperparameterError where the networks differ; see `ops.adopted`.
        """
        raise HyperparameterError(f"{type(self.config).__name__} cannot begin at the weights of another algorithm")

    def resize(self, state: State) -> State:
        """Fit a state that was learned with another number of environments to this one. Default: as it is."""
        return state
