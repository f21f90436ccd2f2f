"""A2C's loss and its one gradient step, against NumPy."""

from typing import Any

import jax
import numpy as np
import pytest

from renshu import A2C
from renshu.algorithms.policy_gradient.actor_critic import Batch
from renshu.loops.programs import Programs
from renshu.networks.actor_critic import Inputs
from tests.algorithms.rollouts import OBSERVATION, assert_close, draw, make_rollout, quick, spec_of

KEY = jax.random.key(3)


def learner_of(**changes: Any) -> Any:
    options: dict[str, Any] = {"n_steps": 5, "net_arch": [4], "learning_rate": 0.01}
    return quick(A2C(**options | changes).build(spec_of()))


@pytest.mark.parametrize("normalize_advantage", [True, False])
def test_the_loss_against_numpy(normalize_advantage: bool):
    learner = learner_of(normalize_advantage=normalize_advantage, vf_coef=0.7, ent_coef=0.05)
    rng, rows = np.random.default_rng(1), 40
    valid = rng.random(rows) < 0.8
    advantage, target, unused = (rng.normal(size=rows).astype(np.float32) for _ in range(3))
    obs, action = draw(OBSERVATION, (rows,), 0), draw(learner.spec.action_space, (rows,), 1)
    absurd = np.where(valid, 0, 1e9).astype(np.float32)
    batch = Batch(obs, action, unused, unused, advantage + absurd, target - absurd, valid)
    params = learner.init(KEY).params

    policy, value = jax.jit(learner.network.both)(params, Inputs(obs))[:2]
    logits = np.asarray(policy.logits, np.float64)
    log_p = logits - np.log(np.exp(logits).sum(-1, keepdims=True))
    chosen, kept = log_p[np.arange(rows), action][valid], advantage[valid]
    if normalize_advantage:
        kept = (kept - kept.mean()) / (kept.std(ddof=1) + 1e-8)
    expected = {
        "policy_loss": -np.mean(chosen * kept),
        "value_loss": np.mean((np.asarray(value) - target)[valid] ** 2),
        "entropy": -(np.exp(log_p) * log_p).sum(-1)[valid].mean(),
    }
    loss, metrics = jax.jit(learner.loss)(policy, value, batch)
    assert jax.tree.map(float, metrics) == pytest.approx(expected, rel=1e-4)
    whole = expected["policy_loss"] + 0.7 * expected["value_loss"] - 0.05 * expected["entropy"]
    assert float(loss) == pytest.approx(whole, rel=1e-4)


@pytest.mark.parametrize("use_rms_prop", [True, False], ids=["rmsprop", "adam"])
def test_an_update_is_one_step_of_the_optimiser(use_rms_prop: bool):
    learner = learner_of(use_rms_prop=use_rms_prop, rms_prop_eps=1e-3, max_grad_norm=0.4)
    made, state = Programs(learner), learner.init(KEY)
    state = state._replace(counters=state.counters._replace(target=np.int32(100)))
    grad = jax.jit(jax.grad(lambda p, b: learner.loss(*learner.network.both(p, Inputs(b.obs))[:2], b)[0]))
    squares, mean = None, None
    params = state.params
    for t, seed in enumerate((0, 1), start=1):
        rollout = make_rollout(learner, seed=seed, terminated=((2, 1),))
        _, batch = jax.jit(learner.make_batch)(state._replace(params=params), rollout)
        g = jax.tree.map(lambda x: np.asarray(x, np.float64), grad(params, batch))
        norm = np.sqrt(sum((x**2).sum() for x in jax.tree.leaves(g)))
        assert norm > 0.4
        g = jax.tree.map(lambda x, norm=norm: x * 0.4 / norm, g)
        squares, mean = squares or jax.tree.map(np.zeros_like, g), mean or jax.tree.map(np.zeros_like, g)
        if use_rms_prop:  # nu <- 0.99 nu + 0.01 g^2, the step is g / (sqrt(nu) + eps), as in PyTorch
            squares = jax.tree.map(lambda nu, x: 0.99 * nu + 0.01 * x**2, squares, g)
            step = jax.tree.map(lambda x, nu: x / (np.sqrt(nu) + 1e-3), g, squares)
        else:
            squares = jax.tree.map(lambda nu, x: 0.999 * nu + 0.001 * x**2, squares, g)
            mean = jax.tree.map(lambda mu, x: 0.9 * mu + 0.1 * x, mean, g)
            step = jax.tree.map(
                lambda mu, nu, t=t: mu / (1 - 0.9**t) / (np.sqrt(nu / (1 - 0.999**t)) + 1e-3), mean, squares
            )
        params = jax.tree.map(lambda p, s: np.asarray(p - 0.01 * s, np.float32), params, step)
        state, vector = made.learn(jax.tree.map(np.array, state), rollout, made.keys(KEY, 0))
        state = state._replace(counters=state.counters._replace(steps=np.int32(0)))
        assert made.metrics(vector)["learning_rate"] == pytest.approx(0.01)
        assert int(state.counters.updates) == t
        assert_close(state.params, params, rtol=1e-3, atol=2e-5)
