"""Results for callers: the key that signs them, and those that did not arrive, as operators read them."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Annotated

from fastapi import APIRouter, Query

from shared.api.principals import Operator
from shared.channels.results import signing_key
from shared.sessions.results import buried
from shared.wiring import parts

router = APIRouter(prefix="/v1", tags=["results"])


@dataclass(frozen=True, slots=True, kw_only=True)
class SigningKey:
    """With what a receiver checks `Recado-Signature`."""

    key: str
    """64 hexadecimal characters, used as they stand."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LostResult:
    """A result that did not reach its caller."""

    id: str
    """The `Idempotency-Key` of every attempt."""
    session: str
    run: int
    message: str
    callback_url: str
    at: datetime
    reason: str


@router.get("/signing-key")
async def get_signing_key(principal: Operator) -> SigningKey:
    """The tenant's key. Whoever has it can sign results that look like ours."""
    return SigningKey(key=signing_key(parts().box, principal.tenant))


@router.get("/dead-results")
async def list_dead_results(principal: Operator, limit: Annotated[int, Query(ge=1, le=1000)] = 200) -> list[LostResult]:
    """The tenant's results that were refused or given up, the newest first."""
    return [
        LostResult(
            id=dead.result.id,
            session=dead.result.key.session,
            run=dead.result.run,
            message=dead.result.message,
            callback_url=dead.result.url,
            at=dead.at,
            reason=dead.reason,
        )
        for dead in await buried(parts().store, principal.tenant, limit)
    ]
