"""Advantages and returns, against values computed by hand and against sums written out in NumPy."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from renshu.errors import HyperparameterError
from renshu.ops.returns import discounted_returns, gae, n_step_returns, vtrace

SHAPES = [(1, 1), (6, 1), (9, 3)]
QUICK = settings(max_examples=50, deadline=None)
jit_gae = jax.jit(gae)
jit_discounted = jax.jit(discounted_returns)
jit_n_step = jax.jit(n_step_returns, static_argnames="n")
jit_vtrace = jax.jit(vtrace)


class Stream(NamedTuple):
    reward: np.ndarray
    value: np.ndarray
    terminated: np.ndarray
    valid: np.ndarray

    @property
    def float64(self) -> "Stream":
        return Stream(self.reward.astype(np.float64), self.value.astype(np.float64), self.terminated, self.valid)


@st.composite
def streams(draw: st.DrawFn) -> Stream:
    """Draw what an environment that resets by the NEXT_STEP rule gives. 1 terminates, 2 truncates, 3 does both."""
    steps, num_envs = draw(st.sampled_from(SHAPES))
    ends = draw(hnp.arrays(np.int8, (steps, num_envs), elements=st.sampled_from([0, 0, 1, 2, 3])))
    resetting = draw(hnp.arrays(bool, num_envs))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    reward = rng.normal(0, 5, (steps, num_envs)).astype(np.float32)
    value = rng.normal(0, 5, (steps + 1, num_envs)).astype(np.float32)
    terminated, valid = np.zeros((2, steps, num_envs), bool)
    for t in range(steps):
        valid[t] = ~resetting
        reward[t] *= valid[t]
        terminated[t] = valid[t] & np.isin(ends[t], [1, 3])
        resetting = valid[t] & (ends[t] > 0)
    return Stream(reward, value, terminated, valid)


def last_of_episode(stream: Stream, t: int, n: int) -> int:
    """Last step of the episode that step t of environment n belongs to, or of the rollout."""
    end = t
    while end + 1 < len(stream.valid) and stream.valid[end + 1, n] and not stream.terminated[end, n]:
        end += 1
    return end


def naive_gae(stream: Stream, gamma: float, gae_lambda: float) -> np.ndarray:
    reward, value, terminated, valid = stream.float64
    advantage = np.zeros_like(reward)
    for t, n in zip(*np.nonzero(valid), strict=True):
        for k in range(t, last_of_episode(stream, t, n) + 1):
            delta = reward[k, n] + gamma * value[k + 1, n] * (not terminated[k, n]) - value[k, n]
            advantage[t, n] += (gamma * gae_lambda) ** (k - t) * delta
    return advantage


def naive_n_step(stream: Stream, gamma: float, n_steps: int) -> np.ndarray:
    reward, value, terminated, valid = stream.float64
    target = np.zeros_like(reward)
    for t, n in zip(*np.nonzero(valid), strict=True):
        last = min(last_of_episode(stream, t, n), t + n_steps - 1)
        for k in range(t, last + 1):
            target[t, n] += gamma ** (k - t) * reward[k, n]
        if not terminated[last, n]:
            target[t, n] += gamma ** (last + 1 - t) * value[last + 1, n]
    return target


def column(*values: float, dtype: type = np.float32) -> np.ndarray:
    return np.array(values, dtype)[:, None]


# Three steps and a truncation, its reset, two steps and a termination.
HAND = Stream(
    reward=column(1, 2, 3, 0, 4, 5),
    value=column(10, 20, 30, 40, 50, 60, 70),
    terminated=column(0, 0, 0, 0, 0, 1, dtype=bool),
    valid=column(1, 1, 1, 0, 1, 1, dtype=bool),
)


@pytest.mark.parametrize("jit", [False, True])
def test_gae_by_hand(jit: bool) -> None:
    # delta = 1+10-10, 2+15-20, 3+20-30 (to the value 40 of the true last observation), reset, 4+30-50, 5-60
    expected = column(1 - 0.25 * (3 + 0.25 * 7), -3 - 0.25 * 7, -7, 0, -16 - 0.25 * 55, -55)
    result = (jit_gae if jit else gae)(*HAND, 0.5, 0.5)
    np.testing.assert_allclose(result, expected, rtol=1e-6)
    assert result.dtype == jnp.float32


@pytest.mark.parametrize("jit", [False, True])
def test_discounted_returns_by_hand(jit: bool) -> None:
    expected = column(1 + 0.5 * (2 + 0.5 * 23), 2 + 0.5 * 23, 3 + 0.5 * 40, 0, 4 + 0.5 * 5, 5)
    np.testing.assert_allclose((jit_discounted if jit else discounted_returns)(*HAND, 0.5), expected, rtol=1e-6)


@pytest.mark.parametrize("jit", [False, True])
def test_n_step_returns_by_hand(jit: bool) -> None:
    expected = column(1 + 0.5 * 2 + 0.25 * 30, 2 + 0.5 * 3 + 0.25 * 40, 3 + 0.5 * 40, 0, 4 + 0.5 * 5, 5)
    np.testing.assert_allclose((jit_n_step if jit else n_step_returns)(*HAND, 0.5, n=2), expected, rtol=1e-6)


def test_rollout_that_ends_within_an_episode_bootstraps_from_its_last_row() -> None:
    stream = Stream(column(1, 1), column(0, 0, 8), column(0, 0, dtype=bool), column(1, 1, dtype=bool))
    np.testing.assert_allclose(discounted_returns(*stream, 0.5), column(3.5, 5.0))
    np.testing.assert_allclose(n_step_returns(*stream, 0.5, n=7), column(3.5, 5.0))
    np.testing.assert_allclose(gae(*stream, 0.5, 1.0), column(3.5, 5.0))


@QUICK
@given(streams(), st.sampled_from([0.0, 0.9, 1.0]), st.sampled_from([0.0, 0.95, 1.0]))
def test_gae_is_the_sum_of_discounted_td_errors(stream: Stream, gamma: float, gae_lambda: float) -> None:
    expected = naive_gae(stream, gamma, gae_lambda)
    np.testing.assert_allclose(jit_gae(*stream, gamma, gae_lambda), expected, rtol=1e-5, atol=1e-4)


@QUICK
@given(streams(), st.sampled_from([0.0, 0.9, 1.0]))
def test_discounted_returns_reach_to_the_end_of_the_episode(stream: Stream, gamma: float) -> None:
    expected = naive_n_step(stream, gamma, len(stream.reward))
    np.testing.assert_allclose(jit_discounted(*stream, gamma), expected, rtol=1e-5, atol=1e-4)


@QUICK
@given(streams(), st.sampled_from([0.0, 0.9, 1.0]), st.sampled_from([1, 2, 3, 100]))
def test_n_step_returns_stop_after_n(stream: Stream, gamma: float, n: int) -> None:
    expected = naive_n_step(stream, gamma, n)
    np.testing.assert_allclose(jit_n_step(*stream, gamma, n=n), expected, rtol=1e-5, atol=1e-4)


@QUICK
@given(streams())
def test_gae_with_lambda_one_is_the_return_minus_the_value(stream: Stream) -> None:
    expected = np.where(stream.valid, jit_discounted(*stream, 0.9) - stream.value[:-1], 0.0)
    np.testing.assert_allclose(jit_gae(*stream, 0.9, 1.0), expected, rtol=1e-5, atol=1e-4)


def test_what_stands_in_a_reset_row_does_not_matter() -> None:
    reset = ~HAND.valid
    noisy = HAND._replace(reward=np.where(reset, np.nan, HAND.reward), terminated=HAND.terminated | reset)
    np.testing.assert_array_equal(gae(*noisy, 0.5, 0.5), gae(*HAND, 0.5, 0.5))
    np.testing.assert_array_equal(discounted_returns(*noisy, 0.5), discounted_returns(*HAND, 0.5))
    np.testing.assert_array_equal(n_step_returns(*noisy, 0.5, 3), n_step_returns(*HAND, 0.5, 3))


def test_no_value_beyond_a_termination_not_even_nan() -> None:
    stream = Stream(column(1, 2), column(3, 4, np.nan), column(0, 1, dtype=bool), column(1, 1, dtype=bool))
    np.testing.assert_allclose(gae(*stream, 0.5, 1.0), column(-1.0, -2.0))
    np.testing.assert_allclose(discounted_returns(*stream, 0.5), column(2.0, 2.0))
    np.testing.assert_allclose(n_step_returns(*stream, 0.5, 2), column(2.0, 2.0))


def test_vmap_equals_a_loop() -> None:
    values = HAND.value + np.arange(3, dtype=np.float32)[:, None, None]
    together = jax.vmap(lambda v: gae(HAND.reward, v, HAND.terminated, HAND.valid, 0.9, 0.8))(values)
    apart = [gae(HAND.reward, v, HAND.terminated, HAND.valid, 0.9, 0.8) for v in values]
    np.testing.assert_allclose(together, np.stack(apart), rtol=1e-6)


def test_gradients_reach_the_values_through_every_function() -> None:
    def at_the_truncation(value: jax.Array) -> jax.Array:
        stream = (HAND.reward, value, HAND.terminated, HAND.valid, 0.5)
        return jnp.stack([gae(*stream, 0.5), discounted_returns(*stream), n_step_returns(*stream, 2)])[:, 2, 0]

    gradients = jax.jit(jax.jacrev(at_the_truncation))(jnp.asarray(HAND.value))
    np.testing.assert_array_equal(gradients[:, 3, 0], [0.5, 0.5, 0.5])


@pytest.mark.parametrize(
    "wrong",
    [
        HAND._replace(value=HAND.value[:-1]),
        HAND._replace(valid=HAND.valid[:, 0]),
        HAND._replace(terminated=HAND.terminated.astype(np.float32)),
        HAND._replace(reward=HAND.reward[:, 0]),
    ],
)
def test_arrays_that_do_not_fit_are_refused_when_traced(wrong: Stream) -> None:
    with pytest.raises(AssertionError):
        jit_gae(*wrong, 0.9, 0.9)
    with pytest.raises(AssertionError):
        jit_discounted(*wrong, 0.9)
    with pytest.raises(AssertionError):
        jit_n_step(*wrong, 0.9, n=1)


def test_n_below_one_is_refused() -> None:
    with pytest.raises(HyperparameterError, match="n >= 1"):
        n_step_returns(*HAND, 0.9, n=0)


def naive_vtrace(
    stream: Stream, log_ratio: np.ndarray, gamma: float, gae_lambda: float, rho_bar: float, c_bar: float
) -> tuple[np.ndarray, np.ndarray]:
    """Equation 1 of Espeholt et al. 2018 as a sum over all later steps, and the advantage of section 4.2."""
    reward, value, terminated, valid = stream.float64
    ratio = np.exp(log_ratio.astype(np.float64))
    rho, c = np.minimum(rho_bar, ratio), gae_lambda * np.minimum(c_bar, ratio)
    advantage, target = np.zeros_like(reward), value[:-1].copy()
    delta = reward + gamma * value[1:] * ~terminated - value[:-1]
    for t, n in zip(*np.nonzero(valid), strict=True):
        last = last_of_episode(stream, t, n)
        corrections = [gamma ** (k - t) * np.prod(c[t:k, n]) * rho[k, n] * delta[k, n] for k in range(t, last + 1)]
        target[t, n] += sum(corrections)
        beyond = [gamma ** (k - t) * np.prod(c[t + 1 : k, n]) * rho[k, n] * delta[k, n] for k in range(t + 1, last + 1)]
        advantage[t, n] = rho[t, n] * (delta[t, n] + gae_lambda * sum(beyond))
    return advantage, target


@given(streams(), st.integers(0, 2**32 - 1), st.floats(0.3, 3), st.floats(0.3, 3))
@pytest.mark.parametrize("gae_lambda", [1.0, 0.9])
@QUICK
def test_vtrace_is_the_sum_of_the_paper(gae_lambda, stream, seed, rho_bar, c_bar):
    log_ratio = np.random.default_rng(seed).normal(0, 1, stream.reward.shape).astype(np.float32)
    expected = naive_vtrace(stream, log_ratio, 0.97, gae_lambda, rho_bar, c_bar)
    for function in (vtrace, jit_vtrace):
        found = function(*stream, log_ratio, 0.97, gae_lambda, rho_bar, c_bar)
        for ours, theirs in zip(found, expected, strict=True):
            np.testing.assert_allclose(ours, theirs, rtol=2e-4, atol=2e-3)


@given(streams(), st.floats(0, 1))
@QUICK
def test_vtrace_without_a_lag_is_the_generalised_advantage(stream, gae_lambda):
    advantage, target = vtrace(*stream, np.zeros_like(stream.reward), 0.97, gae_lambda)
    expected = gae(*stream, 0.97, gae_lambda)
    np.testing.assert_allclose(advantage, expected, rtol=1e-5, atol=1e-4)
    np.testing.assert_allclose(target, expected + stream.value[:-1], rtol=1e-5, atol=1e-4)


@given(streams())
@QUICK
def test_vtrace_without_a_lag_learns_the_values_of_n_step_returns(stream):
    """Remark 1 of the paper: on policy it is the n-step Bellman target."""
    target = vtrace(*stream, np.zeros_like(stream.reward), 0.97)[1]
    expected = n_step_returns(*stream, 0.97, n=len(stream.reward))
    np.testing.assert_allclose(np.where(stream.valid, target, 0.0), expected, rtol=1e-4, atol=1e-3)
