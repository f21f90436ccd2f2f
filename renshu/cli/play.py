"""The command `renshu play`."""

from __future__ import annotations

import secrets
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NamedTuple

import typer

if TYPE_CHECKING:
    from renshu.arena.match import Games
    from renshu.arena.players import Competitor
    from renshu.envs.device import DeviceEnv


class _Wish(NamedTuple):
    """Wishes for the games. seat: of the person, or of who plays instead; None: both in turn."""

    game: DeviceEnv
    games: int
    seat: int | None
    seed: int
    openings: int
    time_limit: float | None
    record: Path | None

    def play(self, first: Competitor, other: Competitor, seat: int, count: int, number: int = 0) -> Games:
        """Play some of the games, the first of them in that seat. number: of the games before."""
        from renshu.arena.match import play_games

        seats = [first, other] if seat == 0 else [other, first]
        how = {"openings": self.openings, "time_limit": self.time_limit}
        return play_games(self.game, seats, count, seed=self.seed + number, **how)

    def save(self, games: Games, number: int) -> None:
        """Save games to the file, or to numbered ones where there are several. number: of the games before."""
        from renshu.arena.records import Record

        if self.record is None:
            return
        for i in range(len(games.lengths)):
            several = f"{self.record.stem}-{number + i + 1}"
            path = self.record if self.games == 1 else self.record.with_stem(several)
            print(f"saved        {Record.of(self.game, games, i).save(path)}")


def play(
    game: Annotated[str, typer.Argument(help="a game of two players, as connect_four or renshu/TicTacToe-v0")],
    against: Annotated[
        str, typer.Option(help="random, alphabeta[:DEPTH], perfect, uct[:N], baseline, a run folder or an agent's file")
    ] = "uct",
    player: Annotated[str | None, typer.Option(help="who plays in your place, named in the same way")] = None,
    seat: Annotated[
        int | None, typer.Option(help="yours, 0 moves first; by default both in turn", min=0, max=1)
    ] = None,
    games: Annotated[int, typer.Option(help="how many", min=1)] = 1,
    record: Annotated[Path | None, typer.Option(help="save the games, .json, .txt, .gif or .mp4")] = None,
    simulations: Annotated[
        int | None, typer.Option(help="positions that an agent looks at before a move", min=1)
    ] = None,
    time_limit: Annotated[float | None, typer.Option(help="seconds that a player but you has for a move")] = None,
    openings: Annotated[int, typer.Option(help="moves at the beginning that are drawn at random", min=0)] = 0,
    explain: Annotated[bool, typer.Option("--explain", help="show what the other one thinks of your moves")] = False,
    seed: Annotated[int | None, typer.Option(help="of all chance; drawn if not given", min=0)] = None,
    env_set: Annotated[list[str] | None, typer.Option("--env-set", help="argument of the game, name=value")] = None,
) -> None:
    """Play a game at the terminal against a program or an agent, or let another play in your place."""
    from renshu.cli.competitors import competitor_named, game_named
    from renshu.errors import HyperparameterError

    if record is not None and record.suffix.lower() not in (".json", ".txt", ".gif", ".mp4"):
        raise typer.BadParameter(f"--record saves to .json, .txt, .gif or .mp4, not to {record}")
    if explain and player is not None:
        raise typer.BadParameter("--explain shows you what the other one thinks: leave --player out")
    rules = game_named(game, env_set or [])
    other = competitor_named(against, rules, simulations)
    root = secrets.randbelow(2**31) if seed is None else seed
    wish = _Wish(rules, games, seat, root, openings, time_limit, record)
    if player is not None:
        _compete(wish, competitor_named(player, rules, simulations), other)
        return
    if explain and not hasattr(other, "explain"):
        raise HyperparameterError(f"--explain: {other.name} has nothing to explain; play against uct or an agent")
    _in_person(wish, other, explain)


def _in_person(wish: _Wish, other: Competitor, explain: bool) -> None:
    from renshu.arena.person import Person
    from renshu.arena.players import Left

    person = Person(wish.game, explain=getattr(other, "explain", None) if explain else None)
    counts = dict.fromkeys(("won", "drawn", "lost"), 0)
    for number in range(wish.games):
        own = number % 2 if wish.seat is None else wish.seat
        print(f"\ngame {number + 1}: you are in seat {own}, {other.name} in seat {1 - own} (for help type help)")
        try:
            played = wish.play(person, other, own, 1, number)
        except Left:
            print("you have left the game")
            break
        mine, theirs = played.returns[0, own], played.returns[0, 1 - own]
        result = "won" if mine > theirs else "lost" if mine < theirs else "drawn"
        counts[result] += 1
        print("a draw" if result == "drawn" else f"you have {result}")
        wish.save(played, number)
    if wish.games > 1:
        print(", ".join(f"{count} {result}" for result, count in counts.items()))


def _compete(wish: _Wish, player: Competitor, other: Competitor) -> None:
    from renshu.arena.match import Result

    first = {0: wish.games, 1: 0, None: (wish.games + 1) // 2}[wish.seat]
    counts = {0: first, 1: wish.games - first}
    halves = {seat: wish.play(player, other, seat, count) for seat, count in counts.items() if count}
    print(Result.of((player.name, other.name), halves.items()))
    number = 0
    for games in halves.values():
        wish.save(games, number)
        number += len(games.lengths)
