"""The least that stands between a model's stream and whoever reads it."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator

import functions_framework.aio
import httpx
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse

client = httpx.AsyncClient(timeout=60)


async def relayed(body: bytes) -> AsyncIterator[bytes]:
    url = f"{os.environ['OPENAI_BASE_URL']}/chat/completions"
    async with client.stream("POST", url, content=body) as answer:
        async for chunk in answer.aiter_raw():
            yield chunk


@functions_framework.aio.http
async def relay(request: Request) -> Response:
    """Pass on what the model streams."""
    if request.method == "GET":
        return Response("ready")
    return StreamingResponse(relayed(await request.body()), media_type="text/event-stream")
