"""TD3 and DDPG: targets and updates against NumPy, and the three kinds of noise."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from renshu.algorithms.continuous.ddpg import DDPG
from renshu.algorithms.continuous.noise import ADAPT_BY
from renshu.algorithms.continuous.td3 import TD3
from renshu.errors import HyperparameterError
from renshu.types import TimeStep
from tests.algorithms.rollouts import assert_close, assert_same, beginning, make_rollout
from tests.algorithms.transitions import SMALL, critics, moved, network, parts, quick, samples_of, spec_of, started

pytestmark = pytest.mark.usefixtures("compiled_fast")

KEY = jax.random.key(0)
RATE = jnp.float32(1e-3)


def learner(kind=TD3, frame_stack=1, **options):
    return quick(kind(**{**SMALL, **options}).build(spec_of(frame_stack=frame_stack)))


# --- learning -------------------------------------------------------------------------------------------------------


def test_target_without_noise():
    """r + gamma min_i Q'_i(s', pi'(s')), and r alone where the episode ended."""
    made, batch = learner(target_policy_noise=0.0), samples_of()
    train_state = started(made)
    action = np.tanh(network(train_state.target["actor"], np.asarray(batch.next_obs)))
    value = critics(train_state.target, np.asarray(batch.next_obs), action).min(axis=0)[:, 0]
    wanted = np.asarray(batch.reward) + np.asarray(batch.discount) * value
    target = jax.jit(made.target)(train_state, batch, KEY)[:, 0]
    np.testing.assert_allclose(target, wanted, rtol=1e-4, atol=1e-5)
    np.testing.assert_array_equal(target[::3], batch.reward[::3])


def test_noise_on_the_targets_actions_is_clipped():
    """Noise so large that it is always at its limit: each dimension is moved by 0.3 up or down, and stays in bounds."""
    made, batch = learner(target_policy_noise=1e6, target_noise_clip=0.3), samples_of()
    train_state = started(made)
    action = np.tanh(network(train_state.target["actor"], np.asarray(batch.next_obs)))
    corners = [np.clip(action + 0.3 * np.array(signs), -1, 1) for signs in ((1, 1), (1, -1), (-1, 1), (-1, -1))]
    possible = [critics(train_state.target, np.asarray(batch.next_obs), a).min(axis=0)[:, 0] for a in corners]
    target = np.asarray(jax.jit(made.target)(train_state, batch, KEY)[:, 0])
    wanted = np.asarray(batch.reward) + np.asarray(batch.discount) * np.stack(possible)
    assert (np.abs(target - wanted).min(axis=0) < 1e-4).all()
    assert len({int(i) for i in np.abs(target - wanted).argmin(axis=0)}) > 1


@pytest.mark.parametrize(("kind", "delay"), [(TD3, 2), (TD3, 3), (DDPG, 1)])
def test_policy_and_late_copies_wait(kind, delay):
    made, batch = learner(kind, policy_delay=delay, tau=0.25), samples_of()
    train_state, update = started(made), jax.jit(made.gradient_step)
    for i in range(1, 2 * delay + 1):
        before = train_state
        train_state, metrics, error = update(train_state, batch, jax.random.fold_in(KEY, i), RATE)
        assert moved(train_state.params["critics"], before.params["critics"])
        assert moved(train_state.params["actor"], before.params["actor"]) == (i % delay == 0)
        if i % delay == 0:
            now = {part: train_state.params[part] for part in ("actor", "critics")}
            assert_close(train_state.target, jax.tree.map(lambda t, p: 0.75 * t + 0.25 * p, before.target, now))
        else:
            assert_same(train_state.target, before.target)
    assert int(train_state.updates) == 2 * delay
    assert error.shape == (16,)
    assert float(metrics["actor_loss"]) != 0


@pytest.mark.parametrize(("delay", "interval"), [(2, 1), (1, 3)])
def test_late_copies_have_an_interval_of_their_own(delay, interval):
    """Stable-Baselines3's JAX version moves them after each update of the critics: target_update_interval=1."""
    made, batch = learner(policy_delay=delay, target_update_interval=interval), samples_of()
    train_state, update = started(made), jax.jit(made.gradient_step)
    for i in range(1, 7):
        before = train_state
        train_state, _, _ = update(train_state, batch, jax.random.fold_in(KEY, i), RATE)
        assert moved(train_state.params["actor"], before.params["actor"]) == (i % delay == 0)
        assert moved(train_state.target, before.target) == (i % interval == 0)


