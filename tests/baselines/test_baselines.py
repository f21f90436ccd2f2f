import pytest

import renshu
from renshu.agent.players import agent_competitor
from renshu.arena.exhaustive import never_loses
from renshu.arena.match import match
from renshu.arena.players import AlphaBeta
from renshu.baselines import baselines
from renshu.envs.builtin.tic_tac_toe import TicTacToe
from renshu.errors import UnknownNameError


@pytest.mark.parametrize("environment", baselines())
def test_every_baseline_beats_a_player_who_sees_wins_one_move_ahead(environment):
    agent = renshu.baseline(environment)
    game = agent.trainer.spec.model
    assert match(game, agent_competitor(agent), AlphaBeta(game, 1), 40, seed=0, openings=1).score > 0.7


def test_tic_tac_toe_is_never_lost_by_the_second_to_move():
    player = agent_competitor(renshu.baseline("renshu/TicTacToe-v0"), simulations=200)
    leaves = never_loses(TicTacToe(), player, seat=1)
    assert leaves.losses == 0
    assert sum(leaves) > 50


def test_an_environment_without_one_is_named_with_those_that_have_one():
    with pytest.raises(UnknownNameError, match=r"for CartPole-v1; there is one for .*renshu/TicTacToe-v0"):
        renshu.baseline("CartPole-v1")
