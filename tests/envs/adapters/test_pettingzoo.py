"""PettingZoo: whoever moves, each is paid for itself; who is out acts no more; rows wait until their game is over."""

import gymnasium
import numpy as np
import pytest
from gymnasium import spaces

from renshu import DQN, PPO, load
from renshu.agent.summary import describe
from renshu.envs.adapters import AgentsInParallel, SeatInTurns
from renshu.errors import HyperparameterError, SpaceError

pettingzoo = pytest.importorskip("pettingzoo", reason="PettingZoo is not installed")
pytestmark = pytest.mark.usefixtures("compiled_fast")
SMALL = {"n_steps": 16, "batch_size": 16, "n_epochs": 2, "net_arch": [8], "learning_rate": 3e-3}


class Picks(pettingzoo.AECEnv):
    """Two picks each, in turns: whoever picks 1 is paid 1 and the other -1, at once. ends: whom the end names next."""

    metadata = {"name": "picks_v0", "render_modes": ["rgb_array"]}  # noqa: RUF012

    def __init__(self, ends="other"):
        self.possible_agents, self.ends, self.render_mode = ["a", "b"], ends, None

    def observation_space(self, agent):
        return spaces.Discrete(5)

    def action_space(self, agent):
        return spaces.Discrete(2)

    def reset(self, seed=None, options=None):
        self.agents, self.moves = ["a", "b"], 0
        self.agent_selection = "a"
        self.rewards, self._cumulative_rewards, self.terminations, self.truncations, self.infos = (
            {agent: value for agent in self.agents} for value in (0.0, 0.0, False, False, {})
        )

    def observe(self, agent):
        return self.moves

    def step(self, action):
        mover = self.agent_selection
        if self.terminations[mover]:
            return self._was_dead_step(action)
        other = "b" if mover == "a" else "a"
        self._cumulative_rewards[mover] = 0.0
        self.rewards = {mover: float(action), other: -float(action)}
        self.moves += 1
        if self.moves == 4:
            self.terminations = dict.fromkeys(self.agents, True)
        self.agent_selection = mover if self.moves == 4 and self.ends == "mover" else other
        self._accumulate_rewards()
        return None

    def render(self):
        return np.full((4, 4, 3), self.moves, np.uint8)

    def close(self):
        pass


class Duel(pettingzoo.ParallelEnv):
    """Agent n is out after n + 2 steps and is paid its number of steps in all; the game lasts as long as the last."""

    metadata = {"name": "duel_v0"}  # noqa: RUF012

    def __init__(self, agents=3):
        self.possible_agents = [f"agent_{i}" for i in range(agents)]

    def observation_space(self, agent):
        return spaces.Box(0, 10, (2,), np.float32)

    def action_space(self, agent):
        return spaces.Discrete(2)

    def seen(self):
        return {agent: np.array([self.t, int(agent[-1])], np.float32) for agent in self.agents}

    def reset(self, seed=None, options=None):
        self.agents, self.t = list(self.possible_agents), 0
        return self.seen(), {agent: {} for agent in self.agents}

    def step(self, actions):
        assert set(actions) == set(self.agents)  # nobody acts who is out
        self.t += 1
        obs, over = self.seen(), {agent: self.t == int(agent[-1]) + 2 for agent in self.agents}
        rewards, no = dict.fromkeys(self.agents, 1.0), dict.fromkeys(self.agents, False)
        infos = {agent: {"steps": self.t} for agent in self.agents}
        self.agents = [agent for agent in self.agents if not over[agent]]
        return obs, rewards, over, no, infos

    def close(self):
        pass


def always(action):
    def chosen(key, obs, legal):
        return action

    return chosen


def play(env, action, seed):
    env.reset(seed=seed)
    rewards, over = [], False
    while not over:
        _, reward, over, _, info = env.step(action)
        rewards.append(reward)
    return rewards, info


@pytest.mark.parametrize("ends", ["other", "mover"])
def test_each_is_paid_for_itself_whoever_moves(ends):
    for seat, paid in (("a", [1.0, 1.0]), ("b", [1.0, 1.0])):
        assert play(SeatInTurns(Picks(ends), always(0), seat=seat), 1, seed=0)[0] == paid
    # The other picks 1: as the second one pays before the first move of one's own, too.
    for seat in "ab":
        rewards, info = play(SeatInTurns(Picks(ends), always(1), seat=seat), 0, seed=0)
        assert sum(rewards) == -2.0
        assert info == {f"seat_{'ab'.index(seat)}": -2.0}
    assert play(SeatInTurns(Picks(ends), always(1), seat="b"), 1, seed=0)[0] == [-1.0, 1.0]


def test_seats_are_drawn_by_the_seed():
    env = SeatInTurns(Picks(), always(0))
    seats = [next(iter(play(env, 1, seed)[1])) for seed in range(12)]
    assert set(seats) == {"seat_0", "seat_1"}
    assert seats == [next(iter(play(env, 1, seed)[1])) for seed in range(12)]


