"""SAC: soft values, targets and temperature against NumPy; ensembles, dropout, state-dependent noise, choices."""

from itertools import pairwise

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from gymnasium import spaces

from renshu.algorithms.continuous.discrete_sac import DiscreteSACLearner
from renshu.algorithms.continuous.sac import SAC, SACLearner
from renshu.algorithms.continuous.temperature import init_temperature, temperature, temperature_step
from renshu.errors import HyperparameterError
from renshu.networks.critics import random_subset
from renshu.types import TimeStep
from tests.algorithms.rollouts import assert_close, assert_same, beginning
from tests.algorithms.transitions import SMALL, critics, moved, network, quick, samples_of, spec_of, started

pytestmark = pytest.mark.usefixtures("compiled_fast")

KEY = jax.random.key(0)
RATE, ONE = jnp.float32(1e-3), jnp.float32(1.0)
CHOICES = spaces.Discrete(4)
OBS = np.random.default_rng(0).normal(size=(6, 3)).astype(np.float32)


def learner(action=2, num_envs=2, **options):
    return quick(SAC(**{**SMALL, **options}).build(spec_of(action, num_envs)))


def soft(made, params, obs, key, reduce=lambda q: q.min(axis=0)):
    """Actions by the policy's own draw; the rest in NumPy."""
    action, log_prob = made.policy(params, obs).sample_and_log_prob(jax.random.split(key)[0])
    return reduce(critics(params, np.asarray(obs), np.asarray(action)))[:, 0], np.asarray(log_prob)


# --- learning -------------------------------------------------------------------------------------------------------


def test_target():
    """r + gamma (min_i Q'_i(s', a') - alpha log pi(a'|s')), a' by the policy as it is now."""
    made, batch = learner(ent_coef=0.3), samples_of()
    train_state = started(made)
    value, log_prob = soft(made, {**train_state.params, **train_state.target}, batch.next_obs, jax.random.split(KEY)[0])
    wanted = np.asarray(batch.reward) + np.asarray(batch.discount) * (value - 0.3 * log_prob)
    target = jax.jit(made.target)(train_state, batch, KEY)[:, 0]
    np.testing.assert_allclose(target, wanted, rtol=1e-3, atol=1e-4)
    np.testing.assert_array_equal(target[::3], batch.reward[::3])


def test_one_update():
    made, batch = learner(tau=0.25, ent_coef=0.3), samples_of()
    train_state, update = started(made), jax.jit(made.gradient_step)
    target = np.asarray(jax.jit(made.target)(train_state, batch, jax.random.split(jax.random.split(KEY)[0])[0]))
    after, metrics, error = update(train_state, batch, KEY, RATE)
    off = critics(train_state.params, np.asarray(batch.obs), np.asarray(batch.action))[..., 0] - target[:, 0]
    np.testing.assert_allclose(metrics["critic_loss"], 0.5 * (off**2).sum(axis=0).mean(), rtol=1e-3)
    np.testing.assert_allclose(error, np.abs(off).mean(axis=0), rtol=1e-2, atol=1e-4)
    # The policy learns by the critics after their step.
    now = {**after.params, "actor": train_state.params["actor"]}
    value, log_prob = soft(made, now, batch.obs, jax.random.split(KEY)[1])
    np.testing.assert_allclose(metrics["actor_loss"], (0.3 * log_prob - value).mean(), rtol=1e-3)
    np.testing.assert_allclose(metrics["entropy"], -log_prob.mean(), rtol=1e-3)
    assert set(train_state.target) == {"critics"}
    assert_close(
        after.target["critics"],
        jax.tree.map(lambda t, p: 0.75 * t + 0.25 * p, train_state.target["critics"], after.params["critics"]),
    )


def test_the_policy_climbs_the_soft_value():
    made, batch = learner(ent_coef=0.1), samples_of(64)
    train_state, step = started(made), jax.jit(made.policy_step, static_argnums=4)
    losses = []
    for i in range(30):
        key = jax.random.fold_in(KEY, i % 2)
        train_state = step(train_state, batch.obs, key, jnp.float32(1e-2), made.policy_value)
        losses.append(float(train_state.aux.metrics["actor_loss"]))
    assert losses[-1] < losses[1] - 0.1


@pytest.mark.parametrize(("entropy_target", "sign"), [(-50.0, -1), (50.0, 1)])
def test_worth_of_entropy_rises_while_there_is_too_little(entropy_target, sign):
    made = learner(ent_coef="auto_0.1", target_entropy=entropy_target)
    train_state = started(made)
    entropy, rate = jnp.float32(0.5), jnp.float32(1e-2)
    after = temperature_step(made.config, made.optim, train_state, ONE, entropy, made.target_entropy, rate)
    step = float(after.params["log_ent_coef"] - train_state.params["log_ent_coef"])
    assert step == pytest.approx(sign * 1e-2, rel=1e-3), "the first step of Adam is the learning rate"
    assert float(after.aux.metrics["ent_coef"]) == pytest.approx(np.exp(step), rel=1e-4)


