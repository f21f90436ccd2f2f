"""Agents whose algorithm takes only Discrete actions, or several observations: what is chosen for them is kept."""

import json
from dataclasses import dataclass
from typing import ClassVar

import gymnasium
import jax.numpy as jnp
import numpy as np
import pytest
from gymnasium import spaces

from examples.own_algorithm import Reinforce, ReinforceLearner
from renshu import Agent, experiment, load
from renshu.envs.adapt import SpaceConfig
from renshu.errors import CheckpointError, HyperparameterError, SpaceError
from renshu.files.checkpoint import load_tree, save_tree
from renshu.tracking import Run
from renshu.types import Accepts, ActorOutput
from tests.loops.tiny import advanced, same

TINY = Reinforce(n_steps=8)
OBSERVATIONS = np.random.default_rng(0).normal(size=(20, 3)).astype(np.float32)


@dataclass(frozen=True, kw_only=True)
class Late(Reinforce):
    """Answers with the oldest of the observations that it sees at once."""

    accepts: ClassVar[Accepts] = Accepts(frozenset({"box"}), frozenset({"discrete"}), frame_stack=True)

    def build(self, spec):
        return LateLearner(self, spec)


class LateLearner(ReinforceLearner):
    def initial_carry(self, num_envs):
        return np.zeros((num_envs, self.spec.frame_stack), np.float32)

    def act(self, acting, carry, timestep, key, *, explore):
        obs, first = timestep.obs, timestep.first
        seen = jnp.concatenate([carry[:, 1:], obs], axis=1)
        seen = jnp.where(first[:, None], obs, seen)
        return ActorOutput(seen[:, 0].astype(jnp.int32), seen)


class Clock(gymnasium.Env):
    """Shows the time, 0 to 5, and pays the action."""

    metadata = {"render_modes": ["rgb_array", "human"], "render_fps": 10}  # noqa: RUF012
    observation_space = spaces.Box(0, 10, (1,))
    action_space = spaces.Discrete(10)
    actions: ClassVar[list[int]] = []

    def __init__(self, render_mode=None):
        self.render_mode = render_mode

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.t = 0
        return np.zeros(1, np.float32), {}

    def step(self, action):
        self.t += 1
        Clock.actions.append(int(action))
        return np.full(1, self.t, np.float32), float(action), self.t == 6, False, {}

    def render(self):
        return np.zeros((16, 16, 3), np.uint8)


@pytest.fixture(scope="module")
def agent():
    """Three torques for a pendulum."""
    return TINY.on("Pendulum-v1", num_envs=2, seed=0, bins=3).learn(32, progress=False)


def test_an_agent_of_discrete_actions_where_they_are_continuous(agent, capsys):
    assert agent.fitted.spec.action_space == spaces.Discrete(3)
    actions = agent.predict(OBSERVATIONS)
    assert (actions.shape, actions.dtype) == ((20, 1), np.float32)
    assert set(actions[:, 0]) <= {-2.0, 0.0, 2.0}
    assert set(agent.predict(OBSERVATIONS, deterministic=False)[:, 0]) == {-2.0, 0.0, 2.0}
    assert agent.spec.action_space.contains(agent.predict(OBSERVATIONS[0]))
    assert agent.steps == 32
    assert agent.evaluate(2, num_envs=2).lengths == [200, 200]
    agent.summary()
    assert "3 points: 3 actions, because Reinforce takes only Discrete ones" in " ".join(
        capsys.readouterr().out.split()
    )


def test_it_is_kept_in_files(agent, tmp_path):
    path = agent.save(tmp_path / "a.safetensors")
    again = load(path, algorithm=Reinforce)
    assert again.trainer.space_config == SpaceConfig(bins=3)
    np.testing.assert_array_equal(again.predict(OBSERVATIONS), agent.predict(OBSERVATIONS))
    assert again.learn(16, progress=False).steps == 48
    header, _ = load_tree(path)
    assert header["spaces"] == {"bins": 3, "frame_stack": 1}
    tree = {"learner": agent.state, "loop": None}
    for wrong in ({"bins": 1}, {"bins": "3"}, {"bin": 3}, 3, None):
        save_tree(path, tree, {**header, "spaces": wrong})
        with pytest.raises(CheckpointError, match="holds no agent: HyperparameterError"):
            load(path, algorithm=Reinforce)
    save_tree(path, tree, {**header, "spaces": {"bins": 4}})
    with pytest.raises(CheckpointError, match="of another shape"):
        load(path, algorithm=Reinforce)


def test_it_is_kept_elsewhere(agent):
    other = agent.on("renshu/Pendulum-v1")
    assert (other.trainer.space_config, other.loop_name) == (agent.trainer.space_config, "compiled")
    np.testing.assert_array_equal(other.predict(OBSERVATIONS), agent.predict(OBSERVATIONS))
    with pytest.raises(SpaceError, match=r"learned observations of .* and actions of Discrete\(3\); .* Discrete\(5\)"):
        agent.on("Pendulum-v1", bins=5)
    with pytest.raises(HyperparameterError, match="bins=1"):
        agent.on("Pendulum-v1", bins=1)


