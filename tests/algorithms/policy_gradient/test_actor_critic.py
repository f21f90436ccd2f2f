"""What PPO and A2C have in common, on rollouts made by hand."""

from functools import cache
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from gymnasium import spaces

from renshu import A2C, PPO
from renshu.algorithms.policy_gradient.a2c import A2CLearner
from renshu.algorithms.policy_gradient.actor_critic import ActorCriticLearner, explained_variance
from renshu.loops.programs import Programs
from renshu.networks.actor_critic import Inputs
from renshu.ops.schedules import Linear
from renshu.types import Rollout, TimeStep
from tests.algorithms.rollouts import assert_close, assert_same, beginning, draw, make_rollout, quick, spec_of
from tests.algorithms.transitions import parts

KEY = jax.random.key(0)
SMALL = {"n_steps": 6, "net_arch": [4], "ortho_init": False, "learning_rate": Linear(0.01)}
NORMALISED = {"norm_obs": True, "norm_reward": True, "clip_obs": 1.5, "clip_reward": 1.0}
NORMALISED |= {"gamma": 0.8, "gae_lambda": 0.0}
BOX = spaces.Box(-1, 1, (2,), np.float32)
both = pytest.mark.parametrize("kind", [PPO, A2C])


@cache
def programs(kind: type, action: str = "discrete", num_envs: int = 3, **changes: Any) -> Programs:
    """Compiled programs of a small learner: made once, shared by all tests."""
    options = SMALL | ({"batch_size": SMALL["n_steps"] * num_envs, "n_epochs": 2} if kind is PPO else {}) | changes
    space = {"discrete": spaces.Discrete(2), "box": BOX}[action]
    return Programs(quick(kind(**options).build(spec_of(space, num_envs=num_envs))))


def learned(made: Programs, state: Any, rollout: Rollout) -> tuple[Any, dict[str, float]]:
    """The next state and the metrics; the state given stays usable."""
    state, vector = made.learn(jax.tree.map(np.array, state), rollout, made.keys(KEY, 0))
    return state, made.metrics(vector)


def started(made: Programs, steps: int = 0, target: int = 100) -> Any:
    state = made.learner.init(KEY)
    counters = state.counters._replace(steps=np.int32(steps), target=np.int32(target))
    return state._replace(counters=counters)


def plain_gae(reward, value, terminated, valid, gamma, gae_lambda):
    """Advantages, one environment and one step at a time."""
    T, N = reward.shape
    advantage = np.zeros((T, N))
    for n in range(N):
        later = 0.0
        for t in reversed(range(T)):
            going = 0.0 if terminated[t, n] else 1.0
            delta = reward[t, n] + gamma * going * value[t + 1, n] - value[t, n]
            later = delta + gamma * gae_lambda * going * later if valid[t, n] else 0.0
            advantage[t, n] = later
    return advantage


@both
def test_what_stands_in_reset_rows_does_not_matter(kind: type):
    made = programs(kind)
    ends: Any = {"terminated": ((1, 0), (5, 2)), "truncated": ((3, 1),)}
    rollout = make_rollout(made.learner, **ends)
    invalid = ~rollout.valid
    assert invalid.sum() == 2
    assert invalid[2, 0]
    assert invalid[4, 1]
    other = rollout._replace(
        action=np.where(invalid, 1 - rollout.action, rollout.action),
        reward=np.where(invalid, 1e6, rollout.reward),
    )
    other.obs[2, 0] += 5.0  # the end of a terminated episode: no value beyond it
    state = started(made)
    (one, metrics), (two, other_metrics) = learned(made, state, rollout), learned(made, state, other)
    assert_same(one, two)
    assert metrics == other_metrics


@both
def test_a_truncated_episode_bootstraps_from_its_last_observation(kind: type):
    made = programs(kind)
    rollout = make_rollout(made.learner, truncated=((1, 0),))
    obs = rollout.obs.copy()
    obs[2, 0] += 5.0
    state = started(made)
    one, two = learned(made, state, rollout)[0], learned(made, state, rollout._replace(obs=obs))[0]
    assert any((a != b).any() for a, b in zip(*map(jax.tree.leaves, (one.params, two.params)), strict=True))


