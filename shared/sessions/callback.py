"""The verdict that a callback brings, as an inbox entry."""

from __future__ import annotations

from datetime import datetime

from shared.domain import Entry, SessionKey, digest
from shared.errors import Gone
from shared.sessions.document import SERVICE, read
from shared.store import SessionStore


async def verdict(store: SessionStore, key: SessionKey, wait: str, *, approved: bool, now: datetime) -> Entry:
    """The entry with the verdict on this wait. One read; the caller has verified the token.

    Raises `Gone` when the wait is over. Two verdicts at once are both entered: the earlier one counts.
    """
    stored = await store.load(key)
    session = read(key, stored) if stored is not None else None
    current = session.run.wait if session is not None and session.run is not None else None
    if session is None or current is None or current.id != wait:
        raise Gone("token: this approval was already decided, or its run is over")
    if current.kind == "timer":
        raise Gone("token: the run waits for a time, which no callback ends")
    if current.until <= now:
        raise Gone(f"token: this approval expired at {current.until.isoformat()}")
    return Entry(
        id=digest("callback", wait, str(approved)),
        kind="verdict",
        connection=session.connection,
        conversation=session.conversation,
        order=0,
        received_at=now,
        contact=SERVICE,
        token=wait,
        approved=approved,
    )