def test_it_is_kept_in_a_run(tmp_path):
    agent = TINY.on("Pendulum-v1", num_envs=2, seed=0, bins=(3,))
    with pytest.raises(HyperparameterError, match="a callback is a function"):
        agent.learn(32, progress=False, run=tmp_path / "run", callbacks=[3])
    agent.learn(32, progress=False, run=tmp_path / "run")
    settings = json.loads((tmp_path / "run" / "settings.json").read_text())
    assert settings["spaces"] == {"bins": [3], "frame_stack": 1}
    again = Agent.resume(Run.open(tmp_path / "run"), algorithm=Reinforce)
    assert again.trainer.space_config == agent.trainer.space_config


def test_both_loops_are_the_same_to_the_bit():
    host, ours = (TINY.on("renshu/Pendulum-v1", num_envs=2, seed=3, bins=3, loop=loop) for loop in ("host", "compiled"))
    for agent in (host, ours):
        advanced(agent, 5)
    assert same(host.state, ours.state)


@pytest.mark.parametrize("loop", ["host", "compiled"])
def test_experiments(loop):
    options = {"steps": 32, "num_envs": 2, "progress": False, "points": 2, "loop": loop}
    found = experiment(TINY, "renshu/Pendulum-v1", seeds=1, bins=3, **options)
    (trained,) = found.agents
    assert trained.trainer.space_config == SpaceConfig(bins=3)
    assert trained.predict(OBSERVATIONS[0]) in (-2, 0, 2)
    assert trained.learn(16, progress=False).steps == 48
    with pytest.raises(HyperparameterError, match="bins=0"):
        experiment(TINY, "renshu/Pendulum-v1", bins=0, **options)
    with pytest.raises(HyperparameterError, match="one observation at a time"):
        experiment(TINY, "renshu/Pendulum-v1", seeds=1, frame_stack=2, **options)


# --- history --------------------------------------------------------------------------------------------------------


def test_an_algorithm_of_single_observations_refuses():
    for options in ({"frame_stack": 4}, {"frame_stack": 0}):
        with pytest.raises(HyperparameterError, match=f"frame_stack={options['frame_stack']}"):
            TINY.on(Clock, **options)


@pytest.mark.parametrize(("frame_stack", "expected"), [(None, [0, 1, 2, 3, 4, 5]), (3, [0, 0, 0, 1, 2, 3])], ids=str)
def test_whoever_plays_remembers(frame_stack, expected, tmp_path, monkeypatch):
    """Also from one episode to the next: there it begins anew."""
    agent = Late().on(Clock, seed=0, frame_stack=frame_stack)
    assert agent.trainer.learner.spec.frame_stack == (frame_stack or 1)
    assert agent.evaluate(3, num_envs=2).returns == [sum(expected)] * 3
    Clock.actions.clear()
    agent.record(tmp_path / "a.gif", episodes=2)
    assert Clock.actions == expected * 2
    Clock.actions.clear()
    monkeypatch.setattr("renshu.viewing.play.has_screen", lambda: True)
    assert agent.watch(2) == [(sum(expected), 6)] * 2
    assert Clock.actions == expected * 2
    assert agent.predict(np.full(1, 5.0)) == 5, "an observation by itself is the first of its episode"
    policy = agent.player()
    assert [policy(np.full(1, t), t == 0) for t in range(6)] == expected


def test_a_history_is_kept(tmp_path, capsys):
    agent = Late().on(Clock, seed=0, frame_stack=3)
    again = load(agent.save(tmp_path / "a.safetensors"), algorithm=Late, env=Clock)
    assert again.trainer.space_config.frame_stack == again.fitted.spec.frame_stack == 3
    assert again.evaluate(1).returns == [6]
    assert again.on(Clock).evaluate(1).returns == [6]
    with pytest.raises(SpaceError, match=r"\(3 at once\).*which do not fit"):
        again.on(Clock, frame_stack=2)
    agent.summary()
    assert "the last 3 observations at once" in capsys.readouterr().out


# --- elsewhere ------------------------------------------------------------------------------------------------------


class Weak(Clock):
    """A motor with less power."""

    observation_space = spaces.Box(-10, 10, (3,))
    action_space = spaces.Box(-0.5, 0.5, (1,))

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        return np.zeros(3, np.float32), {}

    def step(self, action):
        assert self.action_space.contains(action)
        return np.zeros(3, np.float32), *super().step(action[0])[1:]


def test_evaluation_elsewhere_gives_actions_of_that_place(agent):
    assert agent.evaluate(2, env=Weak).lengths == [6, 6]