def test_worth_of_entropy_at_the_start():
    fixed = SAC(**SMALL, ent_coef=0.2)
    assert init_temperature(fixed) == {}
    assert temperature(fixed, {}) == 0.2
    for text, value in (("auto", 1.0), ("auto_0.1", 0.1)):
        learned = SAC(**SMALL, ent_coef=text)
        assert float(temperature(learned, init_temperature(learned))) == pytest.approx(value)


def test_entropies_to_aim_at():
    assert learner(3).target_entropy == -3.0
    assert learner(3, target_entropy=-1.5).target_entropy == -1.5
    assert learner(CHOICES).entropy_target(OBS) == pytest.approx(0.98 * np.log(4))


@pytest.mark.parametrize(("delay", "interval"), [(3, 2), (1, 4)])
def test_policy_and_late_copies_wait(delay, interval):
    made, batch = learner(policy_delay=delay, target_update_interval=interval), samples_of()
    train_state, update = started(made), jax.jit(made.gradient_step)
    for i in range(1, 2 * delay * interval // (1 + (delay == 1)) + 1):
        before, (train_state, _, _) = train_state, update(train_state, batch, jax.random.fold_in(KEY, i), RATE)
        assert moved(train_state.params["actor"], before.params["actor"]) == (i % delay == 0)
        assert moved(train_state.params["log_ent_coef"], before.params["log_ent_coef"]) == (i % delay == 0)
        assert moved(train_state.target, before.target) == (i % interval == 0)


# --- REDQ and DroQ --------------------------------------------------------------------------------------------------


def test_some_of_the_critics():
    critics_of_five = tuple({"w": jnp.full((2,), i)} for i in range(5))
    drawn = {
        tuple(sorted(int(one["w"][0]) for one in random_subset(critics_of_five, 2, key)))
        for key in jax.random.split(KEY, 60)
    }
    assert all(len(set(pair)) == 2 for pair in drawn)
    assert len(drawn) == 10, "every pair comes up"


def test_targets_go_by_some_critics_and_the_policy_by_all():
    made, batch = learner(n_critics=4, n_target_critics=2, ent_coef=0.0), samples_of()
    train_state = started(made)
    key_value, key_some = jax.random.split(KEY)
    params = {**train_state.params, "critics": random_subset(train_state.target["critics"], 2, key_some)}
    value, _ = soft(made, params, batch.next_obs, key_value)
    wanted = np.asarray(batch.reward) + np.asarray(batch.discount) * value
    np.testing.assert_allclose(jax.jit(made.target)(train_state, batch, KEY)[:, 0], wanted, rtol=1e-3, atol=1e-4)
    value, _ = soft(made, train_state.params, batch.obs, KEY, lambda q: q.mean(axis=0))
    step = jax.jit(made.policy_step, static_argnums=4)
    loss = step(train_state, batch.obs, KEY, RATE, made.policy_value).aux.metrics["actor_loss"]
    np.testing.assert_allclose(loss, -value.mean(), rtol=1e-3)


def test_dropout_is_for_learning_only():
    made = learner(dropout=0.5, layer_norm=True)
    params, action = started(made).params, np.zeros((6, 2), np.float32)
    q = jax.jit(made.q)
    plain = q(params, OBS, action)
    assert_same(plain, q(params, OBS, action))
    assert moved(q(params, OBS, action, KEY), plain)
    assert moved(q(params, OBS, action, KEY), q(params, OBS, action, jax.random.key(1)))


# --- state-dependent noise ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("options", "period"), [({"sde_sample_freq": 3}, 3), ({"train_freq": 4}, 4)])
def test_state_dependent_noise_lasts(options, period):
    """The same observation gives the same action until the matrix is drawn anew, or an episode begins."""
    made = learner(use_sde=True, log_std_init=0.0, num_envs=2, **options)
    actor_state = made.actor_state(made.init(KEY))._replace(exploration=jnp.float32(0.0))
    act = jax.jit(lambda *inputs: made.act(*inputs, explore=True))
    carry, obs, actions = made.initial_carry(2), OBS[[0, 0]], []
    for t in range(2 * period + 1):
        first = np.array([t == 0, t in (0, 2)])
        chosen = act(actor_state, carry, TimeStep(obs, first), jax.random.fold_in(KEY, t))
        carry = chosen.carry
        actions.append(np.asarray(chosen.action))
    changes = np.array([(a != b).any(axis=1) for a, b in pairwise(actions)])
    assert np.flatnonzero(changes[:, 0]).tolist() == [period - 1, 2 * period - 1]
    assert np.flatnonzero(changes[:, 1])[:2].tolist() == [1, period + 1]


def test_state_dependent_noise_is_greedy_without_noise():
    made = learner(use_sde=True)
    actor_state = made.actor_state(made.init(KEY))
    chosen = made.act(actor_state, made.initial_carry(6), TimeStep(OBS, np.zeros(6, bool)), KEY, explore=False)
    np.testing.assert_allclose(
        chosen.action, made.explain(actor_state, made.initial_carry(6), beginning(OBS))["mean"], rtol=1e-5
    )
    assert_same(chosen.carry, made.initial_carry(6))


# --- choices --------------------------------------------------------------------------------------------------------


def softmax(x):
    e = np.exp(x - x.max(axis=1, keepdims=True))
    return e / e.sum(axis=1, keepdims=True)


def test_soft_values_of_choices():
    """V(s) = sum_a pi(a|s) (min_i Q_i(s, a) - alpha log pi(a|s)) (Christodoulou 2019, equation 10)."""
    made, batch = learner(CHOICES, ent_coef=0.3), samples_of(choices=4)
    assert type(made) is DiscreteSACLearner
    train_state, obs = started(made), np.asarray(batch.next_obs)
    p = softmax(network(train_state.params["actor"], obs))
    q = np.stack([network(one, obs) for one in train_state.target["critics"]]).min(axis=0)
    value = (p * (q - 0.3 * np.log(p))).sum(axis=1)
    wanted = np.asarray(batch.reward) + np.asarray(batch.discount) * value
    np.testing.assert_allclose(jax.jit(made.target)(train_state, batch, KEY)[:, 0], wanted, rtol=1e-3, atol=1e-4)


def test_an_update_of_choices():
    """Only what was taken is learned from; explain tells probabilities and values of all."""
    made, batch = learner(CHOICES, ent_coef=0.3), samples_of(choices=4)
    train_state = started(made)
    after, metrics, _ = jax.jit(made.gradient_step)(train_state, batch, KEY, RATE)
    obs, action = np.asarray(batch.obs), np.asarray(batch.action)
    target = np.asarray(jax.jit(made.target)(train_state, batch, KEY))[:, 0]  # no key matters here
    q = np.stack([network(one, obs) for one in train_state.params["critics"]])[:, np.arange(16), action]
    np.testing.assert_allclose(metrics["critic_loss"], 0.5 * ((q - target) ** 2).sum(axis=0).mean(), rtol=1e-3)
    p = softmax(network(train_state.params["actor"], obs))
    np.testing.assert_allclose(metrics["entropy"], -(p * np.log(p)).sum(axis=1).mean(), rtol=1e-3)
    assert moved(after.params["actor"], train_state.params["actor"])
    found = made.explain(made.actor_state(made.init(KEY)), (), beginning(obs))
    q = np.stack([network(one, obs) for one in train_state.params["critics"]]).min(axis=0)
    np.testing.assert_allclose(found["probabilities"], p, rtol=1e-3, atol=1e-5)
    np.testing.assert_allclose(found["action_values"], q, rtol=1e-3, atol=1e-4)
    np.testing.assert_allclose(found["value"], (p * q).sum(axis=1), rtol=1e-3, atol=1e-4)


def test_choices_are_uniform_before_learning_starts():
    made = learner(CHOICES)
    actor_state = made.actor_state(made.init(KEY))._replace(exploration=jnp.float32(1.0))
    obs = np.zeros((2000, 3), np.float32)
    action = np.asarray(jax.jit(lambda *x: made.act(*x, explore=True))(actor_state, (), beginning(obs), KEY).action)
    assert action.dtype == np.int32
    np.testing.assert_allclose(np.bincount(action, minlength=4) / 2000, 0.25, atol=0.05)


# --- bad input ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"ent_coef": "automatic"}, 'ent_coef must be .* or "auto" or "auto_" and a number'),
        ({"ent_coef": "auto_-1"}, "ent_coef"),
        ({"ent_coef": "auto_x"}, "ent_coef"),
        ({"ent_coef": -0.1}, "ent_coef"),
        ({"target_entropy": "auto_0.1"}, "target_entropy"),
        ({"dropout": 1.0}, "dropout"),
        ({"n_target_critics": 3}, "n_target_critics=3 is more than n_critics=2"),
        ({"use_sde": True, "sde_sample_freq": 0}, "sde_sample_freq=0 draws no noise"),
        ({"use_sde": True, "action": CHOICES}, "use_sde is noise on continuous actions"),
    ],
)
def test_bad_hyperparameters(options, match):
    with pytest.raises(HyperparameterError, match=match):
        learner(**options)


def test_json_and_text():
    algorithm = SAC(ent_coef="auto_0.1", n_target_critics=2, net_arch={"pi": [8], "qf": [9]})
    assert SAC.from_json(algorithm.to_json()) == algorithm
    parsed = SAC.parse({"ent_coef": "auto_0.1", "target_entropy": "-2", "use_sde": "true"})
    assert SAC(**parsed) == SAC(ent_coef="auto_0.1", target_entropy=-2.0, use_sde=True)
    assert type(SAC(**SMALL).build(spec_of())) is SACLearner
