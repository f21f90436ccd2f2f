"""An episode in the terminal, step by step: the environment's own view beside the agent's view of each action."""

from __future__ import annotations

import os
import re
import select
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

import gymnasium
import numpy as np
from gymnasium import spaces
from rich.columns import Columns
from rich.console import Console, Group
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from renshu.errors import RenshuError
from renshu.loops.interruption import Interruptions
from renshu.viewing.recording import state_of

if TYPE_CHECKING:
    from renshu.envs.adapt import FittedSpaces
    from renshu.envs.source import EnvSource

LIMIT = 10_000
"""Steps after which an episode is cut, so that one without an end can be watched too."""

_ROWS = 18  # options shown of one choice: as many as an Atari game has
_BAR = 20  # columns
_TEXT = 32  # columns at least, so that the choices stay in place from page to page
_HELP = "right, l, space: forward    left, h: back    Home, End: first, last    q: leave"
_TITLES = {"probabilities": "probability", "action_values": "action value"}
_COLOURED = re.compile(r"\x1b\[[\d;]*[1-9][\d;]*m(.*?)\x1b\[0?m", re.DOTALL)

_KEY = re.compile(r"\x1b[\[O][\d;]*[A-Za-z~]|.", re.DOTALL)
_FORWARD = {"\x1b[C", "\x1bOC", "\xe0M", "\x00M", "l", " "}
_BACK = {"\x1b[D", "\x1bOD", "\xe0K", "\x00K", "h"}
_FIRST = {"\x1b[H", "\x1bOH", "\x1b[1~", "\x1b[7~", "\xe0G", "\x00G"}
_LAST = {"\x1b[F", "\x1bOF", "\x1b[4~", "\x1b[8~", "\xe0O", "\x00O"}


class Explained(Protocol):
    """The part of an agent that is shown: its choices and their explanations."""

    @property
    def fitted(self) -> FittedSpaces:
        """The environment as the algorithm sees it."""
        ...

    @property
    def plans(self) -> bool:
        """True where it looks at the environment's own state."""
        ...

    def predict(self, observation: Any, *, carry: Any, deterministic: bool, env_state: Any = None) -> Any:
        """Choose the action for an observation, and return the memory after it too."""
        ...

    def explain(self, observation: Any, *, carry: Any, env_state: Any = None) -> dict[str, np.ndarray]:
        """Explain the choice for an observation."""
        ...


class Option(NamedTuple):
    """One thing the agent could do, or one dimension of a continuous action."""

    name: str
    number: float  # its probability, value or mean
    chosen: bool
    note: str = ""


class Choice(NamedTuple):
    """One decision of the agent. A factored action has several choices.

    title: meaning of the numbers. low, high: the numbers at which a bar is empty and full.
    """

    title: str
    options: list[Option]
    low: float
    high: float


class Moment(NamedTuple):
    """One observation of an episode, and what the agent makes of it."""

    text: str  # may hold ANSI colours
    choices: list[Choice]
    action: str | None  # as the environment takes it; None after the last step
    reward: float  # of the step that led here, 0 at the start
    return_so_far: float  # including this reward
    value: float | None  # None where the agent has none, and where the episode ended for good
    ended: str = ""  # "terminated", "truncated" or "cut" at the last moment


def step_through(
    agent: Explained, source: EnvSource, episodes: int, seed: int | None, deterministic: bool = True
) -> list[tuple[float, int]]:
    """Play whole episodes, let the user step through each, and return (return, length) of each.

    source: makes the environment. episodes: at least 1. seed: for the first reset; the later ones carry on from it.
    deterministic: greedy actions.
    Raises RenshuError for a number out of range, EnvironmentFault when the environment cannot be made.
    """
    if episodes < 1:
        raise RenshuError(f"episodes is {episodes}: it must be at least 1")
    env = text_player(source)
    results = []
    try:
        for episode in range(episodes):
            moments = play_through(agent, env, seed if episode == 0 else None, deterministic)
            show(moments)
            results.append((moments[-1].return_so_far, len(moments) - 1))
    finally:
        env.close()
    return results


def text_player(source: EnvSource) -> gymnasium.Env:
    """Make one environment that renders as text ("ansi") if it can; otherwise one that does not render.

    Raises EnvironmentFault when it cannot be made, or when it can render as text but its function does not pass
    `render_mode` on.
    """
    env = source.single()
    if env.render_mode == "ansi" or "ansi" not in (env.metadata.get("render_modes") or ()):
        return env
    env.close()
    return source.single(render_mode="ansi")


