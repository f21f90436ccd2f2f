import io
import os
import re
import select
import signal
import subprocess
import sys
import time

import gymnasium as gym
import numpy as np
import pytest
from gymnasium import spaces
from rich.console import Console

from renshu import PPO
from renshu.envs.source import EnvSource
from renshu.errors import RenshuError
from renshu.viewing.terminal import Choice, Moment, Option, page, play_through, show, step_through, text_player, turned
from tests import probes

MANY = Choice("action value", [Option(str(i), float(i % 50), i == 7) for i in range(100)], 0.0, 49.0)


def printed(moments, index, width=100):
    console = Console(file=io.StringIO(), width=width)
    console.print(page(moments, index))
    return console.file.getvalue()


def player(given, **kwargs):
    return text_player(EnvSource.of(given, kwargs))


class Values:
    """A value learner, as far as the terminal sees one: Box actions as an index of the product of a grid of points."""

    plans = False

    class fitted:
        class spec:
            action_space = spaces.Discrete(4)

        @staticmethod
        def decode_action(index):
            points = np.array([[-1, -1], [-1, 1], [1, -1], [1, 1]], np.float32)
            return points[index]

    def predict(self, obs, *, carry, deterministic):
        return np.array([1, -1], np.float32), carry

    def explain(self, obs, *, carry):
        return {"action_values": np.array([-4.0, 2.5, 3.0, -1.0])}


# --- play_through ---------------------------------------------------------------------------------------------------


def test_an_episode_of_text(tiny):
    agent, env = tiny("FrozenLake-v1"), player("FrozenLake-v1", is_slippery=False)
    moments = play_through(agent, env, seed=1, deterministic=False)
    assert 2 <= len(moments) <= 101
    assert moments[0].text == "\n\x1b[41mS\x1b[0mFFF\nFHFH\nFFFH\nHFFG\n"
    obs, _ = env.reset(seed=1)
    for i, moment in enumerate(moments[:-1]):
        assert moment.text == env.render()
        (choice,) = moment.choices
        assert (choice.title, choice.low, choice.high) == ("probability", 0.0, 1.0)
        assert [option.name for option in choice.options] == ["0", "1", "2", "3"]
        explained = agent.explain(obs)
        np.testing.assert_allclose([option.number for option in choice.options], explained["probabilities"])
        assert moment.value == pytest.approx(float(explained["value"]))
        assert [option.name for option in choice.options if option.chosen] == [moment.action]
        obs, reward, terminated, truncated, _ = env.step(int(moment.action))
        assert moments[i + 1].reward == reward
        assert (moments[i + 1].ended != "") == (terminated or truncated)
    assert moments[-1].action is None


def test_an_episode_of_numbers(tiny):
    agent, env = tiny("CartPole-v1"), player("CartPole-v1")
    moments = play_through(agent, env, seed=3)
    assert env.render_mode is None
    obs, _ = env.reset(seed=3)
    shown = np.fromstring(moments[0].text.strip("[]"), sep=" ")
    np.testing.assert_allclose(shown, obs, atol=5e-4)
    assert [moment.return_so_far for moment in moments] == list(range(len(moments)))
    assert [moment.reward for moment in moments] == [0.0] + [1.0] * (len(moments) - 1)
    for moment in moments[:-1]:
        best = max(moment.choices[0].options, key=lambda option: option.number)
        assert best.chosen
        assert best.name == moment.action
    assert (moments[-1].ended, moments[-1].choices, moments[-1].value) == ("terminated", [], None)
    assert play_through(agent, env, seed=3) == moments


def test_episodes_that_are_cut(tiny):
    agent = tiny("CartPole-v1")
    moments = play_through(agent, player("CartPole-v1"), seed=0, limit=4)
    assert (len(moments), moments[-1].ended, moments[-1].action) == (5, "cut", None)
    assert moments[-1].value is not None
    assert not any(option.chosen for option in moments[-1].choices[0].options)
    moments = play_through(agent, player("CartPole-v1", max_episode_steps=3), seed=0)
    assert (len(moments), moments[-1].ended) == (4, "truncated")


def test_continuous_actions(tiny):
    agent = tiny("Pendulum-v1")
    moments = play_through(agent, player("Pendulum-v1"), seed=0, limit=2)
    obs, _ = player("Pendulum-v1").reset(seed=0)
    (choice,) = moments[0].choices
    (option,) = choice.options
    assert (choice.title, choice.low, choice.high, option.chosen) == ("mean", -1.0, 1.0, False)
    assert option.number == pytest.approx(float(agent.explain(obs)["mean"][0]))
    assert option.note == " ± 1.000"
    assert float(moments[0].action.strip("[]")) == pytest.approx(2 * option.number, abs=1e-3)


