"""Drives sessions: for the push of a wake, and for a caller who invokes an agent and waits."""

from __future__ import annotations

import functions_framework.aio
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route, Router

from shared.api.http import read_body, read_json, serve
from shared.api.invoke import accepted_response, last_event_id, message_of, outcome_response, wants_no_answer
from shared.api.invoke_stream import stream_invoke
from shared.auth.api_key import authenticate
from shared.bus.push import parse_push
from shared.domain import Connection, api_connection, session_key
from shared.errors import NotFound
from shared.wiring import Parts, begin, parts

PUSH_LIMIT = 1 << 20
INVOKE_LIMIT = 1 << 18
PATIENCE_SECONDS = 300.0


async def push(request: Request) -> Response:
    """`POST /wakes`: one wake, as Pub/Sub pushes it. 204 acknowledges it, 503 brings it again."""
    here = parts()
    await here.verify_push(request.headers.get("authorization"))
    await here.run_agent(parse_push(await read_body(request, PUSH_LIMIT)))
    return Response(status_code=204)


async def invoke(request: Request) -> Response:
    """`POST /v1/agents/{agent}/invoke`: a message in, the run that answered it out."""
    here = parts()
    principal = await authenticate(request.headers.get("authorization"), here.published)
    connection = await _door(here, principal.tenant, request.path_params["agent"])
    body = await read_json(request, INVOKE_LIMIT)
    once, development = request.headers.get("idempotency-key"), here.settings.development
    entry = message_of(body, connection, principal, once, here.clock, development=development)
    key = session_key(connection.tenant, connection.id, entry.conversation)
    if wants_no_answer(request.headers.getlist("prefer")):
        await here.accept(key, entry)
        return accepted_response(key, entry, here.settings.addresses)
    if "text/event-stream" in request.headers.get("accept", ""):
        after = last_event_id(request.headers)
        return stream_invoke(here.invoker, here.store, key, entry, PATIENCE_SECONDS, after)
    invoked = await here.invoker.invoke(key, entry, patience=PATIENCE_SECONDS)
    return outcome_response(invoked, entry)


async def _door(here: Parts, tenant: str, agent: str) -> Connection:
    """The connection of whoever calls the agent. Raises `NotFound` when the tenant has no such agent."""
    try:
        return await here.published.connection(api_connection(tenant, agent))
    except NotFound:
        raise NotFound("agent: there is none of that id; check it in the address, and whose API key this is") from None


app = serve(
    Router(
        [
            Route("/wakes", push, methods=["POST"]),
            Route("/v1/agents/{agent}/invoke", invoke, methods=["POST"]),
        ]
    )
)


@functions_framework.aio.http
async def run_agent(request: Request) -> Response:
    """The function's entry point."""
    begin()
    return app