@both
def test_valid_rows_do_matter(kind: type):
    made, state = programs(kind), started(programs(kind))
    rollout = make_rollout(made.learner)
    reward = rollout.reward.copy()
    reward[0, 0] += 1.0
    one, two = learned(made, state, rollout)[0], learned(made, state, rollout._replace(reward=reward))[0]
    assert np.abs(one.params["value_head"]["kernel"] - two.params["value_head"]["kernel"]).max() > 0


def test_prepare_against_numpy():
    learner: ActorCriticLearner = programs(A2C, gamma=0.9, gae_lambda=0.7).learner  # type: ignore[assignment]
    state = started(programs(A2C, gamma=0.9, gae_lambda=0.7))
    rollout = make_rollout(learner, terminated=((1, 0),), truncated=((2, 1), (5, 2)))
    new, batch = jax.jit(learner.make_batch)(state, rollout)
    T, N = rollout.reward.shape
    network, value, logits = jax.jit(learner.network.both), np.empty((T + 1, N)), np.empty((T, N, 2))
    for t in range(T + 1):
        policy, value[t] = network(state.params, Inputs(rollout.obs[t]))[:2]
        if t < T:
            logits[t] = policy.logits  # type: ignore[union-attr]
    advantage = plain_gae(rollout.reward, value, rollout.terminated, rollout.valid, 0.9, 0.7)
    log_p = logits - np.log(np.exp(logits).sum(-1, keepdims=True))
    log_prob = np.take_along_axis(log_p, rollout.action[..., None], -1)[..., 0]
    assert_close(batch.obs, rollout.obs[:-1].reshape(-1, 3))
    assert_close(batch.action, rollout.action.reshape(-1))
    assert_close(batch.valid, rollout.valid.reshape(-1))
    assert_close(batch.log_prob, log_prob.reshape(-1), rtol=1e-3)
    assert_close(batch.value, value[:-1].reshape(-1), rtol=1e-3)
    assert_close(batch.advantage, advantage.reshape(-1), rtol=1e-3, atol=1e-5)
    assert_close(batch.target, (advantage + value[:-1]).reshape(-1), rtol=1e-3, atol=1e-5)
    assert int(new.counters.steps) == rollout.valid.sum() == T * N - 2
    keep = rollout.valid.reshape(-1)
    target = np.asarray(batch.target)[keep]
    expected = 1 - np.var(target - np.asarray(batch.value)[keep]) / np.var(target)
    assert float(explained_variance(batch)) == pytest.approx(expected, rel=1e-3)


@both
def test_counters_count_valid_steps_and_gradient_steps(kind: type):
    made = programs(kind)
    state, _ = learned(made, started(made, steps=7), make_rollout(made.learner, truncated=((0, 0), (1, 1), (4, 2))))
    assert (int(state.counters.steps), int(state.counters.updates)) == (7 + 18 - 2 - 1, 2 if kind is PPO else 1)
    assert (int(state.counters.start), int(state.counters.target)) == (0, 100)


@both
def test_the_learning_rate_follows_its_schedule(kind: type):
    made = programs(kind)
    rollout = make_rollout(made.learner)
    moved = []
    for steps, rate in ((0, 0.01), (50, 0.005), (100, 0.0), (150, 0.0)):
        state = started(made, steps - 18)  # read after the 18 steps of the rollout, as in Stable-Baselines3
        new, metrics = learned(made, state, rollout)
        assert metrics["learning_rate"] == pytest.approx(rate, rel=1e-5)
        moved.append(max(float(np.abs(x).max()) for x in jax.tree.leaves(difference(new.params, state.params))))
    assert moved[0] > 0.005
    assert moved[1] == pytest.approx(moved[0] / 2, rel=0.2)
    assert moved[2:] == [0.0, 0.0]


def difference(one: Any, other: Any) -> Any:
    return jax.tree.map(lambda a, b: np.asarray(a) - np.asarray(b), one, other)


