"""The FastAPI application of the control plane."""

from __future__ import annotations

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.responses import Response

from shared.api import control, dead_runs, events, health, messages, receipts, results, sessions, web
from shared.api.http import answer_error, log_error
from shared.errors import BadRequest, NotFound, RecadoError


def make_app() -> FastAPI:
    """All routes, with every error as `application/problem+json`."""
    app = FastAPI(title="Recado", summary="Sessions and runs of your agents", version="1", redoc_url=None)
    app.include_router(health.router)
    app.include_router(sessions.router)
    app.include_router(control.router)
    app.include_router(events.router)
    app.include_router(web.router)
    app.include_router(receipts.router)
    app.include_router(messages.router)
    app.include_router(results.router)
    app.include_router(dead_runs.router)
    app.add_exception_handler(RecadoError, _refused)
    app.add_exception_handler(HTTPException, _refused)
    app.add_exception_handler(RequestValidationError, _invalid)
    app.add_exception_handler(Exception, _fault)
    return app


async def _refused(request: Request, error: Exception) -> Response:
    if not isinstance(error, NotFound):  # to whoever waits for a session to come into being that is an answer
        log_error(request.scope, error)
    return answer_error(error)


async def _invalid(request: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)
    first = error.errors()[0]
    return await _refused(request, BadRequest(f"{'.'.join(map(str, first['loc'][1:]))}: {first['msg']}"))


async def _fault(_: Request, error: Exception) -> Response:
    return answer_error(error)  # it is raised again after this, and logged by `Served`
