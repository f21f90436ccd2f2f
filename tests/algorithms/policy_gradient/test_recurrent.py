"""PPO and A2C with a memory: sequences cut at resets, minibatches of whole environments, the same in both loops."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from gymnasium import spaces

import renshu
from renshu import A2C, PPO
from renshu.envs.builtin.memory import Memory
from renshu.errors import HyperparameterError
from renshu.networks.recurrent import CORES
from renshu.types import MASK, OBSERVATION, EnvSpec
from tests.algorithms.rollouts import draw, shaken
from tests.camera import Camera, MaskedCamera
from tests.loops.tiny import advanced, same

pytestmark = pytest.mark.usefixtures("compiled_fast")

KINDS = CORES[1:]
KEY = jax.random.key(0)
T, N = 6, 4
IMAGE = spaces.Box(0, 255, (12, 12, 1), np.uint8)
SPACES = {
    "vector": spaces.Box(-np.inf, np.inf, (3,), np.float32),
    "image": IMAGE,
    "nested": spaces.Dict(camera=IMAGE, joints=spaces.Box(-1, 1, (2,)), goal=spaces.Dict(x=spaces.Discrete(3))),
}
CASES = {
    "vector": ({}, {}),
    "normalised": ({"norm_obs": True, "norm_reward": True}, {}),
    "shared": ({"share_features_extractor": True}, {}),
    "image": ({}, {"frame_stack": 2}),
    "nested": ({}, {"frame_stack": 2}),
    "masked": ({}, {"masks": True}),
}


def learner_of(case="vector", algorithm=PPO, **changes):
    settings, options = CASES[case]
    space = SPACES.get(case, SPACES["vector"])
    if options.get("masks"):
        space = spaces.Dict({MASK: spaces.MultiBinary(3), OBSERVATION: space})
    spec = EnvSpec(space, spaces.Discrete(3), N, **options)
    chosen = {"n_steps": T, "net_arch": [8], "recurrent": "lstm", "recurrent_size": 5, **settings, **changes}
    chosen |= {"batch_size": T * N, "n_epochs": 1} | changes if algorithm is PPO else {}
    return algorithm(**chosen).build(spec)


def acted(learner, state, key=KEY, terminated=((2, 1),), truncated=((1, 0), (4, 3))):
    """A rollout of the learner's own actions in the middle of episodes; some end on the way."""
    n = learner.spec.num_envs
    obs = draw(learner.spec.observation_space, (T + 1, n), 0)
    if learner.spec.masks:
        obs[MASK] = np.maximum(obs[MASK], np.eye(3, dtype=np.int8)[np.zeros((T + 1, n), int)])
    ends, first = np.zeros((T, n), bool), np.zeros((T + 1, n), bool)
    for t, i in terminated:
        ends[t, i] = True
    for t, i in (*terminated, *truncated):
        if t + 2 <= T and i < n:
            first[t + 2, i] = True
    acting = learner.actor_state(state)
    carry = start = jax.tree.map(lambda x: np.asarray(shaken({"x": x})["x"], x.dtype), learner.initial_carry(n))
    actions = []
    for t in range(T):
        step = renshu.algorithms.base.TimeStep(jax.tree.map(lambda x, t=t: x[t], obs), first[t])
        out = learner.act(acting, carry, step, jax.random.fold_in(key, t), explore=True)
        carry = out.carry
        actions.append(np.asarray(out.action))
    reward = np.random.default_rng(1).normal(size=(T, n)).astype(np.float32)
    return renshu.types.Rollout(obs, first, np.stack(actions), reward, ends, carry=start)


def started(learner):
    state = learner.init(KEY)
    return state._replace(counters=state.counters._replace(target=jnp.int32(1000)))


