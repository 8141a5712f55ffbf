"""What providers report about deliveries that they took."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from datetime import datetime

from shared.codec import decode, encode
from shared.domain import Receipt, digest
from shared.observability import bind
from shared.store import Documents

logger = logging.getLogger(__name__)


async def record(documents: Documents, receipt: Receipt, expires_at: datetime) -> None:
    """Log it and, when the delivery failed, keep it for the tenant's operators until then; again, it changes nothing.

    The other statuses are not written: three of them for every reply would cost more than the run that made it, and
    nothing asks for them. Raises `StoreDown`.
    """
    fields = {"delivery": receipt.delivery, "status": receipt.status, "reason": receipt.reason}
    with bind(tenant=receipt.key.tenant, session=receipt.key.session):
        if receipt.status != "failed":
            logger.info("delivery %s", receipt.status, extra={"fields": fields})
            return
        await documents.put(_path(receipt), encode(receipt), expires_at)
        logger.warning("delivery failed after it was taken", extra={"fields": fields})


async def failures(documents: Documents, tenant: str, limit: int) -> Sequence[Receipt]:
    """At most `limit` receipts of failed deliveries of the tenant, the newest of them first. Raises `StoreDown`."""
    found = [decode(Receipt, body) for _, body in await documents.list(f"tenants/{tenant}/receipts", limit=limit)]
    return sorted(found, key=lambda receipt: receipt.at, reverse=True)


def _path(receipt: Receipt) -> str:
    return f"tenants/{receipt.key.tenant}/receipts/{digest(receipt.key.session, receipt.delivery)}"
