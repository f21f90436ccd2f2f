"""Distributions: normalised, sampled as they say, equal to numerical integrals, and finite at the extremes."""

import itertools
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import special
from scipy import stats as scipy_stats

from renshu.ops.distributions import Bernoulli, Categorical, Distribution, MultiCategorical, Normal, TanhNormal

FORBIDDEN = jnp.finfo(jnp.float32).min
KEY = jax.random.key(0)
DRAWS = 20_000
FAR_MEANS = jnp.array([0.0, 9.0, -50.0])
LOG_STDS = jnp.array([-20.0, 0.0, 2.0])
FOUR_SIGMA = 4 / np.sqrt(DRAWS)


def examples(key: int) -> dict[str, Distribution]:
    """One distribution of each kind, over a batch of 3."""
    k = jax.random.split(jax.random.key(key), 6)
    return {
        "categorical": Categorical(jax.random.normal(k[0], (3, 4))),
        "multi": MultiCategorical((Categorical(jax.random.normal(k[1], (3, 2))), Categorical(jnp.zeros((3, 5)) + key))),
        "bernoulli": Bernoulli(jax.random.normal(k[2], (3, 2))),
        "normal": Normal(jax.random.normal(k[3], (3, 2)), jax.random.normal(k[4], (2,)) * 0.3),
        "tanh": TanhNormal(jax.random.normal(k[3], (3, 2)), jax.random.normal(k[5], (3, 2)) * 0.3),
    }


ACTIONS = {
    "categorical": ((3,), jnp.int32),
    "multi": ((3, 2), jnp.int32),
    "bernoulli": ((3, 2), jnp.int8),
    "normal": ((3, 2), jnp.float32),
    "tanh": ((3, 2), jnp.float32),
}
KINDS = list(ACTIONS)


@jax.jit
def draw(distribution: Distribution) -> jax.Array:
    return jax.vmap(lambda d, key: d.sample(key), (None, 0))(distribution, jax.random.split(KEY, DRAWS))


@jax.jit
def log_probs(distribution: Distribution, actions: jax.Array) -> jax.Array:
    return jax.vmap(lambda d, a: d.log_prob(a), (None, 0))(distribution, actions)


def score(distribution: Distribution, actions: jax.Array) -> np.ndarray:
    return np.asarray(log_probs(distribution, actions), np.float64)


def assert_finite(function: Callable[..., jax.Array], *at: jax.Array) -> None:
    """The values of the function, and the gradient of their sum by each of its arguments, are finite."""
    assert np.isfinite(function(*at)).all()
    for gradient in jax.jit(jax.grad(lambda *x: function(*x).sum(), tuple(range(len(at)))))(*at):
        assert np.isfinite(gradient).all()


@pytest.mark.parametrize("kind", KINDS)
def test_shapes_and_types(kind: str) -> None:
    distribution, other = examples(1)[kind], examples(2)[kind]
    actions = jax.eval_shape(lambda d: (d.sample(KEY), d.mode()), distribution)
    for action in actions:
        assert (action.shape, action.dtype) == ACTIONS[kind]
    numbers = jax.eval_shape(lambda d, o, a: (d.log_prob(a), d.entropy(), d.kl(o)), distribution, other, actions[0])
    for number in numbers:
        assert (number.shape, number.dtype) == ((3,), jnp.float32)