def test_losses_of_the_critics_and_weights():
    made, batch = learner(target_policy_noise=0.0), samples_of()
    train_state = started(made)
    weight = jnp.linspace(0.0, 1.0, 16)
    target = np.asarray(jax.jit(made.target)(train_state, batch, KEY))
    off = critics(train_state.params, np.asarray(batch.obs), np.asarray(batch.action))[..., 0] - target[:, 0]
    _, metrics, error = jax.jit(made.gradient_step)(train_state, batch._replace(weight=weight), KEY, RATE)
    np.testing.assert_allclose(metrics["critic_loss"], (weight * (off**2).sum(axis=0)).mean(), rtol=1e-4)
    np.testing.assert_allclose(error, np.abs(off).mean(axis=0), rtol=1e-3, atol=1e-5)


def test_the_policy_climbs_the_first_critic():
    made, batch = learner(), samples_of(64)
    train_state = started(made)

    def value(train_state):
        action = np.tanh(network(train_state.params["actor"], np.asarray(batch.obs)))
        return critics(train_state.params, np.asarray(batch.obs), action)[:, :, 0].mean(axis=1)

    step = jax.jit(made.policy_step)
    after = train_state
    for _ in range(20):
        after = step(after, batch.obs, jnp.float32(1e-2))
    assert_same(after.params["critics"], train_state.params["critics"])
    assert value(after)[0] > value(train_state)[0] + 0.1
    np.testing.assert_allclose(
        step(train_state, batch.obs, RATE).aux.metrics["actor_loss"], -value(train_state)[0], rtol=1e-4
    )


def test_ddpg_is_td3_without_its_ideas():
    made = DDPG()
    assert (made.n_critics, made.policy_delay, made.target_policy_noise) == (1, 1, 0.0)
    assert made.net_arch == TD3().net_arch


# --- exploration ----------------------------------------------------------------------------------------------------


def acted(made, obs, exploration=0.0, first=None, carry=None, seed=0):
    state = made.init(KEY)
    actor_state = made.actor_state(state)._replace(exploration=jnp.float32(exploration))
    carry = made.initial_carry(len(obs)) if carry is None else carry
    first = np.zeros(len(obs), bool) if first is None else first
    key = jax.random.key(seed)
    both = jax.jit(lambda *inputs: [made.act(*inputs, explore=explore) for explore in (True, False)])
    return *both(actor_state, carry, TimeStep(obs, first), key), actor_state


OBS = np.random.default_rng(0).normal(size=(500, 3)).astype(np.float32)


def test_normal_noise():
    explored, greedy, _ = acted(learner(action_noise="normal", action_noise_std=0.05), OBS)
    inside = np.abs(np.asarray(greedy.action)) < 0.8
    noise = np.asarray(explored.action - greedy.action)[inside]
    assert noise.std() == pytest.approx(0.05, rel=0.1)
    assert abs(noise.mean()) < 0.01
    assert np.abs(explored.action).max() <= 1
    none, greedy, _ = acted(learner(), OBS)
    np.testing.assert_array_equal(none.action, greedy.action)


def test_all_actions_are_uniform_before_learning_starts():
    explored, greedy, _ = acted(learner(), OBS, exploration=1.0)
    action = np.asarray(explored.action)
    np.testing.assert_allclose(np.histogram(action, 4, (-1, 1))[0] / action.size, 0.25, atol=0.05)
    some, greedy, _ = acted(learner(action_noise=None), OBS, exploration=0.3)
    changed = (np.asarray(some.action) != np.asarray(greedy.action)).any(axis=1)
    assert changed.mean() == pytest.approx(0.3, abs=0.06)


