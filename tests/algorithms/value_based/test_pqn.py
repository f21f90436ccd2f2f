"""PQN: its targets, its loss and its step against NumPy; what must not be learned from; and that it learns."""

from typing import Any

import jax
import numpy as np
import pytest
from flax import linen as nn
from gymnasium import spaces

from renshu import PQN, Linear, load
from renshu.algorithms.exploration import epsilon_greedy_action
from renshu.envs.builtin.classic import CartPole
from renshu.errors import HyperparameterError, SpaceError
from renshu.loops.programs import Programs
from renshu.ops.frame_stack import stacked_space
from renshu.optim.minibatches import minibatch, minibatches
from renshu.types import MASK, OBSERVATION, EnvSpec, TimeStep
from tests import probes
from tests.algorithms.rollouts import OBSERVATION as VECTOR
from tests.algorithms.rollouts import assert_close, assert_same, beginning, make_rollout, spec_of
from tests.algorithms.transitions import drawn, moved
from tests.loops.tiny import advanced, same, without_target

KEY = jax.random.key(5)
ENDS: dict[str, Any] = {"terminated": ((2, 0), (5, 1)), "truncated": ((1, 1), (3, 2))}  # of T = 6, N = 3
TINY: dict[str, Any] = {"n_steps": 6, "batch_size": 9, "net_arch": [4]}
# By episodes: the share of random actions does not depend on how long a training is meant to be.
SMALL = PQN(n_steps=8, batch_size=8, net_arch=[8], learning_rate=1e-2, exploration_by="episodes")


def learner_of(spec: EnvSpec | None = None, **changes: Any) -> Any:
    return PQN(**TINY | changes).build(spec or spec_of(spaces.Discrete(3)))


def state_of(learner: Any) -> Any:
    """A state with parameters drawn by NumPy: Flax's own take seconds to compile. All else is 0, as at the start."""
    shapes = jax.eval_shape(learner.init, KEY)
    return jax.tree.map(lambda x: np.zeros(x.shape, x.dtype), shapes)._replace(params=drawn(shapes.params, seed=1))


def values_of(learner: Any, params: Any, obs: Any) -> np.ndarray:
    """Action values `[T, N, A]` of observations `[T, N, ...]`, each alone."""
    values = jax.jit(learner.values)
    return np.stack([np.asarray(values(params, row), np.float64) for row in obs])


def targets(value: np.ndarray, rollout: Any, gamma: float, td_lambda: float) -> np.ndarray:
    """Q(lambda) as a recursion over targets, not over advantages: from `value` [T+1, N]; NaN where only a reset was."""
    T, N = rollout.reward.shape
    out = np.full((T, N), np.nan)
    for n in range(N):
        for t in reversed(range(T)):
            if rollout.first[t + 1, n]:
                continue
            goes_on = t + 1 < T and not np.isnan(out[t + 1, n])
            after = td_lambda * out[t + 1, n] + (1 - td_lambda) * value[t + 1, n] if goes_on else value[t + 1, n]
            out[t, n] = rollout.reward[t, n] + gamma * (0.0 if rollout.terminated[t, n] else after)
    return out


# --- targets, loss, step ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("td_lambda", [0.0, 0.65, 1.0])
def test_targets_are_q_lambda_returns_of_the_best_action(td_lambda: float) -> None:
    learner = learner_of(td_lambda=td_lambda, gamma=0.9)
    state, rollout = state_of(learner), make_rollout(learner, **ENDS)
    batch = jax.jit(learner.make_batch)(state.params, rollout)
    value = values_of(learner, state.params, rollout.obs).max(axis=2)
    expected = targets(value, rollout, 0.9, td_lambda)
    valid = ~np.isnan(expected)
    assert valid.sum() == 6 * 3 - 3  # of four ends, one is that of the rollout's last step
    np.testing.assert_array_equal(np.asarray(batch.valid).reshape(6, 3), valid)
    np.testing.assert_allclose(np.asarray(batch.target).reshape(6, 3)[valid], expected[valid], rtol=1e-4, atol=1e-4)
    np.testing.assert_array_equal(batch.obs, rollout.obs[:-1].reshape(18, 3))
    np.testing.assert_array_equal(batch.action, rollout.action.reshape(18))


def test_the_loss_is_half_the_squared_error_of_the_taken_action() -> None:
    learner = learner_of()
    state, rollout = state_of(learner), make_rollout(learner, **ENDS)
    batch = jax.jit(learner.make_batch)(state.params, rollout)
    values = values_of(learner, state.params, rollout.obs[:-1]).reshape(18, 3)[np.arange(18), rollout.action.ravel()]
    valid = np.asarray(batch.valid)
    expected = 0.5 * np.mean((values - np.asarray(batch.target))[valid] ** 2)
    absurd = batch._replace(target=np.where(valid, batch.target, 1e9).astype(np.float32))
    loss, metrics = jax.jit(learner.loss)(state.params, absurd)
    assert float(loss) == pytest.approx(expected, rel=1e-4)
    assert float(metrics["value"]) == pytest.approx(values[valid].mean(), rel=1e-4)


