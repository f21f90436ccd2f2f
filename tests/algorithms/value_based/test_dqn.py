"""DQN: targets by hand, and for each of its ideas a toy in which it matters."""

import dataclasses

import gymnasium
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from gymnasium import spaces

from renshu.algorithms.value_based.dqn import DQN
from renshu.algorithms.value_based.qrdqn import QRDQN
from renshu.algorithms.value_based.rainbow import Rainbow
from renshu.errors import HyperparameterError, SpaceError
from renshu.ops.schedules import value_of
from renshu.optim.train_state import TrainState
from renshu.replay.ring import Index, Transitions
from renshu.types import Counters, EnvSpec, Rollout, TimeStep
from tests import probes

KEY = jax.random.key(0)
IDEAS = {
    "plain": {},
    "double": {"double": True},
    "dueling": {"dueling": True},
    "prioritized": {"prioritized": True},
    "n_steps": {"n_steps": 3},
    "noisy": {"noisy": True},
    "c51": {"distributional": "c51", "v_min": -2.0, "v_max": 6.0, "n_atoms": 81},
    "qr": {"distributional": "qr", "n_quantiles": 16},
    "iqn": {"distributional": "iqn"},
    "munchausen": {"munchausen": True, "munchausen_tau": 0.01},
    "rescaled": {"value_rescaling": True},
    "mse": {"loss": "mse"},
}


def small(**options):
    base = {"learning_rate": 5e-3, "batch_size": 32, "buffer_size": 2000, "learning_starts": 100, "train_freq": 2}
    base |= {"target_update_interval": 40, "net_arch": [32], "gamma": 0.9}
    return DQN(**{**base, **options})


def learner(actions=3, obs=2, num_envs=1, **options):
    box = spaces.Box(-1.0, 1.0, (obs,), np.float32)
    return small(**options).build(EnvSpec(box, spaces.Discrete(actions), num_envs))


def batch(obs, action, reward, discount, next_obs):
    n = len(action)
    index = Index(jnp.zeros(n, jnp.int32), jnp.zeros(n, jnp.int32))
    arrays = (jnp.asarray(x, jnp.float32) for x in (reward, discount, next_obs, np.ones(n)))
    reward, discount, next_obs, weight = arrays
    return Transitions(jnp.asarray(obs, jnp.float32), jnp.asarray(action), reward, discount, next_obs, weight, index)


def filled(made, rows, seed=0):
    """A state whose memory holds `rows`: lists of (obs, action, reward, terminated), each followed by a reset."""
    state = made.init(jax.random.key(seed))
    obs, action, reward, terminated, first = [], [], [], [], []
    for o, a, r, d in rows:
        obs += [o, o]
        action += [a, 0]
        reward += [r, 0.0]
        terminated += [d, False]
        first += [True, False]
    obs.append(obs[0])
    first.append(True)
    rollout = Rollout(
        obs=np.asarray(obs, np.float32)[:, None],
        first=np.asarray(first)[:, None],
        action=np.asarray(action, np.int32)[:, None],
        reward=np.asarray(reward, np.float32)[:, None],
        terminated=np.asarray(terminated)[:, None],
        carry=(),
        extras=(),
    )
    return state._replace(memory=made.replay.add(state.memory, rollout, KEY))


def updates(made, state, count, rate=5e-3):
    """The parameters after `count` gradient steps on a memory that stays as it is."""

    @jax.jit
    def run(state):
        def step(i, carry):
            train_state, memory = carry
            key = jax.random.fold_in(KEY, i)
            drawn = made.replay.sample(memory, key, made.config.batch_size, 0.0, gamma=made.config.gamma)
            train_state, _, error = made.gradient_step(train_state, drawn, key, rate)
            return train_state, made.replay.reprioritize(memory, drawn.indices, error)

        train_state, _ = jax.lax.fori_loop(0, count, step, (made.pack(state.train), state.memory))
        return made.unpack(train_state).params

    return run(state)


