"""Records of games: small JSON files, played again move by move to text, pictures and demonstrations."""

from __future__ import annotations

import json
import reprlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from renshu.arena.match import Games
from renshu.arena.rules import rules_of
from renshu.envs.device import DeviceEnv, MaskedDeviceEnv
from renshu.envs.gymnasium.registration import changed_fields, device_env, is_ours
from renshu.envs.seats import Seated
from renshu.errors import CheckpointError, HyperparameterError, RenshuError
from renshu.files.datasets import Dataset
from renshu.files.replacing import replacing
from renshu.types import MASK, OBSERVATION, PyTree
from renshu.viewing.recording import annotate, write_video

FORMAT = 1
"""The format that this version writes and reads."""
SECONDS = 0.8
"""Time for which a video shows a position."""
_FIELDS = {"format", "game", "kwargs", "seats", "seed", "number", "moves", "result"}


class Moment(NamedTuple):
    """A position of a game that is played again. The first has no move before it."""

    state: PyTree  # of the game
    obs: PyTree  # of the player to move
    legal: np.ndarray  # [A] bool
    seat: int  # of the player to move
    reward: np.ndarray  # [P] float32  paid for the move before
    over: bool


@dataclass(frozen=True)
class Record:
    """A game that was played.

    game: its rules. seats: names of the players, by seat. seed, number: of chance in it, as `play_games` has them.
    moves: actions. result: what each player was paid.
    """

    game: DeviceEnv
    seats: tuple[str, ...]
    seed: int
    number: int
    moves: tuple[int, ...]
    result: tuple[float, ...]

    @classmethod
    def of(cls, game: DeviceEnv, games: Games, number: int = 0) -> Record:
        """Take one of the games that `play_games` returned. Raises HyperparameterError for another number."""
        if not 0 <= number < len(games.lengths):
            raise HyperparameterError(f"number={number}: there are the games 0 to {len(games.lengths) - 1}")
        moves = games.actions[: games.lengths[number], number].tolist()
        result = tuple(games.returns[number].tolist())
        return cls(rules_of(game).game, games.names, games.seed, number, tuple(moves), result)

    def write(self, path: str | Path) -> Path:
        """Write the game to a JSON file, completely or not at all. Raises RenshuError where that is not possible."""
        path = Path(path)
        seats = [moment.seat for moment in self.moments()]
        ours = is_ours(self.game)
        about = {
            "format": FORMAT,
            "game": self.game.id if ours else self.game.name,
            "kwargs": changed_fields(self.game) if ours else {},
            "seats": list(self.seats),
            "seed": self.seed,
            "number": self.number,
            "moves": [
                {"seat": seat, "action": action, "name": self.game.action_name(action)}
                for seat, action in zip(seats[:-1], self.moves, strict=True)
            ],
            "result": list(self.result),
        }
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with replacing(path) as temporary:
                temporary.write_text(_json(about), encoding="utf-8")
        except OSError as error:
            raise RenshuError(
                f"cannot write {path}: {error}. Check the folder, its permissions and the space"
            ) from error
        return path

    @classmethod
    def read(cls, path: str | Path, game: DeviceEnv | None = None) -> Record:
        """Read a game from a file, and play it again to see that it is whole.

        game: its rules; None: what the file names, for games of this library. Nothing is imported because a file names
        it. Raises CheckpointError for a file that is missing, cut short or changed, or of another game.
        """
        path = Path(path)
        try:
            about = json.loads(path.read_text(encoding="utf-8"))
        except OSError as error:
            raise CheckpointError(f"cannot read {path}: {error}") from error
        except ValueError as error:
            raise CheckpointError(f"{path} is no record of a game, or was cut short: {error}") from error
        if not isinstance(about, dict) or about.get("format") != FORMAT or set(about) != _FIELDS:
            raise CheckpointError(
                f"{path} is no record of a game of format {FORMAT}: it has {reprlib.repr(about)}, and should have "
                f"{', '.join(sorted(_FIELDS))}"
            )
        game = _game_of(path, about, game)
        try:
            moves = tuple(_whole(move["action"]) for move in about["moves"])
            names = [move["name"] for move in about["moves"]]
            result = tuple(float(x) for x in about["result"])
            seats = tuple(str(name) for name in about["seats"])
            record = cls(game, seats, _whole(about["seed"]), _whole(about["number"]), moves, result)
            last = [moment for moment in record.moments()][-1]
            total = np.sum([moment.reward for moment in record.moments()], axis=0)
        except (TypeError, ValueError, KeyError, RenshuError) as error:
            raise CheckpointError(f"{path} is no whole record of {game.name}: {error}") from error
        if names != [game.action_name(move) for move in moves]:
            raise CheckpointError(f"{path}: moves have other names in {game.name}; the file is of another game")
        limited = game.max_episode_steps is not None and len(moves) >= game.max_episode_steps
        if not (last.over or limited) or len(seats) != game.players or not np.allclose(total, result, atol=1e-4):
            raise CheckpointError(
                f"{path}: its {len(moves)} moves end with {total.tolist()} in {game.name}, and it says {list(result)} "
                f"for {len(seats)} players: the file was changed, cut short, or is of other rules"
            )
        return record

    def moments(self) -> Iterator[Moment]:
        """Play the game again: its positions, one more than moves. Raises RenshuError where one is not allowed."""
        rules, rows = rules_of(self.game), np.array([self.number], np.int32)
        seed, over = np.uint32(self.seed), np.zeros(1, np.bool_)
        position, reward = rules.begin(seed, rows), np.zeros((1, self.game.players), np.float32)
        for number, action in enumerate((*self.moves, None)):
            state, obs = jax.tree.map(lambda x: x[0], (position.state, position.obs))
            legal = np.asarray(position.legal)[0]
            yield Moment(state, obs, legal, int(position.seat[0]), np.asarray(reward)[0], bool(over[0]))
            if action is None:
                return
            if over[0] or not 0 <= action < len(legal) or not legal[action]:
                raise RenshuError(f"move {number + 1}, action {action}, is not allowed there")
            chosen = np.array([action], np.int32)
            position, reward, over, cut = rules.step(position, chosen, np.asarray(over), seed, rows, np.int32(number))
            over = np.asarray(over) | np.asarray(cut)

    def text(self) -> str:
        """Show the game as text: who played, each move with the position after it, and the result."""
        blocks = [f"{self.game.name}: " + ", ".join(f"{name} in seat {i}" for i, name in enumerate(self.seats))]
        before: Moment | None = None
        for number, moment in enumerate(self.moments()):
            if before is not None:
                blocks.append(f"{number}. {self._said(before, number)}")
            blocks.append(text_of(self.game, moment.state))
            before = moment
        return "\n\n".join([*blocks, self.outcome()]) + "\n"

    def outcome(self) -> str:
        """Say how the game ended: "a 1, b -1"."""
        return ", ".join(f"{name} {paid:g}" for name, paid in zip(self.seats, self.result, strict=True))

    def frames(self, caption: bool = True) -> Iterator[np.ndarray]:
        """Yield a picture [H, W, 3] uint8 of each position. caption: with the move before it."""
        before: Moment | None = None
        for number, moment in enumerate(self.moments()):
            image = self.game.render(moment.state)
            said = " against ".join(self.seats) if before is None else f"{number}. {self._said(before, number)}"
            yield annotate(image, [said]) if caption else image
            before = moment

    def save_video(self, path: str | Path, seconds: float = SECONDS) -> Path:
        """Write a video, .gif or .mp4; see `renshu.viewing.recording.write_video`. seconds: for each position."""

        def held() -> Iterator[np.ndarray]:
            frame = None
            for frame in self.frames():
                yield frame
            for _ in range(2):  # so that the end can be seen
                if frame is not None:
                    yield frame

        write_video(path, held(), 1 / seconds)
        return Path(path)

    def save(self, path: str | Path) -> Path:
        """Write the game as the end of the name says: .json, .txt, .gif or .mp4. Raises RenshuError for others."""
        path = Path(path)
        match path.suffix.lower():
            case ".json":
                return self.write(path)
            case ".gif" | ".mp4":
                return self.save_video(path)
            case ".txt":
                try:
                    path.parent.mkdir(parents=True, exist_ok=True)
                    with replacing(path) as temporary:
                        temporary.write_text(self.text(), encoding="utf-8")
                except OSError as error:
                    raise RenshuError(f"cannot write {path}: {error}. Check the folder and its permissions") from error
                return path
        raise RenshuError(f"cannot write a game to {path}: the name must end in .json, .txt, .gif or .mp4")

    def _said(self, before: Moment, number: int) -> str:
        return f"{self.seats[before.seat]}: {self.game.action_name(self.moves[number - 1])}"


