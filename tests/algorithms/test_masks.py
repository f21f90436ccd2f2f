"""Actions that are not allowed: never chosen, never believed in, in both loops and by every algorithm for them."""

import dataclasses
import io

import gymnasium as gym
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from gymnasium import spaces
from gymnasium.vector import SyncVectorEnv
from rich.console import Console

from renshu import A2C, DQN, PPO, DynaQ, ExpectedSARSA, QLearning, experiment, load
from renshu.algorithms.continuous.sac import SAC
from renshu.algorithms.tabular.sarsa import SARSA
from renshu.algorithms.value_based.dqn import Keys
from renshu.envs.device import DeviceEnv, Step
from renshu.errors import NotFiniteError, SpaceError
from renshu.files.checkpoint import load_tree
from renshu.types import EnvSpec
from renshu.viewing.terminal import page, play_through
from tests.algorithms.rollouts import beginning
from tests.algorithms.transitions import moved, samples_of

pytestmark = pytest.mark.usefixtures("compiled_fast")

OFF_POLICY = {"batch_size": 16, "buffer_size": 200, "learning_starts": 16, "net_arch": [8], "train_freq": 2}
ALGORITHMS = {
    "dqn": DQN(**OFF_POLICY, double=True, n_steps=2),
    "ppo": PPO(n_steps=16, batch_size=32, n_epochs=2, net_arch=[8], ent_coef=0.01),
    "a2c": A2C(n_steps=8, net_arch=[8], ent_coef=0.01, norm_reward=True),
    "sac": SAC(**OFF_POLICY),
    "qlearning": QLearning(n_steps=4),
    "dynaq": DynaQ(n_steps=4, planning_steps=3),
}


class Narrow(DeviceEnv):
    """Of 70 actions 15 are allowed, others in each state; any other gives a reward of NaN, which no loop lets pass."""

    observation_space, action_space = spaces.Discrete(4), spaces.Discrete(70)
    max_episode_steps = 10

    def reset(self, key):
        state = jax.random.randint(key, (), 0, 4)
        return state, state

    def step(self, state, action, key):
        reward = jnp.where(self.action_mask(state)[action], (action % 15 == 7).astype(jnp.float32), jnp.nan)
        after, _ = self.reset(key)
        return Step(after, after, reward, jnp.bool_(False))

    def action_mask(self, state):
        return jnp.arange(70) // 15 == state


BOTH = [(name, loop) for name in ("dqn", "ppo", "sac", "qlearning") for loop in ("host", "compiled")]


@pytest.mark.parametrize(("name", "loop"), [*BOTH, ("a2c", "compiled"), ("dynaq", "compiled")])
def test_what_is_not_allowed_is_never_done(name, loop):
    agent = ALGORITHMS[name].on(Narrow(), num_envs=2, seed=0, loop=loop)
    assert agent.trainer.space_config.masks
    agent.learn(200, progress=False)
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(agent.parameters))
    assert np.isfinite(agent.evaluate(4).mean), "nor greedily"
    agent.close()


@pytest.mark.parametrize("loop", ["host", "compiled"])
def test_experiments_leave_it_out_too(loop):
    found = experiment(ALGORITHMS["qlearning"], Narrow(), seeds=2, steps=100, num_envs=2, loop=loop, progress=False)
    for agent in found.agents:
        assert agent.trainer.space_config.masks
        assert np.isfinite(agent.parameters).all()
        assert agent.trainer.backend.source.single().observation_space == agent.spec.observation_space, (
            "watched with masks"
        )


@pytest.mark.parametrize("loop", ["host", "compiled"])
def test_experiments_can_go_without(loop):
    with pytest.raises(NotFiniteError, match="reward"):
        experiment(
            ALGORITHMS["qlearning"], Narrow(), seeds=1, steps=200, num_envs=2, loop=loop, masks=False, progress=False
        )


@pytest.mark.parametrize("loop", ["host", "compiled"])
def test_without_masks_that_environment_catches_everybody(loop):
    agent = ALGORITHMS["qlearning"].on(Narrow(), num_envs=2, seed=0, loop=loop, masks=False)
    assert agent.spec.observation_space == Narrow.observation_space
    with pytest.raises(NotFiniteError, match="reward"):
        agent.learn(200, progress=False)


