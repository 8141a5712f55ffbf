"""Takes what comes back: verdicts and answers that end waits, receipts, results for callers, and the tick."""

from __future__ import annotations

import functions_framework.aio
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route, Router

from shared.api.http import json_response, read_body, read_json, serve
from shared.auth import callback_token
from shared.bus.push import parse_receipt, parse_result
from shared.errors import BadRequest
from shared.sessions.callback import answer, read_result, takes_result, verdict
from shared.wiring import begin, parts

BODY_LIMIT = 1 << 16
RESULT_LIMIT = 10 << 20
"""Bytes: of Pub/Sub's largest message."""


async def callback(request: Request) -> Response:
    """`POST /v1/callbacks/{token}`: ends the wait that the token names.

    `{"approved": true|false}` decides on an approval; `{"result": {…}}` is what a tool that waits gives to the model.
    """
    here = parts()
    key, wait = callback_token.verify(here.box, request.path_params["token"])
    body = await read_json(request, BODY_LIMIT)
    if takes_result(wait):
        entry = await answer(here.store, key, wait, read_result(body), here.clock.now())
    elif isinstance(body.get("approved"), bool):
        entry = await verdict(here.store, key, wait, approved=body["approved"], now=here.clock.now())
    else:
        raise BadRequest("approved: missing or not a boolean; this wait is an approval: send true or false")
    await here.accept(key, entry)
    return json_response(202, {"status": "accepted", "session_id": key.session})


async def delivery(request: Request) -> Response:
    """`POST /deliveries`: one receipt, as Pub/Sub pushes it. 204 acknowledges it, 503 brings it again."""
    here = parts()
    await here.verify_push(request.headers.get("authorization"))
    await here.record(parse_receipt(await read_body(request, BODY_LIMIT)))
    return Response(status_code=204)


async def result(request: Request) -> Response:
    """`POST /results`: one result for a caller, as Pub/Sub pushes it. 204 once it was taken or refused for good."""
    here = parts()
    await here.verify_push(request.headers.get("authorization"))
    await here.tell(parse_result(await read_body(request, RESULT_LIMIT)))
    return Response(status_code=204)


async def dead_result(request: Request) -> Response:
    """`POST /results/dead`: one result that Pub/Sub gave up, kept where operators find it."""
    here = parts()
    await here.verify_push(request.headers.get("authorization"))
    await here.bury(parse_result(await read_body(request, RESULT_LIMIT)))
    return Response(status_code=204)


async def tick(request: Request) -> Response:
    """`POST /tick`, once a minute: wakes every session that is due."""
    here = parts()
    await here.verify_push(request.headers.get("authorization"))
    return json_response(200, {"woken": await here.wake_due()})


app = serve(
    Router(
        [
            Route("/v1/callbacks/{token}", callback, methods=["POST"]),
            Route("/deliveries", delivery, methods=["POST"]),
            Route("/results", result, methods=["POST"]),
            Route("/results/dead", dead_result, methods=["POST"]),
            Route("/tick", tick, methods=["POST"]),
        ]
    )
)


@functions_framework.aio.http
async def callbacks(request: Request) -> Response:
    """The function's entry point."""
    begin()
    return app
