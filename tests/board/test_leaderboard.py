from renshu.board.catalogue import Catalogue
from renshu.board.leaderboard import rankings, zoo_score
from renshu.tracking.scores import note_score
from tests.board.runs import write_run


def test_runs_are_ranked_by_their_mean_less_one_deviation(tmp_path):
    for name, returns in (("steady", [95.0, 97.0]), ("wild", [60.0, 140.0]), ("weak", [10.0, 10.0])):
        note_score(write_run(tmp_path / name, evaluated=0), 600, returns * 50, [10] * 100)
    write_run(tmp_path / "unranked", evaluated=10)
    write_run(tmp_path / "other", environment="Own-v0")
    catalogue = Catalogue(tmp_path)
    catalogue.refresh()
    first, second = rankings(catalogue.runs.values())
    assert [row.name for row, _ in first.rows] == ["steady", "wild", "weak"]
    assert [score.lower for _, score in first.rows] == [95, 60, 10]
    assert [row.solved for row, _ in first.rows] == [True, True, False]
    assert [row.name for row in first.unranked] == ["unranked"]
    assert first.zoo is not None
    assert (first.zoo.algorithm, first.zoo.mean) == ("PPO", 500)
    assert (second.environment, second.zoo) == ("Own-v0", None)


def test_equal_environments_of_renshu_have_the_same_score_to_beat():
    assert zoo_score("renshu/Acrobot-v1") == zoo_score("Acrobot-v1") is not None
    hardcore = zoo_score("BipedalWalkerHardcore-v3")
    assert hardcore is not None
    assert hardcore.lower == 235 - 111


def test_a_deviation_that_is_not_published_is_not_made_up():
    acrobot = zoo_score("Acrobot-v1")
    assert acrobot is not None
    assert acrobot.lower is None
