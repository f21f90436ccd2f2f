"""Ratings, and everyone against everyone."""

import csv
import io

import numpy as np
import pytest
from PIL import Image
from rich.console import Console

from renshu.arena.league import ELO, play_league, ratings
from renshu.arena.players import AlphaBeta, Pure
from renshu.envs.builtin.tic_tac_toe import TicTacToe
from renshu.errors import HyperparameterError, RenshuError

TRUE = np.array([0.0, 150.0, -100.0, 300.0, 420.0])


def played(rng, true, count, draws=0.0):
    """Points and games of simulated matches: a share of the games is drawn, as likely as strengths are near."""
    n = len(true)
    points, games = np.zeros((n, n)), np.zeros((n, n))
    for a in range(n):
        for b in range(a + 1, n):
            expected = 1 / (1 + 10 ** ((true[b] - true[a]) / 400))
            drawn = draws * 2 * min(expected, 1 - expected)
            outcome = rng.choice([1.0, 0.5, 0.0], count, p=[expected - drawn / 2, drawn, 1 - expected - drawn / 2])
            points[a, b], points[b, a] = outcome.sum(), count - outcome.sum()
            games[a, b] = games[b, a] = count
    return points, games


@pytest.mark.parametrize("anchor", [0, None])
def test_known_strengths_are_found_within_their_intervals(anchor):
    true = TRUE - (TRUE[0] if anchor == 0 else TRUE.mean())
    rng, inside, total = np.random.default_rng(0), 0, 0
    for _ in range(100):
        found = ratings(*played(rng, TRUE, 100), anchor)
        others = np.arange(len(TRUE)) != anchor
        inside += ((found.low <= true) & (true <= found.high))[others].sum()
        total += others.sum()
    assert 0.92 <= inside / total <= 0.98
    if anchor == 0:
        assert found.elo[0] == found.low[0] == found.high[0] == 0
    else:
        assert found.elo.mean() == pytest.approx(0)


def test_many_games_leave_little_error():
    found = ratings(*played(np.random.default_rng(1), TRUE, 20_000, draws=0.5), 0)
    np.testing.assert_allclose(found.elo, TRUE, atol=8)
    assert (found.high - found.low)[1:].max() < 20


def test_two_players_have_the_closed_form():
    # 75 of 100: odds of 3, but for the prior of half a draw against the average.
    found = ratings(np.array([[0, 75], [25, 0]]), np.array([[0, 100], [100, 0]]), 1)
    assert found.elo[0] == pytest.approx(ELO * np.log(3), abs=2)
    width = 1.96 * ELO / np.sqrt(100 * 0.75 * 0.25)
    assert found.high[0] - found.elo[0] == pytest.approx(width, rel=0.02)


def test_all_won_stays_finite_and_far():
    points = np.array([[0, 50, 50], [0, 0, 50], [0, 0, 0.0]])
    found = ratings(points, 50.0 * (1 - np.eye(3)))
    assert np.isfinite(found.elo).all()
    assert np.isfinite(found.high).all()
    assert found.elo[0] - found.elo[1] > 400
    assert found.low[0] > found.high[2]


def test_points_that_do_not_add_up():
    with pytest.raises(HyperparameterError, match="add up"):
        ratings(np.array([[0, 3], [3, 0]]), np.array([[0, 5], [5, 0]]))
    with pytest.raises(HyperparameterError, match="anchor=2"):
        ratings(np.zeros((2, 2)), np.zeros((2, 2)), 2)


@pytest.fixture(scope="module")
def league():
    game, told = TicTacToe(), []
    players = [Pure(), AlphaBeta(game), AlphaBeta(game, 1)]
    found = play_league(game, players, 40, 0, tell=told.append)
    assert [result.names for result in told] == [
        ("random", "perfect"),
        ("random", "alphabeta:1"),
        ("perfect", "alphabeta:1"),
    ]
    return found


def test_a_league_knows_who_is_better(league):
    assert [league.names[i] for i in league.order] == ["perfect", "alphabeta:1", "random"]
    assert league.ratings.elo[0] == 0
    assert league.games.tolist() == (40 * (1 - np.eye(3))).tolist()
    assert (league.points + league.points.T == league.games).all()
    assert league.points[1, 0] > 32
    assert league._counts(1)[2] == 0


def test_tables_and_picture(league, tmp_path):
    console = Console(width=100, file=io.StringIO(), force_terminal=False)
    console.print(league.table())
    lines = console.file.getvalue().splitlines()
    assert "renshu/TicTacToe-v0, 120 games" in lines[0]
    assert [line.split()[0] for line in lines[2:]] == ["perfect", "alphabeta:1", "random"]
    ratings_csv, matches_csv, picture = league.save(tmp_path / "new" / "folder")
    rows = list(csv.DictReader(ratings_csv.open()))
    assert [row["name"] for row in rows] == ["perfect", "alphabeta:1", "random"]
    assert float(rows[0]["low"]) < float(rows[0]["elo"]) < float(rows[0]["high"])
    assert sum(int(row["won"]) - int(row["lost"]) for row in rows) == 0
    rows = list(csv.DictReader(matches_csv.open()))
    assert len(rows) == 6
    assert sum(int(row[name]) for row in rows for name in ("won", "drawn", "lost")) == 120
    image = np.asarray(Image.open(picture).convert("RGB"))
    assert image.shape[1] == 1650
    assert len(np.unique(image.reshape(-1, 3), axis=0)) > 50


def test_a_folder_that_cannot_be_written(league, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(RenshuError, match="cannot write"):
        league.save(tmp_path / "file" / "folder")


def test_names_must_differ():
    with pytest.raises(HyperparameterError, match="different names"):
        play_league(TicTacToe(), [Pure(), Pure()], 2, 0)
