"""The command line: `renshu train | evaluate | watch | plot | list`. Nothing heavy is imported before it is used."""

from __future__ import annotations

import sys

import typer

from renshu.cli import evaluate, list_, plot, train, watch
from renshu.errors import RenshuError

app = typer.Typer(
    name="renshu",
    help="Reinforcement learning: train, evaluate, watch and plot agents.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.command("train")(train.train)
app.command("evaluate")(evaluate.evaluate)
app.command("watch")(watch.watch)
app.command("plot")(plot.plot)
app.command("list")(list_.list_)


def main() -> None:
    """Run the command line; errors that Renshu foresaw are one readable paragraph instead of a traceback."""
    try:
        app()
    except RenshuError as error:
        _tell(f"error: {error}", error)
        sys.exit(2)
    except KeyboardInterrupt as error:
        _tell("stopped", error)
        sys.exit(130)
    except SystemExit as error:
        if getattr(error, "__notes__", None):
            _tell("stopped", error)
        raise


def _tell(message: str, error: BaseException) -> None:
    print("\n".join([message, *getattr(error, "__notes__", [])]), file=sys.stderr)