@pytest.mark.usefixtures("exact")
def test_host_loop_and_compiled_loop_are_the_same_to_the_bit():
    one, other = (
        ALGORITHMS["dqn"].on(Narrow(), num_envs=2, seed=3, loop=loop, frame_stack=3).learn(80, progress=False)
        for loop in ("host", "compiled")
    )
    assert not moved(one.state, other.state)
    assert int(one.state.counters.updates) > 0
    frames = one.trainer.learner.observation_space
    assert frames == spaces.MultiDiscrete([4] * 3), "the mask is no input"


# --- targets: the forbidden action looks best, and must not count ---------------------------------------------------

STATES, CHOICES = spaces.Discrete(2), spaces.Discrete(3)
SPEC = EnvSpec(
    spaces.Dict({"action_mask": spaces.MultiBinary(3), "observation": STATES}), CHOICES, num_envs=1, masks=True
)
VALUES = np.array([[5.0, 1.0, 2.0], [100.0, 1.0, 3.0]], np.float32)  # of both states; the first action is forbidden
LINEAR = {**OFF_POLICY, "net_arch": [], "gamma": 0.5}


def seen(state, mask=(0, 1, 1)):
    return {"action_mask": jnp.array([mask], jnp.int8), "observation": jnp.array([state])}


SAMPLE = samples_of(1, choices=3)._replace(
    obs=seen(0), next_obs=seen(1), action=jnp.array([2]), reward=jnp.array([1.0]), discount=jnp.array([0.5])
)


def dqn_target(**options):
    """What a linear DQN with VALUES should say of SAMPLE, and its learner."""
    learner = DQN(**LINEAR, **options).build(SPEC)
    kernel = jnp.asarray(VALUES)
    if learner.head.outputs > 1:
        support = np.linspace(-10, 110, learner.head.outputs)
        kernel = -5.0 * jnp.abs(kernel[..., None] - support).reshape(2, -1)  # nearly all on one atom
    params = {"Dense_0": {"kernel": kernel, "bias": jnp.zeros(kernel.shape[1])}}
    train_state = learner.init_train(jax.random.key(0))._replace(
        params={"network": learner.layout.pack(params)}, target={"network": learner.layout.pack(params)}
    )
    return learner.target(train_state, SAMPLE, Keys(*jax.random.split(jax.random.key(1), 3))), learner


@pytest.mark.parametrize("double", [False, True])
def test_the_maximum_and_the_target_of_dqn_leave_it_out(double):
    target, _ = dqn_target(double=double)
    np.testing.assert_allclose(target, [[1 + 0.5 * 3.0]], rtol=1e-6)


def test_the_target_of_a_distribution_leaves_it_out():
    target, learner = dqn_target(distributional="c51", n_atoms=121, v_min=-10.0, v_max=110.0)
    assert float((target * learner.head.support).sum()) == pytest.approx(1 + 0.5 * 3.0, abs=0.05)


def test_the_soft_policy_of_munchausen_leaves_it_out():
    tau = 0.5
    target, _ = dqn_target(munchausen=True, munchausen_tau=tau, munchausen_alpha=0.9)
    soft = tau * np.log(np.exp(VALUES[1, 1:] / tau).sum())
    log_prob = VALUES[0, 2] / tau - np.log(np.exp(VALUES[0, 1:] / tau).sum())
    expected = 1 + 0.9 * max(tau * log_prob, -1.0) + 0.5 * soft
    np.testing.assert_allclose(target, [[expected]], rtol=1e-5)


def test_where_nothing_is_allowed_everything_is():
    learner = DQN(**LINEAR).build(SPEC)
    values = learner.values({"Dense_0": {"kernel": jnp.asarray(VALUES), "bias": jnp.zeros(3)}}, seen(1, (0, 0, 0)))
    np.testing.assert_allclose(values, VALUES[1:])