# --- it learns ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", IDEAS)
def test_every_idea_finds_value_and_policy(name):
    agent = small(**IDEAS[name]).on(probes.Policy, num_envs=2, seed=0).learn(3000, progress=False)
    for sign in (-1.0, 1.0):
        obs = np.array([sign], np.float32)
        assert agent.predict(obs) == (sign > 0)
        found = agent.explain(obs)["action_values"]
        if name == "munchausen":  # the wrong action is worth less than its reward: that is the idea
            assert found.max() == pytest.approx(1.0, abs=0.3)
        else:
            np.testing.assert_allclose(found, [sign < 0, sign > 0], atol=0.3)


@pytest.mark.parametrize("name", ["plain", "n_steps", "c51", "qr"])
def test_time_limit_is_no_end(name):
    agent = small(**IDEAS[name], gamma=0.8).on(probes.TimeLimit, num_envs=2, seed=0).learn(8000, progress=False)
    assert float(agent.explain(np.zeros(1, np.float32))["value"]) == pytest.approx(5.0, abs=0.6)


def test_discount():
    agent = small(gamma=0.5).on(probes.Discount, num_envs=2, seed=0).learn(4000, progress=False)
    assert float(agent.explain(np.array([1.0], np.float32))["value"]) == pytest.approx(1.0, abs=0.15)
    assert float(agent.explain(np.array([0.0], np.float32))["value"]) == pytest.approx(0.5, abs=0.15)


@pytest.mark.parametrize("kind", [Rainbow, QRDQN])
def test_family(kind):
    """Their ideas together, on the policy probe."""
    options = {"learning_starts": 100, "batch_size": 32, "buffer_size": 2000, "train_freq": 2, "learning_rate": 5e-3}
    algorithm = kind(target_update_interval=40, net_arch=[32], v_min=-2.0, v_max=2.0, n_quantiles=16, **options)
    agent = algorithm.on(probes.Policy, num_envs=2, seed=0).learn(4000, progress=False)
    assert agent.evaluate(20).mean == 1.0


# --- what each idea is for ------------------------------------------------------------------------------------------


def test_double_does_not_overestimate():
    """All true values are 0; two networks that know nothing: the highest of 20 noises is no noise of zero mean."""

    def bias(double):
        made = learner(actions=20, double=double, distributional=None)
        obs = np.random.default_rng(0).normal(size=(64, 2))
        drawn = batch(obs, np.zeros(64, np.int32), np.zeros(64), np.full(64, 0.9), obs)
        found = []
        for seed in range(20):
            params, target = (made.init_train(jax.random.key(2 * seed + i)).params for i in range(2))
            train_state = TrainState(params, target, (), jnp.int32(0))
            found.append(float(made.target(train_state, drawn, _keys()).mean()))
        return np.mean(found)

    assert bias(double=False) > 0.3
    assert abs(bias(double=True)) < 0.15


def test_iqn_does_not_overestimate(monkeypatch):
    """Six actions worth 0 with deviations of 0.2 to 3: the action is not chosen by the draws that are its target."""
    made = learner(actions=6, distributional="iqn", gamma=1.0)
    deviations = jnp.linspace(0.2, 3.0, 6)

    def out(params, obs, taus, key=None):
        return deviations[:, None] * jax.scipy.special.ndtri(taus)[:, None]

    monkeypatch.setattr(made, "out", out)
    rows = 4000
    drawn = batch(np.zeros((rows, 2)), np.zeros(rows, np.int32), np.zeros(rows), np.ones(rows), np.zeros((rows, 2)))
    target = made.target(made.init_train(KEY), drawn, _keys())
    assert abs(float(target.mean())) < 0.1


def test_dueling_learns_of_actions_never_taken():
    """Only action 0 was ever taken, and all actions are alike: its value tells of the state, so of the others."""

    def error(dueling):
        made = learner(actions=8, dueling=dueling)
        state = filled(made, [([0.5, 0.5], 0, 1.0, True)] * 40)
        values = made.values(updates(made, state, 300), jnp.array([[0.5, 0.5]]))[0]
        assert values[0] == pytest.approx(1.0, abs=0.05)
        return float(jnp.abs(values[1:] - 1).mean())

    assert error(dueling=True) < 0.75 * error(dueling=False)


