"""The cluster loop, with actors in this process: the same numbers as the host loop, and nothing unaccounted for."""

import random
from contextlib import nullcontext

import gymnasium
import jax
import numpy as np
import pytest

import renshu
from renshu import (
    A2C,
    APPO,
    DQN,
    ES,
    IMPALA,
    MCTS,
    NEAT,
    PPO,
    R2D2,
    SAC,
    AlphaZero,
    Cluster,
    DynaQ,
    GumbelMuZero,
    MAPElites,
)
from renshu.envs.gymnasium.vector import HostEnvs
from renshu.errors import EnvironmentFault, HyperparameterError, SpaceError
from renshu.loops import ray_actors
from renshu.loops.actors import group_key
from renshu.loops.collector import Collector
from renshu.ops.rollouts import side_by_side
from tests.loops.local import LocalActors, at_random
from tests.loops.tiny import copied, same

SMALL = {"n_steps": 8, "net_arch": [8]}
REPLAY = {"buffer_size": 512, "batch_size": 16, "learning_starts": 24, "train_freq": 4, "net_arch": [8]}
ALGORITHMS = {
    "PPO": (PPO(**SMALL, batch_size=16, n_epochs=2, norm_reward=True, norm_obs=True), "CartPole-v1"),
    "A2C": (A2C(**SMALL), "CartPole-v1"),
    "DQN": (DQN(**REPLAY), "CartPole-v1"),
    "SAC": (SAC(**REPLAY), "Pendulum-v1"),
}
CORRECTED = {
    "IMPALA": (IMPALA(**SMALL, max_lag=3, norm_reward=True), "CartPole-v1"),
    "IMPALA-recurrent": (IMPALA(**SMALL, max_lag=3, recurrent="gru", recurrent_size=4), "CartPole-v1"),
    "APPO": (APPO(**SMALL, max_lag=3, batch_size=16), "CartPole-v1"),
    "DQN": (DQN(**REPLAY, gradient_steps=2), "CartPole-v1"),
    "R2D2": (R2D2(**REPLAY, sequence_length=4, burn_in=0, recurrent_size=4), "CartPole-v1"),
    "SAC": (SAC(**REPLAY, n_steps=3), "renshu/Pendulum-v1"),
}


@pytest.fixture
def actors(monkeypatch):
    """Let cluster loops have actors in this process. Returns a function that says how they are to behave."""
    made = []

    def behave(**how):
        def make(setup, address, room):
            made.append(LocalActors(setup, **how))
            return made[-1]

        monkeypatch.setattr(ray_actors, "RayActors", make)
        return made

    behave()
    return behave


def updates(agent, count):
    """State after so many updates."""
    agent.trainer.set_target(10**6)
    loop = agent.trainer.start_loop(nullcontext)
    for _ in range(count):
        loop.advance()
    return copied(loop.state)


@pytest.mark.parametrize("name", ALGORITHMS)
def test_one_worker_is_the_host_loop(actors, name):
    algorithm, env = ALGORITHMS[name]
    host = updates(algorithm.on(env, num_envs=4, seed=3), 20)
    with algorithm.on(env, num_envs=4, seed=3, workers=1, cluster=Cluster(mode="synchronous")) as agent:
        assert same(host, updates(agent, 20))


ARCHIVED = MAPElites(
    population_size=4,
    net_arch=[4],
    n_eval_episodes=2,
    behavior=lambda episode: episode.obs[1, :2],
    behavior_low=(-1, -1),
    behavior_high=(1, 1),
    cells=(9, 9),
)


@pytest.mark.usefixtures("exact")
@pytest.mark.parametrize(
    ("env", "algorithm"),
    [
        ("renshu/CartPole-v1", ES(population_size=4, net_arch=[4], n_eval_episodes=2)),
        ("CartPole-v1", ES(population_size=4, net_arch=[4], n_eval_episodes=2)),
        ("renshu/CartPole-v1", NEAT(population_size=4, max_species=2, elitism=1, max_hidden=2, node_add_prob=0.5)),
        ("renshu/CartPole-v1", ARCHIVED),
    ],
    ids=["compiled", "host", "genomes", "archive"],
)
def test_a_population_is_the_same_in_every_loop(actors, env, algorithm):
    wanted = updates(algorithm.on("renshu/CartPole-v1", seed=3, loop="host"), 3)
    made = env if env.startswith("renshu") else lambda: gymnasium.make(env)
    found = []
    for workers in (1, 4):
        with algorithm.on(made, seed=3, cluster=Cluster(workers=workers, mode="synchronous")) as agent:
            found.append(updates(agent, 3).search)
    assert same(*found)
    if env.startswith("renshu"):
        assert same(found[0], wanted.search)


