"""The compiled loop: the same training as the host loop's, to be cut off and gone on with to the bit."""

import signal
import subprocess
import sys
from contextlib import nullcontext
from dataclasses import dataclass
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from gymnasium import spaces

from examples.own_algorithm import Reinforce
from renshu import A2C, PPO, Agent, Linear, callbacks, evaluation, load, training
from renshu.checkpoint import named
from renshu.envs.classic import CartPole, Pendulum
from renshu.envs.device import DeviceEnv, Step
from renshu.envs.grid import Grid
from renshu.errors import NotFiniteError
from renshu.loops import compiled
from renshu.tracking import Run, read_episodes, read_evaluations, read_metrics
from tests.envs.test_device import Counter, Keys

SMALL = {"n_steps": 8, "net_arch": [8]}
TINY_PPO = PPO(**SMALL, batch_size=8, n_epochs=2)
NORMED_PPO = PPO(**SMALL, batch_size=8, n_epochs=2, norm_obs=True, norm_reward=True)
TINY_A2C = A2C(**SMALL)
NORMED_A2C = A2C(**SMALL, norm_obs=True, norm_reward=True)


def same(a, b):
    return jax.tree.structure(a) == jax.tree.structure(b) and jax.tree.all(jax.tree.map(np.array_equal, a, b))


def advanced(agent, iterations):
    """Train for so many updates; returns the finished episodes, one array a column."""
    agent.set_target(10**6)
    loop, size = agent.start_loop(nullcontext), agent.learner.rollout_length * agent.spec.num_envs
    found, goal = [], agent.iteration + iterations
    while agent.iteration < goal:
        found.append(loop.advance((goal - agent.iteration) * size).finished)
    return [np.concatenate(column) for column in zip(*found, strict=True)]


def copied(tree):
    return jax.tree.map(np.array, tree)


# --- one definition -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("algorithm", "env"),
    [
        (TINY_PPO, CartPole()),
        (NORMED_A2C, CartPole()),
        (Reinforce(n_steps=8), CartPole()),
        (NORMED_PPO, Pendulum()),
        (TINY_A2C, Pendulum()),
        (TINY_PPO, Grid()),
        (TINY_A2C, Grid()),
    ],
    ids=lambda x: type(x).__name__,
)
def test_host_loop_and_compiled_loop_are_the_same_to_the_bit(algorithm, env):
    (host, theirs), (ours, mine) = (
        (agent := algorithm.on(env, num_envs=4, seed=3, loop=loop), advanced(agent, 30))
        for loop in ("host", "compiled")
    )
    assert (host.ground.loop_name, ours.ground.loop_name) == ("host", "compiled")
    assert same(host.state, ours.state)
    assert not same(ours.parameters, algorithm.on(env, num_envs=4, seed=3).parameters), "something was learned"
    assert host.steps == ours.steps == int(ours.state.counters.steps)
    assert len(mine[0]) or isinstance(env, Pendulum)
    for a, b in ((0, "steps"), (1, "envs"), (3, "lengths")):
        np.testing.assert_array_equal(theirs[a], mine[a], err_msg=b)
    np.testing.assert_allclose(mine[2], theirs[2], rtol=1e-5)  # one sums in float32, the other in float64


def test_learn_is_the_same_too():
    agents = [TINY_PPO.on("renshu/CartPole-v1", num_envs=2, seed=1, loop=loop) for loop in ("host", None)]
    host, ours = (agent.learn(200, progress=False) for agent in agents)
    assert ours.ground.loop_name == "compiled"
    assert same(host.state, ours.state)
    assert list(host.recent_returns) == list(ours.recent_returns)
    assert list(host.recent_lengths) == list(ours.recent_lengths)