@pytest.mark.parametrize(
    ("net_arch", "shared", "stream"), [([8, 6], [(2, 8)], (8, 6)), ([8], [(2, 8)], (8, 8)), ([], [], None)]
)
def test_dueling_streams_have_a_hidden_layer_each(net_arch, shared, stream):
    """As the fully connected layer in figure 1 of Wang et al. 2016, above what is shared."""
    made = learner(actions=3, dueling=True, net_arch=net_arch)
    params = made.init(KEY).params
    features = (stream or (0, 2))[1]
    expected = [*shared, *([stream] * 2 if stream else []), (features, 3), (features, 1)]
    assert sorted(layer["kernel"].shape for layer in params.values()) == sorted(expected)


def test_rainbow_is_table_1():
    """Hessel et al. 2018, table 1; a step here is four frames there."""
    made = Rainbow()
    assert (made.learning_starts, made.target_update_interval) == (80_000 // 4, 32_000 // 4)
    assert (made.learning_rate, made.adam_eps, made.n_steps) == (6.25e-5, 1.5e-4, 3)
    assert made.prioritized_replay_alpha == 0.5
    learner = made.build(EnvSpec(spaces.Box(-1.0, 1.0, (2,)), spaces.Discrete(2), 1))
    beta = learner.config.prioritized_replay_beta
    assert [float(value_of(beta, left)) for left in (1.0, 0.5, 0.0)] == pytest.approx([0.4, 0.7, 1.0])
    assert (made.distributional, made.n_atoms, made.v_min, made.v_max) == ("c51", 51, -10.0, 10.0)
    assert made.noisy
    assert made.double
    assert made.dueling
    assert made.prioritized


def test_prioritized_finds_the_rare_reward():
    """One step in 500 is worth something."""

    def value(prioritized):
        made = learner(prioritized=prioritized, prioritized_replay_alpha=1.0, buffer_size=2000, batch_size=8)
        state = filled(made, [([0.0, 0.0], 0, 0.0, True)] * 500 + [([1.0, 1.0], 0, 1.0, True)])
        return float(made.values(updates(made, state, 200, rate=2e-3), jnp.array([[1.0, 1.0]]))[0, 0])

    assert value(prioritized=True) > 0.8
    assert value(prioritized=False) < 0.5


class Corridor(gymnasium.Env):
    """`length` steps, whatever is done; a reward of 1 at the end. The observation says where."""

    def __init__(self, length=6):
        self.length = length
        self.observation_space = spaces.Box(0.0, 1.0, (length + 1,), np.float32)
        self.action_space = spaces.Discrete(2)

    def seen(self):
        return np.eye(self.length + 1, dtype=np.float32)[self.t]

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.t = 0
        return self.seen(), {}

    def step(self, action):
        self.t += 1
        return self.seen(), float(self.t == self.length), self.t == self.length, False, {}


def test_n_step_brings_a_late_reward_to_the_start():
    """The target network is never renewed: one step a time the reward cannot come back further than to the last."""

    def value(n_steps):
        agent = small(n_steps=n_steps, gamma=1.0, target_update_interval=10**6, net_arch=[16]).on(Corridor, seed=0)
        agent.learn(2500, progress=False)
        return float(agent.explain(np.eye(7, dtype=np.float32)[0])["value"])

    assert value(6) == pytest.approx(1.0, abs=0.15)
    assert value(1) < 0.7


@pytest.mark.parametrize("name", ["c51", "qr", "iqn"])
def test_distributions_know_what_is_risky(name):
    """Both actions are worth 5 on average; the second is 0 or 10, by chance."""
    options = {"batch_size": 64, "v_min": 0.0, "v_max": 10.0, "n_atoms": 21}
    made = learner(actions=2, **{**IDEAS[name], **options})
    rows = [([1.0, 1.0], 0, 5.0, True), ([1.0, 1.0], 1, 0.0, True), ([1.0, 1.0], 1, 10.0, True)] * 40
    params = updates(made, filled(made, rows), 2000, rate=3e-3)
    obs = jnp.ones((1, 2))
    np.testing.assert_allclose(made.values(params, obs)[0], 5.0, atol=0.7)
    out = made.out(params, obs, made.fractions(1, None))[0]
    if name == "c51":
        chance = jax.nn.softmax(out)
        spread = jnp.sqrt((chance * (made.head.support - 5) ** 2).sum(axis=1))
    else:
        spread = jnp.sqrt(((out - 5) ** 2).mean(axis=1))
    assert spread[0] < 1.0
    assert spread[1] > 3.5


class Deep(Corridor):
    """Action 1 goes on, action 0 ends it for 0.05: who never tries at length never sees the end."""

    def step(self, action):
        if action == 0:
            return self.seen(), 0.05, True, False, {}
        return super().step(action)


def test_noisy_explores_at_length():
    """Without epsilon a plain network soon does the same for ever; noise that stays for a while tries whole ways."""

    def mean(noisy):
        options = {"exploration_initial_eps": 0.0, "exploration_final_eps": 0.0, "learning_starts": 0, "n_steps": 3}
        found = []
        for seed in range(3):
            agent = small(noisy=noisy, gamma=0.99, **options).on(Deep, num_envs=2, seed=seed)
            found.append(agent.learn(6000, progress=False).evaluate(3).mean)
        return np.mean(found)

    assert mean(noisy=True) > 0.9
    assert mean(noisy=False) < 0.7


def _keys():
    from renshu.algorithms.value_based.dqn import Keys

    return Keys(*jax.random.split(KEY, 3))


def test_munchausen_target():
    """Against the equation, in numpy."""
    made = learner(munchausen=True, munchausen_alpha=0.9, munchausen_tau=0.5, munchausen_clip=-1.0)
    rng = np.random.default_rng(0)
    drawn = batch(
        rng.normal(size=(5, 2)), [0, 1, 2, 0, 1], rng.normal(size=5), [0.9] * 4 + [0], rng.normal(size=(5, 2))
    )
    train_state = TrainState(made.init_train(KEY).params, made.init_train(jax.random.key(1)).params, (), jnp.int32(0))

    def soft(obs):
        q = np.asarray(made.values(made.layout.unpack(train_state.target["network"]), obs), np.float64)
        log = q / 0.5 - np.log(np.exp(q / 0.5).sum(axis=1, keepdims=True))
        return q, log

    _, now = soft(drawn.obs)
    q, after = soft(drawn.next_obs)
    bonus = 0.9 * np.clip(0.5 * now[np.arange(5), drawn.action], -1.0, 0.0)
    expected = drawn.reward + bonus + drawn.discount * (np.exp(after) * (q - 0.5 * after)).sum(axis=1)
    np.testing.assert_allclose(made.target(train_state, drawn, _keys())[:, 0], expected, atol=1e-5)


# --- schedules, targets, bad input ----------------------------------------------------------------------------------


def test_epsilon_by_steps_and_by_episodes():
    by_steps = small(exploration_fraction=0.5, exploration_initial_eps=1.0, exploration_final_eps=0.1)
    for done, expected in ((0, 1.0), (250, 0.55), (500, 0.1), (900, 0.1)):
        counters = Counters.zeros()._replace(steps=jnp.int32(done), target=jnp.int32(1000))
        assert float(by_steps.epsilon(counters)) == pytest.approx(expected)
    by_episodes = small(exploration_by="episodes", exploration_initial_eps=0.5, exploration_final_eps=0.01)
    for episodes, expected in ((0, 0.5), (4, 0.1), (999, 0.01)):
        counters = Counters.zeros()._replace(episodes=jnp.int32(episodes))
        assert float(by_episodes.epsilon(counters)) == pytest.approx(expected)


def test_target_follows_environment_steps():
    made = learner(target_update_interval=100, tau=0.25)
    state = made.init(KEY)
    late = made.init_train(jax.random.key(1)).params
    state = state._replace(train=state.train._replace(target=late))
    rollout = Rollout(
        obs=np.zeros((2, 1, 2), np.float32),
        first=np.zeros((2, 1), bool),
        action=np.zeros((1, 1), np.int32),
        reward=np.zeros((1, 1), np.float32),
        terminated=np.zeros((1, 1), bool),
    )

    def after(steps):
        counters = state.counters._replace(steps=jnp.int32(steps))
        return made.observe(state._replace(counters=counters), rollout, KEY).train.target

    jax.tree.map(np.testing.assert_array_equal, after(98), late)
    mean = jax.tree.map(lambda t, p: 0.75 * t + 0.25 * p, late, made.pack(state.train).params)
    jax.tree.map(lambda m, n: np.testing.assert_allclose(m, n, atol=1e-6), after(99), mean)


def test_actions_are_random_before_learning_starts():
    agent = small(learning_starts=10**6 - 1).on("CartPole-v1", num_envs=4, seed=0)
    assert float(agent.state.exploration) == 1.0
    greedy = learner()
    actor_state = greedy.actor_state(greedy.init(KEY))._replace(exploration=jnp.float32(0))
    obs, first = jnp.ones((64, 2)), jnp.zeros(64, bool)
    assert len(np.unique(greedy.act(actor_state, (), TimeStep(obs, first), KEY, explore=True).action)) == 1
    random = greedy.act(
        actor_state._replace(exploration=jnp.float32(1)), (), TimeStep(obs, first), KEY, explore=True
    ).action
    assert len(np.unique(random)) == 3


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"batch_size": 64, "buffer_size": 32}, "batch_size=64 is more than buffer_size=32"),
        ({"buffer_size": 64, "train_freq": 128}, "fewer than one rollout"),
        ({"gradient_steps": 0}, "gradient_steps=0"),
        ({"distributional": "c52"}, "distributional must be one of None, c51, qr, iqn"),
        ({"distributional": "c51", "value_rescaling": True}, "value_rescaling does not go with c51"),
        ({"v_min": 1.0, "v_max": -1.0}, "v_min=1 must be below v_max=-1"),
    ],
)
def test_bad_hyperparameters(options, match):
    with pytest.raises(HyperparameterError, match=match):
        small(**options).on("CartPole-v1")


