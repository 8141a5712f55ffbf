"""Results on their way to callers: what becomes of one attempt, and what is kept of those that were given up."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Protocol

from shared.clock import Clock
from shared.codec import decode, encode
from shared.domain import Result
from shared.errors import NotSent, Refused, Retryable
from shared.observability import bind
from shared.store import Documents

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class DeadResult:
    """A result that did not reach its caller; without the text, which stands in the archived run."""

    result: Result
    reason: str
    at: datetime


class Poster(Protocol):
    """Who posts."""

    async def post(self, result: Result) -> None:
        """Return once the caller has it; raises `Refused` when that will never be, and `NotSent` for now."""


async def tell(poster: Poster, documents: Documents, clock: Clock, result: Result) -> None:
    """One attempt. Returns when the caller has the result, or refused it, which is kept for the tenant's operators.

    Raises `Retryable` when the bus should bring it again.
    """
    with bind(tenant=result.key.tenant, session=result.key.session, run=result.run):
        fields = {"result_id": result.id}
        try:
            await poster.post(result)
        except Refused as error:
            await _keep(documents, DeadResult(result=result, reason=str(error), at=clock.now()))
            logger.warning("result refused", extra={"fields": {**fields, "reason": str(error)}})
        except NotSent as error:
            logger.warning("result not taken", extra={"fields": {**fields, "reason": str(error)}})
            raise Retryable(f"result {result.id}: {error}") from error
        else:
            logger.info("result taken", extra={"fields": fields})


async def bury(documents: Documents, clock: Clock, result: Result, reason: str) -> None:
    """Keep a result that was given up for the tenant's operators; again, it changes nothing but the time."""
    with bind(tenant=result.key.tenant, session=result.key.session, run=result.run):
        await _keep(documents, DeadResult(result=result, reason=reason, at=clock.now()))
        logger.error("result given up", extra={"fields": {"result_id": result.id, "reason": reason}})


async def buried(documents: Documents, tenant: str, limit: int) -> Sequence[DeadResult]:
    """At most `limit` results of the tenant that were given up or refused, the newest of them first."""
    found = [decode(DeadResult, body) for _, body in await documents.list(_collection(tenant), limit=limit)]
    return sorted(found, key=lambda dead: dead.at, reverse=True)


async def _keep(documents: Documents, dead: DeadResult) -> None:
    short = replace(dead, result=replace(dead.result, text=""))
    await documents.put(f"{_collection(dead.result.key.tenant)}/{dead.result.id}", encode(short))


def _collection(tenant: str) -> str:
    return f"tenants/{tenant}/dead_results"