def demonstrations(records: Sequence[Record], *, masks: bool = False, winners: bool = False) -> Dataset:
    """Make a data set of games: each player's as an episode of its own, in which the others are its environment.

    masks: with action masks in the observations. winners: only of those who were paid most. Rewards are what a player
    was paid from its move until its next. Raises HyperparameterError where nothing is left.
    """
    steps: dict[str, list[Any]] = {"obs": [], "action": [], "reward": [], "terminated": []}
    for record in records:
        moments = list(record.moments())
        for seat in range(record.game.players):
            if winners and record.result[seat] < max(record.result):
                continue
            turns = [i for i in range(len(record.moves)) if moments[i].seat == seat]
            for i, following in zip(turns, [*turns[1:], len(record.moves)], strict=True):
                seen = moments[i].obs
                steps["obs"].append({MASK: moments[i].legal.astype(np.int8), OBSERVATION: seen} if masks else seen)
                steps["action"].append(record.moves[i])
                steps["reward"].append(sum(float(moments[k].reward[seat]) for k in range(i + 1, following + 1)))
                steps["terminated"].append(following == len(record.moves))
    if not steps["obs"]:
        raise HyperparameterError(f"{len(records)} games have no moves to learn from: give games that were played")
    game = records[0].game
    env = Seated(game)
    arrays = {**{name: np.array(values) for name, values in steps.items() if name != "obs"}}
    arrays["obs"] = jax.tree.map(lambda *x: np.stack([np.asarray(one) for one in x]), *steps["obs"])
    return Dataset.open(arrays, env=MaskedDeviceEnv(env) if masks else env)


