import pytest

from renshu.board.run_page import reproducing


@pytest.mark.parametrize(
    ("command", "line"),
    [
        (".venv/bin/renshu train ppo CartPole-v1", "renshu train ppo CartPole-v1 --seed 0"),
        ("renshu train ppo X --seed 7 --run runs/a --steps 5", "renshu train ppo X --seed 7 --steps 5"),
        ("renshu train ppo X --run=runs/a --seed=7", "renshu train ppo X --seed=7"),
        ("renshu train ppo X --set 'net_arch=[8, 8]'", "renshu train ppo X --set 'net_arch=[8, 8]' --seed 0"),
    ],
)
def test_the_command_trains_anew_with_the_seed_that_was_drawn(command, line):
    assert reproducing({"command": command, "seed": 0}) == line


@pytest.mark.parametrize(
    "command",
    ["python train.py", "renshu train --resume runs/a", "renshu train --resume=runs/a", "renshu", "'unclosed", None, 3],
)
def test_where_it_was_no_such_command_there_is_none(command):
    assert reproducing({"command": command, "seed": 0}) == ""
