"""Who calls a control-plane route, as FastAPI dependencies."""

from __future__ import annotations

from typing import Annotated

from fastapi import Depends, Security
from fastapi.security import APIKeyHeader

from shared.auth.api_key import authenticate
from shared.domain import Principal
from shared.errors import Forbidden
from shared.wiring import parts

_header = APIKeyHeader(name="Authorization", auto_error=False, description="`Bearer rk_…`, an operator's API key")


async def _operator(authorization: Annotated[str | None, Security(_header)]) -> Principal:
    principal = await authenticate(authorization, parts().published)
    if principal.role != "operator":
        raise Forbidden(f"API key {principal.id}: reading sessions needs the role operator")
    return principal


Operator = Annotated[Principal, Depends(_operator)]
"""A principal that may read its tenant's sessions."""
