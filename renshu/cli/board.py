"""The command `renshu board`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def board(
    folder: Annotated[Path, typer.Argument(help="folder with runs, experiments and leagues")] = Path("runs"),
    port: Annotated[int, typer.Option(help="of the page", min=1, max=65535)] = 8080,
    host: Annotated[
        str, typer.Option(help="address to listen on; any but this machine's own wants a token")
    ] = "127.0.0.1",
    token: Annotated[
        str | None, typer.Option(help="that a visitor has to bring; drawn where one is needed and none is given")
    ] = None,
) -> None:
    """Show a folder of runs as web pages, live while they train: curves, comparisons, a leaderboard.

    It only reads, and no request leaves the machine.
    """
    import secrets
    import socket
    from urllib.parse import quote

    from renshu.errors import RenshuError

    try:
        import nicegui  # noqa: F401
    except ImportError as error:
        raise RenshuError('the board needs NiceGUI, which is not installed: pip install "renshu[board]"') from error
    from renshu.board.server import is_local, serve

    if not folder.is_dir():
        raise RenshuError(f"{folder} is not a folder. Give the one that holds your runs, as `renshu board runs/`")
    if token is not None and not token:
        raise RenshuError("--token is empty, so that everybody would have it. Leave it out, and one is drawn if needed")
    if token is None and not is_local(host):
        token = secrets.token_urlsafe(24)
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as probe:
        try:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind((host, port))
        except OSError as error:
            raise RenshuError(f"cannot listen on {host}:{port}: {error.strerror}. Choose another --port") from error
    everywhere = host in ("0.0.0.0", "::")
    shown = socket.gethostname() if everywhere else f"[{host}]" if ":" in host else host
    print(f"board        http://{shown}:{port}/" + (f"?token={quote(token)}" if token else ""))
    print("             Ctrl-C ends it")
    serve(folder, host=host, port=port, token=token)
