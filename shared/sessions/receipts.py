"""What providers report about deliveries that they took."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Sequence
from datetime import datetime
from typing import Protocol

from shared.codec import decode, encode
from shared.domain import Contact, Entry, Receipt, SessionKey, digest
from shared.observability import bind
from shared.sessions.document import read
from shared.store import Documents, SessionStore

logger = logging.getLogger(__name__)
Accept = Callable[[SessionKey, Entry], Awaitable[None]]
SAYS_WHETHER = ("sent", "failed")
"""The statuses that tell whether the provider took a delivery; the others come after one of them."""


class Store(SessionStore, Documents, Protocol):
    """Sessions, and what is kept of receipts."""


async def record(store: Store, accept: Accept, receipt: Receipt, now: datetime, expires_at: datetime) -> None:
    """Log it, let a session that waits for it know by `accept`, and keep a failure for the tenant's operators until
    `expires_at`; again, it changes nothing.

    Cost: one read of the session for `sent` and `failed`, so one for each reply on a channel that has receipts, and
    none for `delivered` and `read`. Written is a failure, and what a session waits for: seldom, as that is a delivery
    whose sending was cut, or whose receipt was faster than the commit that says it was sent. Everything else is in
    the log alone. Raises `Retryable`.
    """
    fields = {"delivery": receipt.delivery, "status": receipt.status, "reason": receipt.reason}
    with bind(tenant=receipt.key.tenant, session=receipt.key.session):
        if receipt.status in SAYS_WHETHER:
            await _tell(store, accept, receipt, now)
        if receipt.status != "failed":
            logger.info("delivery %s", receipt.status, extra={"fields": fields})
            return
        await store.put(_path(receipt), encode(receipt), expires_at)
        logger.warning("delivery failed after it was taken", extra={"fields": fields})


async def failures(documents: Documents, tenant: str, limit: int) -> Sequence[Receipt]:
    """At most `limit` receipts of failed deliveries of the tenant, the newest of them first. Raises `StoreDown`."""
    found = [decode(Receipt, body) for _, body in await documents.list(f"tenants/{tenant}/receipts", limit=limit)]
    return sorted(found, key=lambda receipt: receipt.at, reverse=True)


async def _tell(store: SessionStore, accept: Accept, receipt: Receipt, now: datetime) -> None:
    """Put the receipt into the inbox of its session if that does not know what became of the delivery."""
    stored = await store.load(receipt.key)
    session = read(receipt.key, stored)
    in_doubt = session.outbox if session is not None else ()
    if session is None or not any(
        known.id == receipt.delivery and known.status in ("sending", "unknown") for known in in_doubt
    ):
        return
    entry = Entry(
        id=digest("receipt", receipt.delivery, receipt.status),
        kind="receipt",
        connection=session.connection,
        conversation=session.conversation,
        order=0,
        received_at=now,
        contact=Contact(id="provider"),
        receipt=receipt,
    )
    await accept(receipt.key, entry)


def _path(receipt: Receipt) -> str:
    return f"tenants/{receipt.key.tenant}/receipts/{digest(receipt.key.session, receipt.delivery)}"
