"""The commands `renshu play` and `renshu league`."""

import csv
import json
import re

import pytest
from PIL import Image
from typer.testing import CliRunner

from renshu import PPO, AlphaZero
from renshu.cli import app
from renshu.envs.builtin.tic_tac_toe import TicTacToe

pytestmark = pytest.mark.usefixtures("compiled_fast")
TINY = {"n_steps": 16, "batch_size": 32, "n_epochs": 1, "net_arch": [8]}


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "120")


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A run folder and a file of agents for tic-tac-toe. They are only read."""
    path = tmp_path_factory.mktemp("play")
    ppo = PPO(**TINY).on("renshu/TicTacToe-v0", num_envs=2, seed=0)
    ppo.learn(64, run=path / "learned", progress=False)
    planner = AlphaZero(n_blocks=1, n_channels=8, num_simulations=2).on(TicTacToe(), num_envs=2, seed=0)
    planner.save(path / "planner")
    return path


def invoke(*line, code=0, text=""):
    result = CliRunner().invoke(app, [str(word) for word in line], input=text)
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    assert result.exit_code == code, result.output
    return result.output


def refused(*line):
    output = " ".join(invoke(*line, code=2).replace("│", " ").split())
    assert "Traceback" not in output
    return output


def test_a_person_plays_and_the_game_is_saved(tmp_path):
    moves = "\n".join(["a3", "b3", "c3", "a2", "b2", "c2", "a1", "b1", "c1"] * 5)
    output = invoke("play", "tictactoe", "--against", "perfect", "--record", "game.json", "--seed", 1, text=moves)
    assert "you are in seat 0, perfect in seat 1" in output
    assert "perfect played" in output
    assert re.search("you have lost|a draw", output)
    about = json.loads((tmp_path / "game.json").read_text())
    assert about["seats"] == ["you", "perfect"]
    assert about["moves"][0]["name"] == "a3"


def test_several_games_in_both_seats(tmp_path):
    moves = "\n".join(["a3", "b3", "c3", "a2", "b2", "c2", "a1", "b1", "c1"] * 9)
    line = ["play", "renshu/TicTacToe-v0", "--against", "random", "--games", 2, "--record", "game.txt", "--seed", 3]
    output = invoke(*line, text=moves)
    assert "game 1: you are in seat 0" in output
    assert "game 2: you are in seat 1" in output
    counts = [int(x) for x in re.search(r"(\d) won, (\d) drawn, (\d) lost", output).groups()]
    assert sum(counts) == 2
    assert sorted(path.name for path in tmp_path.iterdir()) == ["game-1.txt", "game-2.txt"]
    assert "1. you: a3" in (tmp_path / "game-1.txt").read_text()


def test_leaving_saves_nothing(tmp_path):
    output = invoke("play", "tictactoe", "--against", "random", "--record", "game.json", text="b2\nquit\n")
    assert output.rstrip().endswith("you have left the game")
    assert not (tmp_path / "game.json").exists()


def test_someone_else_plays(tmp_path):
    line = ["play", "tic_tac_toe", "--player", "perfect", "--against", "random"]
    output = invoke(*line, "--games", 20, "--seed", 0)
    won, drawn, lost = map(int, re.search(r"(\d+) won, (\d+) drawn, (\d+) lost", output).groups())
    assert (won + drawn + lost, lost) == (20, 0)
    output = invoke(*line, "--seat", 1, "--record", "game.gif", "--seed", 0)
    assert "perfect against random: " in output
    assert Image.open(tmp_path / "game.gif").n_frames > 4


@pytest.mark.parametrize(
    "name", ["ConnectFour", "connect_four", "connectfour", "renshu/ConnectFour-v0", "CONNECT-FOUR"]
)
def test_names_of_games(name):
    assert "alphabeta:1 against random" in invoke("play", name, "--player", "alphabeta:1", "--against", "random")


def test_settings_of_games():
    output = invoke("play", "othello", "--env-set", "size=4", "--player", "perfect", "--against", "random", "--seat", 1)
    assert "perfect against random: 1 won" in output  # white wins
    assert "has no setting sise" in refused("play", "othello", "--env-set", "sise=4")


def test_agents_by_run_folder_and_file(trained):
    line = ["play", "tictactoe", "--player", trained / "planner", "--against", trained / "learned", "--openings", 1]
    output = invoke(*line, "--games", 20, "--simulations", 100, "--seed", 0)
    assert "planner against learned: " in output
    assert float(re.search(r"score ([\d.]+)", output)[1]) >= 0.8
    output = invoke("play", "tictactoe", "--against", trained / "planner", "--explain", text="quit\n")
    assert "search policy" in output
    assert "visits" in output


def test_the_agent_that_comes_with_the_game():
    output = invoke("play", "tictactoe", "--against", "baseline", "--player", "random", "--seed", 0)
    assert "random against baseline: 0 won" in output
    assert "there is one for" in refused("play", "stone_taking", "--against", "baseline")


def test_what_is_refused(trained, tmp_path):
    assert "'tictacto'. Did you mean TicTacToe" in refused("play", "tictacto")
    assert "no game of two players is called '2048'" in refused("play", "2048")
    assert "Did you mean random?" in refused("play", "tictactoe", "--against", "randon")
    assert "expected alphabeta:N" in refused("play", "tictactoe", "--against", "alphabeta:x")
    assert "expected perfect" in refused("play", "tictactoe", "--against", "perfect:3")
    assert "not to game.png" in refused("play", "tictactoe", "--record", "game.png")
    assert "leave --player out" in refused("play", "tictactoe", "--explain", "--player", "random")
    assert "random has nothing to explain" in refused("play", "tictactoe", "--explain", "--against", "random")
    output = refused("play", "connectfour", "--player", trained / "learned", "--against", "random")
    assert "has learned renshu/TicTacToe-v0; this is renshu/ConnectFour-v0" in output
    (tmp_path / "empty").mkdir()
    assert "empty" in refused("play", "tictactoe", "--against", "empty")


def test_a_league(trained, tmp_path):
    players = [trained / "learned", "random", "perfect", "alphabeta:1"]
    output = invoke("league", *players, "--game", "tictactoe", "--games", 10, "--openings", 0, "--out", "league")
    lines = output.splitlines()
    assert sum(" against " in line for line in lines) == 6
    at = next(i for i, line in enumerate(lines) if "95 % interval" in line)
    assert lines[at + 1].split()[0] == "perfect"
    assert {line.split()[0] for line in lines[at + 1 : at + 5]} == {"learned", "random", "perfect", "alphabeta:1"}
    rows = list(csv.DictReader((tmp_path / "league" / "ratings.csv").open()))
    assert rows[0]["name"] == "perfect"
    assert next(row["elo"] for row in rows if row["name"] == "random") == "0.0"
    assert (tmp_path / "league" / "league.png").exists()


def test_what_a_league_refuses():
    assert "even number" in refused("league", "random", "perfect", "--game", "tictactoe", "--games", 3)
    assert "two competitors or more" in refused("league", "random", "--game", "tictactoe")
    assert "different names" in refused("league", "random", "random", "--game", "tictactoe")