def test_agent_and_environments_share_no_key():
    """An action must not be drawn by the number by which its environment moves, nor the weights by those of a start."""
    agent = TINY_A2C.on(Keys(), num_envs=4, seed=5)
    loop = agent.start_loop(nullcontext)
    scene, envs = loop.scene, loop.envs
    seen = [np.asarray(scene.obs)]
    state = scene.envs
    for _ in range(8):
        state, outcome = envs.step(state, np.zeros(4, int))
        seen.append(np.asarray(outcome.obs))
    theirs = {tuple(key) for key in np.concatenate(seen).tolist()}
    acting = [agent.programs.keys(agent.keys[1], iteration) for iteration in range(9)]
    ours = np.concatenate([jax.random.key_data(keys) for keys in [*acting, jnp.stack(agent.keys)]])
    assert len(theirs) == 9 * 4
    assert not theirs & {tuple(key) for key in ours.tolist()}


# --- the same again -------------------------------------------------------------------------------------------------

GO_ON = """
import sys
from renshu import load
_, path, total, then = sys.argv
agent = load(path)
agent.learn(int(total) - agent.steps, progress=False).save(then)
"""


def without_target(state):
    return state._replace(counters=state.counters._replace(start=0, target=0))


@pytest.mark.parametrize("algorithm", [NORMED_PPO, NORMED_A2C], ids=lambda a: type(a).__name__)
def test_half_save_load_in_a_new_process_and_the_other_half(algorithm, tmp_path):
    whole, half = (algorithm.on("renshu/CartPole-v1", num_envs=3, seed=2) for _ in range(2))
    whole.learn(600, progress=False)
    path = half.learn(300, progress=False).save(tmp_path / "half.safetensors")
    assert half.steps < whole.steps
    subprocess.run([sys.executable, "-c", GO_ON, path, "600", tmp_path / "done.safetensors"], check=True, timeout=120)
    done = load(tmp_path / "done.safetensors")
    assert (done.steps, done.iteration) == (whole.steps, whole.iteration)
    assert same(without_target(done.state), without_target(whole.state))
    assert same(named(done.snapshot()), named(whole.snapshot()))
    here = load(path)
    assert same(without_target(here.learn(600 - here.steps, progress=False).state), without_target(whole.state))


def test_without_the_environments_it_would_not_be_the_same(tmp_path):
    """The test above would notice: who goes on in fresh environments learns something else."""
    agent = TINY_PPO.on("renshu/CartPole-v1", num_envs=2, seed=0).learn(100, progress=False)
    again = load(agent.save(tmp_path / "a.safetensors"))
    again._snapshot = None
    assert not same(agent.learn(100, progress=False).parameters, again.learn(100, progress=False).parameters)


def test_resume_from_a_run_folder_to_the_bit(tmp_path):
    """Schedules, too: the aim is that of the run."""

    def agent():
        algorithm = PPO(**SMALL, batch_size=8, n_epochs=1, learning_rate=Linear(1e-3))
        return algorithm.on("renshu/Pendulum-v1", num_envs=2, seed=4)

    def interrupt(agent, metrics):
        if agent.steps >= 500:
            signal.raise_signal(signal.SIGINT)

    whole = agent().learn(1000, progress=False, run=tmp_path / "whole")
    with pytest.raises(KeyboardInterrupt):
        agent().learn(1000, progress=False, run=tmp_path / "cut", callbacks=interrupt)
    again = Agent.resume(tmp_path / "cut")
    assert 500 <= again.steps < 1000
    assert same(again.learn(progress=False).state, whole.state)
    ours, theirs = (read_episodes(tmp_path / name) for name in ("cut", "whole"))
    for column in ("step", "env", "return", "length"):
        np.testing.assert_array_equal(ours[column], theirs[column])
    assert len(ours["step"])