@pytest.mark.parametrize("limit", [0.1, 0.7])
def test_gradients_are_clipped_at_their_norm(limit: float):
    class Plain(A2CLearner):
        """With this optimiser a step is the gradient itself."""

        def optimizer(self) -> optax.GradientTransformation:
            return optax.identity()

    made = Programs(quick(Plain(A2C(**SMALL, max_grad_norm=limit), spec_of())))  # type: ignore[arg-type]
    state = started(made, steps=-18)  # so that the schedule begins after the rollout
    new, _ = learned(made, state, make_rollout(made.learner))
    squares = sum((leaf**2).sum() for leaf in jax.tree.leaves(difference(new.params, state.params)))
    assert squares**0.5 == pytest.approx(0.01 * limit, rel=1e-3)


def test_observation_statistics_are_those_of_all_rows_fed():
    made = programs(A2C, **NORMALISED)
    state = started(made)
    fed = []
    for seed in range(3):
        rollout = make_rollout(made.learner, seed=seed, terminated=((2, 1),))
        rollout = rollout._replace(obs=3.0 * rollout.obs + np.array([5, 0, -100], np.float32))
        state, _ = learned(made, state, rollout)
        fed.append(rollout.obs[:-1].reshape(-1, 3))
    rows = np.concatenate(fed)
    assert_close(state.obs_stats.mean, rows.mean(0), rtol=1e-3)
    assert_close(state.obs_stats.var, rows.var(0), rtol=2e-2)


def test_an_update_sees_the_observations_as_the_actor_saw_them():
    made = programs(A2C, **NORMALISED)
    learner: Any = made.learner
    state = learned(made, started(made), make_rollout(learner))[0]
    rollout = make_rollout(learner, seed=5)
    _, batch = jax.jit(learner.make_batch)(state, rollout)
    mean, var = np.asarray(state.obs_stats.mean), np.asarray(state.obs_stats.var)
    unclipped = (rollout.obs[:-1] - mean) / np.sqrt(var + 1e-8)
    assert np.abs(unclipped).max() > 1.5
    assert_close(batch.obs, np.clip(unclipped, -1.5, 1.5).reshape(-1, 3), rtol=1e-3, atol=1e-5)
    policy = learner.network.policy(state.params, Inputs(batch.obs[:3]))
    assert_close(learner.actor_state(state).obs_stats, state.obs_stats)
    acted = made.act_greedy(
        learner.actor_state(state), (), TimeStep(rollout.obs[0], rollout.first[0]), made.keys(KEY, 0), 0
    )
    assert_same(acted.action, policy.mode())


def test_the_first_rollout_is_learned_with_its_own_statistics():
    """Observations in the thousands would else be cut at clip_obs, all of them."""
    made = programs(A2C, norm_obs=True)
    learner: Any = made.learner
    state, rollout = started(made), make_rollout(learner)
    rollout = rollout._replace(obs=0.1 * rollout.obs + np.array([1e4, 0, -3e3], np.float32))
    _, batch = jax.jit(learner.make_batch)(state, rollout)
    rows = rollout.obs[:-1].reshape(-1, 3).astype(np.float64)
    assert_close(batch.obs, (rows - rows.mean(0)) / rows.std(0), rtol=2e-2, atol=2e-2)
    assert_close(batch.value, learner.network.value(state.params, Inputs(batch.obs)), rtol=1e-3, atol=1e-4)
    acting = learner.network.policy(state.params, Inputs(np.clip(rollout.obs[:-1].reshape(-1, 3), -10, 10)))
    assert_close(batch.log_prob, acting.log_prob(rollout.action.reshape(-1)), rtol=1e-3, atol=1e-4)


