"""Agents in the arena: masks, seats, memory, search, and games that they have not learned."""

import io

import jax
import numpy as np
import pytest

from renshu import DQN, MCTS, PPO, AlphaZero, MuZero, load
from renshu.agent.opponents import seated
from renshu.agent.players import agent_competitor
from renshu.arena.match import match, play_games
from renshu.arena.players import AlphaBeta, Competitor, Pure
from renshu.envs.builtin.connect_four import ConnectFour
from renshu.envs.builtin.othello import Othello
from renshu.envs.builtin.tic_tac_toe import TicTacToe
from renshu.envs.players import Sight
from renshu.envs.source import EnvSource
from renshu.errors import CheckpointError, HyperparameterError, RenshuError, SpaceError
from tests.arena.toys import Whose

pytestmark = pytest.mark.usefixtures("compiled_fast")
TINY = {"n_steps": 16, "batch_size": 32, "n_epochs": 1, "net_arch": [8]}


@pytest.fixture(scope="module")
def ppo():
    return PPO(**TINY).on(TicTacToe(), num_envs=2, seed=0)


@pytest.fixture(scope="module")
def planner():
    return AlphaZero(n_blocks=1, n_channels=8, num_simulations=4).on(TicTacToe(), num_envs=2, seed=0)


class Watching(Competitor):
    """Asks another competitor, and keeps views and answers."""

    def __init__(self, other):
        self.other, self.name, self.seen = other, other.name, []

    def begin(self, count, seed):
        self.other.begin(count, seed)

    def choose(self, view):
        answer = self.other.choose(view)
        self.seen.append((view, answer))
        return answer


def test_it_plays_as_predict_says(ppo):
    watching = Watching(agent_competitor(ppo))
    play_games(TicTacToe(), [watching, Pure()], 6, seed=0)
    assert watching.name == "ppo"
    for view, answer in watching.seen:
        said = ppo.predict({"action_mask": view.legal.astype(np.int8), "observation": np.asarray(view.obs)})
        assert (answer == said)[view.mine].all()
        assert answer.dtype == np.int32


def test_drawn_actions_differ_and_depend_on_the_seed(ppo):
    def first_moves(seed, deterministic):
        player = agent_competitor(ppo, deterministic=deterministic)
        return play_games(TicTacToe(), [player, Pure()], 30, seed=seed).actions[0].tolist()

    assert len(set(first_moves(0, True))) == 1
    assert len(set(first_moves(0, False))) > 2
    assert first_moves(1, False) == first_moves(1, False) != first_moves(2, False)


def test_an_agent_without_masks_is_told_where_it_chooses_what_is_not_allowed():
    agent = DQN(net_arch=[8]).on(TicTacToe(), num_envs=2, seed=0, masks=False)
    with pytest.raises(RenshuError, match=r"dqn, in seat 1 of renshu/TicTacToe-v0, chose .* not allowed"):
        play_games(TicTacToe(), [Pure(), agent_competitor(agent)], 60, seed=0)


@pytest.mark.parametrize("way", ["recurrent", "frame_stack"])
def test_memory_is_kept_for_each_game_by_itself(way):
    """Rows that play at once choose as each does alone, though each has its own moves and end."""
    if way == "recurrent":
        agent = PPO(**TINY, recurrent="gru").on(Whose(), num_envs=2, seed=1)
    else:
        agent = DQN(net_arch=[8]).on(Whose(), num_envs=2, seed=1, frame_stack=3)
    player = agent_competitor(agent)
    watching = Watching(player)
    games = play_games(Whose(), [watching, Pure()], 6, seed=2, openings=1)
    assert any(0 < view.mine.sum() < 6 for view, _ in watching.seen)
    for row in range(6):
        carry = agent.trainer.learner.initial_carry(1)
        for view, answer in watching.seen:
            if view.mine[row]:
                obs = {"action_mask": view.legal[[row]].astype(np.int8), "observation": np.asarray(view.obs)[[row]]}
                chosen, carry = agent.predict(obs, carry=carry, first=view.first[[row]])
                assert answer[row] == chosen[0]
        for ours, alone in zip(jax.tree.leaves(player._carry), jax.tree.leaves(carry), strict=True):
            np.testing.assert_allclose(ours[row], alone[0], rtol=1e-4, atol=1e-6)
    assert len(set(games.lengths.tolist())) > 1


def test_search_beats_random():
    agent = MCTS(num_simulations=200).on(TicTacToe())
    result = match(TicTacToe(), agent_competitor(agent, name="uct"), Pure(), 24, 0)
    assert result.names == ("uct", "random")
    assert result.score >= 0.9


def test_simulations_replace_its_own():
    agent = MCTS(num_simulations=1).on(TicTacToe())
    weak, strong = agent_competitor(agent, name="weak"), agent_competitor(agent, simulations=100)
    assert strong.learner.config.num_simulations == 100
    assert agent.algorithm.num_simulations == 1
    assert match(TicTacToe(), strong, weak, 20, 0).score > 0.8


def test_alphazero_plans_with_its_own_parameters(planner):
    search = agent_competitor(planner, simulations=64)
    watching = Watching(search)
    result = match(TicTacToe(), watching, Pure(), 12, 0)
    assert result.score >= 0.75
    view, _ = watching.seen[0]
    explained = search.explain(view)
    assert explained["visits"].shape == (6, 9)
    assert explained["visits"].sum(1).tolist() == [64] * 6
    told = planner.explain({"action_mask": view.legal.astype(np.int8), "observation": np.asarray(view.obs)})
    np.testing.assert_allclose(explained["probabilities"], told["probabilities"], rtol=1e-4)