@pytest.mark.parametrize(
    ("space", "titles", "names"),
    [
        (spaces.Discrete(3, start=5), ["probability"], [["5", "6", "7"]]),
        (
            spaces.MultiDiscrete([2, 3], start=[0, 4]),
            ["probability, action[0]", "probability, action[1]"],
            [["0", "1"], ["4", "5", "6"]],
        ),
        (spaces.MultiBinary(3), ["probability of 1"], [["0", "1", "2"]]),
    ],
)
def test_every_kind_of_action(space, titles, names, tiny):
    def make():
        return probes.Policy(space)

    moment = play_through(tiny(make), player(make), seed=0)[0]
    assert [choice.title for choice in moment.choices] == titles
    assert [[option.name for option in choice.options] for choice in moment.choices] == names
    action = np.array(moment.action.strip("[]").split(), int)
    chosen = [[option.chosen for option in choice.options] for choice in moment.choices]
    if isinstance(space, spaces.MultiBinary):
        assert chosen == [(action == 1).tolist()]
    else:
        assert chosen == [
            [int(name) == taken for name in part] for part, taken in zip(names, action.tolist(), strict=True)
        ]


def test_value_learners():
    make = lambda: probes.Policy(spaces.Box(-1, 1, (2,), np.float32))  # noqa: E731
    (choice,) = play_through(Values(), player(make), seed=0)[0].choices  # type: ignore[arg-type]
    assert (choice.title, choice.low, choice.high) == ("action value", -4.0, 3.0)
    assert [(option.name, option.chosen) for option in choice.options] == [
        ("[-1. -1.]", False),
        ("[-1.  1.]", False),
        ("[ 1. -1.]", True),
        ("[1. 1.]", False),
    ]


def test_names_of_actions_and_parts_of_observations(tiny):
    class Named(probes.Policy):
        def get_action_meanings(self):
            return ["LEFT", "RIGHT"]

    moments = play_through(tiny(Named), player(Named), seed=0)
    assert [option.name for option in moments[0].choices[0].options] == ["0 LEFT", "1 RIGHT"]
    assert moments[0].action in ("0 LEFT", "1 RIGHT")
    blackjack = play_through(tiny("Blackjack-v1"), player("Blackjack-v1"), seed=0)
    assert re.fullmatch(r"0: \d+\n1: \d+\n2: [01]", blackjack[0].text)


def test_text_is_asked_of_those_that_have_it():
    assert player("FrozenLake-v1").render_mode == "ansi"
    assert player("CartPole-v1").render_mode is None
    assert player(gym.make("FrozenLake-v1", render_mode="ansi")).render_mode == "ansi"


# --- page -----------------------------------------------------------------------------------------------------------


def test_a_page_marks_what_was_chosen():
    choice = Choice("probability", [Option("0 left", 0.25, False), Option("1 right", 0.75, True)], 0.0, 1.0)
    moments = [Moment("a [b]\nc", [choice], "1 right", -0.04, 1.5, 0.125), Moment("d", [], None, 1, 2.5, None, "cut")]
    lines = printed(moments, 0).splitlines()
    assert lines[0] == "step 0 of 1    reward -0.04    return 1.5    value 0.125    action 1 right"
    left = next(line for line in lines if "0 left" in line)
    right = next(line for line in lines[1:] if "1 right" in line)
    assert left.startswith("c ")  # beside the text, below the title
    assert ">" not in left
    assert "> 1 right 0.750" in right
    assert (left.count("━"), right.count("━")) == (5, 15)
    assert any(line.startswith("a [b]") for line in lines)
    assert printed(moments, 1).splitlines()[0] == "step 1 of 1    reward 1    return 2.5    cut"


def test_of_many_options_the_best_and_the_chosen_are_shown():
    output = printed([Moment("", [MANY], "7", 0, 0, None)], 0)
    shown = [int(x) for x in re.findall(r"^\s+>? ?(\d+) +\d+\.000", output, re.MULTILINE)]
    assert shown == sorted(shown)
    assert 7 in shown
    assert {49, 99, 48, 98} <= set(shown)
    assert len(shown) == 18
    assert "and 82 more" in output


def test_equal_values_and_narrow_terminals():
    choice = Choice("action value", [Option(f"[{i}]", 2.0, False) for i in range(2)], 2.0, 2.0)
    output = printed([Moment("x" * 30, [choice], "0", 0, 0, None)], 0, width=40)
    assert "[0]" in output
    assert max(map(len, output.splitlines())) <= 40


# --- show -----------------------------------------------------------------------------------------------------------


def test_without_a_terminal_everything_is_printed(tiny, capsys, monkeypatch):
    monkeypatch.setattr(sys, "stdin", io.StringIO())
    results = step_through(tiny("FrozenLake-v1"), EnvSource.of("FrozenLake-v1"), 2, seed=0, deterministic=False)
    output = capsys.readouterr().out
    assert len(results) == 2
    assert [int(x) for x in re.findall(r"^step (\d+) of", output, re.MULTILINE)] == [
        step for _, length in results for step in range(length + 1)
    ]
    assert "\x1b" not in output
    assert "\n[S]FFF" in output
    with pytest.raises(RenshuError, match="episodes is 0"):
        step_through(tiny("FrozenLake-v1"), EnvSource.of("FrozenLake-v1"), 0, seed=0)