def play_through(
    agent: Explained, env: gymnasium.Env, seed: int | None = None, deterministic: bool = True, limit: int = LIMIT
) -> list[Moment]:
    """Play one episode of T steps and return its T+1 moments, the last of them without an action.

    env: one environment, from `text_player`; without text, the numbers of the observation stand in. seed: of its reset.
    deterministic: greedy actions. limit: steps after which to cut the episode.
    """
    obs, _ = env.reset(seed=seed)
    moments: list[Moment] = []
    reward = total = 0.0
    ended, action, carry = "", None, ()  # no memory: what is first in an episode
    while True:
        state = {"env_state": state_of(env)} if agent.plans else {}
        found = {} if ended == "terminated" else agent.explain(obs, carry=carry, **state)
        if ended:
            action = None
        else:
            action, carry = agent.predict(obs, carry=carry, deterministic=deterministic, **state)
        text = str(env.render()) if env.render_mode == "ansi" else _numbers(obs)
        value = float(found["value"]) if "value" in found else None
        named = None if action is None else _named(env, action)
        moments.append(Moment(text, _choices(agent, env, found, action), named, reward, total, value, ended))
        if ended:
            return moments
        obs, reward, terminated, truncated, _ = env.step(action)
        reward = float(reward)
        total += reward
        ended = "terminated" if terminated else "truncated" if truncated else "cut" if len(moments) == limit else ""


def page(moments: list[Moment], index: int) -> Group:
    """Lay out one moment for rich: a line of numbers, then the environment beside the choices, the one taken marked."""
    moment = moments[index]
    parts = [f"step {index} of {len(moments) - 1}", f"reward {moment.reward:g}", f"return {moment.return_so_far:g}"]
    if moment.value is not None:
        parts.append(f"value {moment.value:.3f}")
    parts.append(moment.ended if moment.action is None else f"action {moment.action}")
    picture = Table.grid()
    picture.add_column(no_wrap=True, min_width=_TEXT)
    picture.add_row(Text.from_ansi(moment.text.rstrip("\n")))
    beside = [Group(Text(choice.title, style="dim"), _table(choice)) for choice in moment.choices]
    body = Columns([picture, Group(*beside)], padding=(0, 4))  # one below the other where the terminal is too narrow
    return Group(Text("    ".join(parts), style="bold"), Text(), body, Text())


def show(moments: list[Moment], console: Console | None = None) -> None:
    """Let the user step through an episode by keys; where there is no keyboard or no screen, print every moment.

    The terminal is left as it was, also after Ctrl-C (KeyboardInterrupt) and SIGTERM (SystemExit).
    """
    console = console or Console()
    if console.color_system is None:
        moments = [moment._replace(text=_COLOURED.sub(r"[\1]", moment.text)) for moment in moments]
    if not (sys.stdin.isatty() and console.is_interactive):
        for index in range(len(moments)):
            console.print(page(moments, index))
        return

    _browse(moments, console)


def _browse(moments: list[Moment], console: Console) -> None:
    def picture() -> Group:
        return Group(page(moments, index), Text(_HELP, style="dim"))

    index = 0
    live = Live(picture(), console=console, screen=True, auto_refresh=False)
    with Interruptions() as interruptions, _keyboard() as keys:
        try:
            with interruptions.deferred():  # interrupted halfway, it would leave the terminal on the wrong screen
                live.start(refresh=True)
            for key in keys:
                if key == "q":
                    break
                index = turned(index, key, len(moments) - 1)
                live.update(picture(), refresh=True)
        finally:
            with interruptions.deferred():
                live.stop()


def turned(index: int, key: str, last: int) -> int:
    """Return the page after a key, as the terminal sends it; 0 <= index <= last. Other keys change nothing."""
    if key in _FORWARD:
        return min(index + 1, last)
    if key in _BACK:
        return max(index - 1, 0)
    return 0 if key in _FIRST else last if key in _LAST else index


@contextmanager
def _keyboard() -> Iterator[Iterator[str]]:
    """Yield the keys as they are pressed, without echo or waiting for a line. They end when standard input does."""
    if sys.platform == "win32":
        yield _windows_keys()
        return
    import termios
    import tty

    fd = sys.stdin.fileno()
    before = termios.tcgetattr(fd)
    try:
        tty.setcbreak(fd)
        yield _posix_keys(fd)
    finally:
        termios.tcsetattr(fd, termios.TCSADRAIN, before)


