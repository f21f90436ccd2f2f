"""State-dependent exploration of PPO and A2C: noise that lasts, its likelihood, and the same in both loops."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from gymnasium import spaces

import renshu
from renshu import A2C, PPO
from renshu.algorithms.policy_gradient.actor_critic import ActorCriticLearner
from renshu.errors import HyperparameterError
from renshu.networks.actor_critic import Inputs
from renshu.networks.heads import StateDependentHead
from renshu.ops.distributions import Normal, TanhNormal
from renshu.types import EnvSpec, Rollout, TimeStep
from tests import probes
from tests.algorithms.rollouts import assert_same, draw, quick, shaken
from tests.contract.algorithms import Points
from tests.loops.tiny import advanced, same

pytestmark = pytest.mark.usefixtures("compiled_fast")

KEY = jax.random.key(0)
T, N = 6, 4
BOX = spaces.Box(-1, 1, (2,), np.float32)
OBSERVATION = spaces.Box(-np.inf, np.inf, (3,), np.float32)
SETTINGS: dict[str, Any] = {"n_steps": T, "net_arch": [8], "ortho_init": False, "use_sde": True}
CASES: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "plain": ({}, {}),
    "squashed": ({"squash_output": True, "log_std_init": -1.0, "norm_obs": True, "norm_reward": True}, {}),
    "frames": ({"share_features_extractor": True}, {"frame_stack": 2}),
    "recurrent": ({"recurrent": "gru", "recurrent_size": 5}, {"frame_stack": 2}),
}


def learner_of(case: str = "plain", algorithm: type = PPO, num_envs: int = N, **changes: Any) -> ActorCriticLearner:
    settings, options = CASES[case]
    chosen = {**SETTINGS, **settings, **({"batch_size": T * num_envs, "n_epochs": 1} if algorithm is PPO else {})}
    return quick(algorithm(**{**chosen, **changes}).build(EnvSpec(OBSERVATION, BOX, num_envs, **options)))


def started(learner: Any) -> Any:
    state = learner.init(KEY)
    return state._replace(counters=state.counters._replace(target=jnp.int32(1000)))


def acted(learner: Any, state: Any, seed: int = 0) -> Rollout:
    """A rollout of the learner's own actions; an episode ends on the way."""
    obs = draw(OBSERVATION, (T + 1, N), seed)
    first = np.zeros((T + 1, N), bool)
    first[0], first[3, 1] = True, True
    start = carry = learner.initial_carry(N)
    act = jax.jit(lambda *inputs: learner.act(*inputs, explore=True))
    actions = []
    for t in range(T):
        out = act(learner.actor_state(state), carry, TimeStep(obs[t], first[t]), jax.random.fold_in(KEY, t))
        carry = out.carry
        actions.append(np.asarray(out.action))
    reward = np.random.default_rng(seed).normal(size=(T, N)).astype(np.float32)
    return Rollout(obs, first, np.stack(actions), reward, np.zeros((T, N), bool), carry=start)


def periods(learner: Any, steps: int, first: Any) -> list[list[int]]:
    """Steps in which each of two environments, shown one observation all the time, acts in another way than before."""
    acting = learner.actor_state(learner.init(KEY))
    act = jax.jit(lambda *inputs: learner.act(*inputs, explore=True))
    carry, obs, actions = learner.initial_carry(2), np.ones((2, 3), np.float32), []
    for t in range(steps):
        out = act(acting, carry, TimeStep(obs, np.array(first(t))), jax.random.fold_in(KEY, t))
        carry = out.carry
        actions.append(np.asarray(out.action))
    return [[t for t in range(1, steps) if (actions[t][i] != actions[t - 1][i]).any()] for i in range(2)]


