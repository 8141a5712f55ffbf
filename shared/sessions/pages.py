"""The older part of a long run's record, in pages beside its document."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from datetime import datetime

from shared.codec import decode, encode
from shared.domain import SessionKey
from shared.sessions.document import Moved, Page, Run, Session
from shared.store import Document, Documents


def page_path(key: SessionKey, run: int, page: int) -> str:
    """Where a page of a run lies, from page 1 on."""
    return f"tenants/{key.tenant}/sessions/{key.session}/runs/{run}/steps/{page}"


def page_document(session: Session, expires_at: datetime) -> tuple[str, Document] | None:
    """What the session's commit writes of what it moves out."""
    run = session.run or session.finished
    if session.paged is None or run is None:
        return None
    return page_path(session.key, run.number, run.moved.pages), Document(
        body=encode(session.paged), expires_at=expires_at
    )


async def whole(documents: Documents, key: SessionKey, run: Run) -> Run:
    """The run with everything in place, as if it had no pages. One read a page. Raises `StoreDown`."""
    if not run.moved.pages:
        return run
    paths = [page_path(key, run.number, page) for page in range(1, run.moved.pages + 1)]
    bodies = await asyncio.gather(*(documents.get(path) for path in paths))
    pages = [decode(Page, body) for body in bodies if body is not None]
    return replace(
        run,
        steps=(*(step for page in pages for step in page.steps), *run.steps),
        waits=(*(wait for page in pages for wait in page.waits), *run.waits),
        deliveries=(*(delivery for page in pages for delivery in page.deliveries), *run.deliveries),
        moved=Moved(),
    )
