"""The older steps of a long run, in pages beside its document."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from datetime import datetime

from shared.codec import decode, encode
from shared.domain import SessionKey
from shared.sessions.document import Moved, Run, Session, Step
from shared.store import Document, Documents


def page_path(key: SessionKey, run: int, page: int) -> str:
    """Where a page of a run's steps lies, from page 1 on."""
    return f"tenants/{key.tenant}/sessions/{key.session}/runs/{run}/steps/{page}"


def page_document(session: Session, expires_at: datetime) -> tuple[str, Document] | None:
    """What the session's commit writes of the steps that it moves out."""
    run = session.run or session.finished
    if not session.paged or run is None:
        return None
    return page_path(session.key, run.number, run.moved.pages), Document(
        body=encode(session.paged), expires_at=expires_at
    )


async def whole(documents: Documents, key: SessionKey, run: Run) -> Run:
    """The run with all its steps in place, as if it had no pages. One read a page. Raises `StoreDown`."""
    if not run.moved.pages:
        return run
    paths = [page_path(key, run.number, page) for page in range(1, run.moved.pages + 1)]
    bodies = await asyncio.gather(*(documents.get(path) for path in paths))
    older = [step for body in bodies if body is not None for step in decode(tuple[Step, ...], body)]
    return replace(run, steps=(*older, *run.steps), moved=Moved())
