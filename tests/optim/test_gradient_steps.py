"""Gradient steps on one flat vector, against plain optax on the pytree."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from renshu.optim.gradient_steps import minibatch_descent, optimizer_step
from renshu.optim.guards import keep_if_finite
from tests.algorithms.rollouts import assert_close, assert_same

RATE = 0.05
PARAMS = {"a": {"w": jnp.asarray([[0.5, -1.0], [2.0, 0.3]]), "b": jnp.asarray([0.1, -0.2])}, "c": jnp.asarray(0.7)}
X = np.random.default_rng(0).normal(size=(6, 8, 2)).astype(np.float32)  # 6 minibatches of 8 rows
BATCHES = (X, 3.0 * X.sum(-1) + 1.0)
ADAM = optax.chain(optax.clip_by_global_norm(0.5), optax.scale_by_adam(eps=1e-5))


def loss(params, batch):
    x, y = batch
    predicted = jnp.tanh(x @ params["a"]["w"] + params["a"]["b"]).sum(-1) * params["c"]
    error = ((predicted - y) ** 2).mean()
    return error, {"error": error, "bias": params["c"]}


def plain(transform, params, batches, rate=RATE):
    """Parameters and state of optax after each minibatch, and the losses before it."""
    opt_state, history, losses = transform.init(params), [], []
    step = jax.jit(jax.value_and_grad(loss, has_aux=True))
    for k in range(len(batches[0])):
        (value, _), grad = step(params, jax.tree.map(lambda x, k=k: x[k], batches))
        updates, opt_state = transform.update(grad, opt_state, params)
        params = jax.tree.map(lambda p, u: p - rate * u, params, updates)
        history.append(params)
        losses.append(float(value))
    return history, losses


def run(transform, batches, rate=RATE, stop=None):
    d = minibatch_descent(transform)
    return jax.jit(lambda p, s, b, r: d.run(loss, p, s, b, r, stop))(PARAMS, d.init(PARAMS), batches, rate)


@pytest.mark.parametrize("count", [1, 6])
def test_adam_with_clipping_equals_optax(count: int):
    batches = jax.tree.map(lambda x: x[:count], BATCHES)
    history, losses = plain(ADAM, PARAMS, batches)
    params, _, taken, metrics = run(ADAM, batches)
    assert_close(params, history[-1], rtol=1e-5)
    assert int(taken) == count
    assert float(metrics["loss"]) == pytest.approx(np.mean(losses), rel=1e-5)
    assert float(metrics["error"]) == pytest.approx(np.mean(losses), rel=1e-5)


def test_optimiser_state_goes_on_in_the_next_call():
    d = minibatch_descent(ADAM)
    first, second = (jax.tree.map(lambda x, s=s: x[s], BATCHES) for s in (slice(0, 2), slice(2, 6)))
    params, opt_state, *_ = d.run(loss, PARAMS, d.init(PARAMS), first, RATE)
    params, *_ = d.run(loss, params, opt_state, second, RATE)
    assert_close(params, run(ADAM, BATCHES)[0], rtol=1e-5)


@pytest.mark.parametrize("halt_at", [0, 3])
def test_the_step_at_which_it_stops_and_all_later_ones_are_not_taken(halt_at: int):
    history, losses = plain(ADAM, PARAMS, BATCHES)
    batches = (*BATCHES, jnp.arange(6) >= halt_at)
    d = minibatch_descent(ADAM)

    def marked(params, batch):
        value, metrics = loss(params, batch[:2])
        return value, {**metrics, "halt": batch[2].astype(jnp.float32)}

    params, opt_state, taken, metrics = jax.jit(
        lambda p, s: d.run(marked, p, s, batches, RATE, lambda metrics: metrics["halt"] > 0)
    )(PARAMS, d.init(PARAMS))
    assert int(taken) == halt_at
    assert_close(params, history[halt_at - 1] if halt_at else PARAMS, rtol=1e-5)
    assert int(opt_state[1].count) == halt_at
    assert float(metrics["loss"]) == pytest.approx(np.mean(losses[: halt_at + 1]), rel=1e-5)


def test_a_stop_that_never_comes_changes_nothing():
    params, _, taken, metrics = run(ADAM, BATCHES, stop=lambda metrics: metrics["error"] < 0)
    expected = run(ADAM, BATCHES)
    assert int(taken) == 6
    assert_close(params, expected[0], rtol=1e-6)
    assert float(metrics["loss"]) == pytest.approx(float(expected[3]["loss"]), rel=1e-6)


def test_a_learning_rate_of_zero_takes_steps_that_go_nowhere():
    params, _, taken, _ = run(ADAM, BATCHES, rate=0.0)
    assert_same(params, PARAMS)
    assert int(taken) == 6


def test_each_leaf_keeps_its_dtype():
    mixed = {"single": jnp.ones(3), "half": jnp.ones(2, jnp.bfloat16)}
    d = minibatch_descent(optax.scale_by_adam())

    def squares(params, _):
        return sum((leaf.astype(jnp.float32) ** 2).sum() for leaf in params.values()), {}

    params, *_ = d.run(squares, mixed, d.init(mixed), jnp.arange(3), 0.25)
    assert {name: leaf.dtype for name, leaf in params.items()} == {"single": jnp.float32, "half": jnp.bfloat16}
    assert all((leaf < 0.5).all() for leaf in params.values())


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_keep_if_finite(bad: float):
    new = {"w": jnp.asarray([1.0, 2.0]), "count": jnp.int32(5)}
    old = {"w": jnp.asarray([3.0, 4.0]), "count": jnp.int32(4)}
    fine = {"loss": jnp.asarray(0.5)}
    keep = jax.jit(keep_if_finite)
    assert_same(keep(new, old, fine), new)
    assert_same(keep(new, old, {"loss": jnp.asarray(bad)}), old)
    assert_same(keep({**new, "w": jnp.asarray([1.0, bad])}, old, fine), old)
    assert_same(keep({"count": jnp.int32(5)}, {"count": jnp.int32(4)}, {}), {"count": 5})


@pytest.mark.parametrize(("loss", "good"), [(1.0, True), (np.nan, False), (np.inf, False)])
def test_a_step_is_taken_only_if_loss_and_gradient_are_finite(loss: float, good: bool):
    transform, params = optax.scale_by_adam(), {"w": jnp.asarray([1.0, 2.0])}
    before = transform.init(params)

    def squares(params):
        return (params["w"] ** 2).sum() * loss, "aux"

    after, opt_state, aux, finite = optimizer_step(transform, squares, params, before, jnp.float32(0.1))
    assert aux == "aux"
    assert bool(finite) is good
    if good:
        np.testing.assert_allclose(after["w"], [0.9, 1.9], rtol=1e-5)
        assert int(opt_state.count) == 1
    else:
        assert_same((after, opt_state), (params, before))


def test_an_infinite_gradient_of_a_finite_loss_is_not_followed():
    params = {"w": jnp.zeros(2)}
    after, _, _, finite = optimizer_step(
        optax.identity(), lambda p: (jnp.sqrt(p["w"]).sum(), ()), params, optax.EmptyState(), jnp.float32(0.1)
    )
    assert not finite
    assert_same(after, params)


def test_a_gradient_whose_square_overflows_is_not_followed():
    transform, params = optax.scale_by_adam(), {"w": jnp.ones(2)}
    before = transform.init(params)
    huge = lambda p: ((p["w"] * jnp.float32(1e20)).sum(), ())  # noqa: E731
    after, opt_state, _, finite = optimizer_step(transform, huge, params, before, jnp.float32(0.1))
    assert not finite, "Adam's second moment would be infinite, and no parameter would ever move again"
    assert_same((after, opt_state), (params, before))


def test_after_a_bad_step_none_is_taken():
    params = {"w": jnp.ones(2)}
    after, _, _, finite = optimizer_step(
        optax.identity(), lambda p: (p["w"].sum(), ()), params, optax.EmptyState(), jnp.float32(0.1), jnp.bool_(False)
    )
    assert not finite
    assert_same(after, params)


def test_without_the_guard_the_step_is_taken_and_told():
    params = {"w": jnp.ones(2)}
    after, _, _, finite = optimizer_step(
        optax.identity(),
        lambda p: ((p["w"] * jnp.nan).sum(), ()),
        params,
        optax.EmptyState(),
        jnp.float32(0.1),
        guard=False,
    )
    assert not finite
    assert np.isnan(after["w"]).all()