@pytest.mark.parametrize("name", ALGORITHMS)
def test_workers_are_groups_of_the_host_loop(actors, name):
    algorithm, env = ALGORITHMS[name]
    with algorithm.on(env, num_envs=2, seed=3, workers=2, cluster=Cluster(mode="synchronous")) as agent:
        found, trainer = updates(agent, 20), agent.trainer
        host, programs = algorithm.on(env, num_envs=4, seed=3).trainer, trainer.programs
        seed = host.env_seed(0, 0, 0)
        collectors = [
            Collector(
                programs,
                HostEnvs(trainer.backend.source.vector(2, processes=False, timeout=9.0)),
                trainer.fitted.decode_action,
                seed=seed + first,
                env_id=np.arange(first, first + 2, dtype=np.int32),
            )
            for first in (0, 2)
        ]
        host.set_target(10**6)
        state = host.state
        for iteration in range(20):
            keys = [programs.keys(group_key(host.keys[1], first), iteration) for first in (0, 2)]
            actor_state = programs.learner.actor_state(state)
            rollouts = [c.collect(actor_state, k).rollout for c, k in zip(collectors, keys, strict=True)]
            rollout = side_by_side(rollouts)._replace(env_id=())
            state, _ = programs.learn(state, rollout, programs.keys(host.keys[1], iteration))
    assert same(found, copied(state))


def test_lockstep_is_always_a_version_late_and_repeats_itself(actors):
    runs = []
    for order in (None, random.Random(1)):
        actors(order=order)
        with APPO(**SMALL, batch_size=16).on(
            "CartPole-v1", num_envs=2, seed=0, workers=3, cluster=Cluster(mode="lockstep")
        ) as agent:
            runs.append(updates(agent, 12))
            lags = agent.trainer.start_loop(nullcontext).lags
            assert lags == {0: 3, 1: 33}
    assert same(*runs)
    with IMPALA(**SMALL).on("CartPole-v1", num_envs=6, seed=0) as agent:
        assert not same(runs[0].params, updates(agent, 12).params)


@pytest.mark.parametrize("name", CORRECTED)
def test_every_rollout_is_accounted_for(actors, name):
    made = actors(order=random.Random(2), fails=at_random(0.2))
    algorithm, env = CORRECTED[name]
    seen, steps = [], 1_200

    def look(agent, metrics):
        account = {key: metrics[f"cluster/{key}"] for key in ("requested", "learned", "stale", "lost", "in_flight")}
        seen.append(account)
        assert account["requested"] == sum(account.values()) - account["requested"]
        assert metrics["cluster/steps_learned"] == agent.steps

    with algorithm.on(env, num_envs=2, seed=0, workers=4) as agent:
        agent.learn(steps, progress=False, callbacks=look)
        account = agent.trainer.start_loop(nullcontext).account
        assert account.in_flight == 0
        assert account.requested == account.learned + account.stale + account.lost
        assert account.lost > 0
        assert account.steps_learned == agent.steps == int(agent.state.counters.steps) >= steps
        assert seen[-1]["lost"] > 0
        assert made[0].versions == list(range(len(made[0].versions)))
        assert np.isfinite(np.concatenate([np.ravel(x) for x in jax.tree.leaves(agent.parameters)])).all()
        if hasattr(agent.state, "memory"):
            # Four workers with two environments each have filled their rows; the room of the other four is empty.
            sizes, rows = agent.state.memory.ring.size, len(agent.state.memory.ring.first) - 1
            np.testing.assert_array_equal(sizes, [rows] * 8 + [0] * 8)


def test_what_is_too_old_is_refused(actors):
    actors(order=random.Random(0), slow=1)
    with IMPALA(**SMALL, max_lag=2).on(
        "CartPole-v1", num_envs=2, seed=0, workers=4, cluster=Cluster(batch_workers=1)
    ) as agent:
        agent.learn(2_000, progress=False)
        loop = agent.trainer.start_loop(nullcontext)
        assert max(loop.lags) == 2
        assert loop.account.stale > 0
        assert loop.account.requested == loop.account.learned + loop.account.stale + loop.account.lost
        assert loop.account.steps_stale > 0


