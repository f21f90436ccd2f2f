"""Alpha-beta: the same values and moves as plain recursion, in games of all shapes."""

import copy
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import renshu.arena.players as players
from renshu.arena.heuristics import heuristic_of
from renshu.arena.match import match, play_games
from renshu.arena.players import AlphaBeta, Pure
from renshu.envs.builtin.connect_four import ConnectFour
from renshu.envs.builtin.othello import Othello
from renshu.envs.builtin.stone_taking import StoneTaking
from renshu.envs.builtin.tic_tac_toe import TicTacToe
from renshu.envs.builtin.two_picks import TwoPicks
from renshu.errors import HyperparameterError, RenshuError, SpaceError
from tests.arena.toys import PAID, TABLES, TURNS, Chain, ChainState, chain_value, crosses_value

pytestmark = pytest.mark.usefixtures("compiled_fast")


def begun(game):
    return game.reset(jax.random.key(0))[0]


def after(game, *actions):
    state = begun(game)
    for action in actions:
        state = game.step(state, jnp.int32(action), jax.random.key(0)).state
    return state


def test_chain_where_turns_do_not_alternate_and_each_move_is_paid():
    search = AlphaBeta(Chain())
    assert search.search(begun(Chain())) == chain_value()
    for moves in range(len(TURNS)):
        for last in range(3):
            found, best = search.search(ChainState(jnp.int32(moves), jnp.int32(last), jnp.int32(0)))
            wanted, actions = chain_value(moves, last)
            assert found == pytest.approx(wanted if TURNS[moves] == 0 else -wanted)
            assert best == actions


def test_bounds_that_are_remembered_are_never_taken_for_values():
    search = AlphaBeta(Chain())
    for table in range(len(TABLES)):
        state = ChainState(jnp.int32(0), jnp.int32(3), jnp.int32(table))
        assert search.search(state) == chain_value(table=table), table
    for table in range(len(TABLES)):
        fresh, true = copy.copy(search), chain_value(table=table)[0]
        fresh._bounds, fresh._first = {}, {}
        state = jax.tree.map(lambda x: jnp.asarray([x]), ChainState(0, 3, table))
        row = np.asarray(fresh._pack(state))[0]
        for low, high in ((true + 6, true + 7), (true - 7, true - 6), (-math.inf, math.inf)):
            found = fresh._value(row, 0, math.inf, low, high, 1)
            assert (found <= low, found >= high) == (true <= low, true >= high)
        assert found == true


def test_depth_counts_moves_and_the_heuristic_judges_beyond():
    def judge(state):
        return jnp.where(state.moves == 2, state.last * 10.0, 100.0)  # of the player to move, seat 1 after two moves

    value, best = AlphaBeta(Chain(), 2, judge).search(begun(Chain()))
    pairs = {(a, b): PAID[0, 3, a] + PAID[1, a, b] - 10 * b for a in range(3) for b in range(3) if a != b}
    assert value == pytest.approx(max(pairs.values()))
    assert best == sorted({a for (a, _), total in pairs.items() if total == max(pairs.values())})
    value, _ = AlphaBeta(Chain(), 1).search(begun(Chain()))
    assert value == PAID[0, 3].max()


def test_two_picks_and_stone_taking():
    assert AlphaBeta(TwoPicks()).search(begun(TwoPicks())) == (0.0, [1])
    for stones in range(1, 14):
        game = StoneTaking(stones)
        value, best = AlphaBeta(game).search(begun(game))
        assert value == (-1 if stones % 4 == 1 else 1)
        if stones % 4 != 1:
            assert best == [(stones - 1) % 4 - 1]  # a remainder of 1 is left to the other


def test_tic_tac_toe_agrees_with_plain_recursion():
    game, search = TicTacToe(), AlphaBeta(TicTacToe())
    rng = np.random.default_rng(0)
    for _ in range(15):
        actions = rng.permutation(9)[: rng.integers(2, 5)].tolist()
        board = [0] * 9
        for i, action in enumerate(actions):
            board[action] = 1 + i % 2
        wanted, moves = crosses_value(tuple(board), 1 + len(actions) % 2)
        value, best = search.search(after(game, *actions))
        assert value == wanted
        # Of winning moves those that win at once are preferred.
        assert set(best) <= set(moves)
        assert best == moves or value == 1
    assert search.search(begun(game))[0] == 0


def test_othello_of_four_squares_is_lost_for_black():
    game = Othello(4)
    value, best = AlphaBeta(game).search(begun(game))
    assert value == -1  # Feinstein 1993: white wins with the best play
    assert best == [1, 4, 11, 14]


def test_a_win_at_once_is_taken():
    # Two of these squares only make threats that cannot be met.
    game, actions = TicTacToe(), (0, 3, 1, 7)
    board = (1, 1, 0, 2, 0, 0, 0, 2, 0)
    assert crosses_value(board) == (1, [2, 4, 8])
    assert AlphaBeta(game).search(after(game, *actions)) == (1, [2])


def test_ties_are_broken_by_the_seed():
    game = TicTacToe()

    def openings(seed):
        return play_games(game, [AlphaBeta(game), Pure()], 20, seed=seed).actions[0].tolist()

    assert openings(1) == openings(1)
    assert openings(1) != openings(2)
    assert len(set(openings(1))) > 4


@pytest.mark.parametrize("game", [ConnectFour(), Othello(6)], ids=["ConnectFour", "Othello"])
def test_heuristics_help(game):
    ours = AlphaBeta(game, 2, heuristic_of(game))
    result = match(game, ours, AlphaBeta(game, 2), 20, 0, openings=2)
    assert result.score >= 0.7
    guesses = [child.guess for children in ours._children.values() for child in children if not child.over]
    assert max(map(abs, guesses)) < 1


def test_what_it_cannot_play():
    with pytest.raises(HyperparameterError, match="depth=0"):
        AlphaBeta(TicTacToe(), 0)
    with pytest.raises(SpaceError, match=r"StoneTaking.*TicTacToe"):
        play_games(TicTacToe(), [AlphaBeta(StoneTaking()), Pure()], 1, seed=0)
    with pytest.raises(SpaceError, match=r"\(8, 8, 2\).*\(6, 6, 2\)"):
        play_games(Othello(6), [AlphaBeta(Othello(), 1), Pure()], 1, seed=0)


def test_a_game_too_large_for_its_end(monkeypatch):
    monkeypatch.setattr(players, "MOST_KEPT", 300)
    with pytest.raises(RenshuError, match=r"ConnectFour.*too large.*depth"):
        AlphaBeta(ConnectFour()).search(begun(ConnectFour()))
    # With a depth it goes on, and finds the same as with room enough.
    few, search = AlphaBeta(ConnectFour(), 4), begun(ConnectFour())
    found = few.search(search)
    monkeypatch.undo()
    assert found == AlphaBeta(ConnectFour(), 4).search(search)
