"""Members and their environments: who plays where, what all share, what is counted, and what comes last."""

import gymnasium
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from gymnasium import spaces

from renshu import ARS, DQN, ES, PPO, load
from renshu.envs.device import DeviceEnv, DeviceEnvs, Step, episodes_of
from renshu.errors import HyperparameterError, SpaceError
from renshu.types import Rollout, TimeStep

pytest.importorskip("evosax", reason="evosax is not installed")
pytestmark = pytest.mark.usefixtures("compiled_fast")
SMALL = {"population_size": 6, "net_arch": [], "sigma": 0.5}


class Drawn(DeviceEnv):
    """A number is drawn at the beginning and in each step; the reward is the action times what was seen."""

    observation_space = spaces.Box(-1.0, 1.0, (1,), np.float32)
    action_space = spaces.Box(-1.0, 1.0, (1,), np.float32)
    max_episode_steps = 3

    def reset(self, key):
        seen = jax.random.uniform(key, (1,), minval=-1.0)
        return seen, seen

    def step(self, state, action, key):
        after, obs = self.reset(key)
        return Step(after, obs, (action * state).sum(), jnp.bool_(False))


class Poison(Drawn):
    """Large actions pay NaN, or infinity."""

    def step(self, state, action, key):
        after = super().step(state, action, key)
        worth = jnp.where(action[0] > 0.1, jnp.nan, jnp.where(action[0] < -0.4, jnp.inf, after.reward))
        return after._replace(reward=worth)


def test_environments_are_set_by_the_population():
    assert ES(**SMALL).on(Drawn()).spec.num_envs == 6
    assert ES(**SMALL, n_eval_episodes=3).on(Drawn()).spec.num_envs == 18
    assert ES(**SMALL).on(Drawn(), num_envs=12).spec.num_envs == 12
    assert ARS(n_delta=5).on(Drawn()).spec.num_envs == 10
    assert PPO().on(Drawn()).spec.num_envs == 1
    with pytest.raises(HyperparameterError, match="multiple of 6"):
        ES(**SMALL).on(Drawn(), num_envs=8)


def test_members_share_the_seeds_of_their_episodes():
    keys = jax.random.key(0)
    state, obs = DeviceEnvs(Drawn(), 6, episodes_of(3, 6)).reset(keys)
    assert len(np.unique(obs)) == 2
    np.testing.assert_array_equal(obs[0], obs[2])
    _, outcome = DeviceEnvs(Drawn(), 6, episodes_of(3, 6)).step(state, jnp.zeros((6, 1)))
    np.testing.assert_array_equal(outcome.obs[3:], np.repeat(outcome.obs[3:4], 3, axis=0))
    assert len(np.unique(outcome.obs)) == 2
    assert len(np.unique(DeviceEnvs(Drawn(), 6).reset(keys)[1])) == 6
    some = np.array([4, 1], np.int32)
    np.testing.assert_array_equal(DeviceEnvs(Drawn(), 2, episodes_of(3, 2, some)).reset(keys)[1], obs[some])


@pytest.mark.parametrize("env", [lambda: gymnasium.make("CartPole-v1"), "renshu/CartPole-v1"], ids=["gym", "ours"])
def test_so_they_do_in_the_host_loop(env):
    agent = ES(**SMALL, n_eval_episodes=2, norm_obs=True).on(env, loop="host", seed=0)
    rollouts = agent.trainer.backend.rollouts(
        agent.trainer.programs, agent.state, agent.fitted.decode_action, key=jax.random.key(0), seed=1
    )
    first, second = next(rollouts).obs[0], next(rollouts).obs[0]
    for begun in (first, second):
        np.testing.assert_array_equal(begun[:6], np.repeat(begun[:1], 6, axis=0))
        np.testing.assert_array_equal(begun[6:], np.repeat(begun[6:7], 6, axis=0))
        assert not np.array_equal(begun[0], begun[6])
    assert not np.array_equal(first[0], second[0])


