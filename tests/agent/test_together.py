"""Agents that learn separately in the same games of PettingZoo."""

from threading import Thread
from typing import Any

import numpy as np
import pytest
from gymnasium import spaces

from renshu import DQN, PPO, learn_together, load
from renshu.envs.adapters import apart
from renshu.errors import EnvironmentFault, SpaceError
from renshu.tracking.curves import read_evaluations
from tests.envs.adapters.test_pettingzoo import Duel, Picks
from tests.loops.tiny import same

pettingzoo = pytest.importorskip("pettingzoo", reason="PettingZoo is not installed")
pytestmark = pytest.mark.usefixtures("compiled_fast")

SMALL: dict[str, Any] = {"n_steps": 16, "batch_size": 16, "n_epochs": 2, "net_arch": [8], "learning_rate": 0.02}


class Following(pettingzoo.ParallelEnv):
    """The leader is paid for action 2 of 3; the follower for a number near the leader's action, 5 steps a game."""

    metadata = {"name": "following_v0"}  # noqa: RUF012
    possible_agents = ["leader", "follower"]  # noqa: RUF012

    def observation_space(self, agent):
        return spaces.Box(-1, 1, (1 if agent == "leader" else 3,), np.float32)

    def action_space(self, agent):
        return spaces.Discrete(3) if agent == "leader" else spaces.Box(0.0, 2.0, (1,), np.float32)

    def seen(self):
        return {agent: self.observation_space(agent).sample() * 0 for agent in self.possible_agents}

    def reset(self, seed=None, options=None):
        self.agents, self.t = list(self.possible_agents), 0
        return self.seen(), {}

    def step(self, actions):
        self.t += 1
        led, followed = int(actions["leader"]), float(actions["follower"][0])
        rewards = {"leader": float(led == 2), "follower": 1.0 - abs(led - followed)}
        over, no = dict.fromkeys(self.agents, self.t == 5), dict.fromkeys(self.agents, False)
        self.agents = [] if self.t == 5 else self.agents
        return self.seen(), rewards, over, no, {"leader": {"led": led}}

    def close(self):
        pass


def pair(seed=0, **changed):
    seats = apart(Following(), num_envs=2)
    return {name: PPO(**SMALL, **changed).on(env, seed=seed) for name, env in seats.items()}


def test_each_learns_by_itself_and_is_measured_with_the_others_as_they_are(tmp_path):
    agents = pair()
    assert agents["leader"].title == "ppo following_v0.leader"
    before = agents["follower"].evaluate(20).mean
    learn_together(agents.values(), 2_000, progress=False, run=tmp_path / "runs", eval_every=1_000)
    assert agents["leader"].evaluate(10).mean == 5.0
    # Only where the leader acts by what it has learned is it known what to follow.
    assert before < 3.0 < 4.0 < agents["follower"].evaluate(10).mean
    assert agents["leader"].recent_info["led"]
    assert len(read_evaluations(tmp_path / "runs" / "follower")["mean"]) == 2
    again = load(tmp_path / "runs" / "leader" / "agent.safetensors", env=apart(Following())["leader"])
    assert again.evaluate(4).mean == 5.0


def test_a_seed_repeats_it_however_threads_are_scheduled():
    (one, other), third = (pair(), pair()), pair(seed=1)
    for agents in (one, other, third):
        learn_together(agents.values(), 100, progress=False)
        learn_together(agents.values(), 100, progress=False)
    for name in one:
        assert list(one[name].recent_returns) == list(other[name].recent_returns)
        assert same(one[name].parameters, other[name].parameters)
    assert list(one["follower"].recent_returns) != list(third["follower"].recent_returns)


def test_algorithms_may_differ_and_who_is_out_waits():
    small = DQN(learning_starts=10, net_arch=[8])
    seats = apart(Duel(), num_envs=2)
    agents = {name: (small if name == "agent_1" else PPO(**SMALL)).on(env, seed=0) for name, env in seats.items()}
    learn_together(agents.values(), 200, progress=False)
    for i, agent in enumerate(agents.values()):
        assert set(agent.recent_returns) == {float(i + 2)}  # as many as it has steps in a game, which lasts for 4
        assert 200 <= agent.steps < 240
        assert agent.evaluate(4).returns == [float(i + 2)] * 4


def test_what_ends_one_training_ends_all():
    agents = pair()

    def wrong(agent, metrics):
        raise ZeroDivisionError("in a callback")

    with pytest.raises(ZeroDivisionError, match="in a callback"):
        learn_together(agents.values(), 10_000, progress=False, callbacks=[wrong])
    learn_together(agents.values(), 64, progress=False)
    assert all(64 <= agent.steps < 400 for agent in agents.values())


def test_a_fault_of_the_game_is_told():
    class Broken(Following):
        def step(self, actions):
            if self.t == 3:
                raise RuntimeError("a wheel came off")
            return super().step(actions)

    agents = [PPO(**SMALL).on(env) for env in apart(Broken()).values()]
    with pytest.raises(EnvironmentFault, match="a wheel came off"):
        learn_together(agents, 1_000, progress=False)


def test_ctrl_c_stops_all(monkeypatch):
    agents, join = pair(), Thread.join

    def interrupted(thread, timeout=None):
        join(thread, timeout)
        if timeout is not None:
            raise KeyboardInterrupt

    monkeypatch.setattr(Thread, "join", interrupted)
    with pytest.raises(KeyboardInterrupt):
        learn_together(agents.values(), 10_000_000, progress=False)
    monkeypatch.undo()
    before = [agent.steps for agent in agents.values()]
    learn_together(agents.values(), 64, progress=False)
    assert [agent.steps - steps >= 64 for agent, steps in zip(agents.values(), before, strict=True)] == [True, True]


def test_what_cannot_be():
    agents = pair()
    with pytest.raises(EnvironmentFault, match=r"leader of following_v0 acts together with follower: .*learn_together"):
        agents["leader"].learn(100, progress=False)
    with pytest.raises(SpaceError, match=r"cannot record following_v0\.leader: its rows are agents of one game"):
        agents["leader"].record("game.gif")
    with pytest.raises(SpaceError, match="no agent acts for follower: expected one for each of leader, follower"):
        learn_together([agents["leader"]], 100)
    with pytest.raises(SpaceError, match="two agents act for the same one"):
        learn_together([*agents.values(), agents["leader"]], 100)
    with pytest.raises(SpaceError, match="on the same apart"):
        learn_together([agents["leader"], pair()["follower"]], 100)
    with pytest.raises(SpaceError, match="ppo CartPole-v1 is not in a game with others"):
        learn_together([PPO(**SMALL).on("CartPole-v1")], 100)
    with pytest.raises(SpaceError, match=r"SeatInTurns\(game, seat="):
        apart(Picks())
    with pytest.raises(SpaceError, match="1 or more games"):
        apart(Following(), num_envs=0)
