"""The command `renshu league`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def league(
    players: Annotated[
        list[str],
        typer.Argument(
            help="run folders, agents' files, random, alphabeta[:DEPTH], perfect, uct[:N], baseline; two or more"
        ),
    ],
    game: Annotated[str, typer.Option(help="a game of two players, as connect_four or renshu/TicTacToe-v0")],
    games: Annotated[int, typer.Option(help="of each against each, an even number", min=2)] = 100,
    out: Annotated[Path | None, typer.Option(help="folder for tables (.csv) and a picture")] = None,
    simulations: Annotated[int | None, typer.Option(help="positions that agents look at before a move", min=1)] = None,
    time_limit: Annotated[float | None, typer.Option(help="seconds that a player has for its moves at once")] = None,
    openings: Annotated[int, typer.Option(help="moves at the beginning that are drawn at random", min=0)] = 2,
    seed: Annotated[int, typer.Option(help="of all chance", min=0)] = 0,
    env_set: Annotated[list[str] | None, typer.Option("--env-set", help="argument of the game, name=value")] = None,
) -> None:
    """Let players meet, everyone against everyone, and rate them on Elo's scale."""
    from rich.console import Console

    from renshu.arena.league import play_league
    from renshu.cli.competitors import competitor_named, game_named

    if games % 2:
        raise typer.BadParameter(f"--games {games}: an even number, half of them for each seat")
    rules = game_named(game, env_set or [])
    competitors = [competitor_named(text, rules, simulations) for text in players]
    for text, competitor in zip(players, competitors, strict=True):
        if sum(other.name == competitor.name for other in competitors) > 1:
            competitor.name = text
    found = play_league(
        rules, competitors, games, seed, openings=openings, time_limit=time_limit, tell=lambda result: print(result)
    )
    print()
    Console(highlight=False).print(found.table())
    if out is not None:
        print(f"saved        {', '.join(str(path) for path in found.save(out))}")