def test_who_comes_late_begins_where_the_others_are():
    envs = DeviceEnvs(Drawn(), 6, episodes_of(3, 6))
    first, _ = envs.reset(jax.random.key(7))
    state = first
    for _ in range(4):
        state, _ = envs.step(state, jnp.zeros((6, 1)))  # however long the episodes are
        state, obs = envs.reset(envs.root_after(state))
    late = first._replace(key=envs.root_later(first.key, np.int32(3)))
    np.testing.assert_array_equal(envs.reset(envs.root_after(late))[1], obs)


def test_environment_n_is_played_by_member_n_mod_p():
    agent = ES(**SMALL, n_eval_episodes=2).on(Drawn(), seed=0)
    learner = agent.trainer.learner
    obs = np.linspace(-1, 1, 12, dtype=np.float32)[:, None]
    step = TimeStep(obs, np.ones(12, np.bool_))
    all_in_order = learner.prepare(learner.actor_state(agent.state), ())
    action = np.asarray(learner.act(all_in_order, (), step, jax.random.key(0), explore=True).action)
    for n in range(12):
        alone = learner.policy.policy(learner.policy.params(all_in_order.members[n % 6]), obs[n : n + 1]).mode()
        np.testing.assert_allclose(action[n], alone[0], rtol=1e-6)
    some = np.array([7, 2, 11], np.int32)
    here = learner.prepare(learner.actor_state(agent.state), some)
    step = TimeStep(obs[some], np.ones(3, np.bool_), env_id=some)
    found = learner.act(here, (), step, jax.random.key(0), explore=True).action
    np.testing.assert_allclose(found, action[some], rtol=1e-6)
    greedy = learner.act(
        all_in_order, (), TimeStep(obs, np.ones(12, np.bool_)), jax.random.key(0), explore=False
    ).action
    np.testing.assert_allclose(greedy, learner.policy.policy(agent.parameters, obs).mode())


def test_a_generation_is_counted_once():
    agent = ES(**SMALL, n_eval_episodes=2).on(Drawn(), seed=0)
    agent.learn(5 * 12 * 3, progress=False)
    counters = agent.state.counters
    assert (int(counters.updates), int(counters.episodes), int(counters.steps)) == (5, 60, 180)
    assert len(agent.recent_returns) == 60


def test_who_fails_is_told_to_be_last():
    agent = ES(**SMALL).on(Drawn(), seed=0)
    learner, told = agent.trainer.learner, []
    tell = learner.strategy.tell
    learner.strategy.tell = lambda key, members, fitness, *rest: (
        told.append(fitness) or tell(key, members, fitness, *rest)
    )
    reward = np.zeros((3, 6), np.float32)
    reward[0] = [1.0, np.nan, -2.0, np.inf, 3.0, -np.inf]
    first = np.zeros((4, 6), np.bool_)
    rollout = Rollout((), first, (), reward, np.zeros((3, 6), np.bool_))
    _, metrics = learner.learn(agent.state, rollout, jax.random.key(0))
    np.testing.assert_array_equal(told[0], [1.0, -3.0, -2.0, -3.0, 3.0, -3.0])
    assert (float(metrics["failed_members"]), float(metrics["fitness_max"])) == (3.0, 3.0)
    assert float(metrics["fitness_mean"]) == pytest.approx(2 / 3)


def test_environments_wait_for_the_longest_episode():
    counts = []

    class Counted(gymnasium.Env):
        observation_space, action_space = spaces.Box(-1, 1, (1,), np.float32), spaces.Discrete(2)

        def __init__(self):
            self.length = len(counts) + 1
            self.number = len(counts)
            counts.append(0)

        def reset(self, *, seed=None, options=None):
            super().reset(seed=seed)
            self.t = 0
            return np.zeros(1, np.float32), {}

        def step(self, action):
            counts[self.number] += 1
            self.t += 1
            return np.zeros(1, np.float32), 1.0, self.t == self.length, False, {}

    agent = ES(**SMALL).on(Counted, max_episode_steps=20, seed=0)
    counts[:] = [0] * len(counts)
    agent.learn(2 * sum(range(1, 7)), progress=False)
    assert sorted(agent.recent_lengths) == sorted([*range(1, 7)] * 2)
    assert sorted(counts)[-6:] == [2, 4, 6, 8, 10, 12]


