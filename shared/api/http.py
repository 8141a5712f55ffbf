"""What all functions share of HTTP: bounded bodies, errors as problem+json (RFC 9457), one log context per request.

Imports nothing of FastAPI: `ingest` starts with this.
"""

from __future__ import annotations

import json
import logging
from typing import cast

from starlette.exceptions import HTTPException
from starlette.middleware.cors import CORSMiddleware
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from shared import wiring
from shared.domain import JsonObject
from shared.errors import BadRequest, Retryable, TooLarge
from shared.observability import traced

logger = logging.getLogger(__name__)
_HEADERS = ("Authorization", "Content-Type", "Idempotency-Key", "Last-Event-ID")
"""What the web client may send from another origin; it sends no cookies there."""
_ROUTER = {404: "path: nothing is served there; check the address", 405: "method: use one that Allow names"}


def json_response(status: int, body: JsonObject, media_type: str = "application/json") -> Response:
    """The body as JSON."""
    return Response(json.dumps(body, ensure_ascii=False), status_code=status, media_type=media_type)


def problem(status: int, title: str, detail: str, **more: object) -> Response:
    """An error as `application/problem+json`; `detail` names the field and the fix."""
    body = {"type": "about:blank", "status": status, "title": title, "detail": detail, **more}
    return json_response(status, body, "application/problem+json")


def answer_error(error: Exception) -> Response:
    """What the caller is told of an error: its own mistakes in words, ours without details."""
    if isinstance(error, BadRequest):
        return problem(error.status, error.title, str(error))
    if isinstance(error, Retryable):
        response = problem(503, "Not now", "A part of the service did not answer. Send the same request again.")
        response.headers["Retry-After"] = "1"
        return response
    if isinstance(error, HTTPException):
        response = problem(error.status_code, error.detail, _ROUTER.get(error.status_code, error.detail))
        response.headers.update(error.headers or {})
        return response
    return problem(500, "Internal error", "This is a fault of the service; it was recorded.")


def log_error(scope: Scope, error: Exception) -> None:
    """One line for a request that an error ended, with a level that says whose fault it was."""
    fields = {"method": scope["method"], "route": getattr(scope.get("route"), "path", "")}
    if isinstance(error, ClientDisconnect):
        logger.info("the caller went away", extra={"fields": fields})
    elif isinstance(error, BadRequest):
        logger.info("refused", extra={"fields": {**fields, "status": error.status, "reason": str(error)}})
    elif isinstance(error, Retryable):
        logger.warning("asked to repeat", extra={"fields": {**fields, "reason": str(error)}})
    elif isinstance(error, HTTPException):
        logger.info("refused", extra={"fields": {**fields, "status": error.status_code, "reason": error.detail}})
    else:
        logger.error("fault", extra={"fields": fields}, exc_info=error)


async def read_body(request: Request, limit: int) -> bytes:
    """The whole body. Raises `TooLarge` as soon as it is known to be longer than `limit` bytes."""
    parts: list[bytes] = []
    size = 0
    async for part in request.stream():
        size += len(part)
        if size > limit:
            raise TooLarge(f"body: more than {limit} bytes; send less")
        parts.append(part)
    return b"".join(parts)


async def read_json(request: Request, limit: int) -> JsonObject:
    """The body as a JSON object. Raises `BadRequest` when it is not one, and `TooLarge`."""
    try:
        body = json.loads(await read_body(request, limit))
    except (ValueError, RecursionError):
        raise BadRequest("body: not JSON; send a JSON object in UTF-8") from None
    if not isinstance(body, dict):
        raise BadRequest("body: not an object; send a JSON object such as {}")
    return body


def serve(app: ASGIApp) -> Response:
    """The application as a function's handler may return it, with `Served` around it.

    The framework calls whatever a handler returns as an ASGI application; its types only know `Response`.
    """
    return cast("Response", Served(app))


class Served:
    """An application whose errors become answers and whose log lines carry the request's trace.

    Nothing is raised to the server: a fault is logged once, with its stack, and answered with 500.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        origin = wiring.parts().settings.web_origin
        answering = CORSMiddleware(self._answer, [origin], ["*"], _HEADERS) if origin else self._answer
        await answering(scope, receive, send)

    async def _answer(self, scope: Scope, receive: Receive, send: Send) -> None:
        scope.setdefault("app", self)  # with an app around it a router raises its refusals; else it words them itself
        begun = False

        async def watched(message: Message) -> None:
            nonlocal begun
            begun = True
            await send(message)

        with traced({name.decode("latin-1"): value.decode("latin-1") for name, value in scope["headers"]}):
            try:
                await self._app(scope, receive, watched)
            except Exception as error:  # noqa: BLE001  the outermost frame of a request: whatever it is, it is logged and answered
                log_error(scope, error)
                if not begun:
                    await answer_error(error)(scope, receive, send)
