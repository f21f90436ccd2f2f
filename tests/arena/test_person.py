"""A person at the terminal, played by a script."""

import numpy as np
import pytest

from renshu.arena.match import match, play_games
from renshu.arena.person import HELP, Person
from renshu.arena.players import AlphaBeta, Competitor, Left, Pure
from renshu.envs.builtin.connect_four import ConnectFour
from renshu.envs.builtin.tic_tac_toe import TicTacToe
from renshu.envs.players import Player
from renshu.errors import HyperparameterError
from tests.arena.toys import Chain

pytestmark = pytest.mark.usefixtures("compiled_fast")


class FirstFree(Competitor):
    """Chooses the first action that is allowed, and counts its own moves in attributes."""

    name = "first"

    def begin(self, count, seed):
        self.moves = 0

    def choose(self, view):
        assert view.first[0] == (self.moves == 0)
        self.moves += 1
        return view.legal.argmax(1)


def session(answers, game=None, other=None, seat=0, explain=None):
    """Play a game by a list of answers. Returns what was shown, and the games or None where the person left."""
    game = TicTacToe() if game is None else game
    shown, lines = [], iter(answers)

    def ask(prompt):
        shown.append(prompt)
        try:
            return next(lines)
        except StopIteration:
            raise EOFError from None

    person = Person(game, ask=ask, tell=shown.append, explain=explain)
    other = FirstFree() if other is None else other
    try:
        games = play_games(game, [person, other] if seat == 0 else [other, person], 1, seed=0)
    except Left:
        games = None
    return shown, games


def test_a_whole_game():
    shown, games = session(["b2", "C3", " a1 "])
    assert games.actions[:, 0].tolist() == [4, 0, 2, 1, 6]
    assert games.returns.tolist() == [[1, -1]]
    assert shown[0].startswith("3 . . .")
    assert shown[1] == "moves: a3 b3 c3 a2 b2 c2 a1 b1 c1"
    assert shown[2] == "you: "
    assert shown[3] == "first played a3"
    assert shown[4].startswith("3 O . .\n2 . X .")
    assert shown[5] == "moves: b3 c3 a2 c2 a1 b1 c1"
    assert shown[-1].endswith("X has won")


def test_in_the_other_seat():
    shown, games = session(["b2", "c3", "a1"], seat=1)
    assert shown[0] == "first played a3"
    assert games.actions[:, 0].tolist()[:2] == [0, 4]


def test_wrong_answers_are_explained_and_asked_again():
    shown, games = session(["b2", "b2", "z7", "", "99", "help", "2", "6"])
    assert 'b2 is not allowed now; allowed are: b3 c3 a2 c2 a1 b1 c1 (or "help")' in shown
    assert any(str(line).startswith("there is no move 'z7'; allowed are: b3") for line in shown)
    assert any(str(line).startswith("a move is wanted; allowed are") for line in shown)
    assert any(str(line).startswith("there is no move '99'") for line in shown)
    assert HELP in shown
    assert games.actions[:, 0].tolist() == [4, 0, 2, 1, 6]  # numbers of actions


def test_names_that_are_numbers_are_what_people_see():
    shown, games = session(["1", "0", "1", "1", "1"], ConnectFour(), Pure(OtherColumn()))
    assert any(str(line).startswith("there is no move '0'; allowed are: 1 2") for line in shown)
    assert games.actions[::2, 0].tolist() == [0, 0, 0, 0]
    assert games.returns.tolist() == [[1, -1]]


class OtherColumn(Player):
    """Plays column 7, and remembers how often."""

    def begin(self, key):
        return np.int32(0)

    def move(self, memory, sight, key):
        return 6 - memory // 3, memory + 1


def test_undo_takes_back_a_round():
    shown, games = session(["undo", "b2", "c3", "undo", "undo", "u", "a2", "b2", "undo", "c2", "b2", "a1", "c1"])
    assert shown.count("there is no move of yours to take back yet") == 2
    # b2, c3 taken back one after the other; then a2, b2, of which the last is taken back: c2 in its place, then b2.
    assert games.actions[:5, 0].tolist() == [3, 0, 5, 1, 4]
    assert games.returns.tolist() == [[1, -1]]