def test_rewards_are_scaled_as_vec_normalize_does():
    gamma = 0.8
    made = programs(A2C, **NORMALISED)
    learner: Any = made.learner
    state, running, seen, rollout = started(made), np.zeros(3), [], make_rollout(learner)
    ends: list[dict] = [{"terminated": ((1, 0),)}, {"truncated": ((4, 1),)}, {}]
    first_of_next, last = np.zeros(3, bool), None
    for seed, end in enumerate(ends):
        rollout = make_rollout(learner, seed=seed, **end)
        rollout.first[0] |= first_of_next
        rollout = rollout._replace(reward=20.0 * rollout.reward)
        for t in range(6):
            running = gamma * running + rollout.reward[t]
            running = np.where(rollout.first[t + 1], 0.0, running)
            seen.extend(running[rollout.valid[t]])
        if seed == 2:
            last = jax.jit(learner.make_batch)(state, rollout)[1]
        state, _ = learned(made, state, rollout)
        first_of_next = rollout.first[-1]
    assert_close(state.reward_stats.var, np.var(seen), rtol=1e-3)
    assert_close(state.reward_stats.mean, np.mean(seen), rtol=1e-3)
    assert_close(state.returns, running, rtol=1e-4)
    scaled = np.clip(rollout.reward / np.sqrt(np.var(seen) + 1e-8), -1, 1)
    assert 0 < (np.abs(scaled) == 1).sum() < scaled.size
    assert last is not None
    value_tp1 = np.concatenate([last.value.reshape(6, 3)[1:], np.full((1, 3), np.nan, np.float32)])
    found = last.target.reshape(6, 3) - gamma * np.where(rollout.terminated, 0, value_tp1)
    assert_close(found[:-1], scaled[:-1], rtol=1e-2, atol=1e-4)


def test_the_value_is_explained_in_units_of_the_raw_reward():
    made = programs(A2C, **NORMALISED)
    state = learned(made, started(made), make_rollout(made.learner))[0]
    stats = state.reward_stats._replace(var=jnp.float32(49.0))
    obs = draw(made.learner.spec.observation_space, (4,), 0)
    actor_state: Any = made.learner.actor_state(state._replace(reward_stats=stats))
    learner: Any = made.learner
    inside = learner.network.value(state.params, Inputs(learner.normalized(state.obs_stats, obs)))
    assert_close(made.explain(actor_state, (), beginning(obs))["value"], 7.0 * inside)


@pytest.mark.parametrize("bad", [np.nan, np.inf])
@pytest.mark.parametrize(
    ("kind", "options"),
    [(PPO, {}), (A2C, {}), (A2C, NORMALISED)],
    ids=["ppo", "a2c", "normalised"],
)
def test_a_bad_reward_changes_nothing_that_was_learned(kind: type, options: dict, bad: float):
    made = programs(kind, **options)
    rollout = make_rollout(made.learner)
    state, _ = learned(made, started(made), rollout)
    rollout.reward[2, 1] = bad
    new, metrics = learned(made, state, rollout)
    assert not np.isfinite(metrics["loss"])
    assert_same(new._replace(counters=()), state._replace(counters=()))


def test_another_number_of_environments():
    made = programs(A2C, **NORMALISED)
    state = learned(made, started(made), make_rollout(made.learner))[0]
    other = programs(A2C, num_envs=2, **NORMALISED).learner
    adopted = other.resize(state)
    assert_same(adopted.returns, np.zeros(2))
    assert_same(adopted._replace(returns=()), state._replace(returns=()))
    assert made.learner.resize(state) is state
    plain = started(programs(A2C))
    assert programs(A2C, num_envs=2).learner.resize(plain) is plain


@pytest.mark.parametrize(
    ("space", "shapes"),
    [
        (spaces.Discrete(3), {"probabilities": (5, 3)}),
        (spaces.MultiDiscrete([2, 4]), {"probabilities_0": (5, 2), "probabilities_1": (5, 4)}),
        (spaces.MultiBinary(3), {"probabilities": (5, 3)}),
        (BOX, {"mean": (5, 2), "std": (5, 2)}),
    ],
    ids=["discrete", "multi_discrete", "multi_binary", "box"],
)
def test_explain(space: spaces.Space, shapes: dict[str, tuple[int, ...]]):
    learner = quick(A2C(**SMALL).build(spec_of(space)))  # type: ignore[arg-type]
    made = Programs(learner)
    state = learner.init(KEY)
    obs = draw(learner.spec.observation_space, (5,), 0)
    found = made.explain(learner.actor_state(state), (), beginning(obs))
    assert {name: value.shape for name, value in found.items()} == shapes | {"value": (5,)}
    if not isinstance(space, spaces.MultiBinary):
        for name in shapes:
            if name.startswith("probabilities"):
                assert_close(found[name].sum(-1), np.ones(5))
    if "std" in found:
        log_std = state.params["policy_head"]["log_std"]
        assert_close(found["std"], np.broadcast_to(np.exp(log_std), (5, 2)))