def test_layers_are_normalised_before_their_activation() -> None:
    """Against NumPy: x W + b, zero mean and unit variance over features, scale and shift, relu."""
    learner, obs = learner_of(net_arch=[4, 5]), make_rollout(learner_of()).obs[0]
    params = state_of(learner).params
    x = np.asarray(obs, np.float64)
    for i in range(2):
        x = x @ params[f"Dense_{i}"]["kernel"] + params[f"Dense_{i}"]["bias"]
        x = (x - x.mean(axis=1, keepdims=True)) / np.sqrt(x.var(axis=1, keepdims=True) + 1e-6)
        x = np.maximum(x * params[f"LayerNorm_{i}"]["scale"] + params[f"LayerNorm_{i}"]["bias"], 0)
    expected = x @ params["Dense_2"]["kernel"] + params["Dense_2"]["bias"]
    np.testing.assert_allclose(jax.jit(learner.values)(params, obs), expected, rtol=1e-4, atol=1e-5)
    plain = jax.eval_shape(learner_of(layer_norm=False).init, KEY).params
    assert set(plain) == {"Dense_0", "Dense_1"}


def test_a_step_goes_down_the_clipped_gradient_at_the_scheduled_rate() -> None:
    """RAdam's first steps have no denominator (Liu et al. 2020, algorithm 2): the first is the gradient itself."""
    learner = learner_of(batch_size=18, n_epochs=1, max_grad_norm=0.3, learning_rate=Linear(0.1))
    state, rollout = state_of(learner), make_rollout(learner, **ENDS)
    state = state._replace(counters=state.counters._replace(steps=np.int32(50 - 15), target=np.int32(100)))
    batch = jax.jit(learner.make_batch)(state.params, rollout)
    grad = jax.jit(jax.grad(lambda p: learner.loss(p, batch)[0]))(state.params)
    norm = np.sqrt(sum(np.sum(np.asarray(x, np.float64) ** 2) for x in jax.tree.leaves(grad)))
    assert norm > 0.3
    new, metrics = jax.jit(learner.learn)(state, rollout, KEY)
    assert_close(new.params, jax.tree.map(lambda p, g: p - 0.05 * g * 0.3 / norm, state.params, grad), rtol=1e-3)
    assert float(metrics["learning_rate"]) == pytest.approx(0.05)
    assert (int(new.counters.steps), int(new.counters.updates), int(new.counters.episodes)) == (50, 1, 3)


def test_every_epoch_takes_every_step_once() -> None:
    orders = np.asarray(minibatches(KEY, 18, 6, 4))
    assert orders.shape == (4 * 3, 6)
    for epoch in orders.reshape(4, 18):
        np.testing.assert_array_equal(np.sort(epoch), np.arange(18))
    assert len({tuple(epoch) for epoch in orders.reshape(4, 18)}) == 4
    batch = {"x": np.arange(18) * 2}
    np.testing.assert_array_equal(minibatch(batch, orders[0])["x"], 2 * orders[0])
    whole = minibatches(KEY, 18, 18, 4)
    assert whole.shape == (4,)
    assert minibatch(batch, whole[0]) is batch
    learner = learner_of(batch_size=6, n_epochs=4)
    new, _ = jax.jit(learner.learn)(state_of(learner), make_rollout(learner), KEY)
    assert int(new.counters.updates) == 12


# --- what must not be learned from ------------------------------------------------------------------------------------


def test_what_was_done_in_a_reset_changes_nothing() -> None:
    learner = learner_of()
    state, rollout = state_of(learner), make_rollout(learner, **ENDS)
    learn = jax.jit(learner.learn)
    plain, _ = learn(state, rollout, KEY)
    resets = ~np.asarray(rollout.valid)
    assert resets.sum() == 3
    changed = rollout._replace(
        action=np.where(resets, (rollout.action + 1) % 3, rollout.action),
        reward=np.where(resets, np.float32(1e6), rollout.reward),
    )
    assert_same(plain, learn(state, changed, KEY)[0])
    other = rollout._replace(reward=np.where(resets, rollout.reward, np.float32(2)))
    assert moved(plain.params, learn(state, other, KEY)[0].params)