def test_correlated_noise_goes_on_within_an_episode():
    """x' = x - theta x dt + sigma sqrt(dt) N (Ornstein-Uhlenbeck); from 0 where an episode begins."""
    made = learner(action_noise="ou", action_noise_std=0.4)
    before = np.full((500, 2), 0.1, np.float32)
    first = np.arange(500) < 250
    explored, greedy, _ = acted(made, OBS, first=first, carry=((), before))
    _, noise = explored.carry
    drift = np.where(first[:, None], 0.0, 0.1 * (1 - 0.15 * 0.01))
    step = np.asarray(noise) - drift
    assert step.std() == pytest.approx(0.4 * 0.1, rel=0.1)
    assert abs(step.mean()) < 0.01
    np.testing.assert_allclose(explored.action, np.clip(greedy.action + noise, -1, 1), rtol=1e-5, atol=1e-6)
    assert_same(greedy.carry[1], before)


def test_noise_on_parameters_explores():
    made = learner(action_noise="parameter", train_freq=2)
    explored, greedy, actor_state = acted(made, OBS[:4])
    noisy = jax.tree.map(jnp.add, actor_state.params["actor"], actor_state.aux.noise.delta)
    np.testing.assert_allclose(explored.action, made.policy(noisy, OBS[:4]), rtol=1e-5)
    np.testing.assert_allclose(greedy.action, made.policy(actor_state.params["actor"], OBS[:4]), rtol=1e-5)
    norms, plain = (parts(tree, "LayerNorm") for tree in (noisy, actor_state.params["actor"]))
    assert norms
    assert_same(norms, plain)
    kernels, plain = (parts(tree, "kernel") for tree in (noisy, actor_state.params["actor"]))
    assert all(moved(kernels[path], plain[path]) for path in plain)


def test_noise_on_parameters_adapts_and_is_drawn_anew():
    """It grows while actions differ by less than action_noise_std, else shrinks; it lasts until an episode begins."""
    made = learner(action_noise="parameter", train_freq=2)
    state = made.init(KEY)
    state = state._replace(memory=made.replay.add(state.memory, make_rollout(made), KEY))
    adapt_noise = jax.jit(made.adapt_noise)
    for std, due, factor in ((1e-3, True, ADAPT_BY), (10.0, True, 1 / ADAPT_BY), (10.0, False, 1.0)):
        noise = state.train.aux.noise._replace(std=jnp.float32(std))
        state = state._replace(train=state.train._replace(aux=state.train.aux._replace(noise=noise)))
        kept, new = (adapt_noise(state, jnp.bool_(due), jnp.bool_(begins), KEY) for begins in (False, True))
        assert [float(kept.std), float(new.std)] == pytest.approx([std * factor] * 2, rel=1e-4)
        assert_same(kept.delta, noise.delta)
        off = np.concatenate([x.ravel() for x in parts(new.delta, "kernel").values()])
        assert off.std() == pytest.approx(std * factor, rel=0.5)


def test_explain_and_history():
    made = learner(frame_stack=2)
    state = made.init(KEY)
    actor_state, obs = made.actor_state(state), OBS[:4]
    found = made.explain(actor_state, made.initial_carry(4), beginning(obs))
    seen = np.stack([obs, obs], axis=1).reshape(4, 6)
    action = np.tanh(network(state.params["actor"], seen))
    np.testing.assert_allclose(found["mean"], action, rtol=1e-4, atol=1e-5)
    value = critics(state.params, seen, action).min(axis=0)[:, 0]
    np.testing.assert_allclose(found["value"], value, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"action_noise": "pink"}, "action_noise must be one of normal, ou, parameter, None"),
        ({"action_noise_std": -0.1}, "action_noise_std"),
        ({"policy_delay": 0}, "policy_delay"),
        ({"n_critics": 0}, "n_critics"),
        ({"net_arch": {"pi": [8], "q": [8]}}, "net_arch"),
    ],
)
def test_bad_hyperparameters(options, match):
    with pytest.raises(HyperparameterError, match=match):
        TD3(**options)


def test_widths_of_critics_have_two_names():
    assert TD3(net_arch={"pi": [8], "qf": [4, 4]}) == TD3(net_arch={"pi": [8], "vf": [4, 4]})
