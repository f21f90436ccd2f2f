import numpy as np
import pytest

from renshu import PPO
from renshu.board.catalogue import Catalogue
from renshu.board.comparing import against_preset, grouped, tables_of
from renshu.errors import UnknownNameError
from tests.board.runs import write_run


def groups_of(folder):
    catalogue = Catalogue(folder)
    catalogue.refresh()
    return grouped(catalogue.runs.values())


def test_runs_that_differ_in_their_seed_alone_are_one_group(tmp_path):
    for seed in range(3):
        write_run(tmp_path / f"a{seed}", seed=seed, level=100 + seed, episodes=100, eval_every=seed + 1)
    write_run(tmp_path / "b", episodes=100, hyperparameters={"learning_rate": 1e-3, "gamma": 0.99})
    write_run(tmp_path / "c", algorithm="DQN")
    write_run(tmp_path / "d", environment="Acrobot-v1")
    found = {(group.environment, group.curves.label): group for group in groups_of(tmp_path)}
    assert set(found) == {
        ("CartPole-v1", "PPO learning_rate=0.0003"),
        ("CartPole-v1", "PPO learning_rate=0.001"),
        ("CartPole-v1", "DQN"),
        ("Acrobot-v1", "PPO"),
    }
    three = found["CartPole-v1", "PPO learning_rate=0.0003"]
    assert sorted(three.names) == ["a0", "a1", "a2"]
    assert three.settings == {"learning_rate": "0.0003"}
    value, low, high = three.final()
    # The last tenth of 100 episodes that rise to 100, 101 and 102.
    assert value == pytest.approx(101 * np.linspace(0, 1, 100)[-10:].mean())
    assert low < value < high


def test_points_hold_the_mean_of_the_episodes_since_the_one_before(tmp_path):
    path = write_run(tmp_path / "a", episodes=400, level=399)
    (group,) = groups_of(tmp_path)
    returns = tables_of(path)[0]["episodes"]["return"]
    assert group.curves.steps[:2].tolist() == [40, 80]
    np.testing.assert_allclose(group.curves.returns[0], returns.reshape(100, 4).mean(axis=1))


def test_a_shorter_run_ends_where_it_ended(tmp_path):
    write_run(tmp_path / "a", episodes=100, total_steps=1)
    write_run(tmp_path / "b", episodes=50, total_steps=1)
    (group,) = groups_of(tmp_path)
    assert np.isfinite(group.curves.returns).sum(axis=1).tolist() in ([100, 50], [50, 100])


def test_a_run_without_an_episode_and_one_that_is_damaged_do_no_harm(tmp_path):
    write_run(tmp_path / "a", episodes=0)
    write_run(tmp_path / "b")
    (tmp_path / "b" / "settings.json").write_text("{")
    (group,) = groups_of(tmp_path)
    assert group.curves.steps.size == 0


def test_steps_out_of_order_do_no_harm(tmp_path):
    path = write_run(tmp_path / "a")
    with open(path / "episodes.csv", "a") as file:
        file.write("500000,0,1,1,1\n20,0,1,1,1\n-4,0,1,1,1\n")
    (group,) = groups_of(tmp_path)
    assert group.curves.steps[-1] == 500_000


def test_runs_that_ended_early_are_counted_apart(tmp_path):
    for seed, episodes in enumerate((100, 100, 30)):
        write_run(tmp_path / f"{seed}", seed=seed, episodes=episodes, total_steps=1000)
    (group,) = groups_of(tmp_path)
    assert (group.known, len(group.names)) == (2, 3)


def test_labels_that_are_cut_alike_stay_apart(tmp_path):
    long = {f"a_long_hyperparameter_{i}": 1 for i in range(5)}
    for number in range(2):
        changed = {name: number for name in long} | {"z": number}
        write_run(tmp_path / f"{number}a", hyperparameters=changed)
        write_run(tmp_path / f"{number}b", hyperparameters=changed | {"z": 5})
    labels = [group.curves.label for group in groups_of(tmp_path)]
    assert len(set(labels)) == len(labels) == 4


def test_a_table_that_cannot_be_read_is_named_and_the_others_are_read(tmp_path):
    path = write_run(tmp_path / "a")
    (path / "metrics.csv").write_text("step,loss\nx,y\n")
    tables, faults = tables_of(path)
    assert len(faults) == 1
    assert "metrics.csv" in faults[0]
    assert tables["metrics"]["step"].size == 0
    assert tables["episodes"]["step"].size == 60


def test_hyperparameters_are_held_against_the_preset():
    chosen = PPO().to_json() | {"gamma": 0.5}
    name, differing = against_preset({"algorithm": "PPO", "environment": "NoSuch-v0", "hyperparameters": chosen})
    assert (name, differing) == ("the defaults", {"gamma": "0.99"})
    name, differing = against_preset({"algorithm": "PPO", "environment": "CartPole-v1", "hyperparameters": chosen})
    assert name == "preset CartPole-v1"
    assert differing["gamma"] == "0.98"
    atari = {"algorithm": "PPO", "environment": "Pong-v5", "environment_id": "ALE/Pong-v5", "hyperparameters": chosen}
    assert against_preset(atari)[0] == "preset atari"
    with pytest.raises(UnknownNameError):
        against_preset({"algorithm": "Nothing", "environment": "CartPole-v1"})