@pytest.mark.parametrize("kind", KINDS)
def test_jit_changes_nothing_and_a_distribution_passes_through_it(kind: str) -> None:
    distribution, other = examples(1)[kind], examples(2)[kind]
    assert type(jax.jit(lambda d: d)(distribution)) is type(distribution)
    action = distribution.sample(KEY)
    np.testing.assert_allclose(jax.jit(lambda d: d.sample(KEY))(distribution), action, rtol=1e-6)
    together = jax.jit(lambda d, o, a: (d.log_prob(a), d.entropy(), d.kl(o)))(distribution, other, action)
    apart = distribution.log_prob(action), distribution.entropy(), distribution.kl(other)
    np.testing.assert_allclose(together, apart, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("kind", KINDS)
def test_entropy_is_the_mean_surprise_of_samples(kind: str) -> None:
    distribution = examples(1)[kind]
    surprise = -score(distribution, draw(distribution))
    np.testing.assert_array_less(np.abs(surprise.mean(0) - distribution.entropy()), 1e-3 + FOUR_SIGMA * surprise.std(0))


@pytest.mark.parametrize("kind", KINDS)
def test_kl_is_the_mean_log_ratio_of_samples(kind: str) -> None:
    distribution, other = examples(1)[kind], examples(2)[kind]
    actions = draw(distribution)
    ratio = score(distribution, actions) - score(other, actions)
    np.testing.assert_array_less(np.abs(ratio.mean(0) - distribution.kl(other)), 1e-3 + FOUR_SIGMA * ratio.std(0))
    np.testing.assert_allclose(distribution.kl(distribution), 0.0, atol=1e-6)


@pytest.mark.parametrize("kind", KINDS)
def test_the_same_key_gives_the_same_action(kind: str) -> None:
    distribution = examples(1)[kind]
    np.testing.assert_array_equal(distribution.sample(KEY), distribution.sample(KEY))
    assert any((distribution.sample(KEY) != distribution.sample(jax.random.key(k))).any() for k in (1, 2, 3))


@pytest.mark.parametrize("kind", KINDS)
def test_actions_of_another_shape_are_refused(kind: str) -> None:
    distribution = examples(1)[kind]
    action = distribution.sample(KEY)
    with pytest.raises(AssertionError):
        distribution.log_prob(action[..., None])
    with pytest.raises(AssertionError):
        distribution.log_prob(action[:1])


@pytest.mark.parametrize("kind", ["categorical", "multi", "bernoulli"])
def test_probabilities_sum_to_one_and_frequencies_agree(kind: str) -> None:
    distribution = examples(1)[kind]
    choices = {"categorical": [range(4)], "multi": [range(2), range(5)], "bernoulli": [range(2), range(2)]}[kind]
    every = np.array(list(itertools.product(*choices)), np.int32)
    every = every[:, 0] if kind == "categorical" else every
    actions = jnp.asarray(np.stack([every] * 3, 1))
    probability = np.exp(score(distribution, actions))
    np.testing.assert_allclose(probability.sum(0), 1.0, rtol=1e-5)
    drawn = np.asarray(draw(distribution))
    same = drawn[None] == np.asarray(actions)[:, None]
    frequency = (same if kind == "categorical" else same.all(-1)).mean(1)
    np.testing.assert_array_less(np.abs(frequency - probability), 1e-4 + FOUR_SIGMA * np.sqrt(probability))
    best = np.asarray(distribution.mode())
    np.testing.assert_array_equal(best, every[probability.argmax(0)])


@settings(max_examples=50, deadline=None)
@given(st.lists(st.floats(-50, 50, width=32), min_size=4, max_size=4), st.integers(0, 3))
def test_categorical_equals_the_gather_in_float64(logits: list[float], action: int) -> None:
    log_p = special.log_softmax(np.array(logits, np.float64))
    distribution = Categorical(jnp.asarray(logits, jnp.float32))
    np.testing.assert_allclose(distribution.log_prob(jnp.asarray(action)), log_p[action], rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(distribution.entropy(), -(np.exp(log_p) * log_p).sum(), rtol=1e-4, atol=1e-5)


def test_categorical_by_hand() -> None:
    distribution = Categorical(jnp.log(jnp.array([0.5, 0.25, 0.25])))
    assert float(distribution.log_prob(jnp.array(1))) == pytest.approx(np.log(0.25))
    assert float(distribution.entropy()) == pytest.approx(1.5 * np.log(2))
    assert float(distribution.kl(Categorical(jnp.zeros(3)))) == pytest.approx(np.log(3) - 1.5 * np.log(2))
    gradient = jax.grad(lambda logits: Categorical(logits).log_prob(jnp.array(0)))(distribution.logits)
    np.testing.assert_allclose(gradient, [0.5, -0.25, -0.25], rtol=1e-6)


def test_a_forbidden_choice_is_never_drawn_and_gives_no_nan() -> None:
    logits = jnp.array([[0.0, FORBIDDEN, 1.0, FORBIDDEN], [FORBIDDEN, FORBIDDEN, FORBIDDEN, 3.0]])
    distribution = Categorical(logits)
    drawn = np.asarray(draw(distribution))
    assert set(drawn[:, 0]) == {0, 2}
    assert set(drawn[:, 1]) == {3}
    expected = [scipy_stats.bernoulli(special.expit(1.0)).entropy(), 0.0]
    np.testing.assert_allclose(distribution.entropy(), expected, rtol=1e-6)
    np.testing.assert_array_equal(distribution.kl(distribution), 0.0)
    np.testing.assert_allclose(distribution.log_prob(jnp.array([0, 3])), [np.log(special.expit(-1.0)), 0.0], rtol=1e-6)
    for function in (
        lambda x: Categorical(x).entropy().sum(),
        lambda x: Categorical(x).log_prob(jnp.array([2, 3])).sum(),
        lambda x: Categorical(x).kl(Categorical(jnp.where(x == FORBIDDEN, x, 0.0))).sum(),
        lambda x: Categorical(jnp.where(x == FORBIDDEN, x, 0.0)).kl(Categorical(x)).sum(),
    ):
        assert_finite(function, logits)
        gradient = jax.jit(jax.grad(function))(logits)
        np.testing.assert_array_equal(gradient[logits == FORBIDDEN], 0.0)


def test_extreme_logits_stay_finite() -> None:
    logits = jnp.array([1.0, -1.0, 0.0]) * jnp.array([[1e2], [1e10], [1e30]])
    for function in (
        lambda x: Categorical(x).entropy(),
        lambda x: Categorical(x).log_prob(jnp.zeros(3, jnp.int32)),
        lambda x: Categorical(x).kl(Categorical(-x)),
        lambda x: Bernoulli(x).entropy(),
        lambda x: Bernoulli(x).log_prob(jnp.tile(jnp.array([1, 0, 1], jnp.int8), (3, 1))),
        lambda x: Bernoulli(x).kl(Bernoulli(-x)),
    ):
        assert_finite(function, logits)


def test_normal_equals_scipy() -> None:
    mean, log_std = np.array([[0.5, -2.0], [3.0, 0.0]], np.float32), np.array([-1.0, 0.7], np.float32)
    distribution = Normal(jnp.asarray(mean), jnp.asarray(log_std))
    std = np.exp(log_std.astype(np.float64))
    action = np.array([[0.1, 4.0], [2.0, -1.0]], np.float32)
    np.testing.assert_allclose(
        distribution.log_prob(action), scipy_stats.norm.logpdf(action, mean, std).sum(-1), rtol=1e-5
    )
    np.testing.assert_allclose(distribution.entropy(), scipy_stats.norm.entropy(mean, std).sum(-1), rtol=1e-5)
    drawn = np.asarray(draw(distribution))
    np.testing.assert_allclose(drawn.mean(0), mean, atol=0.06)
    np.testing.assert_allclose(drawn.std(0), np.broadcast_to(std, mean.shape), rtol=0.03)


def test_normal_kl_by_hand() -> None:
    narrow, wide = Normal(jnp.array([1.0]), jnp.array([0.0])), Normal(jnp.array([0.0]), jnp.log(jnp.array([2.0])))
    assert float(narrow.kl(wide)) == pytest.approx(np.log(2) + (1 + 1) / 8 - 0.5)


@pytest.mark.parametrize("mean", [0.0, 0.8, -2.0])
@pytest.mark.parametrize("std", [0.1, 0.5, 1.0, 2.0])
def test_tanh_normal_equals_numerical_integrals(mean: float, std: float) -> None:
    distribution = TanhNormal(jnp.array([mean]), jnp.log(jnp.array([std])))
    before = np.linspace(mean - 9 * std, mean + 9 * std, 200_001)
    density = scipy_stats.norm.pdf(before, mean, std)
    log_slope = 2 * (np.log(2) - before - np.logaddexp(0, -2 * before))
    expected = np.trapezoid(density * (log_slope - scipy_stats.norm.logpdf(before, mean, std)), before)
    assert float(distribution.entropy()[()]) == pytest.approx(expected, abs=2e-4)
    action = np.linspace(-0.99, 0.99, 20_001).astype(np.float32)
    mass = np.trapezoid(np.exp(score(distribution, jnp.asarray(action)[:, None])), action)
    inside = np.diff(scipy_stats.norm.cdf(np.arctanh([-0.99, 0.99]), mean, std)).item()
    assert mass == pytest.approx(inside, abs=1e-3)


def test_tanh_normal_entropy_has_the_gradient_of_its_integral() -> None:
    def entropy(mean: float, log_std: float) -> float:
        std = np.exp(log_std)
        before = np.linspace(mean - 9 * std, mean + 9 * std, 20_001)
        log_slope = 2 * (np.log(2) - before - np.logaddexp(0, -2 * before))
        return log_std + np.trapezoid(scipy_stats.norm.pdf(before, mean, std) * log_slope, before)

    gradient = jax.grad(lambda m, s: TanhNormal(m[None], s[None]).entropy(), (0, 1))(jnp.array(0.4), jnp.array(-0.2))
    step = 1e-4
    expected = (
        (entropy(0.4 + step, -0.2) - entropy(0.4 - step, -0.2)) / (2 * step),
        (entropy(0.4, -0.2 + step) - entropy(0.4, -0.2 - step)) / (2 * step),
    )
    np.testing.assert_allclose(gradient, expected, rtol=1e-3)


def test_tanh_normal_scores_its_own_samples_without_the_inverse() -> None:
    distribution = TanhNormal(jnp.array([[0.3, -0.5]]), jnp.array([-0.5, -1.0]))
    keys = jax.random.split(KEY, 500)
    actions, log_prob = jax.jit(jax.vmap(distribution.sample_and_log_prob))(keys)
    np.testing.assert_allclose(actions, jax.jit(jax.vmap(distribution.sample))(keys), rtol=1e-6)
    np.testing.assert_allclose(log_prob, score(distribution, actions), rtol=1e-3, atol=1e-3)


def test_tanh_normal_gradients_flow_through_the_sample() -> None:
    def loss(mean: jax.Array, log_std: jax.Array, inverse: bool) -> jax.Array:
        distribution = TanhNormal(mean, log_std)
        action, log_prob = distribution.sample_and_log_prob(KEY)
        return distribution.log_prob(action) if inverse else log_prob

    at = jnp.array([0.3, -0.5]), jnp.array([-0.5, -1.0])
    exact, inverted = (jax.jit(jax.grad(loss, (0, 1)), static_argnums=2)(*at, inverse) for inverse in (False, True))
    np.testing.assert_allclose(exact, inverted, rtol=1e-3, atol=1e-4)


def test_tanh_normal_is_finite_at_the_bounds() -> None:
    at = tuple(jnp.stack([part.ravel()] * 2, -1) for part in jnp.meshgrid(FAR_MEANS, LOG_STDS))
    action = jnp.tile(jnp.array([1.0, -1.0]), (len(at[0]), 1))
    for function in (
        lambda m, s: TanhNormal(m, s).log_prob(action),
        lambda m, s: TanhNormal(m, s).sample_and_log_prob(KEY)[1],
        lambda m, s: TanhNormal(m, s).sample(KEY),
        lambda m, s: TanhNormal(m, s).entropy(),
        lambda m, s: TanhNormal(m, s).kl(TanhNormal(m + 1.0, s + 0.1)),
    ):
        assert_finite(function, *at)
    assert_finite(lambda a: TanhNormal(*at).log_prob(a), action)


def test_tanh_normal_far_out_is_scored_exactly() -> None:
    distribution = TanhNormal(jnp.array([20.0]), jnp.array([0.0]))
    action, log_prob = distribution.sample_and_log_prob(KEY)
    before = np.float64(distribution.base.sample(KEY)[0])
    expected = scipy_stats.norm.logpdf(before, 20.0) - 2 * (np.log(2) - before)
    assert action.item() == 1.0
    assert float(log_prob) == pytest.approx(expected, rel=1e-4)
