"""Takes what channels post. 200 means that the message is in the store; anything else makes the channel repeat it."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Coroutine
from typing import Any, TypeVar

import functions_framework.aio
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route, Router

from shared.api.http import json_response, read_body, read_json, serve
from shared.channels import telegram, whatsapp
from shared.domain import Connection, Entry, SessionKey, digest, session_key
from shared.errors import Blocked, NotFound, Unreadable
from shared.observability import bind
from shared.published import App
from shared.wiring import Parts, begin, parts

logger = logging.getLogger("functions.ingest")  # the framework loads this file under the name `main`
Result = TypeVar("Result")
UPDATE_LIMIT = 1 << 20
"""Bytes; the largest real update is a few tens of kilobytes."""
WEB_LIMIT = 1 << 17
WHATSAPP_LIMIT = 3 << 20
"""Bytes; Meta posts at most 3 MB."""


async def telegram_update(request: Request) -> Response:
    """`POST /telegram/{connection}`: one update of the connection's bot."""
    here = parts()
    connection = await here.published.connection(request.path_params["connection"])
    if connection.channel != "telegram":
        raise NotFound(f"connection: {connection.id} is not a Telegram connection")
    with bind(tenant=connection.tenant, connection=connection.id):
        telegram.verify(telegram.secret_for(here.box, connection.id), request.headers.get(telegram.SECRET_HEADER))
        body = await read_body(request, UPDATE_LIMIT)
        try:
            entry = telegram.parse(body, connection, here.clock.now())
        except Unreadable as error:
            await _keep_aside(here, connection.tenant, body, str(error))
            return json_response(200, {"status": "unreadable"})
        if entry is None:
            return json_response(200, {"status": "ignored"})
        key = session_key(connection.tenant, connection.id, entry.conversation)
        await _accept(here, key, entry)
        return json_response(200, {"status": "accepted", "session": key.session})


async def whatsapp_callback(request: Request) -> Response:
    """`GET /whatsapp/{app}`, by which Meta checks the address, and `POST`, by which it brings what happened."""
    here = parts()
    found = await here.published.app(request.path_params["app"])
    with bind(tenant=found.tenant):
        if request.method == "POST":
            return await _whatsapp_update(here, found, request)
        return PlainTextResponse(whatsapp.handshake(_secret(here, found, "verify_token"), request.query_params))


async def _whatsapp_update(here: Parts, found: App, request: Request) -> Response:
    """Messages and statuses of any of the app's numbers, of any tenant.

    All messages are in the store before the first receipt is published. What fails is left to Meta, which repeats the
    whole POST: messages that are accepted already change nothing, nor does a receipt that comes twice.
    """
    body = await read_body(request, WHATSAPP_LIMIT)
    whatsapp.verify(_secret(here, found, "app_secret"), body, request.headers.get(whatsapp.SIGNATURE_HEADER))
    try:
        changes = whatsapp.parse(body)
    except Unreadable as error:
        await _keep_aside(here, found.tenant, body, str(error))
        return json_response(200, {"status": "unreadable"})
    found_for = [(change, await here.published.number(found.id, change.number)) for change in changes]
    connected = [(change, connection) for change, connection in found_for if connection is not None]
    taken = await _all([_take(here, change, connection) for change, connection in connected])
    for change, connection in found_for:
        if connection is None:
            await _keep_stray(here, found, change)
    receipts = [receipt for change, connection in connected for receipt in whatsapp.receipts(change, connection)]
    await _all([here.bus.receipt(receipt) for receipt in receipts])
    sessions = sorted({session for some in taken for session in some})
    return json_response(200, {"status": "accepted", "sessions": sessions, "receipts": len(receipts)})


async def web_message(request: Request) -> Response:
    """`POST /v1/sessions/{session}/messages`: what a signed-in user writes in the web client."""
    from shared.channels import web

    here = parts()
    user = await here.principal(request.headers.get("authorization"))
    posted = web.read_posted(await read_json(request, WEB_LIMIT))
    connection = await here.published.connection(posted.connection)
    entry = web.message_entry(posted, connection, user.id, here.clock.now())
    return await _web_entry(request, web.web_session(connection, user, posted.thread), entry)


