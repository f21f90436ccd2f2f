"""Hyperparameters as dataclass fields that check a value, write it as JSON and read it from text.

learning_rate: Schedule = schedule(3e-4, "step size of the optimiser", least=0)
n_steps: int = integer(2048, "steps collected of each environment for one update", least=1)

`tune` of a field declares what `renshu.tune` searches where it is not told: a range (low, high), or a list of choices.
"""

from __future__ import annotations

import dataclasses
import difflib
import json
import math
import numbers
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

from renshu.errors import HyperparameterError
from renshu.ops import schedules
from renshu.ops.images import CNN

CNN_DOC = 'convolution of images: "nature" (Mnih 2015), "impala" (Espeholt 2018), "minatar"; None: by their size'
Tuned = tuple[float, float] | list[Any] | None
"""A range (low, high), taken evenly by logarithm where it is above 0; or choices; or None: left alone."""
GAMMAS: Tuned = [0.9, 0.95, 0.98, 0.99, 0.995, 0.999, 0.9999]
GAE_LAMBDAS: Tuned = [0.8, 0.9, 0.92, 0.95, 0.98, 0.99, 1.0]


@dataclass(frozen=True)
class Kind:
    """Kind of a hyperparameter: how it is checked, stored and read. This one takes anything."""

    doc: str
    tune: Tuned = dataclasses.field(default=None, kw_only=True, compare=False)  # a list has no hash

    def check(self, name: str, value: Any) -> Any:
        """Return `value` in its hashable form, or raise HyperparameterError naming `name` and what it may be."""
        return value

    def to_json(self, value: Any) -> Any:
        """Return `value` as plain JSON data."""
        return value

    def from_json(self, name: str, data: Any) -> Any:
        """Return the value that `to_json` wrote."""
        return data

    def parse(self, name: str, text: str) -> Any:
        """Return the value of a text on the command line: JSON where it is JSON, else the text itself."""
        try:
            return json.loads(text.replace("None", "null").replace("True", "true").replace("False", "false"))
        except json.JSONDecodeError:
            return text


@dataclass(frozen=True)
class Number(Kind):
    """A number in a range; `None` where `optional`; a function of `progress_remaining` where `scheduled`.

    traceable: an experiment may hand it to the learner as a traced number; so no constructor of a learner reads it.
    """

    integer: bool = False
    least: float = -math.inf
    most: float = math.inf
    above: float = -math.inf
    optional: bool = False
    scheduled: bool = False
    traceable: bool = False

    def check(self, name: str, value: Any) -> Any:
        if value is None and self.optional:
            return None
        if self.scheduled and callable(value):
            return value
        if isinstance(value, bool) or not isinstance(value, numbers.Real):
            raise HyperparameterError(f"{name} must be {self.range()}, not {value!r}")
        # A float cannot hold every integer.
        number = float(value) if abs(value) < 1e300 else math.inf  # type: ignore[operator]
        fits = math.isfinite(number) and self.least <= number <= self.most and number > self.above
        if not fits or (self.integer and not number.is_integer()):
            raise HyperparameterError(f"{name} must be {self.range()}, not {value!r}")
        return int(value) if self.integer else number  # type: ignore[arg-type]

    def range(self) -> str:
        """Describe the range in words."""
        words = "a whole number" if self.integer else "a finite number"
        bounds = [
            f"{'of at least' if self.integer else '>='} {self.least:g}" if math.isfinite(self.least) else "",
            f"> {self.above:g}" if math.isfinite(self.above) else "",
            f"<= {self.most:g}" if math.isfinite(self.most) else "",
        ]
        words = " ".join([words, " and ".join(bound for bound in bounds if bound)]).strip()
        words += " or a schedule (a function of progress_remaining)" if self.scheduled else ""
        return words + (" or None" if self.optional else "")

    def to_json(self, value: Any) -> Any:
        return schedules.to_json(value) if self.scheduled and value is not None else value

    def from_json(self, name: str, data: Any) -> Any:
        if not self.scheduled or data is None:
            return data
        try:
            return schedules.from_json(data)
        except HyperparameterError as error:
            raise HyperparameterError(f"{name}: {error}") from error

    def parse(self, name: str, text: str) -> Any:
        if not self.scheduled or text in ("None", "null"):
            return super().parse(name, text)
        try:
            return schedules.parse(text)
        except HyperparameterError as error:
            raise HyperparameterError(f"{name}: {error}") from error