def test_expectations_and_entropies_of_soft_actor_critic_leave_it_out():
    learner = SAC(**LINEAR, ent_coef=0.1).build(SPEC)
    logits, temperature = np.array([9.0, 0.0, 1.0]), 0.1
    learner.init_params = lambda key: {
        "actor": {
            "torso": {},
            "Dense_0": {"kernel": jnp.broadcast_to(jnp.asarray(logits, jnp.float32), (2, 3)), "bias": jnp.zeros(3)},
        },
        "critics": ({"Dense_0": {"kernel": jnp.asarray(VALUES), "bias": jnp.zeros(3)}},) * 2,
    }
    train_state = learner.init_train(jax.random.key(0))
    policy = np.exp(logits[1:]) / np.exp(logits[1:]).sum()
    soft = (policy * (VALUES[1, 1:] - temperature * np.log(policy))).sum()
    np.testing.assert_allclose(learner.target(train_state, SAMPLE, jax.random.key(0)), [[1 + 0.5 * soft]], rtol=1e-5)
    actor_state = learner.actor_state(learner.init(jax.random.key(0)))
    found = learner.explain(actor_state, (), beginning(seen(1)))
    np.testing.assert_allclose(found["probabilities"], [[0.0, *policy]], rtol=1e-5)
    np.testing.assert_allclose(found["action_values"], [[-np.inf, 1.0, 3.0]])


def test_the_entropy_to_aim_at_can_be_reached():
    """98 % of that of chance among what is allowed: of three actions it would be more than two can give."""
    learner = SAC(**LINEAR).build(SPEC)
    obs = jax.tree.map(lambda *x: jnp.concatenate(x), seen(0), seen(1, (0, 1, 0)))
    assert float(learner.entropy_target(obs)) == pytest.approx(0.98 * np.log(2) / 2)
    assert SAC(**LINEAR, target_entropy=0.3).build(SPEC).entropy_target(obs) == 0.3
    assert SAC(**LINEAR).build(dataclasses.replace(SPEC, observation_space=STATES, masks=False)).entropy_target(
        obs
    ) == pytest.approx(0.98 * np.log(3))


class Corridor(gym.Env):
    """Two steps. In the second only action 0 is allowed, which gives 1; the other raises."""

    observation_space, action_space = spaces.Discrete(2), spaces.Discrete(2)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.index = 0
        return 0, {"action_mask": np.array([1, 1], np.int8)}

    def step(self, action):
        if self.index and action:
            raise ValueError("forbidden")
        self.index += 1
        # The last observation allows nothing.
        return min(self.index, 1), float(self.index == 2), self.index == 2, False, {"action_mask": [self.index < 2, 0]}


TABLES = {"n_steps": 2, "gamma": 0.5, "learning_rate": 1.0, "initial_value": 100.0, "exploration_fraction": 1.0}


@pytest.mark.parametrize("algorithm", [QLearning, ExpectedSARSA, SARSA, DynaQ])
def test_tables_leave_it_out(algorithm):
    """The forbidden action keeps its first value of 100, which would make 50 of both actions before it."""
    agent = algorithm(**TABLES).on(Corridor, num_envs=2, seed=0).learn(60, progress=False)
    np.testing.assert_allclose(agent.parameters, [[0.5, 0.5], [1.0, 100.0]], rtol=1e-6)
    assert agent.evaluate(2).returns == [1.0, 1.0]
    assert [agent.predict(1), agent.predict(1, [1, 1])] == [1, 1], "no mask: everything is allowed"
    assert agent.predict(1, [1, 0]) == agent.predict({"action_mask": [1, 0], "observation": 1}) == 0


@pytest.mark.parametrize("name", ["dqn", "ppo"])
def test_environments_of_gymnasium(name):
    agent = ALGORITHMS[name].on(Corridor, num_envs=2, seed=0).learn(200, progress=False)
    assert agent.evaluate(3, deterministic=False).returns == [1.0] * 3


# --- what a user sees -----------------------------------------------------------------------------------------------


