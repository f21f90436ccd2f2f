"""Schedules: hyperparameters that change while training, as functions of the progress that remains.

As in Stable-Baselines3, `progress_remaining` is 1 at the start of training and 0 at its end; values outside count as
the nearer of the two. Settings and presets hold a schedule as JSON (`to_json`, `from_json`), a command line as text
(`parse`).
"""

from __future__ import annotations

import difflib
import itertools
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from numbers import Real
from typing import Any, TypeAlias

import jax
import jax.numpy as jnp

from renshu.errors import HyperparameterError
from renshu.types import Array

Schedule: TypeAlias = float | Callable[[Any], Any]
"""A number, or a function of progress_remaining that JAX can trace: one of those below, or the user's own."""


@dataclass(frozen=True)
class Linear:
    """From `start` to `end` in a straight line, there when the fraction `until` of training has passed.

    Raises HyperparameterError if a value is not a finite number or `until` is not in (0, 1].
    """

    start: float
    end: float = 0.0
    until: float = 1.0

    def __post_init__(self) -> None:
        _floats(self)
        if not 0.0 < self.until <= 1.0:
            raise HyperparameterError(f"Linear.until is a fraction of training in (0, 1], not {self.until}.")

    def __call__(self, progress_remaining: float | Array) -> jax.Array:
        """Compute the value at `progress_remaining`: float32 of its shape."""
        passed = jnp.minimum(_done(progress_remaining) / self.until, 1.0)
        return (1.0 - passed) * self.start + passed * self.end


@dataclass(frozen=True)
class Cosine:
    """From `start` to `end` along half a cosine (Loshchilov & Hutter 2017, "SGDR", eq. 5, without restarts).

    Raises HyperparameterError if a value is not a finite number.
    """

    start: float
    end: float = 0.0

    def __post_init__(self) -> None:
        _floats(self)

    def __call__(self, progress_remaining: float | Array) -> jax.Array:
        """Compute the value at `progress_remaining`: float32 of its shape."""
        passed = 0.5 - 0.5 * jnp.cos(math.pi * _done(progress_remaining))
        return (1.0 - passed) * self.start + passed * self.end


@dataclass(frozen=True)
class Piecewise:
    """Straight lines between points; before the first and after the last point, its value.

    points: pairs (fraction of training done, value), fractions rising within [0, 1], at least one pair.
    Raises HyperparameterError if they are not.
    """

    points: tuple[tuple[float, float], ...]

    def __post_init__(self) -> None:
        try:
            pairs = [(fraction, value) for fraction, value in self.points]
        except (TypeError, ValueError):
            raise HyperparameterError(
                f"Piecewise.points are pairs (fraction done, value), such as ((0.0, 1e-3), (1.0, 0.0)), "
                f"not {self.points!r}."
            ) from None
        points = tuple((_number(f, "a fraction of Piecewise"), _number(v, "a value of Piecewise")) for f, v in pairs)
        done = [fraction for fraction, _ in points]
        if not done or done[0] < 0.0 or done[-1] > 1.0 or any(a >= b for a, b in itertools.pairwise(done)):
            raise HyperparameterError(f"Piecewise needs points whose fractions rise within [0, 1]; it got {done}.")
        object.__setattr__(self, "points", points)

    def __call__(self, progress_remaining: float | Array) -> jax.Array:
        """Compute the value at `progress_remaining`: float32 of its shape."""
        done, values = zip(*self.points, strict=True)
        return jnp.interp(_done(progress_remaining), jnp.asarray(done), jnp.asarray(values))


_KINDS: dict[str, type[Linear | Cosine | Piecewise]] = {"linear": Linear, "cosine": Cosine, "piecewise": Piecewise}
_FORMS = "0.001, linear:START[:END[:UNTIL]], cosine:START[:END] or piecewise:DONE=VALUE:DONE=VALUE..."