@pytest.mark.parametrize("loop", ["host", "compiled"])
def test_who_fails_comes_last(loop):
    agent = ES(**SMALL).on(Poison(), loop=loop, seed=0)
    seen = []
    agent.learn(6 * 3 * 20, progress=False, callbacks=lambda _, metrics: seen.append(metrics) or True)
    assert max(metrics["failed_members"] for metrics in seen) > 0
    assert all(np.isfinite(list(metrics.values())).all() for metrics in seen if "fitness_mean" in metrics)
    weights = agent.trainer.learner.policy.weights(agent.parameters)
    assert np.isfinite(weights).all()


def test_what_cannot_be():
    class Endless(Drawn):
        max_episode_steps = None

    with pytest.raises(HyperparameterError, match="give it a limit"):
        ES(**SMALL).on(Endless())
    assert ES(**SMALL).on(Endless(), max_episode_steps=5).trainer.learner.needs.steps == 5
    with pytest.raises(HyperparameterError, match="Did you mean cma_es"):
        ES(strategy="cmaes")
    with pytest.raises(HyperparameterError, match="no parameter 'elite'"):
        ES(**SMALL, strategy="cma_es", strategy_kwargs={"elite": 0.5}).on(Drawn())
    with pytest.raises(HyperparameterError, match="no parameter 'population_size'"):
        ES(**SMALL, strategy_kwargs={"population_size": 8}).on(Drawn())
    assert (
        ES(**SMALL, strategy="pgpe", strategy_kwargs={"std_lr": 0.2}).on(Drawn()).trainer.learner.strategy.params.std_lr
        == 0.2
    )
    with pytest.raises(HyperparameterError, match="weighs its members by their rank"):
        ES(**SMALL, strategy="cma_es", fitness_shaping="centered_rank").on(Drawn())
    with pytest.raises(HyperparameterError, match="play in 12 environments"):
        ES(**SMALL, n_eval_episodes=2).on(Drawn(), num_envs=6)
    with pytest.raises(HyperparameterError, match="finds its own step size"):
        ES(strategy="cma_es", learning_rate=0.1)
    with pytest.raises(HyperparameterError, match="population_size=5 is none for open_es"):
        ES(population_size=5).on(Drawn())
    with pytest.raises(HyperparameterError, match="n_top=9 of n_delta=8"):
        ARS(n_top=9)
    with pytest.warns(UserWarning, match="matrix of all pairs"):
        ES(strategy="cma_es", net_arch=[64, 64]).on("renshu/CartPole-v1")


