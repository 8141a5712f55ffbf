"""Who calls a control-plane route, as FastAPI dependencies."""

from __future__ import annotations

from typing import Annotated

from fastapi import Depends, Security
from fastapi.security import APIKeyHeader

from shared.domain import Principal
from shared.errors import Forbidden
from shared.wiring import parts

_header = APIKeyHeader(
    name="Authorization", auto_error=False, description="`Bearer rk_…`, an API key, or a Firebase ID token"
)


async def _caller(authorization: Annotated[str | None, Security(_header)]) -> Principal:
    return await parts().principal(authorization)


Caller = Annotated[Principal, Depends(_caller)]
"""Whoever calls, once it is known."""


async def _operator(caller: Caller) -> Principal:
    if caller.role != "operator":
        raise Forbidden(f"{caller.role} {caller.id}: this needs an API key with the role operator")
    return caller


Operator = Annotated[Principal, Depends(_operator)]
"""A principal that may read its tenant's sessions."""
