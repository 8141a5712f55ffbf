"""Follow a session's durable events from any number on."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import aclosing

from shared.codec import decode
from shared.domain import SessionKey
from shared.sessions.document import Run, Session, read
from shared.sessions.events import Event, events
from shared.store import Archive, SessionStore


async def follow(store: SessionStore, archive: Archive, key: SessionKey, after: int) -> AsyncGenerator[Event]:
    """Every event later than number `after`, in order and once, first the missed ones, then each as it happens.

    Goes on until the caller closes it.
    """
    async with aclosing(store.watch(key)) as changes:
        async for stored in changes:
            session = read(key, stored)
            if session is None or session.sequence <= after:
                continue
            for run in await _runs_since(archive, session, after):
                for event in events(run):
                    if event.sequence > after:
                        yield event
                        after = event.sequence


async def _runs_since(archive: Archive, session: Session, after: int) -> list[Run]:
    """The runs that have events later than `after`, the oldest first; the archive is read only for finished ones."""
    runs = [session.run] if session.run is not None else []
    while not runs or runs[0].first_sequence > after + 1:
        before = runs[0].number if runs else None
        page = [decode(Run, body) for body in await archive.runs(session.key, before=before, limit=10)]
        if not page:
            break
        runs[:0] = reversed(page)
    return [run for run in runs if run.ended_at is None or run.reply_sequence > after]
