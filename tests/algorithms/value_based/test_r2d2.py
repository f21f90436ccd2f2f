"""R2D2: targets within sequences against a plain loop, burn-in, priorities, an epsilon for each environment."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from gymnasium import spaces

from renshu import DQN, R2D2
from renshu.envs.builtin.memory import Memory
from renshu.errors import HyperparameterError
from renshu.replay.ring import Index
from renshu.replay.sequences import Sequences
from renshu.types import EnvSpec, Rollout, TimeStep
from tests.algorithms.rollouts import draw, shaken
from tests.camera import Camera, MaskedCamera
from tests.loops.tiny import advanced, same

pytestmark = pytest.mark.usefixtures("compiled_fast")

SPACE = spaces.Box(-np.inf, np.inf, (3,), np.float32)
KEY = jax.random.key(0)
BURN, LEARN, B, A = 3, 5, 4, 2
SETTINGS = {
    "burn_in": BURN,
    "sequence_length": LEARN,
    "train_freq": 4,
    "buffer_size": 64,
    "batch_size": B,
    "net_arch": [8, 6],
    "recurrent_size": 5,
    "n_steps": 2,
    "gamma": 0.9,
    "learning_starts": 8,
}


def rescale(x):
    return np.sign(x) * (np.sqrt(np.abs(x) + 1) - 1) + 1e-3 * x


def sequences(learner, seed=0):
    """Sequences with an end in the burn-in, one in the middle and one that is cut off."""
    rng, T = np.random.default_rng(seed), BURN + LEARN
    first, terminated = np.zeros((T + 1, B), bool), np.zeros((T, B), bool)
    terminated[1, 0] = first[3, 0] = True
    terminated[4, 1] = first[6, 1] = True
    first[6, 2] = True
    carry = jax.tree.map(lambda x: rng.normal(size=x.shape).astype(np.float32), learner.initial_carry(B))
    rollout = Rollout(
        obs=draw(SPACE, (T + 1, B), seed),
        first=first,
        action=rng.integers(A, size=(T, B)).astype(np.int32),
        reward=rng.normal(size=(T, B)).astype(np.float32),
        terminated=terminated,
        carry=carry,
    )
    weight = np.array([1.0, 0.5, 0.7, 1.0], np.float32)
    return Sequences(rollout, weight, Index(np.zeros(B, np.int32), np.arange(B)))


def stepwise(learner, params, rollout):
    """Values `[T+1, B, A]`, one step after the other from the stored carry."""
    carry, out = rollout.carry.core, []
    for obs, first in zip(rollout.obs, rollout.first, strict=True):
        values, carry = learner.values(params, carry, obs[None], first[None])
        out.append(np.asarray(values[0], np.float64))
    return np.stack(out)


@pytest.mark.parametrize(("double", "squashed"), [(True, True), (False, False)])
def test_a_step_against_a_plain_loop(double, squashed):
    learner = R2D2(**SETTINGS, double=double, value_rescaling=squashed).build(EnvSpec(SPACE, spaces.Discrete(A), 2))
    train = learner.init_train(KEY)
    train = train._replace(target=shaken(train.target))
    batch = sequences(learner)
    rollout = batch.rollout
    online, late = (stepwise(learner, params, rollout) for params in (train.params, train.target))
    best = (online if double else late).argmax(axis=-1)
    after = np.take_along_axis(late, best[..., None], axis=-1)[..., 0]
    if squashed:
        eps = 1e-3
        root = (np.sqrt(1 + 4 * eps * (np.abs(after) + 1 + eps)) - 1) / (2 * eps)
        after = np.sign(after) * (root**2 - 1)
    expected = np.zeros(B)
    priority = np.zeros(B)
    for b in range(B):
        errors = []
        for t in range(BURN, BURN + LEARN):
            if rollout.first[t + 1, b]:
                continue  # the step only resets
            total, power, at = 0.0, 1.0, t
            for _ in range(2):
                total += power * rollout.reward[at, b]
                power *= 0.9
                at += 1
                if rollout.terminated[at - 1, b]:
                    power = 0.0
                    break
                if at == BURN + LEARN or rollout.first[at + 1, b]:
                    break
            target = total + power * after[at, b]
            errors.append((rescale(target) if squashed else target) - online[t, b, rollout.action[t, b]])
        expected[b] = np.mean(np.square(errors))
        priority[b] = 0.9 * np.abs(errors).max() + 0.1 * np.abs(errors).mean()
    _, metrics, found = jax.jit(learner.gradient_step)(train, batch, KEY, jnp.float32(0.0))
    assert float(metrics["loss"]) == pytest.approx((batch.weight * expected).mean(), rel=1e-3)
    np.testing.assert_allclose(found, priority, rtol=1e-3)


def test_the_burn_in_is_not_learned_from_and_yet_it_matters():
    learner = R2D2(**SETTINGS).build(EnvSpec(SPACE, spaces.Discrete(A), 2))
    train, batch = learner.init_train(KEY), sequences(learner)
    step = jax.jit(learner.gradient_step)
    before, _, _ = step(train, batch, KEY, jnp.float32(0.1))

    def changed(**fields):
        other, _, _ = step(train, batch._replace(rollout=batch.rollout._replace(**fields)), KEY, jnp.float32(0.1))
        return not same(other.params, before.params)

    reward, obs = batch.rollout.reward.copy(), batch.rollout.obs.copy()
    reward[:BURN] += 1
    obs[:BURN] += 1
    assert not changed(reward=reward)
    assert changed(obs=obs)


def test_each_environment_explores_by_its_own_epsilon():
    """0.4^(1 + 7 i / (N - 1)), by `env_id` where some act alone."""
    learner = R2D2(**SETTINGS).build(EnvSpec(SPACE, spaces.Discrete(A), 4))
    acting = learner.actor_state(learner.init(KEY))._replace(exploration=jnp.float32(0.0))
    expected = 0.4 ** (1 + 7 * np.arange(4) / 3)
    obs = np.zeros((4, 3), np.float32)
    np.testing.assert_allclose(learner.epsilon(acting, TimeStep(obs, np.ones(4, bool))), expected, rtol=1e-5)
    some = TimeStep(obs[:2], np.ones(2, bool), env_id=jnp.array([3, 1]))
    np.testing.assert_allclose(learner.epsilon(acting, some), expected[[3, 1]], rtol=1e-5)
    alone = R2D2(**SETTINGS).build(EnvSpec(SPACE, spaces.Discrete(A), 1))
    assert float(alone.epsilon(acting, TimeStep(obs[:1], np.ones(1, bool)))[0]) == pytest.approx(0.4**4.5)


@pytest.mark.parametrize(("prioritized", "options"), [(True, {"frame_stack": 2}), (False, {})])
@pytest.mark.usefixtures("exact")
def test_host_loop_and_compiled_loop_are_the_same_to_the_bit(prioritized, options):
    algorithm = R2D2(**SETTINGS, prioritized=prioritized)
    agents = [
        algorithm.on("renshu/Memory-v0", num_envs=2, seed=3, loop=loop, **options) for loop in ("host", "compiled")
    ]
    for agent in agents:
        advanced(agent, 20)
    assert same(*(agent.state for agent in agents))
    assert int(agents[0].state.counters.updates) > 10


def test_a_cue_is_remembered():
    algorithm = R2D2(
        train_freq=5,
        burn_in=5,
        sequence_length=10,
        learning_starts=500,
        buffer_size=10_000,
        batch_size=32,
        learning_rate=2e-3,
        gradient_steps=2,
        target_update_interval=50,
        net_arch=[32],
        recurrent_size=32,
        recurrent="gru",
        gamma=0.95,
    )
    agent = algorithm.on(Memory(length=4), num_envs=8, seed=0).learn(30_000, progress=False)
    assert agent.evaluate(64).mean > 0.9  # without a memory 0 at best


@pytest.mark.parametrize("env", [Camera, MaskedCamera])
def test_images_vectors_and_several_actions_at_once(env):
    settings = {"learning_rate": 3e-3, "target_update_interval": 40, "gamma": 0.5, "net_arch": [16]}
    settings |= {"train_freq": 8, "burn_in": 0, "sequence_length": 8, "learning_starts": 200, "batch_size": 16}
    settings |= {"exploration_base": 0.3, "exploration_exponent": 0.0, "gradient_steps": 4}
    agent = R2D2(**settings, recurrent_size=8, recurrent="gru").on(env, num_envs=4, seed=0)
    agent.learn(4_000, progress=False)
    assert agent.evaluate(10).mean > 7  # by chance 4


@pytest.mark.parametrize("env", [Camera, MaskedCamera])
def test_values_without_a_memory_take_them_too(env):
    settings = {"learning_rate": 3e-3, "target_update_interval": 100, "gamma": 0.5, "net_arch": [16]}
    agent = DQN(**settings, learning_starts=200, buffer_size=2_000).on(env, num_envs=4, seed=0, frame_stack=2)
    assert agent.learn(4_000, progress=False).evaluate(10).mean > 7  # by chance 4


def test_bad_input():
    with pytest.raises(HyperparameterError, match="sequences of 300 steps begin where rollouts of 20 did"):
        R2D2(buffer_size=200, sequence_length=280, burn_in=20, batch_size=4).on("CartPole-v1")
    with pytest.raises(HyperparameterError, match="elite_episodes"):
        R2D2(elite_episodes=True).on("CartPole-v1")
    with pytest.raises(HyperparameterError, match="recurrent must be one of lstm, gru, mingru, not None"):
        R2D2(recurrent=None)