@dataclass(frozen=True)
class Boolean(Kind):
    """True or False, or None where `optional`."""

    optional: bool = False

    def check(self, name: str, value: Any) -> bool | None:
        if not isinstance(value, bool) and not (value is None and self.optional):
            raise HyperparameterError(f"{name} must be True or False{', or None' * self.optional}, not {value!r}")
        return value


@dataclass(frozen=True)
class Choice(Kind):
    """One of a few names, or None where that is one of them."""

    options: tuple[str | None, ...] = ()

    def check(self, name: str, value: Any) -> str | None:
        if value not in self.options:
            near = difflib.get_close_matches(str(value), [x for x in self.options if x], n=3)
            hint = f". Did you mean {' or '.join(near)}?" if near else ""
            raise HyperparameterError(f"{name} must be one of {', '.join(map(str, self.options))}, not {value!r}{hint}")
        return value


@dataclass(frozen=True)
class Auto(Number):
    """A number, or "auto"; where `starts`, "auto_0.1" too: learned, from 0.1 on."""

    starts: bool = False

    def check(self, name: str, value: Any) -> Any:
        if value == "auto":
            return value
        if self.starts and isinstance(value, str) and value.startswith("auto_"):
            try:
                start = float(value.removeprefix("auto_"))
            except ValueError:
                start = math.nan
            if 0 < start < math.inf:
                return value
        return super().check(name, value)

    def range(self) -> str:
        return f'{super().range()} or "auto"' + (' or "auto_" and a number > 0' if self.starts else "")


class NetArch(NamedTuple):
    """Widths of the hidden layers of the policy (`pi`) and of the value function (`vf`)."""

    pi: tuple[int, ...]
    vf: tuple[int, ...]


@dataclass(frozen=True)
class LayerSizes(Kind):
    """Widths of hidden layers: `[64, 64]` for both networks, or `{"pi": [64], "vf": [64, 64]}`.

    qf: critics of actions; "qf" is then another name of "vf", as in Stable-Baselines3. optional: None is allowed.
    """

    qf: bool = False
    optional: bool = False

    def check(self, name: str, value: Any) -> NetArch | None:
        if value is None and self.optional:
            return None
        second = "qf" if self.qf else "vf"
        wrong = f'{name} must be a list of whole numbers >= 1 or {{"pi": [...], "{second}": [...]}}, not {value!r}'
        if isinstance(value, NetArch):
            value = value._asdict()
        if not isinstance(value, dict):
            value = {"pi": value, "vf": value}
        if self.qf and set(value) == {"pi", "qf"}:
            value = {"pi": value["pi"], "vf": value["qf"]}
        if set(value) != {"pi", "vf"}:
            raise HyperparameterError(wrong)
        for widths in value.values():
            if not isinstance(widths, list | tuple):
                raise HyperparameterError(wrong)
            for width in widths:
                if isinstance(width, bool) or not isinstance(width, numbers.Integral) or width < 1:
                    raise HyperparameterError(wrong)
        return NetArch(*(tuple(int(width) for width in value[part]) for part in ("pi", "vf")))

    def to_json(self, value: NetArch | None) -> Any:
        return None if value is None else {"pi": list(value.pi), "vf": list(value.vf)}


@dataclass(frozen=True)
class Parameters(Kind):
    """Numbers by name, or None; kept as pairs, which are hashable."""

    def check(self, name: str, value: Any) -> tuple[tuple[str, Any], ...] | None:
        if value is None:
            return None
        try:
            found = dict(value)
        except (TypeError, ValueError):
            found = {"": None}
        for key, number in found.items():
            if not isinstance(key, str) or not isinstance(number, bool | int | float):
                raise HyperparameterError(
                    f'{name} must be numbers by name, as in {{"elite_ratio": 0.5}}, not {value!r}'
                )
        return tuple(sorted(found.items()))

    def to_json(self, value: Any) -> Any:
        return None if value is None else dict(value)


@dataclass(frozen=True)
class Several(Kind):
    """Some numbers, each as `each` says, kept as a tuple; None where `optional`."""

    each: Number
    optional: bool = False

    def check(self, name: str, value: Any) -> tuple[Any, ...] | None:
        if value is None and self.optional:
            return None
        items: Any = getattr(value, "tolist", lambda: value)()  # of an array
        if not isinstance(items, list | tuple) or not items:
            raise HyperparameterError(f"{name} must be a tuple, each of it {self.each.range()}, not {value!r}")
        return tuple(self.each.check(f"{name}[{i}]", item) for i, item in enumerate(items))

    def to_json(self, value: Any) -> Any:
        return None if value is None else list(value)