def test_an_update_that_went_nan_changes_nothing() -> None:
    learner = learner_of()
    state, rollout = state_of(learner), make_rollout(learner)
    bad = rollout._replace(reward=np.full_like(rollout.reward, 1e38))
    new, metrics = jax.jit(learner.learn)(state, bad, KEY)
    assert not np.isfinite(metrics["loss"])
    assert_same((new.params, new.opt_state), (state.params, state.opt_state))


def test_an_action_that_is_not_allowed_is_neither_taken_nor_hoped_for() -> None:
    space = spaces.Dict({MASK: spaces.Box(0, 1, (3,), np.int8), OBSERVATION: VECTOR})
    learner = learner_of(EnvSpec(space, spaces.Discrete(3), 3, masks=True), td_lambda=0.0, gamma=0.9)
    state, rollout = state_of(learner), make_rollout(learner)
    allowed = np.random.default_rng(0).random((7, 3, 3)) < 0.5
    allowed[..., 1] |= ~allowed.any(axis=2)
    rollout = rollout._replace(obs={**rollout.obs, MASK: allowed.astype(np.int8)})
    rows = [{MASK: allowed[t], OBSERVATION: rollout.obs[OBSERVATION][t]} for t in range(7)]
    values = np.where(allowed, values_of(learner, state.params, rows), -np.inf)
    batch = jax.jit(learner.make_batch)(state.params, rollout)
    expected = rollout.reward + 0.9 * values.max(axis=2)[1:]
    np.testing.assert_allclose(np.asarray(batch.target).reshape(6, 3), expected, rtol=1e-4, atol=1e-4)
    told = jax.jit(learner.explain)(learner.actor_state(state), (), beginning(rows[0]))
    np.testing.assert_allclose(told["action_values"], values[0], rtol=1e-5)
    np.testing.assert_allclose(told["value"], values[0].max(axis=1), rtol=1e-5)
    actor_state = learner.actor_state(state)._replace(exploration=np.float32(0.5))
    act = jax.jit(learner.act, static_argnames="explore")
    for key in jax.random.split(KEY, 20):
        for explore in (True, False):
            action = np.asarray(act(actor_state, (), TimeStep(rows[0], rollout.first[0]), key, explore=explore).action)
            assert allowed[0, np.arange(3), action].all()


# --- acting -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("epsilon", [0.0, 0.3, 1.0])
def test_so_many_actions_are_random(epsilon: float) -> None:
    values = np.tile(np.array([0.0, 2.0, 1.0], np.float32), (30_000, 1))
    action = np.asarray(jax.jit(epsilon_greedy_action)(values, np.float32(epsilon), KEY))
    assert action.dtype == np.int32
    expected = [epsilon / 3, 1 - 2 * epsilon / 3, epsilon / 3]
    np.testing.assert_allclose(np.bincount(action, minlength=3) / 30_000, expected, atol=0.015)


def test_epsilon_falls_with_the_steps_of_a_training() -> None:
    agent = PQN(n_steps=8, net_arch=[4], batch_size=16, exploration_fraction=0.5).on(CartPole(), num_envs=2, seed=0)
    assert float(agent.state.exploration) == 1.0
    agent.learn(200, progress=False)
    assert float(agent.state.exploration) == pytest.approx(0.05)


def test_the_learner_sees_what_the_actor_saw() -> None:
    """Frames are put together again from the observations of a rollout and the carry before it."""
    spec = EnvSpec(VECTOR, spaces.Discrete(3), 3, frame_stack=3)
    learner = learner_of(spec, td_lambda=0.0, gamma=0.5)
    assert learner.network.space == stacked_space(VECTOR, 3)
    state, rollout = state_of(learner), make_rollout(learner, **ENDS)
    carry = learner.initial_carry(3) + np.float32(0.7)
    batch = jax.jit(learner.make_batch)(state.params, rollout._replace(carry=carry))
    actor_state, seen, acting = learner.actor_state(state), [], jax.jit(learner.act, static_argnames="explore")
    for t in range(7):
        act = acting(actor_state, carry, TimeStep(rollout.obs[t], rollout.first[t]), KEY, explore=False)
        values = jax.jit(learner.values)(state.params, act.carry)
        np.testing.assert_array_equal(act.action, np.argmax(values, axis=1))
        carry = act.carry
        seen.append((np.asarray(carry), np.asarray(values).max(axis=1)))
    frames, value = (np.stack(x) for x in zip(*seen, strict=True))
    np.testing.assert_array_equal(frames[0, :, 1], np.full((3, 3), 0.7, np.float32))
    np.testing.assert_array_equal(batch.obs, frames[:-1].reshape(18, 3, 3))
    expected = rollout.reward + 0.5 * np.where(rollout.terminated, 0, value[1:])
    got = np.asarray(batch.target).reshape(6, 3)
    np.testing.assert_allclose(got[rollout.valid], expected[rollout.valid], rtol=1e-4, atol=1e-4)


