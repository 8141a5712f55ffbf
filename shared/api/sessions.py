"""Sessions and runs, as operators read them."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from datetime import datetime
from typing import Annotated

from fastapi import APIRouter, Path, Query
from starlette.responses import Response

from shared.api.principals import Operator
from shared.auth import callback_token
from shared.codec import decode
from shared.domain import JsonObject, SessionKey, Usage
from shared.errors import NotFound
from shared.sessions.document import Run, Session, read
from shared.store import SessionRow
from shared.wiring import parts

logger = logging.getLogger(__name__)
router = APIRouter(prefix="/v1/sessions", tags=["sessions"])
SessionId = Annotated[str, Path(pattern="^[0-9a-f]{32}$", description="32 hexadecimal characters")]
LAST_RUN = 2**31 - 1
"""The largest run number that is looked for: every store can hold it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SessionSummary:
    """A session in short."""

    id: str
    connection: str
    conversation: str
    status: str
    """`idle`, `running` or `waiting`."""
    runs: int
    inbox: int
    """Messages and verdicts that no run has taken yet."""
    usage: Usage
    sequence: int
    """Number of its last event."""
    late: int
    changed_at: datetime | None = None
    wait: JsonObject | None = None
    """What a waiting run needs: `kind`, `approval` or `timer`; the tool, its arguments, until when; for an approval the
    callback's path."""


@router.get("")
async def list_sessions(principal: Operator, limit: Annotated[int, Query(ge=1, le=200)] = 50) -> list[SessionSummary]:
    """The tenant's sessions, the most recently changed first."""
    rows = await parts().store.sessions(principal.tenant, limit=limit)
    return [_row(row) for row in rows]


@router.get("/{session}")
async def get_session(principal: Operator, session: SessionId) -> SessionSummary:
    """One session, as it is now."""
    return _summary(await load_session(SessionKey(principal.tenant, session)))


@router.get("/{session}/runs", responses={200: {"model": list[Run]}})
async def list_runs(
    principal: Operator,
    session: SessionId,
    before: Annotated[int | None, Query(ge=1, le=LAST_RUN)] = None,
    limit: Annotated[int, Query(ge=1, le=100)] = 20,
) -> Response:
    """Finished runs with numbers below `before`, the newest first."""
    key = SessionKey(principal.tenant, session)
    bodies = await parts().store.runs(key, before=before, limit=limit)
    if not bodies:
        await load_session(key)
    return Response(b"[" + b",".join(bodies) + b"]", media_type="application/json")


@router.get("/{session}/runs/{number}", responses={200: {"model": Run}})
async def get_run(principal: Operator, session: SessionId, number: Annotated[int, Path(ge=1, le=LAST_RUN)]) -> Response:
    """One finished run: inputs, plan, steps, usage, timings, deliveries."""
    body = await parts().store.run(SessionKey(principal.tenant, session), number)
    if body is None:
        raise NotFound(f"run: session {session} has no finished run {number}")
    return Response(body, media_type="application/json")


async def load_session(key: SessionKey) -> Session:
    """The session as it is now. Raises `NotFound`."""
    stored = await parts().store.load(key)
    session = read(key, stored) if stored is not None else None
    if session is None:
        raise NotFound(f"session: there is none with id {key.session}")
    return session


def _row(row: SessionRow) -> SessionSummary:
    return _summary(decode(Session, row.state), row.changed_at)


def _summary(session: Session, changed_at: datetime | None = None) -> SessionSummary:
    run = session.run
    wait = run.wait if run is not None else None
    needs: JsonObject | None = None
    if wait is not None:
        needs = {
            "kind": wait.kind,
            "tool": wait.call.name,
            "arguments": wait.call.arguments,
            "until": wait.until.isoformat(),
        }
    if needs is not None and wait is not None and wait.kind == "approval":
        needs["callback"] = f"/v1/callbacks/{callback_token.issue(parts().box, session.key, wait.id)}"
    return SessionSummary(
        id=session.id,
        connection=session.connection,
        conversation=session.conversation,
        status="waiting" if wait is not None else "running" if run is not None else "idle",
        runs=session.runs,
        inbox=len(session.inbox),
        usage=session.usage,
        sequence=session.sequence,
        late=session.late,
        changed_at=changed_at,
        wait=needs,
    )
