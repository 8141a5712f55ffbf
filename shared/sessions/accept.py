"""How entries get into a session: durable first, then a wake."""

from __future__ import annotations

import asyncio

from shared.bus import Bus
from shared.clock import Clock
from shared.codec import encode
from shared.domain import Entry, SessionKey
from shared.files import Files
from shared.sessions.blobs import put_aside
from shared.sessions.pace import Pace
from shared.store import Pending, SessionStore


async def accept(
    store: SessionStore, files: Files, bus: Bus, clock: Clock, pace: Pace, key: SessionKey, *entries: Entry
) -> None:
    """Return once the entries are in the session's inbox and its wake is published. One write, no read; a long text
    is one blob more.

    Raises `Retryable` when any of it is uncertain: the caller lets the channel repeat, and the same entries again
    change nothing. If only the wake was lost, the tick finds the session.
    """
    await put(store, files, clock, pace, key, *entries)
    await bus.wake(key)


async def put(store: SessionStore, files: Files, clock: Clock, pace: Pace, key: SessionKey, *entries: Entry) -> None:
    """Return once the entries are in the session's inbox, without a wake. Raises `StoreDown`."""
    entries = tuple(await asyncio.gather(*(put_aside(files, key, entry) for entry in entries)))
    await store.append(key, {entry.id: pending(entry) for entry in entries}, pace.due_at(clock.now()))


def pending(entry: Entry) -> Pending:
    """How an entry goes into the inbox: control entries before messages, messages in the channel's order."""
    return Pending(body=encode(entry), rank=entry.order if entry.kind == "message" else 0)
