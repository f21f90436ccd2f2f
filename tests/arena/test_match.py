"""Games played at once: whose turn it is, what each is paid, chance, openings, limits."""

import time

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from renshu.arena.match import OutOfTime, Result, match, play_games, wilson
from renshu.arena.players import AlphaBeta, Competitor, Pure, View
from renshu.arena.rules import rules_of
from renshu.envs.builtin.classic import CartPole
from renshu.envs.builtin.tic_tac_toe import TicTacToe
from renshu.envs.device import MaskedDeviceEnv
from renshu.envs.gymnasium.registration import with_limit
from renshu.envs.players import Player
from renshu.errors import HyperparameterError, RenshuError, SpaceError
from tests.arena.toys import PAID, TURNS, Chain, Dice, Whose

pytestmark = pytest.mark.usefixtures("compiled_fast")


class Scripted(Competitor):
    """Plays given actions in order, or the first that is allowed, and keeps what it saw."""

    def __init__(self, name, actions=(), wait=0.0):
        self.name, self.actions, self.wait = name, list(actions), wait
        self.views, self.moved, self.begun = [], [], []

    def begin(self, count, seed):
        self.begun.append((count, seed))

    def choose(self, view):
        self.views.append(view)
        time.sleep(self.wait if len(self.views) > 1 else 0)
        action = self.actions.pop(0) if self.actions else view.legal.argmax(1)
        return np.broadcast_to(np.asarray(action, np.int32), view.mine.shape)

    def watch(self, now):
        self.moved.append(now)


def test_turns_rewards_and_views_where_turns_do_not_alternate():
    a, b = Scripted("a", [0, 1, 1, 2]), Scripted("b", [0, 0, 1])
    games = play_games(Chain(), [a, b], 3, seed=5)
    order = [0, 1, 0, 1, 0, 1, 2]
    assert games.actions.tolist() == [[x] * 3 for x in order]
    paid = sum(PAID[i, ([3, *order])[i], order[i]] for i in range(7))
    np.testing.assert_allclose(games.returns, [[paid, -paid]] * 3)
    assert games.lengths.tolist() == [7, 7, 7]
    assert games.names == ("a", "b")
    assert [view.first.all() for view in a.views] == [True, False, False, False]
    assert [view.first.all() for view in b.views] == [True, False, False]
    assert all(view.mine.all() and (view.seat == 0).all() for view in a.views)
    assert [np.asarray(view.obs)[0].tolist() for view in b.views] == [[2, 1], [4, 1], [5, 0]]
    assert [int(moved.seat[0]) for moved in a.moved] == list(TURNS)
    assert [bool(moved.over[0]) for moved in b.moved] == [False] * 6 + [True]
    assert a.begun[0][0] == 3
    assert a.begun[0][1] != b.begun[0][1]


def test_finished_games_wait():
    seen = Scripted("seen")
    games = play_games(TicTacToe(), [Pure(), seen], 30, seed=0, record=True)
    assert len(set(games.lengths.tolist())) > 2
    for i, length in enumerate(games.lengths):
        assert (games.actions[:length, i] >= 0).all()
        assert (games.actions[length:, i] == -1).all()
    views = [view for view in seen.views if not view.mine.all()]
    assert views
    assert all(view.legal.any(1).all() for view in views)
    assert jax.tree.leaves(games.states)[0].shape[:2] == (len(games.actions) + 1, 30)


def test_games_replay_exactly_each_by_itself():
    games = play_games(Dice(), [Pure(), Pure()], 20, seed=9)
    assert len(set(games.lengths.tolist())) > 1
    rules = rules_of(Dice())
    for number in (0, 7, 19):
        rows, over, total = np.array([number], np.int32), np.zeros(1, bool), np.zeros(2)
        position = rules.begin(np.uint32(9), rows)
        for move in range(games.lengths[number]):
            action = games.actions[move, [number]]
            position, reward, over, _ = rules.step(position, action, over, np.uint32(9), rows, np.int32(move))
            total += np.asarray(reward)[0]
        assert over[0]
        assert total.tolist() == games.returns[number].tolist()