# --- loops, files, faults ---------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("exact")
def test_host_loop_and_compiled_loop_are_the_same_to_the_bit() -> None:
    agents = [SMALL.on(CartPole(), num_envs=2, seed=3, loop=loop, frame_stack=3) for loop in ("host", "compiled")]
    for agent in agents:
        advanced(agent, 30)
    host, ours = agents
    assert same(host.state, ours.state)
    assert int(ours.state.counters.updates) == 30 * 2 * 2
    assert int(ours.state.counters.episodes) > 10


def test_half_save_load_and_the_other_half(tmp_path: Any) -> None:
    whole, half = (SMALL.on("renshu/CartPole-v1", num_envs=2, seed=2, frame_stack=2) for _ in range(2))
    whole.learn(600, progress=False)
    again = load(half.learn(300, progress=False).save(tmp_path / "half.safetensors"))
    assert again.algorithm == SMALL
    assert again.learn(600 - again.steps, progress=False).steps == whole.steps
    assert same(without_target(again.state), without_target(whole.state))


def test_bad_hyperparameters() -> None:
    with pytest.raises(HyperparameterError, match=r"PQN: batch_size=48 .* n_steps \* num_envs = 32 \* 2 = 64 .*=32"):
        PQN(batch_size=48).on("CartPole-v1", num_envs=2)
    with pytest.raises(HyperparameterError, match=r"td_lambda must be .*<= 1, not 1.5"):
        PQN(td_lambda=1.5)
    with pytest.raises(HyperparameterError, match="no hyperparameter 'gae_lambda'"):
        PQN(gae_lambda=0.9)  # type: ignore[call-arg]
    with pytest.raises(HyperparameterError, match="Features must return features of shape"):
        PQN(network=Features(0)).on("CartPole-v1")
    with pytest.raises(SpaceError, match="20"):
        PQN().on(lambda: probes.Policy(spaces.Box(-1, 1, (20,), np.float32)))
    assert PQN.from_json(SMALL.to_json()) == SMALL
    assert PQN().on("CartPole-v1").trainer.learner.needs.steps == 32, "defaults fit one environment"


class Features(nn.Module):
    width: int

    @nn.compact
    def __call__(self, obs):
        return nn.tanh(nn.Dense(self.width)(obs)) if self.width else obs[:, 0]


def test_an_own_network_takes_the_place_of_the_hidden_layers() -> None:
    learner = PQN(network=Features(5), n_steps=6, batch_size=18).build(spec_of(spaces.Discrete(3)))
    made, state = Programs(learner), state_of(learner)
    assert {leaf.shape for leaf in jax.tree.leaves(state.params)} == {(3, 5), (5,), (5, 3), (3,)}
    before = state.params
    new, vector = made.learn(jax.tree.map(np.array, state), make_rollout(learner), made.keys(KEY, 0))
    assert moved(before, new.params)
    assert set(made.metrics(vector)) == {"loss", "value", "learning_rate", "exploration"}


# --- it learns --------------------------------------------------------------------------------------------------------


def quick(**changes: Any) -> PQN:
    base = {"n_steps": 16, "batch_size": 32, "learning_rate": Linear(1e-2), "net_arch": [32], "gamma": 0.9}
    return PQN(**{**base, "exploration_fraction": 0.5, **changes})


def test_the_right_action_and_the_value_of_the_wrong_one() -> None:
    agent = quick().on(probes.Policy, num_envs=8, seed=0).learn(8_000, progress=False)
    for sign in (-1.0, 1.0):
        obs = np.array([sign], np.float32)
        assert agent.predict(obs) == (sign > 0)
        np.testing.assert_allclose(agent.explain(obs)["action_values"], [sign < 0, sign > 0], atol=0.2)


def test_what_lies_far_is_found() -> None:
    agent = quick(exploration_by="episodes", exploration_initial_eps=1.0, exploration_final_eps=0.5)
    trained = agent.on(probes.Exploration, num_envs=8, seed=0).learn(12_000, progress=False)
    assert trained.evaluate(5).mean == pytest.approx(1.0)


def test_cartpole() -> None:
    algorithm = PQN(
        learning_rate=Linear(3e-3),
        batch_size=128,
        n_epochs=4,
        td_lambda=0.95,
        exploration_fraction=0.3,
        exploration_final_eps=0.1,
        net_arch=[64, 64],
    )
    agent = algorithm.on("renshu/CartPole-v1", num_envs=16, seed=0).learn(80_000, progress=False)
    assert agent.loop_name == "compiled"
    assert agent.evaluate(20).mean > 400
