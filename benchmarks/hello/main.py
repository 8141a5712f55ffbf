"""The least that the framework can serve, and the same with one import: what a cold start is compared with."""

from __future__ import annotations

import os
from importlib import import_module

import functions_framework.aio
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response

for name in filter(None, os.environ.get("BENCH_IMPORT", "").split(",")):
    import_module(name)


@functions_framework.aio.http
async def hello(request: Request) -> Response:
    """Answer."""
    return PlainTextResponse("hello")