@pytest.mark.parametrize(("case", "whole"), [*((case, True) for case in CASES), ("normalised", False)])
def test_the_first_minibatch_has_a_ratio_of_one(case, whole):
    """With masks, resets in the middle, normalisation, frame stacks: what acted is what learns."""
    learner = learner_of(case, batch_size=T * N if whole else T * N // 2, learning_rate=0.0)
    state = started(learner)
    if case == "normalised":  # the first rollout is acted on without statistics
        state, _ = jax.jit(learner.learn)(state, acted(learner, state), KEY)
    rollout = acted(learner, state)
    state, metrics = jax.jit(learner.learn)(state, rollout, KEY)
    tolerance = 0 if whole else 1e-6
    assert float(metrics["clip_fraction"]) == 0
    assert float(metrics["approx_kl"]) == pytest.approx(0, abs=tolerance)
    assert float(metrics["entropy"]) > 0.1


def test_log_probabilities_are_those_of_acting():
    """Step by step, with the carry that acting had."""
    learner = learner_of()
    state = started(learner)
    rollout = acted(learner, state)
    _, batch = learner.make_batch(state, rollout)
    carry = rollout.carry
    for t in range(T):
        timestep = renshu.algorithms.base.TimeStep(rollout.obs[t], rollout.first[t])
        found = learner.explain(learner.actor_state(state), carry, timestep)
        chosen = np.log(np.asarray(found["probabilities"])[np.arange(N), rollout.action[t]])
        np.testing.assert_allclose(batch.log_prob[:, t], chosen, rtol=1e-4, atol=1e-5)
        np.testing.assert_allclose(batch.value[:, t], found["value"], rtol=1e-4, atol=1e-5)
        carry = learner.act(learner.actor_state(state), carry, timestep, KEY, explore=False).carry


@pytest.mark.parametrize("algorithm", [PPO, A2C])
def test_the_order_of_environments_does_not_matter(algorithm):
    learner = learner_of(algorithm=algorithm)
    state = started(learner)
    rollout = acted(learner, state)
    order = np.array([2, 0, 3, 1])
    other = jax.tree.map(lambda x: x[:, order], rollout._replace(carry=()))
    other = other._replace(carry=jax.tree.map(lambda x: x[order], rollout.carry))
    learn = jax.jit(learner.learn)
    (one, a), (two, b) = learn(state, rollout, KEY), learn(state, other, KEY)
    for name in a:
        assert float(a[name]) == pytest.approx(float(b[name]), rel=1e-4, abs=1e-6), name
    for x, y in zip(jax.tree.leaves(one.params), jax.tree.leaves(two.params), strict=True):
        np.testing.assert_allclose(x, y, rtol=1e-3, atol=2e-5)


@pytest.mark.parametrize(("algorithm", "recurrent"), [*(("ppo", kind) for kind in KINDS), ("a2c", "lstm")])
@pytest.mark.usefixtures("exact")
def test_host_loop_and_compiled_loop_are_the_same_to_the_bit(algorithm, recurrent):
    settings = {"n_steps": 8, "net_arch": [8], "recurrent": recurrent, "recurrent_size": 6}
    made = PPO(**settings, batch_size=8, n_epochs=2) if algorithm == "ppo" else A2C(**settings)
    agents = [made.on("renshu/Memory-v0", num_envs=2, seed=3, loop=loop) for loop in ("host", "compiled")]
    for agent in agents:
        advanced(agent, 20)
    assert same(*(agent.state for agent in agents))
    assert not same(agents[0].parameters, made.on("renshu/Memory-v0", num_envs=2, seed=3).parameters)


@pytest.mark.parametrize(("recurrent", "enough"), [("lstm", 0.9), ("mingru", 0.9), (None, None)])
def test_a_cue_is_remembered_by_those_who_can(recurrent, enough):
    """Without a memory the mean return is 0 at best."""
    settings = {"n_steps": 32, "batch_size": 128, "n_epochs": 4, "learning_rate": 3e-3, "net_arch": [32]}
    agent = PPO(**settings, recurrent=recurrent, recurrent_size=32).on(Memory(length=4), num_envs=8, seed=0)
    agent.learn(30_000, progress=False)
    score = agent.evaluate(64).mean
    assert score > enough if enough else score < 0.5


def test_players_and_predictions_remember(tmp_path):
    agent = A2C(recurrent="gru", recurrent_size=8).on(Memory(length=3), num_envs=2, seed=0)
    agent = renshu.load(agent.save(tmp_path / "a.safetensors"))
    rng = np.random.default_rng(0)
    differs = 0
    for _ in range(20):
        observations = rng.normal(size=(3, 3)).astype(np.float32)
        policy, carry = agent.player(), ()
        for t, obs in enumerate(observations):
            played = policy(obs, t == 0)
            action, carry = agent.predict(obs, carry=carry)
            assert action == played
        batch, after = agent.predict(np.stack([obs] * 2), carry=jax.tree.map(lambda x: np.repeat(x, 2, 0), carry))
        again, _ = agent.predict(np.stack([obs] * 2), carry=after, first=[True, False])
        assert again[0] == agent.predict(obs)
        assert len(batch) == 2
        differs += action != agent.predict(obs)
    assert differs > 0


@pytest.mark.parametrize("env", [Camera, MaskedCamera])
def test_a_robot_with_a_camera(env):
    settings = {"n_steps": 16, "batch_size": 64, "n_epochs": 4, "learning_rate": 3e-3, "net_arch": [16], "gamma": 0.5}
    agent = PPO(**settings, recurrent="gru", recurrent_size=8).on(env, num_envs=4, seed=0, frame_stack=2)
    agent.learn(2_500, progress=False)
    assert agent.evaluate(10).mean > 7  # by chance 4


def test_minibatches_are_of_whole_environments():
    with pytest.raises(
        HyperparameterError, match=r"batch_size=64 is not n_steps=128 times.*nearest that is: batch_size=128"
    ):
        PPO(n_steps=128, batch_size=64, recurrent="lstm").on("CartPole-v1", num_envs=4)
    with pytest.raises(HyperparameterError, match="recurrent must be one of None, lstm, gru, mingru, not 'rnn'"):
        PPO(recurrent="rnn")


def test_an_own_network_feeds_the_memory():
    from flax import linen as nn

    class Small(nn.Module):
        @nn.compact
        def __call__(self, obs):
            return nn.relu(nn.Dense(7)(obs))

    agent = PPO(n_steps=8, batch_size=16, n_epochs=1, recurrent="lstm", recurrent_size=5, network=Small)
    made = agent.on("renshu/Memory-v0", num_envs=2, seed=0).learn(32, progress=False)
    assert made.parameters["actor_core"]["input_kernel"].shape == (7, 20)
