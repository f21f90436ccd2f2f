"""PPO's loss, epochs and schedules, against NumPy and against plain loops over optax."""

from functools import cache
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from gymnasium import spaces

from renshu import PPO
from renshu.algorithms.policy_gradient.actor_critic import Batch
from renshu.algorithms.policy_gradient.ppo import PPOLearner
from renshu.errors import HyperparameterError
from renshu.loops.programs import Programs
from renshu.networks.actor_critic import Inputs
from renshu.ops.schedules import Linear
from tests.algorithms.rollouts import OBSERVATION, assert_close, draw, make_rollout, quick, spec_of

KEY = jax.random.key(3)
T, N = 8, 3
SMALL = {"n_steps": T, "batch_size": T * N, "n_epochs": 1, "net_arch": [4], "learning_rate": 0.01}


def learner_of(space: spaces.Space | None = None, **changes: Any) -> PPOLearner:
    return quick(PPO(**SMALL | changes).build(spec_of(space, num_envs=N)))  # type: ignore[arg-type]


@cache
def programs(**changes: Any) -> Programs:
    return Programs(learner_of(**changes))


def started(learner: PPOLearner, steps: int = 0) -> Any:
    state = learner.init(KEY)
    return state._replace(counters=state.counters._replace(steps=np.int32(steps), target=np.int32(100)))


def learned(made: Programs, state: Any, rollout: Any) -> tuple[Any, dict[str, float]]:
    state, vector = made.learn(jax.tree.map(np.array, state), rollout, made.keys(KEY, 0))
    return state, made.metrics(vector)


def some_batch(learner: PPOLearner, rows: int = 40) -> Batch:
    """A batch from a policy quite unlike the learner's; what stands in invalid rows is absurd."""
    rng = np.random.default_rng(1)
    valid = rng.random(rows) < 0.8
    advantage, target, value = (rng.normal(size=rows).astype(np.float32) for _ in range(3))
    return Batch(
        obs=draw(OBSERVATION, (rows,), 0),
        action=draw(learner.spec.action_space, (rows,), 1),
        log_prob=rng.normal(-0.7, 0.3, rows).astype(np.float32),
        value=value,
        advantage=np.where(valid, advantage, 1e9).astype(np.float32),
        target=np.where(valid, target, -1e9).astype(np.float32),
        valid=valid,
    )


def plain_loss(a: PPO, logits, value, batch: Batch, clip_range: float, clip_range_vf: float | None) -> dict[str, float]:
    """Equations 7 and 9, over the valid rows alone, in float64."""
    keep = np.asarray(batch.valid)
    logits, value = np.asarray(logits, np.float64)[keep], np.asarray(value, np.float64)[keep]
    _, action, old_log_prob, old_value, advantage, target, _ = (
        np.asarray(x, None if x.dtype.kind == "i" else np.float64)[keep] for x in batch[:7]
    )
    log_p = logits - np.log(np.exp(logits).sum(-1, keepdims=True))
    log_ratio = log_p[np.arange(len(action)), action] - old_log_prob
    ratio = np.exp(log_ratio)
    if a.normalize_advantage:
        advantage = (advantage - advantage.mean()) / (advantage.std(ddof=1) + 1e-8)
    surrogate = [
        min(r * A, float(np.clip(r, 1 - clip_range, 1 + clip_range)) * A) for r, A in zip(ratio, advantage, strict=True)
    ]
    if clip_range_vf is not None:
        value = old_value + np.clip(value - old_value, -clip_range_vf, clip_range_vf)
    found = {
        "policy_loss": -np.mean(surrogate),
        "value_loss": np.mean((value - target) ** 2),
        "entropy": -(np.exp(log_p) * log_p).sum(-1).mean(),
        "approx_kl": np.mean(ratio - 1 - log_ratio),
        "clip_fraction": np.mean(np.abs(ratio - 1) > clip_range),
    }
    loss = found["policy_loss"] + a.vf_coef * found["value_loss"] - a.ent_coef * found["entropy"]
    return {"loss": loss, **found}