def test_a_gradient_learner_goes_on_from_the_best_and_the_other_way_round(tmp_path):
    found = ES(**{**SMALL, "net_arch": [8]}).on("renshu/CartPole-v1", seed=0).learn(2_000, progress=False)
    taught = PPO(net_arch=[8], squash_output=True).on("renshu/CartPole-v1", seed=1).start_from(found)
    obs = np.random.default_rng(0).normal(size=(50, 4)).astype(np.float32)
    np.testing.assert_array_equal(taught.predict(obs), found.predict(obs))
    taught.learn(2_100, progress=False)
    further = ES(**{**SMALL, "net_arch": [8]}).on("renshu/CartPole-v1", seed=2).start_from(taught)
    np.testing.assert_array_equal(further.predict(obs), taught.predict(obs))
    learner = further.trainer.learner
    np.testing.assert_array_equal(further.state.search.mean, learner.policy.weights(taught.parameters))
    further.learn(100, progress=False)
    with pytest.raises(HyperparameterError, match="net_arch"):
        PPO(net_arch=[16]).on("renshu/CartPole-v1").start_from(found)
    with pytest.raises(HyperparameterError, match="no part in common"):
        PPO(net_arch=[8]).on("renshu/CartPole-v1").start_from(DQN().on("renshu/CartPole-v1"))
    with pytest.raises(HyperparameterError, match="DQN cannot begin"):
        DQN().on("renshu/CartPole-v1").start_from(found)
    with pytest.raises(SpaceError, match="do not fit"):
        PPO().on("renshu/Pendulum-v1").start_from(found)
    with pytest.raises(HyperparameterError, match="norm_obs is False here and True there"):
        PPO(net_arch=[8]).on("renshu/CartPole-v1").start_from(ES(**SMALL, norm_obs=True).on("renshu/CartPole-v1"))
    with pytest.raises(HyperparameterError, match="takes a policy that has a bias"):
        ARS(net_arch=[8], zero_policy=False).on("renshu/CartPole-v1").start_from(found)
    sees = ES(**SMALL, norm_obs=True).on("renshu/CartPole-v1", seed=0).learn(2_000, progress=False)
    taught = PPO(net_arch=[], norm_obs=True).on("renshu/CartPole-v1", seed=1).start_from(sees)
    np.testing.assert_array_equal(taught.predict(obs), sees.predict(obs))
    swings = ES(**SMALL, strategy="cma_es").on("renshu/Pendulum-v1", seed=0)
    with pytest.raises(HyperparameterError, match="squash_output is False here and True there"):
        PPO(net_arch=[]).on("renshu/Pendulum-v1").start_from(swings)
    taught = PPO(net_arch=[], squash_output=True, log_std_init=-2.0).on("renshu/Pendulum-v1").start_from(swings)
    others = np.random.default_rng(0).normal(size=(50, 3)).astype(np.float32)
    np.testing.assert_allclose(taught.predict(others), swings.predict(others), rtol=1e-6)
    assert float(taught.parameters["policy_head"]["log_std"][0]) == -2.0
    again = ES(**SMALL, strategy="cma_es").on("renshu/Pendulum-v1").start_from(taught).learn(1_000, progress=False)
    assert again.evaluate(1).lengths == [200]
    again = load(found.save(tmp_path / "agent.safetensors"))
    np.testing.assert_array_equal(again.predict(obs), found.predict(obs))


def test_members_are_agents(tmp_path):
    agent = ES(**SMALL).on(Drawn(), seed=0).learn(200, progress=False)
    state, learner = agent.state, agent.trainer.learner
    members = learner.generation(state.seed, state.counters.updates, state.search)[0]
    obs = np.array([0.7], np.float32)
    for i in (0, 5):
        one = agent.member(i)
        assert np.allclose(learner.policy.weights(one.parameters), members[i])
        with np.testing.assert_raises(AssertionError):
            np.testing.assert_allclose(one.predict(obs), agent.predict(obs), atol=1e-6)
        assert np.allclose(load(one.save(tmp_path / "one.safetensors"), env=Drawn()).predict(obs), one.predict(obs))
    assert np.allclose(learner.policy.weights(agent.member("mean").parameters), state.search.mean)
    best = agent.member("best")
    assert np.allclose(learner.policy.weights(best.parameters), state.search.best_solution)
    assert PPO(net_arch=[], squash_output=True).on(Drawn(), num_envs=2).start_from(best).steps == 0
    before = agent.predict(obs)
    best.learn(60, progress=False)  # the whole population goes on
    assert best.steps > agent.steps
    assert np.array_equal(agent.predict(obs), before)


@pytest.mark.parametrize(
    ("algorithm", "which", "message"),
    [
        (ES(**SMALL), 6, "no member 6: expected 'best', 'mean', or a number from 0 to 5"),
        (ES(**SMALL), "worst", "'worst'"),
        (ES(**SMALL, strategy="de"), "mean", "expected 'best', or a number"),
        (ARS(n_delta=2), "best", "expected 'mean', or a number from 0 to 3"),
        (PPO(), "best", "PPO trains one policy"),
    ],
)
def test_no_such_member(algorithm, which, message):
    with pytest.raises(HyperparameterError, match=message):
        algorithm.on(Drawn()).member(which)
