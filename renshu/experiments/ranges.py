"""Ranges of hyperparameters: what a search may try, declared by the fields of algorithms or given by the user."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from renshu.algorithms.base import Algorithm
from renshu.algorithms.hyperparameters import Kind, Number, kind_of
from renshu.errors import HyperparameterError, UnknownNameError, did_you_mean
from renshu.ops.schedules import Cosine, Linear, Piecewise

if TYPE_CHECKING:
    import optuna

Searched = tuple[float, float] | list[Any]
"""A range (low, high), taken evenly by logarithm where it is above 0; or choices."""


def peak(value: Any) -> float | None:
    """Return a number, or the highest one of a schedule; None for all else, which no number can stand for."""
    if isinstance(value, Linear | Cosine):
        value = max(value.start, value.end)
    elif isinstance(value, Piecewise):
        value = max(height for _, height in value.points)
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else None


def scaled(value: Any, height: Any) -> Any:
    """Return `height`; or, where the value is a schedule, that schedule with `height` as its highest number."""
    if not isinstance(value, Linear | Cosine | Piecewise) or peak(height) is None or callable(height):
        return height
    factor = height / peak(value)
    if isinstance(value, Piecewise):
        return Piecewise(tuple((done, factor * one) for done, one in value.points))
    return dataclasses.replace(value, start=factor * value.start, end=factor * value.end)


def declared(algorithm: Algorithm) -> dict[str, Searched]:
    """Return the ranges that an algorithm declares; without those of a schedule that cannot be scaled."""
    found = {}
    for field in dataclasses.fields(algorithm):
        value, tune = getattr(algorithm, field.name), kind_of(field).tune
        if tune is not None and not (callable(value) and not peak(value)):
            found[field.name] = tune
    return found


def bounds(name: str, text: str) -> tuple[float, float]:
    """Read a range as "1e-5..1e-2". Raises HyperparameterError for anything else."""
    try:
        low, high = (float(value) for value in text.split(".."))
    except ValueError:
        raise HyperparameterError(f"{name}: expected a range as 1e-5..1e-2, not {text!r}") from None
    return low, high


def parse_range(name: str, text: str, kind: Kind) -> Searched:
    """Read a range as "1e-5..1e-2", or choices as "32,64,128". Raises HyperparameterError for anything else."""
    if ".." in text:
        return bounds(name, text)
    try:
        return json.loads(f"[{text}]")
    except json.JSONDecodeError:
        return [kind.parse(name, part.strip()) for part in text.split(",")]


def written(searched: Searched) -> str | list[Any]:
    """Write a range as `parse_range` reads it; choices stay a list."""
    return f"{searched[0]:.12g}..{searched[1]:.12g}" if isinstance(searched, tuple) else searched


def check_ranges(algorithm: Algorithm, ranges: Mapping[str, Any] | None) -> dict[str, Searched]:
    """Return ranges as tuples (low, high) and lists of choices; None: those that the algorithm declares.

    Raises UnknownNameError for a hyperparameter that there is not, HyperparameterError for values that are not allowed.
    """
    kinds = {field.name: kind_of(field) for field in dataclasses.fields(algorithm)}
    own, found = type(algorithm).__name__, {}
    for name, given in (declared(algorithm) if ranges is None else ranges).items():
        if name not in kinds:
            raise UnknownNameError(f"tune: {own} has no hyperparameter {name!r}.{did_you_mean(name, list(kinds))}")
        one = parse_range(name, given, kinds[name]) if isinstance(given, str) else given
        found[name] = one if isinstance(one, tuple) else list(one)
        _check_range(algorithm, name, kinds[name], found[name])
        if callable(value := getattr(algorithm, name)) and not peak(value):
            raise HyperparameterError(f"tune: {name} is the schedule {value!r}, which cannot be scaled")
    if not found:
        raise HyperparameterError(
            f'tune: no ranges, and {own} declares none: give some, as {{"learning_rate": "1e-5..1e-2"}}'
        )
    return found


def _check_range(algorithm: Algorithm, name: str, kind: Kind, searched: Searched) -> None:
    if isinstance(searched, tuple):
        if not isinstance(kind, Number) or len(searched) != 2 or not all(peak(x) is not None for x in searched):
            raise HyperparameterError(f"tune: {name}={searched!r}: expected (low, high) of a number, or a list")
        if not searched[0] < searched[1]:
            raise HyperparameterError(f"tune: {name}={searched!r}: expected the least and the greatest value")
    elif not searched:
        raise HyperparameterError(f"tune: {name}: expected one choice at least")
    for value in searched:
        dataclasses.replace(algorithm, **{name: value})


@dataclass(frozen=True)
class Space:
    """Ranges about an algorithm. Optuna's parameters are numbers and texts; `algorithm_of` makes algorithms of them."""

    algorithm: Algorithm
    ranges: Mapping[str, Searched]

    def kind(self, name: str) -> Kind:
        """Return the kind of a hyperparameter."""
        return next(kind_of(field) for field in dataclasses.fields(self.algorithm) if field.name == name)

    def labels(self, name: str) -> dict[Any, Any]:
        """Return choices by the name that Optuna knows them by: themselves, or JSON of what is no plain value."""
        kind, found = self.kind(name), {}
        for value in self.ranges[name]:
            checked = kind.check(name, value)
            plain = checked is None or isinstance(checked, bool | int | float | str)
            found[checked if plain else json.dumps(kind.to_json(checked))] = checked
        return found

    def start(self) -> dict[str, Any]:
        """Return the algorithm's own values as parameters: those that lie in their ranges."""
        found = {}
        for name, searched in self.ranges.items():
            value = getattr(self.algorithm, name)
            height = peak(value) if callable(value) else value
            if isinstance(searched, list):
                labels = [label for label, one in self.labels(name).items() if one == height]
                found |= {name: labels[0]} if labels else {}
            elif isinstance(height, int | float) and searched[0] <= height <= searched[1]:
                found[name] = height
        return found

    def suggest(self, trial: optuna.Trial, names: Sequence[str]) -> None:
        """Have the sampler choose parameters."""
        for name in names:
            searched, kind = self.ranges[name], self.kind(name)
            if isinstance(searched, list):
                trial.suggest_categorical(name, list(self.labels(name)))
            elif isinstance(kind, Number) and kind.integer:
                trial.suggest_int(name, int(searched[0]), int(searched[1]), log=searched[0] > 0)
            else:
                trial.suggest_float(name, *searched, log=searched[0] > 0)

    def algorithm_of(self, params: Mapping[str, Any]) -> Algorithm:
        """Return the algorithm with these parameters. Raises HyperparameterError where they do not go together."""
        values = {}
        for name, value in params.items():
            value = self.labels(name)[value] if isinstance(self.ranges[name], list) else value
            values[name] = scaled(getattr(self.algorithm, name), value)
        return dataclasses.replace(self.algorithm, **values)
