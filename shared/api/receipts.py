"""Deliveries that a channel took and then could not deliver, as operators read them."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Annotated

from fastapi import APIRouter, Query

from shared.api.principals import Operator
from shared.sessions.receipts import failures
from shared.wiring import parts

router = APIRouter(prefix="/v1/receipts", tags=["receipts"])


@dataclass(frozen=True, slots=True, kw_only=True)
class FailedDelivery:
    """A reply that did not reach its contact."""

    session: str
    delivery: str
    """`<run number>/<step or "reply">/<part>`."""
    provider_id: str
    at: datetime
    reason: str
    """The provider's codes and titles."""


@router.get("")
async def list_receipts(principal: Operator, limit: Annotated[int, Query(ge=1, le=1000)] = 200) -> list[FailedDelivery]:
    """The tenant's failed deliveries, the newest first; those that arrived are in the log alone."""
    found = await failures(parts().store, principal.tenant, limit)
    return [
        FailedDelivery(
            session=receipt.key.session,
            delivery=receipt.delivery,
            provider_id=receipt.provider_id,
            at=receipt.at,
            reason=receipt.reason,
        )
        for receipt in found
    ]
