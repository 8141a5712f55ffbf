"""Takes what channels post. 200 means that the message is in the store; anything else makes the channel repeat it."""

from __future__ import annotations

import logging

import functions_framework.aio
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route, Router

from shared.api.http import json_response, read_body, serve
from shared.channels import telegram
from shared.domain import digest, session_key
from shared.errors import NotFound, Unreadable
from shared.observability import bind
from shared.wiring import begin, parts

logger = logging.getLogger("functions.ingest")  # the framework loads this file under the name `main`
UPDATE_LIMIT = 1 << 20
"""Bytes; the largest real update is a few tens of kilobytes."""


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
            name = digest(body.decode(errors="replace"))
            await here.store.put(f"tenants/{connection.tenant}/unreadable/{name}", body)
            logger.warning("update kept aside as unreadable", extra={"fields": {"name": name, "reason": str(error)}})
            return json_response(200, {"status": "unreadable"})
        if entry is None:
            return json_response(200, {"status": "ignored"})
        key = session_key(connection.tenant, connection.id, entry.conversation)
        with bind(session=key.session):
            await here.accept(key, entry)
            logger.info("%s accepted", entry.kind)
        return json_response(200, {"status": "accepted", "session": key.session})


app = serve(Router([Route("/telegram/{connection}", telegram_update, methods=["POST"])]))


@functions_framework.aio.http
async def ingest(request: Request) -> Response:
    """The function's entry point."""
    begin()
    return app
