"""Known positions of the board games, by hand."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from renshu.envs.builtin.connect_four import ConnectFour
from renshu.envs.builtin.othello import Othello
from renshu.envs.builtin.tic_tac_toe import TicTacToe
from renshu.errors import HyperparameterError

KEY = jax.random.key(0)
step = jax.jit(lambda env, state, action: env.step(state, action, KEY), static_argnums=0)


def play(env, moves):
    """Play moves by their names; return what the last one gave."""
    number = {env.action_name(action): action for action in range(int(env.action_space.n))}
    state, after = env.reset(KEY)[0], None
    for name in moves.split():
        assert after is None or not after.terminated
        assert env.action_mask(state)[number[name]]
        after = step(env, state, jnp.int32(number[name]))
        state = after.state
    return after


def allowed(env, state):
    return {env.action_name(int(action)) for action in np.flatnonzero(env.action_mask(state))}


class TestTicTacToe:
    ENV = TicTacToe()

    @pytest.mark.parametrize(
        ("moves", "reward"),
        [
            ("a3 a2 b3 b2 c3", [1, -1]),  # the top row
            ("a3 b3 a2 b2 c1 b1", [-1, 1]),  # the middle column, by seat 1
            ("a1 a2 b2 b1 c3", [1, -1]),  # a diagonal
            ("c1 a1 b2 a2 a3", [1, -1]),
            ("a3 b2 c1 c3 a1 b1 c2 a2 b3", [0, 0]),
            ("a3 b3 b2 c2 c3 a2 b1 a1 c1", [1, -1]),  # the last square makes a line
        ],
    )
    def test_ends(self, moves, reward):
        after = play(self.ENV, moves)
        assert after.terminated
        assert after.reward.tolist() == reward

    def test_the_observation_is_of_the_player_to_move(self):
        one = play(self.ENV, "a3")
        assert not one.terminated
        assert one.reward.tolist() == [0, 0]
        assert one.obs[..., 0].sum() == 0
        assert one.obs[0, 0, 1] == 1
        two = play(self.ENV, "a3 c1")
        assert np.argwhere(two.obs).tolist() == [[0, 0, 0], [2, 2, 1]]
        assert int(self.ENV.to_play(one.state)) == 1
        assert int(self.ENV.to_play(two.state)) == 0

    def test_mask_and_names(self):
        names = ["a3", "b3", "c3", "a2", "b2", "c2", "a1", "b1", "c1"]
        assert [self.ENV.action_name(i) for i in range(9)] == names
        assert allowed(self.ENV, play(self.ENV, "b2 a1").state) == set(names) - {"b2", "a1"}

    def test_text(self):
        assert self.ENV.text(self.ENV.reset(KEY)[0]) == "3 . . .\n2 . . .\n1 . . .\n  a b c\nX to move"
        assert self.ENV.text(play(self.ENV, "b2 a1 c3").state) == "3 . . X\n2 . X .\n1 O . .\n  a b c\nO to move"
        assert self.ENV.text(play(self.ENV, "a3 a2 b3 b2 c3").state).endswith("X has won")
        assert self.ENV.text(play(self.ENV, "a3 b3 a2 b2 c1 b1").state).endswith("O has won")
        assert self.ENV.text(play(self.ENV, "a3 b2 c1 c3 a1 b1 c2 a2 b3").state).endswith("Draw")

    def test_picture(self):
        image = self.ENV.render(jax.device_get(play(self.ENV, "a3 c1").state))
        assert image.shape == (240, 240, 3)
        assert image[40, 40].tolist() == [50, 90, 200]  # the middle of the cross
        assert image[200, 200].tolist() == image[120, 120].tolist() == [250, 248, 240]  # a ring has none
        assert (image[160:, 160:] == (220, 90, 90)).all(-1).any()


class TestConnectFour:
    ENV = ConnectFour()

    @pytest.mark.parametrize(
        ("moves", "reward"),
        [
            ("1 2 1 2 1 2 1", [1, -1]),  # upright, at the left edge
            ("7 6 7 6 7 6 1 6", [-1, 1]),
            ("4 4 5 5 6 6 7", [1, -1]),  # level, up to the right edge
            ("1 2 2 3 4 3 3 4 4 6 4", [1, -1]),  # rising
            ("7 6 6 5 4 5 5 4 4 2 4", [1, -1]),  # falling
            ("1 1 1 1 1 1 2 2 2 2 2 2 3 3 3 3 3 3 5 4 4 4 4 4 4 5 5 5 5 5 6 6 6 6 6 6 7 7 7 7 7 7", [0, 0]),
        ],
    )
    def test_ends(self, moves, reward):
        after = play(self.ENV, moves)
        assert after.terminated
        assert after.reward.tolist() == reward

    @pytest.mark.parametrize("moves", ["7 1 7 1 7 1", "4 5 5 6 6 7", "1 7 1 6 1 5 7 7"])
    def test_lines_do_not_go_round_an_edge(self, moves):
        assert not play(self.ENV, moves).terminated

    def test_the_observation_is_of_the_player_to_move(self):
        assert np.argwhere(play(self.ENV, "4").obs).tolist() == [[5, 3, 1]]
        assert np.argwhere(play(self.ENV, "4 4 1").obs).tolist() == [[4, 3, 0], [5, 0, 1], [5, 3, 1]]

    def test_a_full_column_is_not_allowed(self):
        state = play(self.ENV, "3 3 3 3 3 3").state
        assert allowed(self.ENV, state) == set("124567")
        after = step(self.ENV, state, jnp.int32(2))
        assert after.terminated
        assert after.reward.tolist() == [-1, 1]

    def test_text(self):
        empty = ". . . . . . .\n"
        assert self.ENV.text(self.ENV.reset(KEY)[0]) == 6 * empty + "1 2 3 4 5 6 7\nX to move"
        text = self.ENV.text(play(self.ENV, "1 1 7").state)
        assert text == 4 * empty + "O . . . . . .\nX . . . . . X\n1 2 3 4 5 6 7\nO to move"
        assert self.ENV.text(play(self.ENV, "1 2 1 2 1 2 1").state).endswith("X has won")

    def test_picture(self):
        image = self.ENV.render(jax.device_get(play(self.ENV, "1 7").state))
        assert image.shape == (360, 420, 3)
        assert image[330, 30].tolist() == [215, 60, 60]
        assert image[330, 390].tolist() == [245, 205, 60]
        assert image[30, 30].tolist() == [245, 245, 250]
        assert image[0, 0].tolist() == [40, 80, 170]


class TestOthello:
    ENV = Othello()

    def test_the_opening(self):
        state, obs = self.ENV.reset(KEY)
        assert np.argwhere(obs).tolist() == [[3, 3, 1], [3, 4, 0], [4, 3, 0], [4, 4, 1]]
        assert allowed(self.ENV, state) == {"d3", "c4", "f5", "e6"}
        assert np.argwhere(Othello(4).reset(KEY)[1]).tolist() == [[1, 1, 1], [1, 2, 0], [2, 1, 0], [2, 2, 1]]

    def test_discs_turn_over(self):
        after = play(self.ENV, "f5 f6 e6 f4 e3")  # the opening called "tiger"
        assert self.ENV.text(after.state) == "\n".join(
            [
                "  a b c d e f g h",
                "1 . . . . . . . .",
                "2 . . . . . . . .",
                "3 . . . . X . . .",
                "4 . . . O X O . .",
                "5 . . . X X O . .",
                "6 . . . . X O . .",
                "7 . . . . . . . .",
                "8 . . . . . . . .",
                "X 5, O 4: O to move",
            ]
        )

    def test_a_player_without_discs_has_lost(self):
        after = play(self.ENV, "e6 f4 e3 f6 g5 d6 e7 f5 c5")  # the shortest game there is
        assert after.terminated
        assert after.reward.tolist() == [1, -1]
        assert self.ENV.text(after.state).endswith("X 13, O 0: X has won")

    def test_the_pass_is_the_only_move_or_none(self):
        env = Othello(4)
        rng, passes = np.random.default_rng(0), 0
        for _ in range(30):
            state, _ = env.reset(KEY)
            while True:
                mask = np.asarray(env.action_mask(state))
                assert mask[16] == (not mask[:16].any())
                after = step(env, state, jnp.int32(rng.choice(np.flatnonzero(mask))))
                if mask[16]:
                    passes += 1
                    assert not after.terminated
                    assert (after.obs == env.observe(state)[..., ::-1]).all()
                    assert int(env.to_play(after.state)) == 1 - int(env.to_play(state))
                    refused = step(env, state, jnp.int32(0))
                    assert refused.terminated
                if after.terminated:
                    break
                state = after.state
        assert passes > 10

    def test_names(self):
        assert [self.ENV.action_name(action) for action in (0, 7, 8, 63, 64)] == ["a1", "h1", "a2", "h8", "pass"]
        assert [Othello(4).action_name(action) for action in (3, 15, 16)] == ["d1", "d4", "pass"]
        assert Othello(6).action_space.n == 37
        assert Othello(6).observation_space.shape == (6, 6, 2)

    def test_picture(self):
        image = self.ENV.render(jax.device_get(self.ENV.reset(KEY)[0]))
        assert image.shape == (400, 400, 3)
        assert image[175, 225].tolist() == image[225, 175].tolist() == [20, 20, 20]
        assert image[175, 175].tolist() == image[225, 225].tolist() == [245, 245, 245]
        assert image[25, 25].tolist() == [30, 120, 75]
        assert Othello(4).render(Othello(4).reset(KEY)[0]).shape == (200, 200, 3)

    @pytest.mark.parametrize("size", [5, 2, 10, "8", 8.0])
    def test_other_sizes_are_refused(self, size):
        with pytest.raises(HyperparameterError, match="4, 6 or 8"):
            Othello(size)