@pytest.mark.parametrize("normalize_advantage", [True, False])
@pytest.mark.parametrize("clip_range_vf", [None, 0.3])
def test_the_loss_against_numpy(normalize_advantage: bool, clip_range_vf: float | None):
    learner = learner_of(normalize_advantage=normalize_advantage, vf_coef=0.7, ent_coef=0.05)
    params, batch = learner.init(KEY).params, some_batch(learner)
    policy, value = jax.jit(learner.network.both)(params, Inputs(batch.obs))[:2]
    expected = plain_loss(learner.config, policy.logits, value, batch, 0.2, clip_range_vf)  # type: ignore[union-attr]
    assert 0.1 < expected["clip_fraction"] < 0.9
    loss, metrics = jax.jit(lambda p, b: learner.loss(p, b, jnp.float32(0.2), clip_range_vf))(params, batch)  # type: ignore[arg-type]
    assert {"loss": float(loss), **jax.tree.map(float, metrics)} == pytest.approx(expected, rel=1e-4)


def test_the_first_step_of_an_update_has_a_ratio_of_one():
    made = programs(norm_obs=True)
    state, rollout = started(made.learner), make_rollout(made.learner, truncated=((2, 1),))  # type: ignore[arg-type]
    state, _ = learned(made, state, rollout)  # the first rollout is acted on without statistics, and learned with them
    for _ in range(2):  # the second time with statistics that have changed in between
        state, metrics = learned(made, state, rollout)
        assert metrics["approx_kl"] == pytest.approx(0, abs=1e-6)
        assert metrics["clip_fraction"] == 0
        assert metrics["policy_loss"] == pytest.approx(0, abs=1e-5)  # the mean of normalised advantages
        assert metrics["value_loss"] > 0.01


def test_an_update_equals_a_plain_loop_over_epochs_and_minibatches():
    options: dict[str, Any] = {"batch_size": 8, "n_epochs": 3, "ent_coef": 0.01, "clip_range_vf": 0.2}
    made = programs(**options)
    learner: Any = made.learner
    state, rollout = started(learner), make_rollout(learner, terminated=((3, 0),))
    _, batch = jax.jit(learner.make_batch)(state, rollout)
    orders = np.asarray(learner.orders(T * N, Programs(learner).keys(KEY, 0)[T]))
    step = jax.jit(jax.grad(lambda p, b: learner.loss(p, b, 0.2, 0.2)[0]))
    transform = optax.chain(optax.clip_by_global_norm(0.5), optax.adam(0.01, eps=1e-5))
    params, opt_state, update = state.params, transform.init(state.params), jax.jit(transform.update)
    for order in orders:
        updates, opt_state = update(step(params, jax.tree.map(lambda x, o=order: np.asarray(x)[o], batch)), opt_state)
        params = jax.tree.map(lambda p, u: np.asarray(p) + np.asarray(u), params, updates)
    new, _ = learned(made, state, rollout)
    assert int(new.counters.updates) == len(orders) == 9
    assert_close(new.params, params, rtol=1e-3, atol=1e-5)


def test_each_epoch_is_a_new_permutation_of_all_rows():
    orders = np.asarray(learner_of(batch_size=8, n_epochs=4).orders(T * N, KEY))
    assert orders.shape == (4 * 3, 8)
    epochs = orders.reshape(4, T * N)
    np.testing.assert_array_equal(np.sort(epochs, axis=1), np.broadcast_to(np.arange(T * N), (4, T * N)))
    assert len({tuple(epoch) for epoch in [*epochs, np.arange(T * N)]}) == 5
    other = np.asarray(learner_of(batch_size=8, n_epochs=4).orders(T * N, jax.random.key(4)))
    assert (other != orders).any()