@dataclass(frozen=True)
class Module(Kind):
    """A Flax module (or its class) of the user's own, or None. Files keep its name only: it is passed again to load."""

    def check(self, name: str, value: Any) -> Any:
        from flax import linen

        if isinstance(value, type) and issubclass(value, linen.Module):
            value = value()
        if value is not None and not isinstance(value, linen.Module):
            raise HyperparameterError(f"{name} must be a Flax Linen module or its class, not {value!r}")
        return value

    def to_json(self, value: Any) -> Any:
        return None if value is None else {"module": type(value).__name__}

    def from_json(self, name: str, data: Any) -> Any:
        if data is None:
            return None
        what, own = next(iter(data.items())) if isinstance(data, dict) and data else ("object", data)
        raise HyperparameterError(
            f"{name}: this agent was made with the {what} {own!r}, and nothing is imported by name from a file: "
            f"pass it again, as in load(path, {name}={own})"
        )

    def parse(self, name: str, text: str) -> Any:
        raise HyperparameterError(f"{name} is a Python object: it can be set from Python only")


@dataclass(frozen=True)
class Function(Module):
    """A function of the user's own, or None. Files keep its name only, as of a Module."""

    def check(self, name: str, value: Any) -> Any:
        if value is not None and not callable(value):
            raise HyperparameterError(f"{name} must be a function, not {value!r}")
        return value

    def to_json(self, value: Any) -> Any:
        return None if value is None else {"function": getattr(value, "__name__", type(value).__name__)}


def _field(default: Any, kind: Kind) -> Any:
    return dataclasses.field(default=default, metadata={"kind": kind})


def number(default: float | None, doc: str, **bounds: Any) -> Any:
    """Field: a finite number. bounds, `tune`, `traceable` as in Number; `optional=True` allows None."""
    return _field(default, Number(doc, **bounds))


def integer(default: int | None, doc: str, **bounds: Any) -> Any:
    """Field: an integer, bounds as `number`."""
    return _field(default, Number(doc, integer=True, **bounds))


def schedule(default: Any, doc: str, **bounds: Any) -> Any:
    """Field: a number or a function of `progress_remaining` (1 at the start of training, 0 at its end)."""
    return _field(default, Number(doc, scheduled=True, **bounds))


def auto(default: float | str, doc: str, **bounds: Any) -> Any:
    """Field: a number, or "auto" for what is learned or worked out; bounds as `number`."""
    return _field(default, Auto(doc, **bounds))


def boolean(default: bool | None, doc: str, *, optional: bool = False, tune: Tuned = None) -> Any:
    """Field: True or False; `optional=True` allows None."""
    return _field(default, Boolean(doc, optional, tune=tune))


def choice(default: str | None, doc: str, options: tuple[str | None, ...], *, tune: Tuned = None) -> Any:
    """Field: one of `options`."""
    return _field(default, Choice(doc, options, tune=tune))


def layer_sizes(
    default: tuple[int, ...] | NetArch | None,
    doc: str,
    *,
    qf: bool = False,
    optional: bool = False,
    tune: Tuned = None,
) -> Any:
    """Field: widths of the hidden layers; the value is a NetArch. qf: its "vf" is called "qf", too."""
    return _field(default, LayerSizes(doc, qf, optional, tune=tune))


def parameters(doc: str) -> Any:
    """Field: None, or numbers by name."""
    return _field(None, Parameters(doc))


def several(default: tuple[float, ...] | None, doc: str, *, optional: bool = False, **bounds: Any) -> Any:
    """Field: some numbers in a tuple, bounds of each as `number`, `integer=True` for whole ones."""
    return _field(default, Several(doc, Number("", **bounds), optional))


def convolutions() -> Any:
    """Field: the convolution that images go through."""
    return _field(None, Choice(CNN_DOC, CNN))


def module(doc: str) -> Any:
    """Field: None, or a Flax module of the user's own."""
    return _field(None, Module(doc))


def function(doc: str) -> Any:
    """Field: None, or a function of the user's own."""
    return _field(None, Function(doc))


def kind_of(field: dataclasses.Field) -> Kind:
    """Return the kind of a hyperparameter; a plain dataclass field of a user's own algorithm takes anything."""
    return field.metadata.get("kind", Kind(""))


ScheduleLike = float | Callable[[Any], Any]