def test_how_often_the_host_looks_in_changes_no_bit(monkeypatch):
    def trained():
        looks = []
        agent = TINY_PPO.on("renshu/CartPole-v1", num_envs=2, seed=6)
        agent.learn(400, progress=False, callbacks=lambda agent, metrics: looks.append(agent.steps))
        return agent, looks

    usual, looks = trained()
    monkeypatch.setattr(training, "VISITS", 3)
    seldom, few = trained()
    monkeypatch.setattr(compiled, "VISIT_STEPS", 1)
    often, many = trained()
    assert len(few) < len(looks) <= len(many) == often.iteration
    assert many[-1] == few[-1]
    assert same(usual.state, seldom.state)
    assert same(usual.state, often.state)
    assert list(usual.recent_returns) == list(seldom.recent_returns) == list(often.recent_returns)


def test_the_same_seed_gives_the_same_curve(tmp_path):
    for name, seed in (("a", 3), ("b", 3), ("c", 4)):
        TINY_A2C.on("renshu/CartPole-v1", num_envs=2, seed=seed).learn(300, progress=False, run=tmp_path / name)
    a, b, c = ({k: v for k, v in read_episodes(tmp_path / name).items() if k != "seconds"} for name in "abc")
    assert all(np.array_equal(a[column], b[column]) for column in ("step", "env", "return", "length"))
    assert not np.array_equal(a["return"], c["return"])


# --- NaN ------------------------------------------------------------------------------------------------------------


class FaultState(NamedTuple):
    t: jax.Array


@dataclass(frozen=True)
class Faulty(DeviceEnv):
    """One long episode; `what` of step `at` is `value`."""

    what: str = ""
    at: int = 20
    value: float = np.nan
    observation_space = spaces.Box(-np.inf, np.inf, (2,), np.float32)
    action_space = spaces.Discrete(2)

    def reset(self, key):
        return FaultState(jnp.int32(0)), jnp.zeros(2)

    def step(self, state, action, key):
        t = state.t + 1
        obs = jnp.stack([jnp.sin(t.astype(jnp.float32)), action.astype(jnp.float32)])
        bad, reward = t == self.at, jnp.cos(t.astype(jnp.float32))
        obs = jnp.where(bad & (self.what == "observation"), self.value, obs)
        reward = jnp.where(bad & (self.what == "reward"), self.value, reward)
        return Step(FaultState(t), obs, reward, jnp.bool_(False))


@pytest.mark.parametrize(
    ("algorithm", "env", "match"),
    [
        (TINY_PPO, Faulty("observation"), "an observation of Faulty is NaN or infinite.*update 3, step 48"),
        (NORMED_PPO, Faulty("observation", value=np.inf), "an observation of Faulty is NaN or infinite"),
        (NORMED_A2C, Faulty("reward", value=-np.inf), "an? reward of Faulty is NaN or infinite"),
        (TINY_A2C, Faulty("reward", value=1e38), "update 3, step 48 went wrong: .*value_loss is inf"),
        (Reinforce(n_steps=8), Faulty("observation"), "an observation of Faulty is NaN or infinite"),
    ],
    ids=["nan obs", "inf obs", "inf reward", "loss", "own algorithm"],
)
def test_not_finite(algorithm, env, match, tmp_path, monkeypatch):
    """In the middle of a visit: the parameters, in the file too, are those of the rollout before, and it learns on."""
    monkeypatch.setattr(training, "VISITS", 1)
    clean, agent = (algorithm.on(each, num_envs=2, seed=0) for each in (Faulty(), env))
    advanced(clean, 2)
    with pytest.raises(NotFiniteError, match=match):
        agent.learn(640, progress=False, run=tmp_path / "run")
    assert agent.iteration == 3
    assert agent.steps == 48
    assert same(agent.parameters, clean.parameters)
    assert same(agent.state.opt_state, clean.state.opt_state)
    (checkpoint,) = Run.open(tmp_path / "run").checkpoints
    assert same(load(checkpoint, env=env, algorithm=type(algorithm)).parameters, agent.parameters)
    before = copied(agent.parameters)
    agent.learn(16, progress=False)  # new environments, where step 20 is to come
    assert agent.steps == 64
    assert not same(agent.parameters, before)


