"""Schedules: their values, how they are written and read, and what is refused."""

import functools
import json
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from renshu.errors import HyperparameterError
from renshu.ops.schedules import Cosine, Linear, Piecewise, Schedule, from_json, parse, to_json, value_of

numbers = st.floats(-1e6, 1e6)
fractions = st.floats(0, 1)
schedules = st.one_of(
    numbers,
    st.builds(Linear, numbers, numbers, st.floats(0.01, 1)),
    st.builds(Cosine, numbers, numbers),
    st.lists(st.tuples(fractions, numbers), min_size=1, unique_by=lambda point: point[0]).map(
        lambda points: Piecewise(tuple(sorted(points)))
    ),
)


@pytest.mark.parametrize(
    ("schedule", "remaining", "expected"),
    [
        (0.25, 0.3, 0.25),
        (Linear(1.0), 1.0, 1.0),
        (Linear(1.0), 0.25, 0.25),
        (Linear(1.0, 0.1, until=0.2), 0.9, 0.55),
        (Linear(1.0, 0.1, until=0.2), 0.8, 0.1),
        (Linear(1.0, 0.1, until=0.2), 0.0, 0.1),
        (Linear(0.0, 5.0), 2.0, 0.0),
        (Linear(0.0, 5.0), -1.0, 5.0),
        (Cosine(2.0, 1.0), 1.0, 2.0),
        (Cosine(2.0, 1.0), 0.5, 1.5),
        (Cosine(2.0, 1.0), 0.75, 1.5 + 0.5 * math.cos(math.pi / 4)),
        (Cosine(2.0, 1.0), 0.0, 1.0),
        (Piecewise(((0.25, 1.0), (0.75, 3.0))), 1.0, 1.0),
        (Piecewise(((0.25, 1.0), (0.75, 3.0))), 0.5, 2.0),
        (Piecewise(((0.25, 1.0), (0.75, 3.0))), 0.0, 3.0),
        (Piecewise(((0.5, 7.0),)), 0.9, 7.0),
        (lambda remaining: remaining**2, 0.5, 0.25),
        (lambda remaining: 3, 0.5, 3.0),
    ],
)
def test_values(schedule: Schedule, remaining: float, expected: float) -> None:
    for value in (value_of(schedule, remaining), jax.jit(lambda p: value_of(schedule, p))(remaining)):
        assert (value.shape, value.dtype) == ((), jnp.float32)
        assert float(value) == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("schedule", [Linear(3e-4, 1e-5), Cosine(3e-4, 1e-5), Piecewise(((0.0, 3e-4), (1.0, 1e-5)))])
def test_both_ends_are_exact_and_arrays_are_taken(schedule: Linear | Cosine | Piecewise) -> None:
    start, middle, end = schedule(jnp.array([1.0, 0.5, 0.0]))
    # jnp.interp rounds, by parts in a million; the others hit their ends.
    tolerance = 1e-5 if isinstance(schedule, Piecewise) else 0.0
    np.testing.assert_allclose([start, end], np.array([3e-4, 1e-5], np.float32), rtol=tolerance, atol=0.0)
    assert end < middle < start
    assert schedule(1.0) == start


def test_a_number_may_be_traced() -> None:
    np.testing.assert_allclose(jax.vmap(lambda rate: value_of(rate, 0.5))(jnp.array([1.0, 2.0])), [1.0, 2.0])


def test_schedules_are_hashable_and_equal_by_value() -> None:
    assert Linear(1) == Linear(1.0, 0, 1)
    assert hash(Piecewise(((0, 1), (1, 2)))) == hash(Piecewise([[0.0, 1.0], [1.0, 2.0]]))  # pyright: ignore[reportArgumentType]
    assert len({Linear(1.0), Cosine(1.0), Linear(1.0)}) == 2
    assert repr(Cosine(1)) == "Cosine(start=1.0, end=0.0)"


@given(schedules)
def test_what_json_holds_is_read_back(schedule: Schedule) -> None:
    assert from_json(json.loads(json.dumps(to_json(schedule), allow_nan=False))) == schedule