def test_taxi_gives_masks_and_nobody_has_to_ask(capsys):
    agent = QLearning().on("Taxi-v4", seed=0)
    assert agent.trainer.learner.spec.network_space == spaces.Discrete(500)
    agent.summary()
    printed = " ".join(capsys.readouterr().out.split())
    assert "action_mask actions not allowed are left out of sampling, maximum and target" in printed
    obs, info = gym.make("Taxi-v4").reset(seed=0)
    allowed = np.flatnonzero(info["action_mask"])
    assert 0 < len(allowed) < 6
    chosen = {int(agent.predict(obs, info["action_mask"], deterministic=False)) for _ in range(40)}
    assert chosen == set(allowed)
    found = agent.explain(obs, info["action_mask"])["action_values"]
    np.testing.assert_array_equal(np.isfinite(found), info["action_mask"] == 1)
    vector = SyncVectorEnv([lambda: gym.make("Taxi-v4")] * 2)
    agent = QLearning().on(vector, seed=0).learn(20, progress=False)
    assert agent.trainer.space_config.masks, "a vector environment too"


def test_masks_are_off_or_demanded():
    assert not QLearning().on("Taxi-v4", seed=0, masks=False).trainer.space_config.masks
    with pytest.raises(SpaceError, match="masks=True, but there are none"):
        PPO().on("CartPole-v1", masks=True)
    with pytest.raises(SpaceError, match="learned without masks"):
        QLearning().on("Taxi-v4", seed=0, masks=False).predict(3, [1, 1, 1, 1, 1, 1])
    with pytest.raises(SpaceError, match=r"of shape \(6,\); this is"):
        QLearning().on("Taxi-v4", seed=0).predict(3, [1, 1, 1])


class Pair(gym.Wrapper):
    """Corridor as PettingZoo would have it: the mask in the observation, and none in `info`."""

    observation_space = spaces.Dict({"observation": spaces.Discrete(2), "action_mask": spaces.MultiBinary(2)})

    def __init__(self):
        super().__init__(Corridor())

    def reset(self, **options):
        obs, info = self.env.reset(**options)
        return {"observation": obs, "action_mask": np.array(info["action_mask"], np.int8)}, {}

    def step(self, action):
        obs, *rest, info = self.env.step(action)
        return {"observation": obs, "action_mask": np.array(info["action_mask"], np.int8)}, *rest, {}


def test_observations_that_bring_their_mask_need_no_more():
    agent = QLearning(**TABLES).on(Pair, seed=0).learn(60, progress=False)
    assert agent.spec.observation_space == Pair.observation_space
    np.testing.assert_allclose(agent.parameters, [[0.5, 0.5], [1.0, 100.0]], rtol=1e-6)


@pytest.mark.parametrize("name", ["dqn", "ppo"])
def test_save_and_load(name, tmp_path):
    agent = ALGORITHMS[name].on("Taxi-v4", num_envs=2, seed=0).learn(64, progress=False)
    path = agent.save(tmp_path / "a.safetensors")
    assert load_tree(path)[0]["spaces"]["masks"] is True
    for again in (load(path), load(path, env="Taxi-v4"), agent.on("Taxi-v4")):
        assert again.trainer.space_config == agent.trainer.space_config
        for mask in np.eye(6, dtype=np.int8):
            assert again.predict(5, mask) == int(mask.argmax())
        np.testing.assert_array_equal(again.explain(5)["value"], agent.explain(5)["value"])
        assert again.learn(64, progress=False).steps >= 128
        again.close()


def test_files_from_before_there_were_masks(tmp_path):
    """They say nothing of masks; and what was learned without them goes on without them."""
    path = QLearning().on("Taxi-v4", seed=0, masks=False).learn(40, progress=False).save(tmp_path / "a.safetensors")
    assert "masks" not in load_tree(path)[0]["spaces"]
    for again in (load(path), load(path, env="Taxi-v4")):
        assert not again.trainer.space_config.masks
        assert again.learn(40, progress=False).steps == 80
        assert again.spec.observation_space == spaces.Discrete(500)


def test_the_terminal_shows_what_is_not_allowed():
    agent = QLearning().on("Taxi-v4", seed=0)
    env = agent.trainer.backend.source.single(render_mode="ansi")
    moments = play_through(agent, env, seed=0, limit=3)
    console = Console(file=io.StringIO(), width=100)
    console.print(page(moments, 0))
    text = console.file.getvalue()
    assert "not allowed" in text
    assert "0.000" in text
    assert "inf" not in text
    assert "nan" not in text
    env.close()
