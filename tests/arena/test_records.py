"""Records of games: written, read again, and what a damaged file says."""

import json

import numpy as np
import pytest
from PIL import Image

from renshu.arena.match import play_games
from renshu.arena.players import AlphaBeta, Pure
from renshu.arena.records import Record, demonstrations
from renshu.envs.builtin.othello import Othello
from renshu.envs.builtin.tic_tac_toe import TicTacToe
from renshu.errors import CheckpointError, HyperparameterError, RenshuError
from tests.arena.toys import PAID, TURNS, Chain, Dice

pytestmark = pytest.mark.usefixtures("compiled_fast")


def record(game=None, number=1, seed=3):
    game = TicTacToe() if game is None else game
    return Record.of(game, play_games(game, [Pure(), Pure(name="other")], 3, seed=seed), number)


def test_a_file_gives_the_same_game_back(tmp_path):
    for game in (TicTacToe(), Othello(4)):
        written = record(game)
        path = written.write(tmp_path / "some" / "game.json")
        assert Record.read(path) == written
    about = json.loads(path.read_text())
    assert about["game"] == "renshu/Othello-v0"
    assert about["kwargs"] == {"size": 4}
    assert about["seats"] == ["random", "other"]
    assert about["moves"][0] == {"seat": 0, "action": written.moves[0], "name": game.action_name(written.moves[0])}
    assert path.stat().st_size < 4000


def test_chance_is_played_again(tmp_path):
    for number in range(3):
        written = record(Dice(), number)
        path = written.write(tmp_path / "game.json")
        read = Record.read(path, game=Dice())
        assert read == written
        assert sum(float(moment.reward[0]) for moment in read.moments()) == written.result[0]
    with pytest.raises(CheckpointError, match=r"Dice-v0.*no game of this library"):
        Record.read(path)


def test_text_tells_every_move():
    game = TicTacToe()
    text = Record.of(game, play_games(game, [AlphaBeta(game), Pure()], 1, seed=0)).text()
    assert text.startswith("renshu/TicTacToe-v0: perfect in seat 0, random in seat 1\n\n3 . . .")
    assert "\n1. perfect: " in text
    assert "\n2. random: " in text
    assert text.endswith("X has won\n\nperfect 1, random -1\n")


@pytest.mark.parametrize("suffix", [".gif", ".mp4", ".txt", ".json"])
def test_saved_by_the_name(tmp_path, suffix):
    saved = record()
    path = saved.save(tmp_path / f"game{suffix}")
    assert path.stat().st_size > 200
    if suffix == ".gif":
        image = Image.open(path)
        assert image.n_frames == len(saved.moves) + 1  # Pillow joins those that are the same
        assert image.size == (240, 240)
    if suffix == ".txt":
        assert path.read_text() == saved.text()


def test_another_suffix():
    with pytest.raises(RenshuError, match=r"\.json, \.txt, \.gif or \.mp4"):
        record().save("game.png")


def test_damaged_files(tmp_path):
    path = record().write(tmp_path / "game.json")
    whole = path.read_text()

    def refused(text, match):
        path.write_text(text)
        with pytest.raises(CheckpointError, match=match):
            Record.read(path)

    for length in (0, 20, len(whole) // 2, len(whole) - 3):
        refused(whole[:length], "no record of a game, or was cut short")
    about = json.loads(whole)
    refused(json.dumps({**about, "moves": about["moves"][:-1]}), "changed, cut short, or is of other rules")
    refused(json.dumps({**about, "moves": [*about["moves"], about["moves"][0]]}), "not allowed")
    refused(json.dumps({**about, "result": [7.0, -7.0]}), "changed")
    refused(json.dumps({**about, "moves": [{**about["moves"][0], "action": 99}]}), "not allowed")
    refused(json.dumps({**about, "moves": [3]}), "no whole record")
    refused(json.dumps({**about, "seed": -1}), "no whole record")
    wrong = [{**about["moves"][0], "name": "z9"}, *about["moves"][1:]]
    refused(json.dumps({**about, "moves": wrong}), "other names")
    refused(json.dumps({**about, "format": 2}), "format 1")
    refused("[]", "no record")
    refused(json.dumps({**about, "game": "renshu/CartPole-v1"}), "no game of this library")
    refused(json.dumps({**about, "game": "os:system"}), "no game of this library")
    refused(json.dumps({**about, "kwargs": {"size": 6}}), "no setting size")
    with pytest.raises(CheckpointError, match="cannot read"):
        Record.read(tmp_path / "missing.json")


def test_a_record_of_another_game(tmp_path):
    path = record().write(tmp_path / "game.json")
    with pytest.raises(CheckpointError, match=r"record of renshu/TicTacToe-v0, not of renshu/Othello-v0"):
        Record.read(path, game=Othello(4))
    path = record(Othello(4)).write(tmp_path / "game.json")
    with pytest.raises(CheckpointError, match=r"'size': 4.*'size': 6"):
        Record.read(path, game=Othello(6))


def test_demonstrations_are_episodes_of_each_player():
    games = play_games(Chain(), [Pure(), Pure()], 2, seed=0)
    data = demonstrations([Record.of(Chain(), games, i) for i in range(2)], masks=True)
    assert data.steps == 2 * len(TURNS)
    (rollout,) = data.chunks()
    real = rollout.valid[:, 0]
    actions, rewards = rollout.action[real, 0], rollout.reward[real, 0]
    played = games.actions[:, 0].tolist()
    paid = [PAID[i, ([3, *played])[i], played[i]] for i in range(7)]
    ours = [i for i in range(7) if TURNS[i] == 0]  # 0, 1, 3, 6
    assert actions[:4].tolist() == [played[i] for i in ours]
    np.testing.assert_allclose(rewards[:4], [paid[0], paid[1] + paid[2], paid[3] + paid[4] + paid[5], paid[6]])
    theirs = [i for i in range(7) if TURNS[i] == 1]  # 2, 4, 5
    assert actions[4:7].tolist() == [played[i] for i in theirs]
    np.testing.assert_allclose(rewards[4:7], [-paid[2] - paid[3], -paid[4], -paid[5] - paid[6]])
    assert rollout.terminated[real, 0].tolist() == [False] * 3 + [True] + [False] * 2 + [True] + (
        [False] * 3 + [True] + [False] * 2 + [True]
    )
    masks = rollout.obs["action_mask"][:-1][real, 0]
    assert (np.take_along_axis(masks, actions[:, None], 1) == 1).all()


def test_demonstrations_of_winners_are_learned():
    from renshu import DQN

    game = TicTacToe()
    games = play_games(game, [AlphaBeta(game), Pure()], 4, seed=0)
    records = [Record.of(game, games, i) for i in range(4)]
    winners = demonstrations(records, masks=True, winners=True)
    assert winners.steps < demonstrations(records, masks=True).steps
    agent = DQN(net_arch=[8], learning_starts=0, batch_size=4).on(winners, seed=0)
    agent.learn(20, progress=False)
    assert agent.steps >= 20
    with pytest.raises(HyperparameterError, match="no moves"):
        demonstrations([])