def test_learning_that_never_starts():
    agent = small(learning_starts=5000).on("CartPole-v1")
    with pytest.raises(HyperparameterError, match=r"ends at step 5,000, but learning_starts=5,000"):
        agent.learn(5000, progress=False)


def test_good_episodes_only():
    """What enters the memory is known when an episode is over: nothing of the running one is there."""
    agent = small(elite_episodes=True, learning_starts=50).on("CartPole-v1", num_envs=2, seed=0)
    agent.learn(600, progress=False)
    ring = agent.state.memory.ring
    assert ring.first.shape[1] == 1
    kept = np.flatnonzero(np.asarray(ring.first[: int(ring.head), 0]))
    assert len(kept) == int(agent.state.counters.episodes)  # of fewer than a hundred each is among the best
    assert 0 < int(ring.size) < agent.steps + 2 * len(kept)
    with pytest.raises(HyperparameterError, match="has no time limit"):
        small(elite_episodes=True).on(probes.Policy)


def test_too_many_actions():
    class Wide(probes.Probe):
        def __init__(self):
            super().__init__(spaces.Box(-1, 1, (20,), np.float32))

    with pytest.raises(SpaceError, match="20"):
        small().on(Wide)


def test_json_round_trip():
    algorithm = small(distributional="iqn", double=True)
    assert DQN.from_json(algorithm.to_json()) == algorithm
    assert dataclasses.replace(algorithm, distributional=None).to_json()["distributional"] is None