def test_infinity_that_no_loss_shows_ends_the_visit_too():
    """Clipped, the observation looks like any other."""
    agent = NORMED_PPO.on(Faulty("observation", value=np.inf), num_envs=2, seed=0)
    with pytest.raises(NotFiniteError, match=r"an observation of Faulty is NaN or infinite.*update 3, step 48"):
        advanced(agent, 10)
    assert (agent.iteration, agent.steps) == (3, 48)


def test_parameters_that_are_nan_show_in_the_actions():
    agent = TINY_A2C.on(Pendulum(), seed=0)
    agent.state = agent.state._replace(params=jax.tree.map(lambda x: x * np.nan, agent.parameters))
    with pytest.raises(NotFiniteError, match=r"an action of renshu/Pendulum-v1|observation of renshu/Pendulum-v1"):
        agent.learn(8, progress=False)
    with pytest.raises(NotFiniteError, match="in the evaluation"):
        agent.evaluate(1)


# --- evaluation -----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def agents():
    """The same agent with a compiled loop and with the host's."""
    ours, host = (TINY_PPO.on(CartPole(), num_envs=2, seed=0, loop=loop) for loop in ("compiled", "host"))
    ours.learn(600, progress=False)
    host.state = jax.tree.map(jnp.array, ours.state)
    return ours, host


@pytest.mark.parametrize("options", [{"episodes": 7}, {"episodes": 5, "num_envs": 1}, {"episodes": 8, "num_envs": 3}])
def test_evaluation_is_the_host_loops(agents, options):
    ours, host = (agent.evaluate(**options, seed=11) for agent in agents)
    assert ours.returns == host.returns
    assert ours.lengths == host.lengths
    assert ours.episodes == options["episodes"]


def test_evaluation_again_and_with_chance(agents):
    agent, _ = agents
    greedy = agent.evaluate(4)
    assert greedy.returns == agent.evaluate(4).returns
    assert greedy.returns != agent.evaluate(4, seed=5).returns
    drawn = agent.evaluate(4, deterministic=False)
    assert drawn.returns == agent.evaluate(4, deterministic=False).returns != greedy.returns


def test_evaluation_without_a_time_limit_takes_several_calls(monkeypatch):
    """Each environment gives its share, however short the episodes of one of them are; as in the host loop."""
    monkeypatch.setattr(evaluation, "CHUNK", 4)
    ours, host = (TINY_A2C.on(Counter(30), seed=0, loop=loop) for loop in ("compiled", "host"))
    for options in ({"episodes": 5, "num_envs": 2}, {"episodes": 2, "num_envs": 1}):
        a, b = ours.evaluate(**options), host.evaluate(**options)
        assert a.lengths == b.lengths
        np.testing.assert_allclose(a.returns, b.returns, rtol=1e-6)
        assert max(a.lengths) > 4


def test_evaluation_elsewhere(agents):
    agent, _ = agents
    assert agent.evaluate(2, env=CartPole(gravity=5.0)).episodes == 2
    assert agent.evaluate(2, env="CartPole-v1").episodes == 2


def test_evaluation_leaves_training_alone():
    def trained(evaluate):
        agent = TINY_PPO.on(CartPole(), num_envs=2, seed=1)
        for _ in range(3):
            agent.learn(32, progress=False)
            if evaluate:
                agent.evaluate(3, deterministic=False)
                agent.predict(np.zeros(4), deterministic=False)
        return agent.state

    assert same(trained(False), trained(True))


# --- callbacks ------------------------------------------------------------------------------------------------------


