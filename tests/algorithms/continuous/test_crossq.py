"""CrossQ: the joint pass, running statistics, and nothing late."""

from itertools import pairwise

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from renshu.algorithms.continuous.crossq import CrossQ
from renshu.errors import HyperparameterError
from renshu.networks.layers import STATISTICS
from renshu.types import TimeStep
from tests.algorithms.rollouts import assert_close, beginning
from tests.algorithms.transitions import SMALL, moved, samples_of, spec_of

pytestmark = pytest.mark.usefixtures("compiled_fast")

KEY = jax.random.key(0)
RATE = jnp.float32(1e-3)


@pytest.fixture(scope="module")
def learned():
    """A learner, its core, the transitions, and the core after each of three updates with metrics."""
    made, batch = CrossQ(**SMALL, ent_coef=0.3).build(spec_of()), samples_of()
    cores = [(jax.jit(made.init_train)(KEY), {})]
    update = jax.jit(made.gradient_step)
    for i in range(3):
        train_state, metrics, _ = update(cores[-1][0], batch, jax.random.fold_in(KEY, i), RATE)
        cores.append((train_state, metrics))
    return made, batch, cores


def test_one_pass_over_present_and_next_steps(learned):
    """Values, targets and statistics are those of one batch of both (Bhatt 2024, figure 2)."""
    made, batch, ((train_state, _), (after, metrics), *_) = learned
    key = jax.random.split(jax.random.fold_in(KEY, 0))[0]
    next_action, log_prob = made.policy(train_state.params, batch.next_obs).sample_and_log_prob(key)
    obs = np.concatenate([batch.obs, batch.next_obs])
    action = np.concatenate([batch.action, next_action])
    q = []
    for params, stats, now in zip(
        *(train_state.params["critics"], train_state.params["stats"]["critics"], after.params["stats"]["critics"]),
        strict=True,
    ):
        variables = {"params": params, STATISTICS: stats}
        both, stats = made.critic.apply(variables, obs, action, train=True, mutable=[STATISTICS])
        assert_close(now, stats[STATISTICS])
        q.append(np.asarray(both)[:, 0])
    now, after_now = np.split(np.stack(q), 2, axis=1)
    discounted = np.asarray(batch.discount) * (after_now.min(axis=0) - 0.3 * np.asarray(log_prob))
    target = np.asarray(batch.reward) + discounted
    np.testing.assert_allclose(metrics["critic_loss"], 0.5 * ((now - target) ** 2).sum(axis=0).mean(), rtol=1e-3)


@pytest.mark.parametrize(("part", "b1"), [("actor", 0.5), ("critics", 0.5), ("log_ent_coef", 0.9)])
def test_the_momentum_of_networks_is_not_that_of_the_temperature(learned, part, b1):
    made, _, _ = learned
    adam, expected = made.optimizer(part), optax.scale_by_adam(b1=b1)
    states, weight = [adam.init(jnp.zeros(1)), expected.init(jnp.zeros(1))], jnp.zeros(1)
    for gradient in (1.0, -2.0):
        found, states[0] = adam.update(jnp.array([gradient]), states[0], weight)
        wanted, states[1] = expected.update(jnp.array([gradient]), states[1], weight)
    np.testing.assert_array_equal(found, wanted)


def test_nothing_is_late_and_the_policy_waits(learned):
    _, _, cores = learned
    for i, ((before, _), (after, _)) in enumerate(pairwise(cores), 1):
        assert after.target == {}
        assert moved(after.params["critics"], before.params["critics"])
        assert moved(after.params["stats"]["critics"], before.params["stats"]["critics"])
        for tree in ("actor", "stats"):
            old, new = (x.params[tree]["actor"] if tree == "stats" else x.params[tree] for x in (before, after))
            assert moved(new, old) == (i == 3)
    assert "stats" not in cores[0][0].opt_state


def test_acting_goes_by_running_statistics(learned):
    """An observation gets the same action and value alone and among others."""
    made, batch, cores = learned
    params, obs = cores[-1][0].params, np.asarray(batch.obs)
    state = jax.eval_shape(made.init, KEY)
    actor_state = made.actor_state(state)._replace(params=params, exploration=jnp.float32(0.0))
    act = jax.jit(lambda obs, first: made.act(actor_state, (), TimeStep(obs, first), KEY, explore=False).action)
    np.testing.assert_allclose(act(obs, np.zeros(16, bool))[:1], act(obs[:1], np.zeros(1, bool)), rtol=1e-4)
    found = [made.explain(actor_state, (), beginning(x)) for x in (obs, obs[:1])]
    assert_close(jax.tree.map(lambda x: x[:1], found[0]), found[1])
    other = jax.tree.map(lambda x: x * 0 + 0.5, params["stats"])
    changed = made.explain(actor_state._replace(params={**params, "stats": other}), (), beginning(obs))
    assert moved(found[0]["value"], changed["value"])
    assert moved(found[0]["mean"], changed["mean"])


def test_defaults_and_bad_hyperparameters():
    assert CrossQ().net_arch == ((256, 256), (1024, 1024))
    assert CrossQ.from_json(CrossQ().to_json()) == CrossQ()
    for option in ({"tau": 0.01}, {"n_target_critics": 1}, {"dropout": 0.1}, {"use_sde": True}):
        (name,) = option
        with pytest.raises(HyperparameterError, match=f"CrossQ has no hyperparameter {name!r}"):
            CrossQ(**option)


def test_a_network_of_ones_own_has_no_batch_normalisation():
    with pytest.raises(HyperparameterError, match="rests on the batch normalisation"):
        CrossQ(network=nn.Dense(8)).on("renshu/Pendulum-v1")
