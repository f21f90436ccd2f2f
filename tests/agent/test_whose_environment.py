"""The environment that was given, and no other: in training, in evaluation, and when its owner touches it between."""

import gymnasium
import numpy as np
import pytest
from gymnasium import spaces
from gymnasium.wrappers import MaxAndSkipObservation, NormalizeObservation, TimeLimit

from renshu import ARS, DQN, PPO, SAC
from renshu.errors import SpaceError
from renshu.loops import evaluation

PPO_SMALL = PPO(n_steps=8, batch_size=8, n_epochs=1, net_arch=[4])
DQN_SMALL = DQN(batch_size=4, buffer_size=100, net_arch=[4], learning_starts=4, train_freq=1)


class Steps(gymnasium.Env):
    """Observes the number of steps so far, and of episodes; ends after `length` steps, 0 for never."""

    action_space = spaces.Discrete(2)
    observation_space = spaces.Box(0, np.inf, (2,), np.float32)

    def __init__(self, length=10):
        self.length, self.episode, self.t = length, 0, 0

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.episode, self.t = self.episode + 1, 0
        return self.seen(), {}

    def seen(self):
        return np.array([self.t, self.episode], np.float32)

    def step(self, action):
        self.t += 1
        return self.seen(), 1.0, self.t == self.length, False, {}


def test_an_object_is_evaluated_as_it_is():
    env = gymnasium.make("Pendulum-v1")
    env.unwrapped.g = 0.0
    agent = SAC(net_arch=[4]).on(env, seed=0)
    still = agent.evaluate(3, seed=0)
    other = SAC(net_arch=[4]).on("Pendulum-v1", seed=0)
    same_world = SAC(net_arch=[4]).on("Pendulum-v1", env_kwargs={"g": 0.0}, seed=0)
    assert still.returns == same_world.evaluate(3, seed=0).returns != other.evaluate(3, seed=0).returns
    env.unwrapped.g = 10.0
    assert agent.evaluate(3, seed=0).returns == other.evaluate(3, seed=0).returns


def test_a_member_plays_where_its_population_did():
    env = gymnasium.make("Pendulum-v1", max_episode_steps=20)
    env.unwrapped.g = 0.0
    agent = ARS(n_delta=1).on(env, seed=0).learn(40, progress=False)
    member = agent.member("mean")
    assert member.evaluate(3, seed=0).returns == agent.evaluate(3, seed=0).returns
    other = ARS(n_delta=1).on("Pendulum-v1", max_episode_steps=20, seed=0)
    assert other.start_from(agent).evaluate(3, seed=0).returns != agent.evaluate(3, seed=0).returns
    # They step one object in turn: each begins a new generation with new episodes.
    for one in (member, agent, member):
        before = one.steps
        one.learn(40, progress=False)
        assert set(one.recent_lengths) == {20}
        assert one.steps > before
    limited = ARS(n_delta=1).on("Pendulum-v1", max_episode_steps=20)
    assert limited.member(0).evaluate(1).lengths == [20]


def test_evaluation_has_the_statistics_of_a_wrapper_as_they_are():
    env = NormalizeObservation(Steps())
    agent = PPO_SMALL.on(env, seed=0)
    seen = []
    agent.trainer.programs.act_greedy = spying(agent.trainer.programs.act_greedy, seen)
    agent.learn(200, progress=False)
    agent.evaluate(1)
    normalized = (seen[5][0] - env.obs_rms.mean) / np.sqrt(env.obs_rms.var + env.epsilon)
    assert abs(seen[5][0, 0]) < 3, f"not the raw number of steps, nor one of new statistics: {normalized}"


def spying(act, seen):
    def spied(actor_state, carry, timestep, keys, t):
        seen.append(np.asarray(timestep.obs))
        return act(actor_state, carry, timestep, keys, t)

    return spied


def test_wrappers_around_a_limit_are_evaluated_as_trained():
    env = TimeLimit(MaxAndSkipObservation(gymnasium.make("Pendulum-v1"), 4), 50)
    agent = SAC(net_arch=[4], learning_starts=10).on(env, seed=0).learn(120, progress=False)
    assert set(agent.recent_lengths) == {50}
    assert agent.evaluate(2).lengths == [50, 50]