def test_colours_stay_where_there_are_colours(monkeypatch):
    monkeypatch.setattr(sys, "stdin", io.StringIO())
    console = Console(file=io.StringIO(), force_terminal=True, color_system="standard", width=80)
    show([Moment("\x1b[41mS\x1b[0mF", [], None, 0, 0, None, "cut")], console)
    assert "\x1b[41mS\x1b[0mF" in console.file.getvalue()


@pytest.mark.parametrize(
    ("keys", "expected"),
    [
        (["\x1b[C", "\x1bOC", "l", " ", "\xe0M"], [4, 5, 6, 7, 8]),
        (["\x1b[D", "\x1bOD", "h", "\xe0K"], [2, 1, 0, 0]),
        (["\x1b[F", "\x1b[C", "\x1b[H", "\x1b[D"], [9, 9, 0, 0]),
        (["\x1b[4~", "\x1b[1~", "x", "\x1b[A", "\x1b"], [9, 0, 0, 0, 0]),
    ],
)
def test_keys(keys, expected):
    index, seen = 3, []
    for key in keys:
        index = turned(index, key, last=9)
        seen.append(index)
    assert seen == expected


SCRIPT = """
from renshu.viewing.terminal import Moment, show
show([Moment(f"picture {i}", [], str(i), 0, i, None) for i in range(5)])
print("left in peace")
"""


class Pseudo:
    """A process in a pseudo-terminal of 100 x 30."""

    def __init__(self):
        pty = pytest.importorskip("pty")
        termios = pytest.importorskip("termios")
        self.ours, self.theirs = pty.openpty()
        termios.tcsetwinsize(self.theirs, (30, 100))
        self.before = termios.tcgetattr(self.theirs)
        self.attributes = lambda: termios.tcgetattr(self.theirs)
        environment = {**os.environ, "TERM": "xterm-256color"}
        self.process = subprocess.Popen(
            [sys.executable, "-c", SCRIPT],
            stdin=self.theirs, stdout=self.theirs, stderr=self.theirs, env=environment, start_new_session=True,
        )  # fmt: skip

    def until(self, text, seconds=20):
        """What came up to and including `text`."""
        came, end = "", time.monotonic() + seconds
        while text not in came:
            ready, _, _ = select.select([self.ours], [], [], max(0, end - time.monotonic()))
            assert ready, f"{text!r} did not come, only {came!r}"
            came += os.read(self.ours, 1).decode("latin-1")
        return came

    def press(self, keys):
        os.write(self.ours, keys.encode())

    def close(self):
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        os.close(self.ours)
        os.close(self.theirs)


@pytest.fixture
def pseudo():
    terminal = Pseudo()
    yield terminal
    terminal.close()


def test_stepping_in_a_terminal(pseudo):
    first = pseudo.until("q: leave")
    assert "\x1b[?1049h" in first
    assert "picture 0" in first
    assert pseudo.attributes() != pseudo.before
    for keys, number in [("\x1b[C", 1), ("l ", 3), ("\x1b[D", 2), ("\x1b[F", 4), ("\x1b[H", 0), ("xl\x1b[C\x1b[C", 3)]:
        pseudo.press(keys)
        assert f"step {number} of 4" in pseudo.until(f"picture {number}")
    pseudo.press("q")
    assert "\x1b[?1049l" in pseudo.until("left in peace")
    assert pseudo.process.wait(10) == 0
    assert pseudo.attributes() == pseudo.before


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_the_terminal_is_restored_after_a_signal(pseudo, number):
    pseudo.until("q: leave")
    pseudo.process.send_signal(number)
    assert "\x1b[?25h" in pseudo.until("\x1b[?1049l")
    assert pseudo.process.wait(10) != 0
    assert pseudo.attributes() == pseudo.before


def test_what_came_before_in_an_episode_is_remembered():
    """Shown is the same as what plays, with a stack of frames and a memory."""
    small = {"n_steps": 8, "batch_size": 16, "net_arch": [8], "recurrent": "gru", "recurrent_size": 8}
    agent = PPO(**small).on("CartPole-v1", num_envs=2, frame_stack=3, seed=0)
    env = text_player(EnvSource.of("CartPole-v1", {}))
    moments = play_through(agent, env, seed=0)
    player, env = agent.player(), gym.make("CartPole-v1")
    obs, actions, first, over = env.reset(seed=0)[0], [], True, False
    while not over:
        actions.append(str(player(obs, first)))
        obs, _, terminated, truncated, _ = env.step(int(actions[-1]))
        first, over = False, terminated or truncated
    assert [moment.action for moment in moments[:-1]] == actions