def test_one_minibatch_needs_no_order():
    learner = learner_of(n_epochs=4)
    orders = learner.orders(T * N, KEY)
    assert orders.shape == (4,)
    batch = some_batch(learner, T * N)
    shuffled = jax.tree.map(lambda x: x[np.random.default_rng(0).permutation(T * N)], batch)
    loss = jax.jit(lambda b: learner.loss(learner.init(KEY).params, b, jnp.float32(0.2), None)[0])
    assert float(loss(batch)) == pytest.approx(float(loss(shuffled)), rel=1e-5)


def test_target_kl_stops_before_the_step_that_would_go_too_far():
    learner: Any = learner_of()
    state, rollout = started(learner), make_rollout(learner)
    _, batch = jax.jit(learner.make_batch)(state, rollout)
    step = jax.jit(jax.grad(lambda p: learner.loss(p, batch, 0.2, None), has_aux=True))
    transform = optax.chain(optax.clip_by_global_norm(0.5), optax.adam(0.01, eps=1e-5))
    update, params, opt_state = jax.jit(transform.update), [state.params], transform.init(state.params)
    kl = []
    for _ in range(8):
        grad, metrics = step(params[-1])
        kl.append(float(metrics["approx_kl"]))
        updates, opt_state = update(grad, opt_state)
        params.append(jax.tree.map(lambda p, u: np.asarray(p) + np.asarray(u), params[-1], updates))
    assert kl == sorted(kl)
    between = (kl[3] + kl[4]) / 2  # so the fifth step, of index 4, is the first that is not taken
    stopped, metrics = learned(programs(n_epochs=8, target_kl=between / 1.5), state, rollout)
    assert int(stopped.counters.updates) == 4
    assert_close(stopped.params, params[4], rtol=1e-4)
    assert metrics["approx_kl"] == pytest.approx(np.mean(kl[:5]), rel=1e-2)


def test_a_wide_target_kl_stops_nothing():
    rollout, state = make_rollout(learner_of()), started(learner_of())
    free, _ = learned(programs(n_epochs=8), state, rollout)
    wide, _ = learned(programs(n_epochs=8, target_kl=100.0), state, rollout)
    assert int(wide.counters.updates) == 8
    assert_close(wide.params, free.params, rtol=1e-5)


def test_clip_ranges_follow_their_schedules_into_the_loss():
    scheduled = programs(n_epochs=3, clip_range=Linear(0.4), clip_range_vf=Linear(0.2))
    fixed = programs(n_epochs=3, clip_range=0.2, clip_range_vf=0.1)
    rollout = make_rollout(learner_of())
    moved = {}
    for steps, clip_range in ((0, 0.4), (50, 0.2), (100, 0.0)):
        moved[steps], metrics = learned(scheduled, started(learner_of(), steps - T * N), rollout)
        assert metrics["clip_range"] == pytest.approx(clip_range, abs=1e-6)
    half, _ = learned(fixed, started(learner_of()), rollout)
    assert_close(moved[50].params, half.params, rtol=1e-5)
    for steps in (0, 100):
        kernels = [state.params["value_head"]["kernel"] for state in (moved[steps], half)]
        assert np.abs(kernels[0] - kernels[1]).max() > 1e-5


@pytest.mark.parametrize(("batch_size", "nearest"), [(7, 6), (9, 8), (100, 24), (23, 24)])
def test_minibatches_must_divide_the_rollout(batch_size: int, nearest: int):
    words = rf"batch_size={batch_size} does not divide n_steps \* num_envs = 8 \* 3 = 24 .* batch_size={nearest}$"
    with pytest.raises(HyperparameterError, match=words):
        learner_of(batch_size=batch_size)


@pytest.mark.parametrize("batch_size", [1, 2, 12, 24])
def test_minibatches_that_divide_the_rollout(batch_size: int):
    assert learner_of(batch_size=batch_size).orders(T * N, KEY).size == (1 if batch_size == 24 else 24)
