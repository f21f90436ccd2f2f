"""The command line, `renshu train` and the other commands. Nothing heavy is imported before it is used."""

from __future__ import annotations

import sys
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from renshu.cli import board, check, cluster, evaluate, experiment, league, list_, pack, play, plot, train, tune, watch
from renshu.errors import RenshuError


class _Commands(TyperGroup):
    """Command group that reports Renshu's own errors as one readable paragraph with exit code 2, not as a traceback.

    It also reports what Ctrl-C did, which Typer itself would turn into a silent exit.
    """

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except RenshuError as error:
            _tell(f"error: {error}", error)
            sys.exit(2)
        except KeyboardInterrupt as error:
            _tell("stopped", error)
            sys.exit(130)


def _tell(message: str, error: BaseException) -> None:
    print("\n".join([message, *getattr(error, "__notes__", [])]), file=sys.stderr)


def _version(wanted: bool) -> None:
    if wanted:
        from importlib.metadata import version

        print(f"renshu {version('renshu')}")
        raise typer.Exit


app = typer.Typer(
    name="renshu",
    cls=_Commands,
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,  # its tables cut examples in terminals of 80 columns
    context_settings={"help_option_names": ["-h", "--help"]},
)


@app.callback()
def main_options(
    version: Annotated[bool, typer.Option("--version", callback=_version, is_eager=True, help="show it")] = False,
) -> None:
    """Reinforcement learning: train, evaluate, watch and plot agents."""


app.command("train")(train.train)
app.command("evaluate")(evaluate.evaluate)
app.command("watch")(watch.watch)
app.command("plot")(plot.plot)
app.command("experiment")(experiment.experiment)
app.command("tune")(tune.tune)
app.command("list")(list_.list_)
app.command("check")(check.check)
app.command("cluster")(cluster.cluster)
app.command("play")(play.play)
app.command("league")(league.league)
app.command("board")(board.board)
app.command("pack")(pack.pack)
app.command("unpack")(pack.unpack)


def main() -> None:
    """Run the command line."""
    app()