def test_another_game_is_refused_by_both_names(ppo):
    for agent in (ppo, MCTS().on(TicTacToe())):
        with pytest.raises(SpaceError, match=r"learned renshu/TicTacToe-v0.*renshu/ConnectFour-v0"):
            play_games(ConnectFour(), [agent_competitor(agent), Pure()], 1, seed=0)
    large = agent_competitor(MCTS().on(Othello(8)))
    with pytest.raises(SpaceError, match=r"\(8, 8, 2\).*\(6, 6, 2\)"):
        play_games(Othello(6), [large, Pure()], 1, seed=0)


def test_simulations_without_a_search(ppo):
    with pytest.raises(HyperparameterError, match="does not plan"):
        agent_competitor(ppo, simulations=10)


def test_a_loaded_agent_plays_the_same(tmp_path, planner):
    planner.save(tmp_path / "agent")
    players = [agent_competitor(agent) for agent in (planner, load(tmp_path / "agent"))]
    ours, theirs = (play_games(TicTacToe(), [player, Pure()], 4, seed=0) for player in players)
    assert np.array_equal(ours.actions, theirs.actions)


def test_a_loaded_agent_needs_a_game_of_ones_own_to_plan(tmp_path):
    agent = MCTS(num_simulations=2).on(Whose())
    agent.save(tmp_path / "agent")
    with pytest.raises(CheckpointError, match="env=game"):
        agent_competitor(load(tmp_path / "agent"))
    agent_competitor(load(tmp_path / "agent", env=Whose())).check(Whose())


def test_an_agent_plays_against_whom_one_likes(ppo, planner):
    def lowest(key, observation, legal):
        return legal.argmax()

    perfect = AlphaBeta(TicTacToe())
    against = {"random": "random", "lowest": lowest, "agent": planner, "perfect": perfect}
    results = {name: ppo.play(other, games=20, openings=0) for name, other in against.items()}
    assert all(result.games == 20 for result in results.values())
    assert results["perfect"].wins == 0
    assert results["agent"].names[1] == type(planner.algorithm).__name__.lower()
    with pytest.raises(SpaceError, match="no game of two"):
        PPO(n_steps=8, batch_size=8).on("CartPole-v1").play("random")


def test_an_agent_from_a_file_plays_its_game(ppo, tmp_path):
    found = load(ppo.save(tmp_path / "ppo.safetensors")).play("random", 4)
    assert found.by_seat.sum() == 4
    np.testing.assert_array_equal(found.by_seat, ppo.play("random", 4).by_seat)


def test_without_a_state_a_search_alone_says_what_it_needs():
    agent = MCTS(num_simulations=4).on(TicTacToe(), num_envs=2)
    obs = np.zeros((3, 3, 2), np.int8)
    with pytest.raises(SpaceError, match="env_state="):
        agent.predict(obs, search=False)
    with pytest.raises(SpaceError, match="env_state="):
        agent.explain(obs)


def test_a_person_plays_two_games_without_openings(ppo, monkeypatch, capsys):
    lines = "\n".join(["a1", "a2", "a3", "b1", "b2", "b3", "c1", "c2", "c3"] * 20)
    monkeypatch.setattr("sys.stdin", io.StringIO(lines))
    result = ppo.play("person")
    assert result.games == 2
    shown = capsys.readouterr().out
    assert "you played" not in shown, "no move was drawn in the person's place"


def test_copies_of_the_past_are_for_training(ppo):
    for ask in (lambda: ppo.play("self", games=2), lambda: ppo.evaluate(2, opponent="self")):
        with pytest.raises(SpaceError, match="is for training"):
            ask()


def test_simulations_are_of_those_that_plan(ppo, planner):
    assert planner.play(ppo, games=2, simulations=2).games == 2
    assert ppo.play(planner, games=2, simulations=2).games == 2


def test_an_agent_as_opponent_is_greedy_where_it_is_measured_by(planner):
    """With noise at the root, drawn moves and a few visits, an untrained planner would seldom play the same twice."""
    board = TicTacToe()
    state, _ = board.reset(jax.random.key(0))
    seen = []
    for explore in (True, False):
        frozen = seated(EnvSource.of(board), PPO(), planner, explore=explore).plain_device.opponent
        sight = Sight(board.observe(state), board.action_mask(state) != 0, state, np.True_)
        keys = jax.random.split(jax.random.key(1), 12)
        seen.append({int(frozen.move(frozen.begin(key), sight, key)[0]) for key in keys})
    assert len(seen[0]) > 2
    assert len(seen[1]) == 1


def test_a_planner_chooses_the_same_again(planner):
    state, obs = TicTacToe().reset(jax.random.key(0))
    obs = {"observation": np.asarray(obs), "action_mask": np.ones(9, np.int8)}
    chosen = {
        int(planner.predict(obs["observation"], action_mask=obs["action_mask"], env_state=state)) for _ in range(6)
    }
    assert len(chosen) == 1


def test_a_loaded_muzero_is_an_opponent_and_another_games_agent_is_none(tmp_path, ppo):
    small = {"num_simulations": 2, "n_blocks": 1, "n_channels": 4, "net_arch": [8], "batch_size": 8}
    path = MuZero(**small).on("renshu/TicTacToe-v0", num_envs=2, seed=0).save(tmp_path / "agent.safetensors")
    agent = PPO(**TINY).on("renshu/TicTacToe-v0", num_envs=4, opponent=load(path)).learn(64, progress=False)
    assert len(agent.recent_info["seat_0"]) > 0
    with pytest.raises(SpaceError, match="another game"):
        PPO(**TINY).on("renshu/ConnectFour-v0", opponent=ppo)
