"""How entries get into a session: durable first, then a wake."""

from __future__ import annotations

from shared.bus import Bus
from shared.clock import Clock
from shared.codec import encode
from shared.domain import Entry, SessionKey
from shared.sessions.actor import Pace
from shared.store import SessionStore


async def accept(store: SessionStore, bus: Bus, clock: Clock, pace: Pace, key: SessionKey, *entries: Entry) -> None:
    """Return once the entries are in the session's inbox and its wake is published. One write, no read.

    Raises `Retryable` when either is uncertain: the caller lets the channel repeat, and the same entries again change
    nothing. If only the wake was lost, the tick finds the session.
    """
    await store.append(key, {entry.id: encode(entry) for entry in entries}, pace.due_at(clock.now()))
    await bus.wake(key)