# --- the distribution -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("squash", [False, True])
def test_the_head_against_numpy(squash: bool):
    """Mean, deviation, and the action by a matrix; over many matrices actions have that mean and deviation."""
    head = StateDependentHead(BOX, squash_output=squash)
    rng = np.random.default_rng(0)
    features, count = rng.normal(size=(3, 5)).astype(np.float32), 40_000
    params = shaken(jax.eval_shape(head.init, KEY, features)["params"])
    log_std = params["log_std"]
    assert log_std.shape == (5, 2)
    policy = head.apply({"params": params}, features)
    assert isinstance(policy, TanhNormal if squash else Normal)
    std = np.sqrt(features**2 @ np.exp(log_std) ** 2 + 1e-6)
    mean = features @ params["Dense_0"]["kernel"] + params["Dense_0"]["bias"]
    np.testing.assert_allclose(policy.mean, mean, rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(np.exp(policy.log_std), std, rtol=1e-4)
    matrices = rng.normal(size=(count, 5, 2)).astype(np.float32)
    act = jax.vmap(lambda matrix: head.apply({"params": params}, features, jnp.stack([matrix] * 3), method="act"))
    action = np.asarray(act(matrices))
    wanted = mean + np.einsum("bf,nfa->nba", features, np.exp(log_std) * matrices)
    np.testing.assert_allclose(action, np.tanh(wanted) if squash else wanted, rtol=1e-3, atol=1e-5)
    np.testing.assert_allclose(wanted.std(axis=0), std, rtol=0.03)


@pytest.mark.parametrize("squash", [False, True])
def test_the_deviation_does_not_shape_the_features(squash: bool):
    """The features' gradient is that of a policy whose deviation is a constant; that of its own parameters is there."""
    head = StateDependentHead(BOX, squash_output=squash)
    features = np.random.default_rng(0).normal(size=(3, 5)).astype(np.float32)
    params = shaken(jax.eval_shape(head.init, KEY, features)["params"])
    action = np.full((3, 2), 0.3, np.float32)
    kind = TanhNormal if squash else Normal

    def loss(params: Any, features: Any) -> Any:
        policy: Any = head.apply({"params": params}, features)
        return policy.log_prob(action).sum() + (0.0 if squash else policy.entropy().sum())

    def constant(features: Any) -> Any:
        policy: Any = head.apply({"params": params}, features)
        return kind(policy.mean, spread).log_prob(action).sum()

    spread = head.apply({"params": params}, features).log_std  # type: ignore[union-attr]
    of_params, of_features = jax.grad(loss, argnums=(0, 1))(params, features)
    np.testing.assert_allclose(of_features, jax.grad(constant)(features), rtol=1e-4, atol=1e-6)
    assert np.abs(of_params["log_std"]).min() > 0


def test_no_gradient_of_the_entropy_reaches_the_torso():
    learner = learner_of(share_features_extractor=True)
    params = learner.init(KEY).params
    obs = draw(OBSERVATION, (5,), 0)

    def entropy(params: Any) -> Any:
        return learner.network.policy(params, Inputs(obs)).entropy().sum()

    grad = jax.grad(entropy)(params)
    assert not any(np.any(x) for x in jax.tree.leaves(grad["actor_torso"]))
    assert np.any(grad["policy_head"]["log_std"])


# --- the noise --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("algorithm", "freq", "period"), [(PPO, 3, 3), (A2C, -1, T), (PPO, 1, 1)])
def test_noise_lasts(algorithm: type, freq: int, period: int):
    """The same observation gives the same action until the matrix is drawn anew, or an episode begins."""
    learner = learner_of(algorithm=algorithm, num_envs=2, sde_sample_freq=freq)
    steps = 2 * period + 3
    one, two = periods(learner, steps, lambda t: (t == 0, t in (0, 2)))
    assert one == list(range(period, steps, period))
    assert two == sorted({t for t in range(1, 2) if t % period == 0} | set(range(2, steps, period)))


def test_environments_have_noise_of_their_own_and_greed_has_none():
    learner = learner_of(num_envs=2)
    acting, carry = learner.actor_state(learner.init(KEY)), learner.initial_carry(2)
    step = TimeStep(np.ones((2, 3), np.float32), np.ones(2, bool))
    noisy = learner.act(acting, carry, step, KEY, explore=True)
    assert (noisy.action[0] != noisy.action[1]).all()
    greedy = learner.act(acting, noisy.carry, step, KEY, explore=False)
    found = learner.explain(acting, carry, step)
    np.testing.assert_allclose(greedy.action, found["mean"], rtol=1e-5, atol=1e-7)
    assert_same(greedy.carry, noisy.carry)
    assert found["std"].shape == (2, 2)
    assert np.ptp(np.asarray(learner.explain(acting, carry, step._replace(obs=draw(OBSERVATION, (2,), 1)))["std"])) > 0


def test_noise_is_correlated_over_steps():
    """Between draws neighbouring observations get nearly the same noise; with a draw a step, independent ones."""

    def correlation(freq: int) -> float:
        n = 256
        learner = learner_of(num_envs=n, sde_sample_freq=freq)
        acting, carry, offsets = learner.actor_state(learner.init(KEY)), learner.initial_carry(n), []
        obs = np.random.default_rng(0).normal(size=(n, 3)).astype(np.float32)
        for t in range(2):
            step = TimeStep(obs + 0.05 * t, np.full(n, t == 0))
            out = learner.act(acting, carry, step, jax.random.fold_in(KEY, t), explore=True)
            carry = out.carry
            offsets.append(np.asarray(out.action - learner.explain(acting, carry, step)["mean"]).ravel())
        return float(np.corrcoef(*offsets)[0, 1])

    assert correlation(-1) > 0.95
    assert abs(correlation(1)) < 0.2


# --- learning ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("case", list(CASES)[1:])
def test_the_first_minibatch_has_a_ratio_of_one(case: str):
    """The likelihood of an action is that over all matrices, when it acts and when it is learned from."""
    learner = learner_of(case, learning_rate=0.0)
    state, learn = started(learner), jax.jit(learner.learn)
    if learner.config.norm_obs:  # the first rollout is acted on without statistics
        state, _ = learn(state, acted(learner, state), KEY)
    rollout = acted(learner, state, 1)
    _, metrics = learn(state, rollout, KEY)
    assert float(metrics["clip_fraction"]) == 0
    assert float(metrics["approx_kl"]) == pytest.approx(0, abs=1e-6)

    log_prob = np.asarray(jax.jit(learner.make_batch)(state, rollout)[1].log_prob)
    log_prob = log_prob.T if learner.recurrent else log_prob.reshape(T, N)
    acting, carry = learner.actor_state(state), rollout.carry
    explain, act = jax.jit(learner.explain), jax.jit(lambda *inputs: learner.act(*inputs, explore=False))
    for t in range(T):
        step = TimeStep(rollout.obs[t], rollout.first[t])
        found = explain(acting, carry, step)
        squashed = learner.config.squash_output
        mean = np.arctanh(found["mean"]) if squashed else found["mean"]
        policy = (TanhNormal if squashed else Normal)(mean, np.log(found["std"]))
        np.testing.assert_allclose(log_prob[t], policy.log_prob(jnp.asarray(rollout.action[t])), rtol=1e-3, atol=1e-3)
        carry = act(acting, carry, step, KEY).carry


SMALL: dict[str, Any] = {"n_steps": 8, "net_arch": [8], "use_sde": True}
LOOPS = {
    "ppo": PPO(**SMALL, batch_size=8, n_epochs=2, sde_sample_freq=3, norm_obs=True),
    "a2c": A2C(**SMALL, squash_output=True, recurrent="gru", recurrent_size=6),
}


@pytest.mark.parametrize("name", LOOPS)
@pytest.mark.usefixtures("exact")
def test_host_loop_and_compiled_loop_are_the_same_to_the_bit(name: str):
    options = {"num_envs": 2, "seed": 3, **({"frame_stack": 2} if name == "ppo" else {})}
    agents = [LOOPS[name].on(Points(), loop=loop, **options) for loop in ("host", "compiled")]
    before = jax.tree.map(np.array, agents[0].parameters)
    for agent in agents:
        advanced(agent, 12)
    assert same(*(agent.state for agent in agents))
    assert not same(agents[0].parameters, before)


@pytest.mark.parametrize("name", ["ppo", "a2c"])
def test_a_probe_is_learned(name: str, tmp_path: Any):
    """The action must agree with the observation; a saved agent acts the same."""
    common = {"use_sde": True, "log_std_init": -2.0, "net_arch": [16]}
    ppo = PPO(n_steps=32, batch_size=64, learning_rate=3e-3, **common)
    algorithm = ppo if name == "ppo" else A2C(n_steps=8, learning_rate=5e-3, squash_output=True, **common)
    agent = algorithm.on(lambda: probes.Policy(BOX), num_envs=8, seed=0)
    agent.learn(8_000 if name == "ppo" else 12_000, progress=False)
    other = renshu.load(agent.save(tmp_path / "a.safetensors"))
    for sign in (-1.0, 1.0):
        obs = np.array([sign], np.float32)
        np.testing.assert_allclose(agent.predict(obs), 0.5 * sign, atol=0.2)
        np.testing.assert_array_equal(agent.predict(obs), other.predict(obs))


# --- what is asked for ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("algorithm", [PPO, A2C])
@pytest.mark.parametrize("space", [spaces.Discrete(3), spaces.MultiBinary(2)], ids=["discrete", "binary"])
def test_actions_that_are_not_continuous_are_refused(algorithm: type, space: spaces.Space):
    with pytest.raises(HyperparameterError, match=r"use_sde is noise on continuous actions; .* has none: leave it out"):
        algorithm(use_sde=True).build(EnvSpec(OBSERVATION, space, 1))
    assert algorithm().build(EnvSpec(OBSERVATION, space, 1)).initial_carry(1) == ()


def test_a_period_without_draws_is_refused():
    with pytest.raises(
        HyperparameterError, match="sde_sample_freq=0 draws no noise; give 1 or more, or -1 for n_steps"
    ):
        PPO(use_sde=True, sde_sample_freq=0).build(EnvSpec(OBSERVATION, BOX, 1))


def test_learners_without_it_keep_the_carry_that_they_had():
    def carry(case: str) -> Any:
        return learner_of(case, use_sde=False).initial_carry(N)

    assert carry("plain") == ()
    assert carry("frames").shape == (N, 2, 3)
    assert carry("recurrent").noise == ()