def test_the_seed_decides_everything():
    first, again, other = (play_games(Dice(), [Pure(), Pure()], 20, seed=seed) for seed in (1, 1, 2))
    assert np.array_equal(first.actions, again.actions)
    assert np.array_equal(first.returns, again.returns)
    assert not np.array_equal(first.returns, other.returns)


class Counting(Player):
    """Chooses 1 in every third of its moves, which it counts in its memory."""

    def begin(self, key):
        return jnp.int32(0)

    def move(self, memory, sight, key):
        return (memory % 3 == 2).astype(jnp.int32), memory + 1


def test_games_in_which_it_is_now_one_and_now_the_other_to_move():
    """Each remembers its own moves alone, and a game that is over waits with an allowed action."""
    watched, count = Watched(Pure(Counting())), 16
    games = play_games(Whose(), [watched, Pure(Counting())], count, seed=1, openings=2)
    assert len(set(games.lengths.tolist())) > 1
    for row in range(count):
        own, seat = [0, 0], 0
        for move, action in enumerate(games.actions[: games.lengths[row], row]):
            if move >= 2:
                assert action == (own[seat] % 3 == 2)
                own[seat] += 1
            last, seat = seat, int(action)
        assert games.returns[row].tolist() == [1 - 2 * last, 2 * last - 1]
    assert any(0 < view.mine.sum() < count for view in watched.views)
    assert all(np.asarray(view.legal).all() for view in watched.views)


class Watched(Competitor):
    """Asks another competitor, and keeps what it saw."""

    def __init__(self, other):
        self.other, self.name, self.views = other, other.name, []

    def begin(self, count, seed):
        self.other.begin(count, seed)

    def choose(self, view):
        self.views.append(view)
        return self.other.choose(view)


def test_random_is_uniform():
    games = play_games(TicTacToe(), [Pure(), Pure()], 900, seed=3)
    counts = np.bincount(games.actions[0], minlength=9)
    assert counts.min() > 60
    assert counts.max() < 140


def test_one_competitor_in_both_seats():
    player = AlphaBeta(TicTacToe())
    result = match(TicTacToe(), player, player, 10, 0)
    assert (result.wins, result.draws, result.losses) == (0, 10, 0)


def test_perfect_play_never_loses_to_random():
    result = match(TicTacToe(), AlphaBeta(TicTacToe()), Pure(), 100, 1)
    assert result.losses == 0
    assert result.wins > 75
    assert result.by_seat.sum(1).tolist() == [50, 50]
    assert result.by_seat[0, 0] > result.by_seat[1, 0]  # to move first helps
    assert 5 <= result.lengths <= 9
    assert result.interval[0] < result.score < result.interval[1]


def test_a_result_counts_by_seat():
    def games(returns):
        returns = np.array(returns, float)
        return play_games(TicTacToe(), [Pure(), Pure()], len(returns), seed=0)._replace(returns=returns)

    first, second = games([[1, -1], [0, 0], [1, -1]]), games([[1, -1], [1, -1], [-1, 1]])
    result = Result.of(("a", "b"), [(0, first), (1, second)])
    assert result.by_seat.tolist() == [[2, 1, 0], [1, 0, 2]]
    assert result.score == pytest.approx(3.5 / 6)
    assert "a against b: 3 won, 1 drawn, 2 lost; score 0.583" in str(result)


def test_wilson():
    assert wilson(0.5, 100) == pytest.approx((0.4038, 0.5962), abs=1e-4)
    low, high = wilson(1.0, 10)
    assert low == pytest.approx(0.7225, abs=1e-3)
    assert high == 1.0


