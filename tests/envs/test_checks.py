"""Every wrong thing that an environment can return is told in words; what is harmless passes."""

from __future__ import annotations

import pickle
from typing import Any

import gymnasium
import numpy as np
import pytest
from gymnasium import spaces

from renshu.envs.checks import CheckedEnv, observation_problem
from renshu.errors import EnvironmentFault
from tests.envs.faulty import OBS, Counting, exiting, raising, returning

NESTED = spaces.Dict({"a": spaces.Box(0, 1, (2,)), "b": spaces.Tuple([spaces.Discrete(3, start=1), spaces.Text(5)])})


def run(env: gymnasium.Env, steps: int = 5) -> list[Any]:
    guard = CheckedEnv(env, 3, "MyEnv")
    guard.reset(seed=0)
    return [guard.step(0) for _ in range(steps)]


def test_what_is_right_passes_unchanged() -> None:
    results = run(Counting())
    assert [(obs[0], reward, ended, cut) for obs, reward, ended, cut, _ in results] == [
        (i, i, False, False) for i in range(1, 6)
    ]


@pytest.mark.parametrize("ends", [(True, False), (False, np.True_)])
def test_numbers_of_the_last_step_are_kept_of_info(ends) -> None:
    info = {
        "is_success": True,
        "x": np.array(2.5),
        "lives": np.int64(3),
        "text": "a",
        "grid": np.ones(2),
        "one": {"y": 1},
    }
    kept = run(Counting(returning((OBS, 0.0, *ends, info))))[2][4]
    assert kept == {"is_success": True, "x": 2.5, "lives": 3}


def test_only_the_action_mask_is_kept_of_info_before_the_last_step() -> None:
    mask = np.ones(2, np.int8)
    assert run(Counting(returning((OBS, 0.0, False, False, {"action_mask": mask, "lives": 3}))))[2][4] == {
        "action_mask": mask
    }


@pytest.mark.parametrize(
    ("result", "message"),
    [
        ((OBS, 0.0, False, {}), "tuple of 4 values; step must return"),
        (OBS, r"ndarray of float32 with shape \(4,\); step must return"),
        ("nothing", "the text 'nothing'; step must return"),
        ((np.zeros(5, np.float32), 0.0, False, False, {}), r"shape \(5,\), where the space says \(4,\)"),
        ((np.zeros((1, 4), np.float32), 0.0, False, False, {}), r"shape \(1, 4\), where the space says \(4,\)"),
        ((np.zeros(4, np.complex64), 0.0, False, False, {}), "complex64 with shape .* as observation"),
        ((np.array(["a"] * 4), 0.0, False, False, {}), "as observation, where the space says numbers"),
        ((np.array([None] * 4), 0.0, False, False, {}), "as observation, where the space says numbers"),
        ((None, 0.0, False, False, {}), "None as observation"),
        (("north", 0.0, False, False, {}), "the text 'north' as observation"),
        (([[1, 2], [3]], 0.0, False, False, {}), "does not make an array"),
        ((OBS, None, False, False, {}), "None as reward"),
        ((OBS, "1", False, False, {}), "the text '1' as reward"),
        ((OBS, 1j, False, False, {}), "complex as reward"),
        ((OBS, np.zeros(1), False, False, {}), r"shape \(1,\) as reward"),
        ((OBS, [[1], [2, 3]], False, False, {}), "list of 2 values as reward"),
        ((OBS, 0.0, 1, False, {}), "1 as terminated; it must be a bool"),
        ((OBS, 0.0, False, None, {}), "None as truncated; it must be a bool"),
        ((OBS, 0.0, False, np.zeros(1, bool), {}), "as truncated; it must be a bool"),
        ((OBS, 0.0, False, False, None), "None as info; it must be a dict"),
    ],
)
def test_wrong_results_of_step(result: Any, message: str) -> None:
    with pytest.raises(EnvironmentFault, match=message) as caught:
        run(Counting(returning(result)))
    assert str(caught.value).startswith("environment 3 (MyEnv) returned in step 3 of episode 1: ")


def test_a_step_that_returns_nothing() -> None:
    env = Counting()
    env.step = lambda action: None
    with pytest.raises(EnvironmentFault, match="returned in step 1 of episode 1: None; step must return"):
        run(env)


@pytest.mark.parametrize(
    ("result", "message"),
    [
        (OBS, "reset must return \\(observation, info\\)"),
        ((OBS, {}, 0), "tuple of 3 values; reset must return"),
        ((np.zeros(3), {}), r"shape \(3,\), where the space says \(4,\)"),
        ((OBS, 3), "3 as info"),
    ],
)
def test_wrong_results_of_reset(result: Any, message: str) -> None:
    with pytest.raises(EnvironmentFault, match=message) as caught:
        run(Counting(at_reset=lambda: result))
    assert str(caught.value).startswith("environment 3 (MyEnv) returned in reset of episode 1: ")


