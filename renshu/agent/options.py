"""Options of an agent and its methods: checks of their values, answers to those that there are not."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import wraps
from inspect import signature
from typing import Any, TypeAlias, TypeVar

from renshu.algorithms import migration
from renshu.algorithms.hyperparameters import Number
from renshu.errors import HyperparameterError, did_you_mean

COUNT = Number("a number of things", integer=True, least=1)
SEED = Number("the root of all randomness", integer=True, least=0, most=2**32 - 1)
OPTIONS = ("num_envs", "seed", "loop", "processes", "timeout", "bins", "frame_stack", "masks", "max_episode_steps")
OPTIONS += ("env_kwargs", "workers", "cluster", "opponent")

Method = TypeVar("Method", bound=Callable)
Answers: TypeAlias = Mapping[str, str | None]


def refuse_unknown(function: str, unknown: Mapping[str, Any], known: Sequence[str], answers: Answers) -> None:
    """Raise HyperparameterError for options that a function does not have, with the names that were meant.

    answers: a table of `renshu.algorithms.migration`.
    """
    for name, value in unknown.items():
        if name == "history":
            raise HyperparameterError(f"history= is called frame_stack= now: write frame_stack={value!r}")
        answer = migration.option(function, name, value, answers)
        raise HyperparameterError(answer or f"{function} has no option {name!r}.{did_you_mean(name, known)}")


def answering(answers: Answers) -> Callable[[Method], Method]:
    """Decorate a method so that it refuses unknown options as `refuse_unknown` does."""

    def decorate(method: Method) -> Method:
        known = [name for name in signature(method).parameters if name != "self"]

        @wraps(method)
        def answered(*args: Any, **options: Any) -> Any:
            if unknown := {name: value for name, value in options.items() if name not in known}:
                refuse_unknown(f"{method.__name__}(...)", unknown, known, answers)
            return method(*args, **options)

        return answered  # type: ignore[return-value]

    return decorate