NESTED = spaces.Dict(
    [
        ("place", spaces.Discrete(4)),
        ("body", spaces.Tuple([spaces.Box(-1, 1, (2, 2), np.float64), spaces.MultiBinary(3)])),
        ("gears", spaces.MultiDiscrete([2, 3])),
    ]
)


def test_nested_observations():
    made = Programs(quick(PPO(**SMALL, norm_obs=True, batch_size=9, n_epochs=1).build(spec_of(BOX, NESTED))))  # type: ignore[arg-type]
    state = started(made)
    assert [leaf.shape for leaf in jax.tree.leaves(state.obs_stats)] == [(2, 2), (2, 2), ()]  # the one continuous leaf
    rollout = make_rollout(made.learner, truncated=((2, 0),))
    act = made.act(
        made.learner.actor_state(state), (), TimeStep(draw(NESTED, (3,), 9), rollout.first[0]), made.keys(KEY, 0), 0
    )
    assert act.action.shape == (3, 2)
    new, metrics = learned(made, state, rollout)
    assert np.isfinite(list(metrics.values())).all()
    assert_close(new.obs_stats["body"][0].mean, rollout.obs["body"][0][:-1].mean((0, 1)), rtol=1e-3, atol=1e-4)
    size = 4 + 4 + 3 + 5
    kernels = [x for x in parts(difference(new.params, state.params), "kernel").values() if x.shape[0] == size]
    assert len(kernels) == 2, "the first layers of the policy and of the value function"
    for kernel in kernels:
        assert (np.abs(kernel).max(1) > 0).all(), "every part of the observation is learned from"


def test_sharing_the_torso():
    made = programs(A2C, share_features_extractor=True)
    state = started(made)
    assert set(state.params) == {"actor_torso", "policy_head", "value_head"}
    apart = started(programs(A2C))
    assert set(apart.params) == {"actor_torso", "critic_torso", "policy_head", "value_head"}


def test_squashed_actions_stay_within_their_bounds():
    made = programs(PPO, "box", squash_output=True, log_std_init=0.5)
    state = started(made)
    actor_state: Any = made.learner.actor_state(state)
    obs = draw(made.learner.spec.observation_space, (200,), 0)
    first = np.zeros(200, bool)
    drawn, greedy = (
        act(actor_state, (), TimeStep(obs, first), made.keys(KEY, 0), 0).action for act in (made.act, made.act_greedy)
    )
    assert np.abs(drawn).max() < 1
    assert np.abs(drawn).max() > 0.9
    assert_close(greedy, jnp.tanh(made.learner.network.policy(state.params, Inputs(obs)).mean))  # type: ignore[attr-defined]
    _, metrics = learned(made, state, make_rollout(made.learner))
    assert np.isfinite(list(metrics.values())).all()


def test_exploring_draws_by_the_policys_probabilities():
    made = programs(A2C)
    state = started(made)
    actor_state: Any = made.learner.actor_state(state)
    obs = np.broadcast_to(draw(made.learner.spec.observation_space, (1,), 3), (4000, 3)).copy()
    first = np.zeros(4000, bool)
    probability = float(made.explain(actor_state, (), beginning(obs))["probabilities"][0, 1])
    assert 0.02 < probability < 0.98
    assert probability != pytest.approx(0.5, abs=0.05)
    drawn = np.asarray(made.act(actor_state, (), TimeStep(obs, first), made.keys(KEY, 0), 0).action)
    assert drawn.mean() == pytest.approx(probability, abs=0.04)
    assert_same(drawn, np.asarray(made.act(actor_state, (), TimeStep(obs, first), made.keys(KEY, 0), 0).action))
    assert (drawn != np.asarray(made.act(actor_state, (), TimeStep(obs, first), made.keys(KEY, 0), 1).action)).any()
    greedy = np.asarray(made.act_greedy(actor_state, (), TimeStep(obs, first), made.keys(KEY, 0), 0).action)
    assert (greedy == (probability > 0.5)).all()