def test_undo_gives_others_their_memory_back():
    # After three moves the other one changes the column: two moves that were taken back do not count.
    answers = ["1", "2", "undo", "undo", "1", "2", "1", "2", "1", "2", "1"]
    _, games = session(answers, ConnectFour(), Pure(OtherColumn()))
    assert games.actions[:, 0].tolist() == [0, 6, 1, 6, 0, 6, 1, 5, 0, 5, 1, 5, 0]
    assert games.returns.tolist() == [[1, -1]]


def test_undo_where_a_player_moves_several_times_in_a_row():
    _, games = session(["0", "undo", "1", "2", "undo", "0", "2", "2"], Chain())
    assert games.actions[:, 0].tolist() == [1, 0, 1, 2, 0, 1, 2]


@pytest.mark.parametrize("answers", [["b2", "quit"], ["b2", "Q"], ["b2"]], ids=["quit", "q", "end of input"])
def test_leaving(answers):
    shown, games = session(answers)
    assert games is None
    assert shown[-1] == "you: "


def test_numbers_beside_moves():
    def explain(view):
        assert view.legal.shape == (1, 9)
        numbers = np.arange(9.0)[None] / 8
        return {"action_values": np.where(numbers > 0.9, np.nan, numbers), "value": np.zeros(1)}

    shown, _ = session(["b2", "quit"], explain=explain)
    at = shown.index(next(line for line in shown if "action values" in str(line)))
    assert "value" not in str(shown[at]).replace("action values", "")
    rows = [line.split() for line in shown[at + 1 : at + 10]]
    assert rows[0] == ["a3", "0"]
    assert rows[4] == ["b2", "0.5"]
    assert rows[8] == ["c1", "-"]


def test_one_game_at_a_time_and_all_the_time_it_wants():
    person = Person(TicTacToe(), ask=lambda prompt: "b2")
    with pytest.raises(HyperparameterError, match="one game at a time"):
        play_games(TicTacToe(), [person, Pure()], 2, seed=0)


def test_against_perfect_play():
    answers = iter(["a3", "b3", "c3", "a2", "b2", "c2", "a1", "b1", "c1"] * 20)
    person = Person(TicTacToe(), ask=lambda prompt: next(answers), tell=lambda line: None)
    games = play_games(TicTacToe(), [person, AlphaBeta(TicTacToe())], 1, seed=0)
    assert games.returns[0, 0] <= 0


def test_undo_of_two_people_asks_the_one_who_took_back():
    shown, lines = [], iter(["a1", "b1", "undo", "c1"])
    asked = []

    def ask(prompt):
        asked.append(prompt)
        try:
            return next(lines)
        except StopIteration:
            raise EOFError from None

    people = [Person(TicTacToe(), name, ask=ask, tell=shown.append) for name in ("Ann", "Bob")]
    with pytest.raises(Left):
        play_games(TicTacToe(), people, 1, seed=0)
    # Ann has moved twice by then: her undo is asked for at her second move, and leads to her first.
    assert asked == ["Ann: ", "Bob: ", "Ann: ", "Ann: ", "Bob: "]


def test_a_match_is_played_one_by_one_and_may_be_left():
    def people(lines):
        left = iter(lines)

        def ask(prompt):
            try:
                return next(left)
            except StopIteration:
                raise EOFError from None

        return Person(TicTacToe(), ask=ask, tell=lambda line: None)

    # In the first game a row of its own; the second is left.
    result = match(TicTacToe(), people(["a1", "b1", "c1"]), FirstFree(), 4, seed=0)
    assert (result.wins, result.games) == (1, 1)
    with pytest.raises(Left, match="before it was over"):
        match(TicTacToe(), people([]), FirstFree(), 4, seed=0)
