"""A person at the terminal as a competitor."""

from __future__ import annotations

import textwrap
from collections.abc import Callable, Mapping

import jax
import numpy as np

from renshu.arena.players import Competitor, Left, Moved, TakeBack, View
from renshu.arena.records import text_of
from renshu.arena.rules import rules_of
from renshu.envs.device import DeviceEnv

Explain = Callable[[View], Mapping[str, np.ndarray]]
"""From what a player sees to numbers for each action, [B, A], and others, which are left out."""

HELP = """a move     by its name, as listed, or by its number
undo       take your last move back, and the replies to it
help       this
quit       leave the game"""
_WORDS = {"undo": "undo", "u": "undo", "help": "help", "h": "help", "?": "help", "quit": "quit", "q": "quit"}


class Person(Competitor):
    """A person, who is shown the game as text and asked for moves.

    game: its rules. name: of the person. ask: asks for a line, given a prompt, as `input` does; its EOFError is taken
    for "quit". tell: shows text. explain: numbers of another player's view, shown beside each move.

    A wrong answer is explained, and asked for again. Raises TakeBack for "undo" and Left for "quit".
    """

    takes_back = True

    def __init__(
        self,
        game: DeviceEnv,
        name: str = "you",
        *,
        ask: Callable[[str], str] = input,
        tell: Callable[[str], object] = print,
        explain: Explain | None = None,
    ) -> None:
        self.game, self.name, self.ask, self.tell, self.explain = rules_of(game).game, name, ask, tell, explain
        self._names = [self.game.action_name(action) for action in range(rules_of(game).actions)]
        # Where moves are named by numbers these are what people see, and an action's own number would be another.
        self._numbered = not any(move.lstrip("-").isdecimal() for move in self._names)
        self._seen: tuple[str, ...] = ()
        self._turn = False

    def begin(self, count: int, seed: int) -> None:
        """Begin a game."""
        self._seen, self._turn = (), False

    def choose(self, view: View) -> np.ndarray:
        """Show the position, and ask for a move until there is one."""
        legal, first = np.asarray(view.legal)[0], bool(view.first[0])
        for line in self._seen:
            self.tell(line)
        self._seen, self._turn = (), True
        self.tell(text_of(self.game, jax.tree.map(lambda x: x[0], view.state)))
        self._list(view, legal)
        while True:
            try:
                said = self.ask(f"{self.name}: ").strip()
            except EOFError:
                raise Left from None
            word = _WORDS.get(said.lower()) if said.lower() not in self._names else None
            if word == "quit":
                raise Left
            if word == "help":
                self.tell(HELP)
            elif word == "undo":
                if not first:
                    raise TakeBack
                self.tell("there is no move of yours to take back yet")
            else:
                action = self._named(said)
                if action is not None and legal[action]:
                    return np.array([action], np.int32)
                self._refuse(said, action, legal)

    def watch(self, now: Moved) -> None:
        """Remember what the others play, to show it, and show the end."""
        own, self._turn = self._turn, False
        if not own:
            who, move = now.names[int(now.seat[0])], self._names[int(now.action[0])]
            self._seen = (*self._seen, f"{who} played {move}")
        if now.over[0]:
            for line in self._seen:
                self.tell(line)
            self.tell(text_of(self.game, jax.tree.map(lambda x: x[0], now.state)))

    def _named(self, said: str) -> int | None:
        for action, name in enumerate(self._names):
            if name.lower() == said.lower():
                return action
        if self._numbered and said.isdecimal() and int(said) < len(self._names):
            return int(said)
        return None

    def _refuse(self, said: str, action: int | None, legal: np.ndarray) -> None:
        allowed = " ".join(self._names[i] for i in np.flatnonzero(legal))
        if not said:
            wrong = "a move is wanted"
        elif action is None:
            wrong = f"there is no move {said!r}"
        else:
            wrong = f"{self._names[action]} is not allowed now"
        self.tell(f'{wrong}; allowed are: {allowed} (or "help")')

    def _list(self, view: View, legal: np.ndarray) -> None:
        """Show the moves that are allowed, with numbers of each where there are any."""
        columns = {}
        if self.explain is not None:
            for title, values in self.explain(view).items():
                if np.shape(values) == (1, len(legal)):
                    columns[title.replace("_", " ")] = np.asarray(values)[0]
        allowed = np.flatnonzero(legal)
        if not columns:
            self.tell(textwrap.fill("moves: " + " ".join(self._names[i] for i in allowed), 100))
            return
        width = max(len(self._names[i]) for i in allowed)
        self.tell(" " * width + "".join(f"  {title:>14}" for title in columns))
        for i in allowed:
            numbers = (_written(values[i]) for values in columns.values())
            self.tell(f"{self._names[i]:<{width}}" + "".join(f"  {number:>14}" for number in numbers))


def _written(number: float) -> str:
    if np.isnan(number):
        return "-"
    return f"{number:.3g}"