def value_of(schedule: Schedule, progress_remaining: float | Array) -> jax.Array:
    """Compute the value of a hyperparameter at `progress_remaining`, in [0, 1]: float32 of its shape.

    Raises HyperparameterError if the user's own function cannot be traced by JAX, or does not return one number.
    """
    progress_remaining = jnp.asarray(progress_remaining, jnp.float32)
    if not callable(schedule):
        return jnp.full_like(progress_remaining, schedule)
    try:
        value = jnp.asarray(schedule(progress_remaining), jnp.float32)
    except TypeError as error:
        raise HyperparameterError(
            f"The schedule {schedule!r} must turn progress_remaining, a JAX array, into one number: use jax.numpy in "
            f"it, jnp.where in place of `if`, or one of Linear, Cosine, Piecewise. It raised: {error}"
        ) from error
    if value.shape != progress_remaining.shape:
        raise HyperparameterError(
            f"The schedule {schedule!r} must return one number for each progress_remaining: shape "
            f"{progress_remaining.shape}, not {value.shape}."
        )
    return value


def to_json(schedule: Schedule) -> float | dict[str, Any]:
    """Write a schedule as what JSON can hold; `from_json` reads it back.

    The user's own function cannot be written: only its `repr` is, so that a reader sees that there was one.
    Raises HyperparameterError if it is neither a finite number nor a function.
    """
    for name, kind in _KINDS.items():
        if isinstance(schedule, kind):
            return {"schedule": name} | {field.name: _lists(getattr(schedule, field.name)) for field in fields(kind)}
    if callable(schedule):
        return {"schedule": "custom", "repr": repr(schedule)}
    return _number(schedule, "a schedule")


def from_json(data: Any) -> Schedule:
    """Read a schedule that `to_json` wrote: a number, or a mapping with the name and the fields of a schedule.

    Raises HyperparameterError if it is neither, if the name or a field is unknown or a field is missing, and for the
    user's own function, which has to be passed again.
    """
    if not isinstance(data, Mapping):
        return _number(data, "a schedule")
    arguments = dict(data)
    name = arguments.pop("schedule", None)
    if name == "custom":
        raise HyperparameterError(
            f"This schedule was a function of the user's own, {arguments.get('repr')}; functions are not saved: "
            "pass it again."
        )
    return _build(name, (), arguments)


def parse(text: str) -> Schedule:
    """Read a schedule from a command line.

    "0.001" is a number; "linear:1e-3", "linear:1e-3:1e-5:0.5" and "cosine:1e-3:1e-5" give the fields in order;
    "piecewise:0=1e-3:0.5=1e-4" gives points. Raises HyperparameterError for anything else.
    """
    name, *rest = text.strip().split(":")
    if not rest:
        return _parse_number(name, text)
    if name == "piecewise":
        points: Any = [[_parse_number(word, text) for word in point.split("=")] for point in rest]
        return Piecewise(points)
    return _build(name, tuple(_parse_number(word, text) for word in rest), {})


def _build(name: Any, values: tuple[Any, ...], named: dict[str, Any]) -> Schedule:
    kind = _KINDS.get(name) if isinstance(name, str) else None
    if kind is None:
        near = difflib.get_close_matches(str(name), _KINDS, n=1)
        hint = f" Did you mean {near[0]!r}?" if near else ""
        raise HyperparameterError(f"No schedule is called {name!r}; there are {', '.join(_KINDS)}.{hint}")
    try:
        return kind(*values, **named)
    except TypeError:
        known = ", ".join(field.name for field in fields(kind))
        given = ", ".join(map(repr, (*values, *named)))
        raise HyperparameterError(f"The schedule {name} has the fields {known}; it was given {given}.") from None


def _parse_number(word: str, text: str) -> float:
    try:
        number = float(word)
    except ValueError:
        where = "" if word == text else f" in {text!r}"
        raise HyperparameterError(f"{word!r}{where} is not a number; a schedule is written as {_FORMS}.") from None
    return _number(number, f"a number in {text!r}")


def _number(value: Any, what: str) -> float:
    if isinstance(value, bool) or not isinstance(value, Real) or not math.isfinite(value):
        raise HyperparameterError(f"{what[0].upper()}{what[1:]} must be a finite number, not {value!r}.")
    return float(value)


def _floats(schedule: Linear | Cosine) -> None:
    for field in fields(schedule):
        number = _number(getattr(schedule, field.name), f"{type(schedule).__name__}.{field.name}")
        object.__setattr__(schedule, field.name, number)


def _lists(value: Any) -> Any:
    return [list(pair) for pair in value] if isinstance(value, tuple) else value


def _done(progress_remaining: float | Array) -> jax.Array:
    return jnp.clip(1.0 - jnp.asarray(progress_remaining, jnp.float32), 0.0, 1.0)
