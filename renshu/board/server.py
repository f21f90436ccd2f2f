"""The server of the board: its addresses, and who may call it."""

from __future__ import annotations

import asyncio
import ipaddress
import secrets
from collections.abc import Awaitable, Callable, MutableMapping
from pathlib import Path
from typing import Any, TypeAlias
from urllib.parse import parse_qsl, urlencode

import uvicorn
from fastapi import FastAPI, HTTPException
from fastapi.responses import FileResponse
from nicegui import ui
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.requests import Request, cookie_parser
from starlette.responses import PlainTextResponse, RedirectResponse

from renshu.board.catalogue import Catalogue
from renshu.board.compare_page import compare_page, experiment_page, experiments_page, leagues_page
from renshu.board.files import TYPES, media
from renshu.board.lists import leaderboard_page, runs_page
from renshu.board.run_page import run_page
from renshu.board.search_page import search_page

Scope: TypeAlias = MutableMapping[str, Any]
App: TypeAlias = Callable[[Scope, Any, Any], Awaitable[None]]

COOKIE = "renshu_board"
# Vue compiles its templates in the browser. Nothing may come from, or go to, another host.
_POLICY = (
    "default-src 'self'; script-src 'self' 'unsafe-inline' 'unsafe-eval'; style-src 'self' 'unsafe-inline'; "
    "img-src 'self' data: blob:; font-src 'self' data:; connect-src 'self'; media-src 'self'; object-src 'none'; "
    "base-uri 'self'; form-action 'none'; frame-ancestors 'none'"
)


class Guard:
    """An ASGI app in front of another: it asks for the token, by HTTP and by WebSocket, and forbids outside requests.

    The token comes once as ?token=..., then as a cookie. None: nothing is asked.
    """

    def __init__(self, app: App, token: str | None) -> None:
        self._app, self._token = app, token

    async def __call__(self, scope: Scope, receive: Any, send: Any) -> None:
        """Answer a request, or pass it on."""
        if scope["type"] not in ("http", "websocket"):
            await self._app(scope, receive, send)
        elif self._token is None or self._has_cookie(scope):
            await self._app(scope, receive, _with_policy(send))
        elif scope["type"] == "websocket":
            await send({"type": "websocket.close", "code": 4401})
        elif self._is_token(dict(parse_qsl(query := scope["query_string"].decode("latin-1"))).get("token", "")):
            rest = [(name, value) for name, value in parse_qsl(query) if name != "token"]
            place = scope.get("raw_path", b"/").decode("latin-1") + (f"?{urlencode(rest)}" if rest else "")
            # Two slashes would begin the name of another host.
            answer = RedirectResponse("/" + place.lstrip("/"), 303)
            answer.set_cookie(self._cookie(scope), str(self._token), httponly=True, samesite="strict")
            await answer(scope, receive, send)
        else:
            words = "This board asks for its token: open the address that `renshu board` has printed, with ?token=..."
            await PlainTextResponse(words, 401)(scope, receive, send)

    def _has_cookie(self, scope: Scope) -> bool:
        headers = [value.decode("latin-1") for name, value in scope["headers"] if name == b"cookie"]
        return self._is_token(cookie_parser("; ".join(headers)).get(self._cookie(scope), ""))

    def _cookie(self, scope: Scope) -> str:
        """Name the cookie by the port: browsers share cookies between those of one machine."""
        return f"{COOKIE}_{(scope.get('server') or ('', 0))[1]}"

    def _is_token(self, text: str) -> bool:
        return bool(self._token) and secrets.compare_digest(text.encode(), str(self._token).encode())


def _with_policy(send: Any) -> Any:
    async def sending(message: Scope) -> None:
        if message["type"] == "http.response.start":
            added = [
                (b"content-security-policy", _POLICY.encode()),
                (b"x-content-type-options", b"nosniff"),
                (b"referrer-policy", b"no-referrer"),
            ]
            message = {**message, "headers": [*message.get("headers", ()), *added]}
        await send(message)

    return sending


def is_local(host: str) -> bool:
    """Tell whether only this machine reaches an address."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def make_app(folder: Path | str, *, host: str = "127.0.0.1", token: str | None = None) -> App:
    """Make the ASGI app of the board over a folder. Once in a process: NiceGUI has one set of pages.

    On this machine alone a request must name it: a page elsewhere cannot read the board by a name that leads here.
    Raises RenshuError where the folder does not exist.
    """
    catalogue = Catalogue(folder)
    app = FastAPI(docs_url=None, redoc_url=None, openapi_url=None)

    @app.get("/file/{run:path}")
    def _file(run: str, name: str) -> FileResponse:
        row = catalogue.runs.get(run)
        path = media(row.path, name) if row is not None else None
        if path is None:
            raise HTTPException(404, "no such picture or video in this folder")
        return FileResponse(path, media_type=TYPES[path.suffix])

    _pages(catalogue)
    ui.run_with(app, title="Renshu", dark=None, show_welcome_message=False, favicon="🏋")
    inner: App = TrustedHostMiddleware(app, ["localhost", "127.0.0.1", "[::1]", host]) if is_local(host) else app
    return Guard(inner, token)


def _pages(catalogue: Catalogue) -> None:
    """Register the pages. Parameters of their functions are parts of the addresses."""

    @ui.page("/")
    async def _runs() -> None:
        if not catalogue.is_read:  # otherwise the page looks by itself, after it is shown
            await asyncio.to_thread(catalogue.refresh)
        runs_page(catalogue)

    @ui.page("/run/{name:path}")
    def _run(name: str) -> None:
        run_page(catalogue, name)

    @ui.page("/compare")
    def _compare(request: Request) -> None:
        compare_page(catalogue, request.query_params.getlist("run"))

    @ui.page("/leaderboard")
    def _leaderboard() -> None:
        leaderboard_page(catalogue)

    @ui.page("/experiments")
    def _experiments() -> None:
        experiments_page(catalogue)

    @ui.page("/experiment")
    def _experiment(name: str) -> None:
        experiment_page(catalogue, name)

    @ui.page("/search")
    def _search(name: str) -> None:
        search_page(catalogue, name)

    @ui.page("/leagues")
    def _leagues() -> None:
        leagues_page(catalogue)


def serve(folder: Path | str, *, host: str = "127.0.0.1", port: int = 8080, token: str | None = None) -> None:
    """Serve the board until Ctrl-C. Raises RenshuError where the folder does not exist."""
    app = make_app(folder, host=host, token=token)
    uvicorn.run(app, host=host, port=port, log_level="warning")