async def web_verdict(request: Request) -> Response:
    """`POST /v1/sessions/{session}/verdicts`: how a signed-in user decides on an approval that is theirs to give."""
    from shared.channels import web

    here = parts()
    user = await here.principal(request.headers.get("authorization"))
    judged = web.read_judged(await read_json(request, WEB_LIMIT))
    connection = await here.published.connection(judged.connection)
    entry = web.verdict_entry(judged, connection, user.id, here.clock.now())
    return await _web_entry(request, web.web_session(connection, user, judged.thread), entry)


async def _web_entry(request: Request, key: SessionKey, entry: Entry) -> Response:
    if request.path_params["session"] != key.session:
        raise NotFound("session: not the one of this user, connection and thread; ask POST /v1/sessions for it")
    with bind(tenant=key.tenant, connection=entry.connection):
        await _accept(parts(), key, entry)
    return json_response(202, {"status": "accepted", "session": key.session})


async def _take(here: Parts, change: whatsapp.Change, connection: Connection) -> set[str]:
    """Accept what contacts sent to one number, and keep aside what no schema fits; the sessions that got something."""
    with bind(tenant=connection.tenant, connection=connection.id):
        entries = whatsapp.entries(change, connection, here.clock.now())
        if ignored := len(change.messages) - len(entries):
            logger.info("messages ignored", extra={"fields": {"count": ignored}})
        inboxes: dict[SessionKey, list[Entry]] = {}
        for entry in entries:
            inboxes.setdefault(session_key(connection.tenant, connection.id, entry.conversation), []).append(entry)
        await _all([_accept(here, key, *inbox) for key, inbox in inboxes.items()])
        for aside in change.unreadable:
            await _keep_aside(here, connection.tenant, aside.body, aside.reason)
        return {key.session for key in inboxes}


async def _keep_stray(here: Parts, found: App, change: whatsapp.Change) -> None:
    """Keep aside, for the app's owner, what came for a number that is not connected."""
    if change.number:
        logger.warning("number is not connected", extra={"fields": {"app": found.id, "number": change.number}})
    for aside in (*change.unreadable, *whatsapp.as_asides(change)):
        await _keep_aside(here, found.tenant, aside.body, aside.reason)


async def _accept(here: Parts, key: SessionKey, *entries: Entry) -> None:
    with bind(session=key.session):
        await here.accept(key, *entries)
        for entry in entries:
            logger.info("%s accepted", entry.kind)


async def _keep_aside(here: Parts, tenant: str, body: bytes, reason: str) -> None:
    """Keep what cannot be taken where operators find it; the same again changes nothing."""
    name = digest(body.decode(errors="replace"))
    await here.store.put(f"tenants/{tenant}/unreadable/{name}", body, here.pace.expiry(here.clock.now()))
    logger.warning("update kept aside as unreadable", extra={"fields": {"name": name, "reason": reason}})


async def _all(works: list[Coroutine[Any, Any, Result]]) -> list[Result]:
    """What they return. They run at once, and the first error is raised only when each of them is over."""
    done = await asyncio.gather(*works, return_exceptions=True)
    for result in done:
        if isinstance(result, BaseException):
            raise result
    return [result for result in done if not isinstance(result, BaseException)]


def _secret(here: Parts, found: App, name: str) -> str:
    """The app's secret; empty, which nothing matches, when it has none that opens."""
    try:
        return here.box.open(found.secrets.get(name, ""), bound_to=f"{found.tenant}/{found.id}/{name}")
    except Blocked:
        logger.error("the app has no %s that opens: store it again", name, extra={"fields": {"app": found.id}})  # noqa: TRY400  the message says it all
        return ""


app = serve(
    Router(
        [
            Route("/telegram/{connection}", telegram_update, methods=["POST"]),
            Route("/v1/sessions/{session}/messages", web_message, methods=["POST"]),
            Route("/v1/sessions/{session}/verdicts", web_verdict, methods=["POST"]),
            Route("/whatsapp/{app}", whatsapp_callback, methods=["GET", "POST"]),
        ]
    )
)


@functions_framework.aio.http
async def ingest(request: Request) -> Response:
    """The function's entry point."""
    begin()
    return app