def _posix_keys(fd: int) -> Iterator[str]:
    while True:
        # A signal that arrives just before a read would wait for the next key, so no wait is long.
        while not select.select([fd], [], [], 0.1)[0]:
            continue
        data = os.read(fd, 1024)
        if not data:
            return
        yield from _KEY.findall(data.decode("latin-1"))


def _windows_keys() -> Iterator[str]:
    import msvcrt

    getwch: Any = getattr(msvcrt, "getwch")
    while (key := getwch()) != "\x03":
        yield key + getwch() if key in "\x00\xe0" else key
    raise KeyboardInterrupt  # Windows hands Ctrl-C over as a key here


def _choices(agent: Explained, env: gymnasium.Env, found: Mapping[str, np.ndarray], action: Any) -> list[Choice]:
    """Convert the result of `explain`, except the value, to choices. action: as the environment takes it, or None."""
    space, choices = agent.fitted.spec.action_space, []
    taken = None if action is None else np.ravel(action)
    for key, found_numbers in found.items():
        numbers = np.ravel(found_numbers)
        if key in ("value", "std", "search_value") or not np.isfinite(numbers).any():
            continue
        word, _, part = key.rpartition("_") if key.startswith("probabilities_") else (key, "", "")
        values, notes, title = np.arange(numbers.size), [""] * numbers.size, _TITLES.get(word, word)
        chosen = np.zeros(numbers.size, np.bool_)
        names = [str(i) for i in values]
        if key == "mean":
            notes = [f" ± {x:.3f}" for x in np.ravel(found["std"])] if "std" in found else notes
        elif isinstance(space, spaces.MultiBinary):
            title += " of 1"
            chosen = chosen if taken is None else taken == 1
        elif part:
            title += f", action[{part}]"
            values = values + np.ravel(getattr(env.action_space, "start", 0))[int(part)]
            names = [str(i) for i in values]
            chosen = chosen if taken is None else values == taken[int(part)]
        elif isinstance(space, spaces.Discrete) and numbers.size == space.n:
            decoded = agent.fitted.decode_action(values)
            names = [_named(env, x) for x in decoded]
            chosen = chosen if action is None else np.array([np.array_equal(x, action) for x in decoded])
        # Values have no bounds: their bars compare the options of this moment with each other.
        ends = {"probabilities": (0.0, 1.0), "mean": (-1.0, 1.0)}.get(word)
        finite = numbers[np.isfinite(numbers)]  # actions that are not allowed have the value -inf
        low, high = ends or (float(finite.min()), float(finite.max()))
        options = [Option(*row) for row in zip(names, numbers.tolist(), chosen.tolist(), notes, strict=True)]
        choices.append(Choice(title, options, low, high))
    return choices


def _table(choice: Choice) -> Table:
    """Make a table with a row per option; of many, only the taken one and those with the highest numbers."""
    table = Table.grid(padding=(0, 1))
    table.add_column(width=1)
    table.add_column(no_wrap=True)
    table.add_column(justify="right", no_wrap=True)
    order = sorted(choice.options, key=lambda option: (option.chosen, option.number), reverse=True)
    kept = {id(option) for option in order[:_ROWS]}
    for option in choice.options:
        if id(option) not in kept:
            continue
        style = "bold green" if option.chosen else ""
        bar = ProgressBar(
            total=choice.high - choice.low,
            completed=max(option.number, choice.low) - choice.low,
            width=_BAR,
            complete_style=style or "blue",
            finished_style=style or "blue",
        )
        number = "not allowed" if option.number == -np.inf else f"{option.number:.3f}{option.note}"
        cells = (">" if option.chosen else "", option.name, number)
        table.add_row(*(Text(cell, style=style) for cell in cells), bar)
    if len(order) > _ROWS:
        table.add_row("", Text(f"and {len(order) - _ROWS} more", style="dim"))
    return table


def _named(env: gymnasium.Env, action: Any) -> str:
    """Format an action, with its name where the environment has names, as those of Atari do."""
    if isinstance(env.action_space, spaces.Discrete) and env.has_wrapper_attr("get_action_meanings"):
        name = env.get_wrapper_attr("get_action_meanings")()[int(action) - int(env.action_space.start)]
        return f"{int(action)} {name}"
    return _numbers(action)


def _numbers(tree: Any) -> str:
    """Format an observation or action as text, with a line for each part if it has parts."""
    if isinstance(tree, Mapping | tuple):
        parts = tree.items() if isinstance(tree, Mapping) else enumerate(tree)
        return "\n".join(f"{name}: {_numbers(part)}" for name, part in parts)
    return np.array2string(np.asarray(tree), precision=3, suppress_small=True, threshold=60, max_line_width=60)