def test_agents_that_are_out_act_no_more():
    from pettingzoo.utils import parallel_to_aec

    env = SeatInTurns(parallel_to_aec(Duel()), always(1), seat="agent_1")
    rewards, _ = play(env, 0, seed=0)  # Duel itself asserts who acts
    assert sum(rewards) == 3.0


def test_rows_wait_until_their_game_is_over():
    env = AgentsInParallel([Duel(), Duel()])
    obs, _ = env.reset(seed=0)
    assert obs.shape == (6, 2)
    np.testing.assert_array_equal(obs[:, 1], [0, 1, 2, 0, 1, 2])
    marks = [env.step(np.zeros(6, np.int64))[2:4] for _ in range(5)]
    terminated, truncated = (np.stack(x)[:, :3].astype(int) for x in zip(*marks, strict=True))
    np.testing.assert_array_equal(terminated, [[0, 0, 0], [1, 0, 0], [0, 1, 0], [0, 0, 1], [0, 0, 0]])
    np.testing.assert_array_equal(truncated, [[0, 0, 0], [0, 0, 0], [1, 0, 0], [1, 1, 0], [0, 0, 0]])


@pytest.mark.parametrize("algorithm", [PPO(**SMALL), DQN(learning_starts=10, net_arch=[8])], ids=["policy", "replay"])
def test_who_waits_counts_neither_steps_nor_episodes(algorithm):
    agent = algorithm.on(Duel(), num_envs=6, seed=0)
    agent.learn(400, progress=False)
    # Each agent's episode pays its steps: 2, 3 and 4 of a game of 4.
    assert set(agent.recent_returns) == {2.0, 3.0, 4.0}
    assert set(agent.recent_info["steps"]) == {2.0, 3.0, 4.0}
    assert agent.steps >= 400
    found = agent.evaluate(12)
    assert sorted(set(found.lengths)) == [2, 3, 4]
    assert found.returns == [float(n) for n in found.lengths]


def test_learning_in_a_seat(tmp_path):
    agent = PPO(**SMALL).on(lambda: Picks("mover"), num_envs=4, seed=0).learn(1_500, progress=False)
    assert agent.evaluate(40).mean > 0.5  # it picks 1, which pays 2; random play takes half of it back
    assert "seat_0" in agent.recent_info
    again = load(agent.save(tmp_path / "agent.safetensors"), env=Picks("mover"))
    assert abs(again.evaluate(40, opponent=agent).mean) < 0.3  # both pick 1; the other explores as in training
    assert again.evaluate(4, opponent=always(0)).mean == 2.0
    assert "opponent         random" in describe(again.trainer)
    assert again.record(tmp_path / "game.gif", env=Picks()).exists()


def test_an_opponent_within_a_limit_of_steps():
    agent = PPO(**SMALL).on(Picks(), max_episode_steps=1, opponent=always(1), num_envs=2)
    assert "opponent         chosen" in describe(agent.trainer)
    lost, kept = agent.evaluate(8), agent.evaluate(8, opponent=always(0))
    assert lost.lengths == kept.lengths == [1] * 8
    assert min(lost.returns) < 0 <= min(kept.returns)


def test_masks_in_observations():
    tictactoe = pytest.importorskip("pettingzoo.classic.tictactoe_v3", reason="its games are not installed")
    agent = PPO(**SMALL).on(tictactoe.env(), seed=0).learn(200, progress=False)
    assert agent.fitted.spec.masks
    assert set(agent.recent_returns) <= {-1.0, 0.0, 1.0}  # an illegal move would end it with a loss for one alone


def test_what_cannot_be():
    with pytest.raises(SpaceError, match="multiple of 3"):
        PPO().on(Duel(), num_envs=4)
    with pytest.raises(SpaceError, match="pass the environment itself"):
        PPO().on(lambda: Duel(), num_envs=3)
    with pytest.raises(SpaceError, match="pass the environment itself, not a function"):
        PPO().on(lambda: Picks(), opponent="random")
    with pytest.raises(SpaceError, match="cannot record duel_v0: its rows are agents of one game"):
        PPO(**SMALL).on(Duel()).record("game.gif")
    with pytest.raises(SpaceError, match="has the agents"):
        SeatInTurns(Picks(), seat="c")
    with pytest.raises(SpaceError, match="pure functions"):
        PPO().on(Picks(), opponent="self")

    class Differing(Picks):
        def action_space(self, agent):
            return spaces.Discrete(2 if agent == "a" else 3)

    with pytest.raises(SpaceError, match="differ"):
        PPO().on(Differing())
    assert SeatInTurns(Differing(), seat="b").action_space.n == 3
    with pytest.raises(HyperparameterError, match="has 2 already"):
        PPO().on(gymnasium.make_vec("CartPole-v1", 2), num_envs=3)