def test_json_by_hand() -> None:
    assert to_json(1) == 1.0
    assert to_json(np.float64(0.5)) == 0.5
    assert to_json(Linear(1.0, 0.5)) == {"schedule": "linear", "start": 1.0, "end": 0.5, "until": 1.0}
    assert to_json(Piecewise(((0.0, 2.0),))) == {"schedule": "piecewise", "points": [[0.0, 2.0]]}
    assert from_json({"schedule": "cosine", "start": 2}) == Cosine(2.0)


def test_a_users_own_function_is_named_but_not_read_back() -> None:
    data = to_json(functools.partial(pow, 2))
    assert isinstance(data, dict)
    assert data["schedule"] == "custom"
    assert "pow" in data["repr"]
    with pytest.raises(HyperparameterError, match=r"pow.*pass it again"):
        from_json(data)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("0.001", 0.001),
        (" 1e-3 ", 0.001),
        ("linear:1e-3", Linear(1e-3)),
        ("linear:1e-3:1e-5", Linear(1e-3, 1e-5)),
        ("linear:1:0.05:0.1", Linear(1.0, 0.05, 0.1)),
        ("cosine:1e-3", Cosine(1e-3)),
        ("cosine:1e-3:1e-5", Cosine(1e-3, 1e-5)),
        ("piecewise:0=1e-3:0.5=1e-4", Piecewise(((0.0, 1e-3), (0.5, 1e-4)))),
    ],
)
def test_parse(text: str, expected: Schedule) -> None:
    assert parse(text) == expected


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "not a number"),
        ("fast", "linear:START"),
        ("linear", "linear:START"),
        ("lin_0.001", "linear:START"),
        ("nan", "finite"),
        ("linear:inf", "finite"),
        ("linear:", "not a number"),
        ("linear:x", "'x' in 'linear:x'"),
        ("linaer:1e-3", "Did you mean 'linear'"),
        ("zzz:1e-3", "linear, cosine, piecewise"),
        ("cosine:1:2:3", "fields start, end"),
        ("linear:1:0:2", "until"),
        ("piecewise:1", "pairs"),
        ("piecewise:0=1=2", "pairs"),
        ("piecewise:0.5=1:0.5=2", "rise"),
    ],
)
def test_parse_refuses(text: str, says: str) -> None:
    with pytest.raises(HyperparameterError, match=says):
        parse(text)


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (math.nan, "finite"),
        (True, "finite number, not True"),
        ("linear", "finite number, not 'linear'"),
        (None, "finite"),
        ({}, "No schedule is called None"),
        ({"schedule": "cosin", "start": 1.0}, "Did you mean 'cosine'"),
        ({"schedule": ["linear"]}, "No schedule is called"),
        ({"schedule": "linear"}, "fields start, end, until"),
        ({"schedule": "linear", "start": 1.0, "stop": 0.0}, "'stop'"),
        ({"schedule": "linear", "start": "1"}, "Linear.start must be a finite number, not '1'"),
        ({"schedule": "piecewise", "points": []}, "rise"),
        ({"schedule": "piecewise", "points": 3}, "pairs"),
        ({"schedule": "piecewise", "points": [[0, 1], [2, 1]]}, "rise within"),
        ({"schedule": "piecewise", "points": [[0, math.nan]]}, "value of Piecewise"),
    ],
)
def test_from_json_refuses(data: object, says: str) -> None:
    with pytest.raises(HyperparameterError, match=says):
        from_json(data)


def test_to_json_refuses_what_is_no_schedule() -> None:
    for wrong in (math.inf, "0.1", None):
        with pytest.raises(HyperparameterError, match="finite number"):
            to_json(wrong)  # pyright: ignore[reportArgumentType]


def test_own_functions_that_jax_cannot_trace_are_refused_with_the_way_out() -> None:
    def branching(remaining: float) -> float:
        return 1.0 if remaining > 0.5 else 0.1

    for wrong in (branching, math.sqrt):
        with pytest.raises(HyperparameterError, match=r"jnp\.where"):
            jax.jit(lambda p, wrong=wrong: value_of(wrong, p))(0.3)
    with pytest.raises(HyperparameterError, match="one number for each"):
        value_of(lambda remaining: jnp.stack([remaining, remaining]), 0.3)
    assert float(value_of(branching, 0.3)) == pytest.approx(0.1)