def test_workers_come_and_go(actors):
    made, seen = actors(order=random.Random(0)), []

    def change(agent, metrics):
        seen.append(metrics["cluster/workers"])
        agent.workers = 2 if agent.steps < 500 else 8 if agent.steps < 2_000 else 3

    with IMPALA(**SMALL, max_lag=20).on(
        "CartPole-v1", num_envs=2, seed=0, workers=2, cluster=Cluster(max_workers=8)
    ) as agent:
        agent.learn(4_000, progress=False, callbacks=change)
        compiled = agent.trainer.programs.learn._cache_size()
        with pytest.raises(HyperparameterError, match="room for 8"):
            agent.workers = 9
        account = agent.trainer.start_loop(nullcontext).account
    assert (seen[0], max(seen), seen[-1], len(made[0].actors)) == (2, 8, 3, 3)
    assert compiled == 1
    assert account.requested == account.learned + account.stale + account.lost


def test_a_worker_that_fails_again_and_again_stops_the_run(actors):
    fault = EnvironmentFault("broken for good")
    actors(fails=lambda group, number: fault if group == 1 and number > 2 else None)
    with (
        A2C(**SMALL).on("CartPole-v1", num_envs=2, seed=0, workers=2) as agent,
        pytest.raises(EnvironmentFault, match="broken for good") as caught,
    ):
        agent.learn(10_000, progress=False)
    assert "number 5 in a row of worker 1" in "\n".join(caught.value.__notes__)
    assert agent.steps > 0


def test_episodes_are_those_of_the_environments(actors):
    actors(order=random.Random(0))
    with IMPALA(**SMALL).on("renshu/CartPole-v1", num_envs=2, seed=0, workers=2) as agent:
        agent.learn(3_000, progress=False)
        assert len(agent.recent_returns) > 5
        assert list(agent.recent_returns) == list(agent.recent_lengths)


def test_a_run_goes_on_from_its_checkpoint(actors, tmp_path):
    with DQN(**REPLAY).on("CartPole-v1", num_envs=2, seed=0, workers=2) as agent:
        agent.learn(400, progress=False, run=tmp_path / "run", checkpoint_every=200)
        state = copied(agent.state)
    with renshu.Agent.resume(tmp_path / "run") as again:
        assert (again.loop_name or "cluster", again.spec.num_envs) == ("cluster", 8)
        assert same(state, copied(again.state))
        again.learn(400, progress=False)
        assert again.loop_name == "cluster"
        assert int(again.state.counters.steps) == again.steps >= 800
    with renshu.load(tmp_path / "run" / "agent.safetensors", env="CartPole-v1") as loaded:
        assert loaded.evaluate(2).mean > 0


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"workers": 0}, "workers=0"),
        ({"workers": 4, "cluster": Cluster(mode="asynchronous")}, "max_lag=0"),
        ({"workers": 4, "cluster": Cluster(mode="lockstep")}, "max_lag=0"),
        ({"workers": 4, "loop": "host"}, "loop='host'"),
        ({"cluster": {"workers": 3}}, "renshu.Cluster"),
    ],
)
def test_what_cannot_be_is_refused(options, message):
    with pytest.raises(HyperparameterError, match=message):
        PPO().on("CartPole-v1", **options)


@pytest.mark.parametrize("settings", [{"mode": "sometimes"}, {"workers": 4, "max_workers": 2}, {"in_flight": 0}])
def test_settings_that_cannot_be_are_refused(settings):
    with pytest.raises(HyperparameterError, match="Cluster"):
        Cluster(**settings)


def test_an_environment_that_exists_here_is_refused():
    with pytest.raises(SpaceError, match="exists here"):
        PPO().on(gymnasium.make("CartPole-v1"), workers=2)


@pytest.mark.parametrize("algorithm", [MCTS(num_simulations=2), AlphaZero(num_simulations=2)])
def test_games_of_two_are_refused(algorithm):
    pytest.importorskip("mctx")
    with pytest.raises(SpaceError, match="moves for all players of TicTacToe"):
        algorithm.on("renshu/TicTacToe-v0", workers=2)


def test_muzero_plans_in_the_workers(actors):
    pytest.importorskip("mctx")
    small = {"num_simulations": 4, "n_steps": 8, "latent": 8, "net_arch": [8], "batch_size": 8, "learning_starts": 32}
    with GumbelMuZero(**small, gradient_steps=1).on("CartPole-v1", workers=2, seed=0) as agent:
        agent.learn(200, progress=False)
        assert agent.steps >= 200
        assert int(agent.state.counters.updates) > 0
        assert sum(agent.explain([0.0, 0.0, 0.0, 0.0])["visits"]) > 0


