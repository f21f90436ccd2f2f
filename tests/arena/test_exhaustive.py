"""A competitor against every reply."""

import numpy as np
import pytest

from renshu.arena.exhaustive import Leaves, never_loses
from renshu.arena.players import AlphaBeta, Competitor, Pure
from renshu.envs.builtin.stone_taking import StoneTaking
from renshu.envs.builtin.tic_tac_toe import TicTacToe
from renshu.errors import HyperparameterError, RenshuError
from tests.arena.toys import PAID, TURNS, Chain, won

pytestmark = pytest.mark.usefixtures("compiled_fast")


class FirstFree(Competitor):
    """Chooses the first action that is allowed."""

    name = "first"

    def begin(self, count, seed):
        pass

    def choose(self, view):
        return view.legal.argmax(1)


def counted(board, seat, mover=0):
    """Leaves of tic-tac-toe where `seat` takes the first free square: wins, draws, losses, by plain recursion."""
    free = [i for i in range(9) if board[i] is None]
    total = np.zeros(3, int)
    for square in free[:1] if mover == seat else free:
        after = (*board[:square], mover, *board[square + 1 :])
        if won(after, mover):
            total[0 if mover == seat else 2] += 1
        elif None not in after:
            total[1] += 1
        else:
            total += counted(after, seat, 1 - mover)
    return total


@pytest.mark.parametrize("seat", [0, 1])
def test_counts_equal_those_of_plain_recursion(seat):
    wanted = counted((None,) * 9, seat)
    assert never_loses(TicTacToe(), FirstFree(), seat) == Leaves(*wanted)
    assert wanted[2] > 0


def test_counts_where_turns_do_not_alternate_and_moves_are_paid():
    def leaves(moves, last, total, seat):
        if moves == len(TURNS):
            return np.array([total > 0, total == 0, total < 0], int)
        actions = [a for a in range(3) if a != last]
        if TURNS[moves] == seat:
            actions = actions[:1]
        sign = 1 if seat == 0 else -1
        return sum(leaves(moves + 1, a, total + sign * PAID[moves, last, a], seat) for a in actions)

    for seat in range(2):
        assert never_loses(Chain(), FirstFree(), seat) == Leaves(*leaves(0, 3, 0.0, seat))


@pytest.mark.parametrize("seat", [0, 1])
def test_perfect_play_never_loses(seat):
    leaves = never_loses(TicTacToe(), AlphaBeta(TicTacToe()), seat)
    assert leaves.losses == 0
    assert leaves.wins > 50
    assert leaves.draws > 10


def test_a_won_game_is_won_against_every_reply():
    leaves = never_loses(StoneTaking(12), AlphaBeta(StoneTaking(12)), 0)
    assert leaves.draws == leaves.losses == 0
    assert leaves.wins > 0
    assert never_loses(StoneTaking(13), AlphaBeta(StoneTaking(13)), 1).losses == 0
    assert never_loses(StoneTaking(13), AlphaBeta(StoneTaking(13)), 0).losses > 0


def test_random_play_loses_somewhere():
    assert never_loses(TicTacToe(), Pure(), 1).losses > 0


def test_limits():
    with pytest.raises(RenshuError, match="more than 50 positions"):
        never_loses(TicTacToe(), FirstFree(), 0, most=50)
    with pytest.raises(HyperparameterError, match="seat=2"):
        never_loses(TicTacToe(), FirstFree(), 2)