@pytest.mark.parametrize(
    "result",
    [
        (OBS.astype(np.float64), 0.0, False, False, {}),
        (OBS.astype(np.int64), 1, False, False, {}),
        ([0, 1, 2, 3], np.float32(1), np.False_, np.bool_(True), {}),
        (OBS, np.array(1.0), np.array(False), True, {}),
        (np.full(4, np.nan, np.float32), float("nan"), True, True, {}),
    ],
    ids=["float64", "integers", "list", "arrays without axes", "nan, and both flags"],
)
def test_harmless_results_pass(result: Any) -> None:
    assert run(Counting(returning(result)))[2][:4] == result[:4]


@pytest.mark.parametrize(
    ("space", "obs", "message"),
    [
        (spaces.Box(0, 255, (2,), np.uint8), np.zeros(2, np.float32), "of float32, where the space says uint8"),
        (spaces.Box(0, 255, (2,), np.uint8), np.zeros(2, np.int64), "of int64, where the space says uint8"),
        (spaces.Box(0, 255, (2,), np.uint8), np.zeros(2, np.uint8), None),
        (spaces.Discrete(3), 3, "observation 3, which is not in Discrete"),
        (spaces.Discrete(3), -1, "observation -1, which is not in Discrete"),
        (spaces.Discrete(3), 1.0, "of float64, where the space says int64"),
        (spaces.Discrete(3), np.array([1]), r"shape \(1,\), where the space says \(\)"),
        (spaces.Discrete(3), np.int32(2), None),
        (spaces.Discrete(3, start=-1), -1, None),
        (spaces.MultiDiscrete([2, 3]), np.array([1, 3]), "not in MultiDiscrete"),
        (spaces.MultiDiscrete([2, 3]), [1, 2], None),
        (spaces.MultiBinary(2), np.array([0, 2]), "not in MultiBinary"),
        (spaces.MultiBinary(2), np.array([True, False]), None),
        (NESTED, {"b": (1, "x")}, r"without \['a'\]; it has the keys \['b'\]"),
        (NESTED, OBS, r"a dict with the keys \['a', 'b'\]"),
        (NESTED, {"a": OBS, "b": (1, "x")}, r"observation\['a'\] with shape \(4,\)"),
        (NESTED, {"a": OBS[:2], "b": (0, "x")}, r"observation\['b'\]\[0\] 0, which is not in"),
        (NESTED, {"a": OBS[:2], "b": (1,)}, "where the space says 2 values"),
        (NESTED, {"a": OBS[:2], "b": (1, "much too long")}, r"observation\['b'\]\[1\], which is not in Text"),
        (NESTED, {"a": OBS[:2], "b": [2, "x"]}, None),
    ],
)
def test_observations(space: spaces.Space, obs: Any, message: str | None) -> None:
    problem = observation_problem(space, obs)
    if message is None:
        assert problem is None
    else:
        with pytest.raises(EnvironmentFault, match=message):
            run(Counting(at_reset=lambda: (obs, {}), observation_space=space))


def test_precision_may_change_and_the_shape_is_still_checked() -> None:
    values = {1: np.zeros(4), 2: np.zeros(4), 3: np.zeros(4, np.float32), 4: np.zeros(5)}
    with pytest.raises(EnvironmentFault, match=r"step 4 .*shape \(5,\)"):
        run(Counting(lambda step: (values[step], 0.0, False, False, {})))


def test_what_the_environment_raises_is_the_cause_and_the_place_is_named() -> None:
    guard = CheckedEnv(Counting(raising), 3, "MyEnv")
    guard.reset()
    guard.step(0)
    guard.reset()
    guard.step(0)
    guard.step(0)
    with pytest.raises(EnvironmentFault) as caught:
        guard.step(0)
    assert str(caught.value) == "environment 3 (MyEnv) raised in step 3 of episode 2: ValueError: 50% bad"
    assert isinstance(caught.value.__cause__, ValueError)
    assert str(pickle.loads(pickle.dumps(caught.value))) == str(caught.value)


def test_a_reset_that_raises() -> None:
    with pytest.raises(EnvironmentFault, match="raised in reset of episode 1: ZeroDivisionError"):
        run(Counting(at_reset=lambda: 1 / 0))


def test_sys_exit_is_a_fault_but_signals_are_not() -> None:
    with pytest.raises(EnvironmentFault, match="raised in step 3 of episode 1: SystemExit: 7"):
        run(Counting(exiting))

    class Terminated(SystemExit):
        pass

    for signalled in (Terminated(143), KeyboardInterrupt()):

        def interrupt(step: int, error: BaseException = signalled) -> None:
            raise error

        with pytest.raises(type(signalled)):
            run(Counting(interrupt))


def test_the_spec_is_that_of_the_environment() -> None:
    env = gymnasium.make("CartPole-v1")
    assert CheckedEnv(env, 0, "x").spec == env.spec