def test_everybody_is_told(tmp_path, capsys):
    agent, told = TINY_PPO.on("renshu/CartPole-v1", num_envs=2, seed=0), []
    evaluate = callbacks.Evaluate(200, episodes=2)
    agent.learn(
        800,
        progress=True,
        run=tmp_path / "run",
        callbacks=[evaluate, lambda agent, metrics: told.append((agent.steps, metrics))],
        checkpoint_every=200,
    )
    run = Run.open(tmp_path / "run")
    assert "ppo CartPole-v1" in capsys.readouterr().err
    assert len(evaluate.history) == len(read_evaluations(run.path)["step"]) == 4
    assert load(run.best_path).steps in [steps for steps, _ in evaluate.history]
    assert len(run.checkpoints) == 3
    assert [steps for steps, _ in told] == read_metrics(run.path)["step"].tolist()
    assert {"policy_loss", "steps", "steps_per_second", "return_mean", "length_mean"} <= told[-1][1].keys()
    episodes = read_episodes(run.path)
    assert (episodes["return"] == episodes["length"]).all(), "CartPole pays 1 a step"
    assert (np.diff(episodes["step"]) >= 0).all()
    np.testing.assert_array_equal(episodes["return"][-100:], agent.recent_returns)
    assert same(load(run.agent_path).state, agent.state)
    assert '"loop": "compiled"' in (run.path / "settings.json").read_text()
    assert (run.path / "curve.png").exists()


def test_callbacks_stop():
    agent = TINY_PPO.on("renshu/CartPole-v1", num_envs=2, seed=0)
    assert agent.learn(100_000, progress=False, callbacks=lambda agent, metrics: False).steps < 100_000 // 50
    steps = agent.steps
    agent.learn(10**6, progress=False, stop_at=5.0)
    assert len(agent.recent_returns) == 100
    assert np.mean(agent.recent_returns) >= 5
    assert steps < agent.steps < 10**6


def test_ctrl_c_during_a_visit_waits_until_it_is_counted(tmp_path):
    agent, plain = (TINY_PPO.on("renshu/CartPole-v1", num_envs=2, seed=0) for _ in range(2))
    loop = agent.start_loop(nullcontext)
    visit = loop._visit

    def interrupted(*inputs):
        signal.raise_signal(signal.SIGINT)
        return visit(*inputs)

    loop._visit = interrupted
    with pytest.raises(KeyboardInterrupt) as caught:
        agent.learn(400, progress=False, run=tmp_path / "run")
    plain.learn(400, progress=False, callbacks=lambda agent, metrics: False)
    assert agent.steps == plain.steps == int(agent.state.counters.steps)
    assert same(agent.parameters, plain.parameters)
    assert f"as of step {agent.steps}" in caught.value.__notes__[0]
    again = Agent.resume(tmp_path / "run")
    assert again.steps == int(again.state.counters.steps) == agent.steps
    plain.learn(400 - plain.steps, progress=False)
    assert same(without_target(again.learn(progress=False).state), without_target(plain.state))


# --- steady ---------------------------------------------------------------------------------------------------------


def test_compiled_once_and_memory_stays(tmp_path):
    agent = TINY_PPO.on("renshu/CartPole-v1", num_envs=2, seed=0).learn(64, progress=False)
    loop, alive = agent.start_loop(nullcontext), []
    for steps in (16, 500, 40):
        agent.learn(steps, progress=False)
        alive.append(len(jax.live_arrays()))
    assert agent.start_loop(nullcontext) is loop
    assert loop._visit._cache_size() == 1
    assert len(set(alive)) == 1
    again = load(agent.save(tmp_path / "a.safetensors"))
    for _ in range(2):
        again.learn(32, progress=False)
    assert again.start_loop(nullcontext)._visit._cache_size() == 1


def test_a_visit_stays_within_its_bounds(monkeypatch):
    """As many rollouts as fit, at least one, and no more than a visit holds."""
    monkeypatch.setattr(compiled, "VISIT_STEPS", 64)
    agent = TINY_PPO.on(Faulty(), num_envs=2, seed=0)
    agent.set_target(10**6)
    loop = agent.start_loop(nullcontext)
    assert [loop.advance(steps).iterations for steps in (0, 15, 16, 47, 48, 10**9)] == [1, 1, 1, 2, 3, 4]
    assert loop.iteration == 12
    assert loop.episodes.steps == 12 * 16
