"""Who may come in on a development machine: the browser that was given the one-time key, and nobody by another name."""

from __future__ import annotations

import html
import secrets
from hmac import compare_digest

from starlette.requests import Request
from starlette.responses import HTMLResponse, RedirectResponse, Response
from starlette.types import ASGIApp, Receive, Scope, Send

from shared.api.http import problem
from shared.cli.embedded import PAGE, TENANT
from shared.codec import decode
from shared.sessions.document import Session
from shared.wiring import Parts

COOKIE = "recado"
HOSTS = ("127.0.0.1", "localhost", "[::1]")


class Door:
    """Lets requests through to the dispatcher, with the operator's API key for a browser that has the cookie.

    A request for another host name is refused: a page elsewhere could make a browser send one (DNS rebinding).
    """

    def __init__(self, inner: ASGIApp, here: Parts, api_key: str) -> None:
        self._inner = inner
        self._here = here
        self._api_key = api_key
        self._cookie = secrets.token_urlsafe(24)
        self.one_time_key = secrets.token_urlsafe(16)
        """Opens the console once; the browser then has a cookie until the server ends."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._inner(scope, receive, send)
            return
        request = Request(scope, receive)
        host = request.headers.get("host", "")
        if host.rpartition(":")[0] not in HOSTS and host not in HOSTS:
            answer: ASGIApp = problem(400, "Bad request", f"Host: only {', '.join(HOSTS)} are served here")
        elif request.url.path == "/" and "key" in request.query_params:
            answer = self._let_in(request)
        elif request.url.path == "/" and not (PAGE / "index.html").exists():
            answer = RedirectResponse("/sessions")
        elif request.url.path == "/sessions":
            answer = await self._list(request)
        else:
            answer = self._inner
            if self._known(request):
                scope["headers"] = [*scope["headers"], (b"authorization", f"Bearer {self._api_key}".encode())]
        await answer(scope, receive, send)

    def _let_in(self, request: Request) -> Response:
        presented = request.query_params["key"]
        if self.one_time_key and compare_digest(presented.encode(), self.one_time_key.encode()):
            self.one_time_key = ""
            response: Response = RedirectResponse("/", status_code=303)
            response.set_cookie(COOKIE, self._cookie, httponly=True, samesite="strict")
            return response
        if self._known(request):
            return RedirectResponse("/", status_code=303)
        return problem(401, "Not authenticated", "key: used or wrong; start the server again for a new address")

    async def _list(self, request: Request) -> Response:
        if not self._known(request):
            return problem(401, "Not authenticated", "open the address with the key that the server printed")
        rows = await self._here.store.sessions(TENANT)
        return HTMLResponse(_page([decode(Session, row.state) for row in rows]))

    def _known(self, request: Request) -> bool:
        return compare_digest(request.cookies.get(COOKIE, "").encode(), self._cookie.encode())


def _page(sessions: list[Session]) -> str:
    rows = "".join(
        f'<tr><td><a href="/v1/sessions/{session.id}">{html.escape(session.conversation)}</a>'
        f"<td>{html.escape(session.connection)}<td>{session.runs}"
        f'<td><a href="/v1/sessions/{session.id}/runs">runs</a>, <a href="/v1/sessions/{session.id}/events">events</a>'
        for session in sessions
    )
    return (
        '<!doctype html><html lang="en"><meta charset="utf-8"><title>Recado</title>'
        "<style>body{font:16px/1.5 system-ui;margin:3rem auto;max-width:50rem}td,th{padding:.2rem 1rem;text-align:left}"
        '</style><h1>Recado</h1><p>Sessions, the latest first. The API is described at <a href="/docs">/docs</a>.</p>'
        f"<table><tr><th>Conversation<th>Connection<th>Runs<th>{rows or '<tr><td colspan=4>None yet.'}</table>"
    )