def test_planning_steps_are_as_many_as_rows_of_a_rollout(actors):
    with DynaQ(n_steps=4, planning_steps=3).on("renshu/Grid-v0", num_envs=2, seed=0, workers=2) as agent:
        agent.learn(400, progress=False)  # asynchronous: a rollout is of one worker, and there is room for four
        assert agent.steps >= 400
        assert int(agent.state.aux.count) > 4


def test_number_of_workers_is_held_where_all_learn_together(actors):
    with A2C(**SMALL).on("CartPole-v1", workers=2, seed=0) as agent:
        agent.learn(32, progress=False)
        with pytest.raises(HyperparameterError, match="synchronous"):
            agent.workers = 3
    with pytest.raises(HyperparameterError, match="another"):
        A2C(**SMALL).on("CartPole-v1").workers = 3


class Lock:
    """Something that no other process can have."""

    def __reduce__(self):
        raise TypeError("a lock")

    def __repr__(self):
        return "the lock"


def test_what_cannot_be_sent_is_named():
    lock = Lock()

    def make():
        assert lock
        return gymnasium.make("CartPole-v1")

    agent = A2C(**SMALL).on(make, workers=1)
    with pytest.raises(SpaceError, match=r"a part of make: lock = the lock \(TypeError: a lock\)"):
        agent.learn(10, progress=False)


class Counting(gymnasium.Env):
    """Its observation counts the steps of an episode, which lasts long."""

    observation_space = gymnasium.spaces.Box(0.0, 10_000.0, (1,))
    action_space = gymnasium.spaces.Discrete(2)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.t = 0
        return np.zeros(1, np.float32), {}

    def step(self, action):
        self.t += 1
        return np.full(1, self.t, np.float32), 0.0, False, self.t == 1_000, {}


@pytest.mark.parametrize("mode", ["synchronous", "lockstep", "asynchronous"])
def test_no_step_is_remembered_that_never_was(actors, mode):
    """Training stops early, so that rollouts under way are thrown away, and goes on; actors fail meanwhile."""
    actors(order=random.Random(0), fails=at_random(0.1))
    settings = Cluster(workers=2, mode=mode, max_workers=2)
    with DQN(**{**REPLAY, "buffer_size": 4_096}).on(Counting, num_envs=2, seed=0, cluster=settings) as agent:
        for _ in range(6):
            agent.learn(200, progress=False, callbacks=lambda agent, metrics: metrics["steps"] % 5 != 0)
        ring = jax.device_get(agent.state.memory.ring)
        replay, rng = agent.trainer.learner.replay, jax.random.key(0)
        drawn = replay.sample(agent.state.memory, rng, 4_000, gamma=0.9)
    real = np.asarray(drawn.weight) > 0
    assert real.sum() > 2_000
    np.testing.assert_array_equal(np.asarray(drawn.next_obs)[real], np.asarray(drawn.obs)[real] + 1)
    assert ring.first.any()


def test_a_fault_in_the_middle_of_an_update_leaves_exact_counters(actors):
    """The fifth fault in a row arrives while gradient steps are taken."""
    fault = EnvironmentFault("broken for good")
    actors(fails=lambda group, number: fault if group == 1 and number > 5 else None)
    algorithm = DQN(**{**REPLAY, "gradient_steps": 8})
    with algorithm.on("CartPole-v1", num_envs=2, seed=0, workers=2) as agent:
        with pytest.raises(EnvironmentFault, match="broken for good"):
            agent.learn(10_000, progress=False)
        assert agent.steps == int(agent.state.counters.steps) > 0


def test_no_file_names_a_cluster(actors, tmp_path):
    """Answers of a stranger's cluster would be code."""
    with A2C(**SMALL).on("CartPole-v1", cluster=Cluster(workers=2, address="auto")) as agent:
        path = agent.save(tmp_path / "agent.safetensors")
    assert b'"auto"' not in path.read_bytes()
    with renshu.load(path) as loaded:
        assert loaded.trainer.cluster == Cluster(workers=2)
    with renshu.load(path, address="there:6379") as loaded:
        assert loaded.trainer.cluster == Cluster(workers=2, address="there:6379")
    other = A2C(**SMALL).on("CartPole-v1").save(tmp_path / "other.safetensors")
    with pytest.raises(HyperparameterError, match="no cluster trained"):
        renshu.load(other, address="there:6379")