def test_openings_are_drawn_the_same_for_both_seats():
    game = TicTacToe()
    games = [play_games(game, [Scripted("a"), Scripted("b")], 12, seed=1, openings=2) for _ in range(2)]
    assert np.array_equal(games[0].actions, games[1].actions)
    assert len({tuple(column) for column in games[0].actions[:2].T}) > 6
    a = Scripted("a")
    play_games(game, [a, Scripted("b")], 2, seed=1, openings=2)
    assert a.views[0].first.all()


def test_an_action_that_is_not_allowed_is_an_error_that_says_all():
    wrong = Scripted("wrong", [3])
    with pytest.raises(
        RenshuError, match=r"wrong, in seat 1 of renshu/TicTacToe-v0, chose 3 \(a2\) as move 2.*0 \(a3\)"
    ):
        play_games(TicTacToe(), [Scripted("right", [3]), wrong], 2, seed=0)
    with pytest.raises(RenshuError, match=r"chose 9 as move 1"):
        play_games(TicTacToe(), [Scripted("wrong", [9]), Pure()], 2, seed=0)
    with pytest.raises(RenshuError, match=r"chose -1"):
        play_games(TicTacToe(), [Scripted("wrong", [-1]), Pure()], 2, seed=0)

    class Floats(Scripted):
        def choose(self, view):
            return np.zeros(len(view.mine))

    with pytest.raises(RenshuError, match="float64 of shape"):
        play_games(TicTacToe(), [Floats("floats"), Pure()], 2, seed=0)


def test_time_limit():
    slow, fast = Scripted("slow", wait=1.0), Scripted("fast")
    began = time.monotonic()
    with pytest.raises(
        OutOfTime, match=r"slow, in seat 1 of renshu/TicTacToe-v0, thought longer than the 0.2 s"
    ) as told:
        play_games(TicTacToe(), [fast, slow], 2, seed=0, time_limit=0.2)
    assert time.monotonic() - began < 20
    assert (told.value.competitor, told.value.seat) == ("slow", 1)
    play_games(TicTacToe(), [fast, Scripted("slow", wait=0.01)], 2, seed=0, time_limit=10)

    class Faulty(Scripted):
        def choose(self, view):
            if len(self.views) == 1:
                raise ZeroDivisionError
            return super().choose(view)

    with pytest.raises(ZeroDivisionError):
        play_games(TicTacToe(), [Faulty("faulty"), fast], 2, seed=0, time_limit=10)


def test_a_limit_of_steps_ends_games():
    games = play_games(with_limit(TicTacToe(), 3), [Pure(), Pure()], 5, seed=0)
    assert games.lengths.tolist() == [3] * 5
    assert not games.returns.any()


def test_masks_in_observations_are_left_out():
    seen = Scripted("seen")
    play_games(MaskedDeviceEnv(TicTacToe()), [seen, Pure()], 2, seed=0)
    view: View = seen.views[0]
    assert view.obs.shape == (2, 3, 3, 2)
    assert view.legal.shape == (2, 9)


def test_wrong_arguments():
    with pytest.raises(HyperparameterError, match="1 competitors"):
        play_games(TicTacToe(), [Pure()], 1, seed=0)
    with pytest.raises(HyperparameterError, match="count=0"):
        play_games(TicTacToe(), [Pure(), Pure()], 0, seed=0)
    with pytest.raises(HyperparameterError, match="time_limit=0"):
        play_games(TicTacToe(), [Pure(), Pure()], 1, seed=0, time_limit=0)
    with pytest.raises(HyperparameterError, match="even"):
        match(TicTacToe(), Pure(), Pure(), 3, 0)
    with pytest.raises(SpaceError, match="one player"):
        play_games(CartPole(), [Pure()], 1, seed=0)


def test_nothing_is_compiled_during_a_match():
    rules = rules_of(TicTacToe())
    player = Pure()
    play_games(TicTacToe(), [player, player], 6, seed=0)
    sizes = rules.step._cache_size(), player._move._cache_size()
    for seed in (1, 2):
        play_games(TicTacToe(), [player, Pure()], 6, seed=seed)
    assert (rules.step._cache_size(), player._move._cache_size()) == sizes