def test_an_object_that_its_owner_steps_in_between_begins_a_new_episode():
    env = Steps(length=1000)
    agent = DQN_SMALL.on(env, seed=0).learn(50, progress=False)
    env.reset()
    for _ in range(7):
        env.step(0)
    agent.learn(20, progress=False)
    ring = agent.state.memory.ring
    rows = np.arange(int(ring.size))
    real = ~np.asarray(ring.first)[rows + 1, 0]
    obs = np.asarray(ring.obs)[:, 0]
    before, after = obs[rows[real]], obs[rows[real] + 1]
    np.testing.assert_array_equal(after[:, 0] - before[:, 0], 1)
    np.testing.assert_array_equal(after[:, 1], before[:, 1])
    assert len(np.unique(before[:, 1])) == 2


def test_an_object_that_nobody_touched_goes_on():
    agent = DQN_SMALL.on(Steps(length=1000), seed=0).learn(50, progress=False).learn(20, progress=False)
    assert float(np.asarray(agent.state.memory.ring.obs)[70, 0, 0]) == 70


def test_neighbouring_seeds_share_no_environment():
    starts = []
    for seed in range(3):
        agent = PPO_SMALL.on("CartPole-v1", num_envs=8, seed=seed)
        agent.learn(64, progress=False)
        obs = agent.trainer.backend.envs.vector_env.unwrapped.state.T
        starts += [tuple(row) for row in np.round(obs, 6)]
    assert len(set(starts)) == len(starts)
    seeds = {PPO_SMALL.on("CartPole-v1", seed=seed).trainer.env_seed(0, 0, 0) for seed in range(20)}
    assert min(abs(a - b) for a in seeds for b in seeds if a != b) > 1000


class Drawn(Steps):
    """Draws its map at its first reset, from its own generator."""

    map = None

    def reset(self, *, seed=None, options=None):
        _, info = super().reset(seed=seed)
        if self.map is None:
            self.map = float(self.np_random.uniform())
        return self.seen(), info

    def seen(self):
        return np.array([self.map or 0.0, self.episode], np.float32)


def test_what_an_environment_draws_once_goes_by_the_seed():
    maps = []
    for seed in (0, 0, 1):
        agent = DQN_SMALL.on(Drawn, seed=seed).learn(30, progress=False)
        memory = np.asarray(agent.state.memory.ring.obs)[:25, 0]
        assert memory[0, 1] == 1, "the search for masks is no episode of its own"
        maps.append(float(memory[0, 0]))
    assert maps[0] == maps[1] != maps[2]


class GlobalNoise(Steps):
    def seen(self):
        return np.random.uniform(size=2).astype(np.float32)  # noqa: NPY002 - as many environments do


def test_workers_that_use_global_random_numbers_differ_and_repeat():
    found = []
    for seed in (0, 0, 1):
        with PPO_SMALL.on(GlobalNoise, num_envs=2, seed=seed, processes=True) as agent:
            found.append(np.asarray(agent.trainer.start_loop(None).collect().rollout.obs))
    assert not np.isin(found[0][:, 0], found[0][:, 1]).any()
    np.testing.assert_array_equal(found[0], found[1])
    assert not np.isin(found[0], found[2]).any()


@pytest.mark.parametrize("episodes", [2, 5])
def test_episodes_that_never_end_are_cut_off_and_marked(episodes, monkeypatch, capsys):
    monkeypatch.setattr(evaluation, "LIMIT", 60)
    agent = PPO_SMALL.on(lambda: Steps(length=0), seed=0)
    agent.summary()
    assert "no time limit known" in capsys.readouterr().out
    result = agent.evaluate(episodes, num_envs=2)
    assert result.lengths == [60] * episodes
    assert result.cut == episodes
    assert f"({episodes} of {episodes} cut off after 60 steps)" in str(result)
    limited = PPO_SMALL.on(lambda: Steps(length=0), seed=0, max_episode_steps=7)
    assert limited.evaluate(3).lengths == [7, 7, 7]
    assert limited.evaluate(3).cut == 0
    limited.learn(40, progress=False)
    assert set(limited.recent_lengths) == {7}


def test_an_object_that_cannot_be_copied_is_refused_for_evaluation():
    env = Steps()
    env.stream = (x for x in range(3))
    agent = PPO_SMALL.on(env, seed=0)
    with pytest.raises(SpaceError, match="cannot be copied"):
        agent.evaluate(1)