def text_of(game: DeviceEnv, state: PyTree) -> str:
    """Show a position as text; where a game has none, the arrays of its state."""
    try:
        return game.text(state)
    except NotImplementedError:
        return str(jax.tree.map(np.asarray, state))


def _json(about: dict[str, Any]) -> str:
    """Format a record with a line for each move."""
    moves = ",\n".join(f"    {json.dumps(move)}" for move in about["moves"])
    head = {name: value for name, value in about.items() if name != "moves"}
    body = json.dumps(head, indent=2)
    return f'{body[:-2]},\n  "moves": [\n{moves}\n  ]\n}}\n'


def _game_of(path: Path, about: dict[str, Any], game: DeviceEnv | None) -> DeviceEnv:
    if game is not None:
        game = rules_of(game).game
        if about["game"] not in (game.id, game.name):
            raise CheckpointError(f"{path} is a record of {about['game']}, not of {game.name}")
        if is_ours(game) and about["kwargs"] != changed_fields(game):
            raise CheckpointError(
                f"{path} is a record of {game.name} with {about['kwargs']}, not with {changed_fields(game)}"
            )
        return game
    try:
        made = device_env(about["game"], **about["kwargs"]) if ":" not in about["game"] else None
    except (TypeError, AttributeError, RenshuError) as error:
        raise CheckpointError(f"{path}: no game can be made of {about['game']!r}: {error}") from error
    if made is None or made.players < 2:
        raise CheckpointError(
            f"{path} is a record of {about['game']!r}, which is no game of this library: give it, as in "
            "Record.read(path, game=MyGame())"
        )
    return made


def _whole(value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value < 2**32:
        raise ValueError(f"{reprlib.repr(value)} is no whole number from 0")
    return value
