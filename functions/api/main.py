"""The control plane: health, sessions, runs and the events of a session."""

from __future__ import annotations

from functools import cache

import functions_framework.aio
from starlette.requests import Request
from starlette.responses import Response

from shared.api.http import serve
from shared.wiring import begin


@cache
def app() -> Response:
    """The FastAPI application; made on the first request, as the schemas take a while."""
    from shared.api.app import make_app

    return serve(make_app())


@functions_framework.aio.http
async def api(request: Request) -> Response:
    """The function's entry point."""
    begin()
    return app()
