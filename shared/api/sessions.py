"""Sessions and runs, as operators read them."""

from __future__ import annotations

import logging
from dataclasses import dataclass, field
from datetime import datetime
from typing import Annotated

from fastapi import APIRouter, Path, Query
from starlette.responses import Response

from shared.api.principals import Operator
from shared.auth import callback_token
from shared.codec import decode, encode
from shared.domain import JsonObject, SessionKey, Usage
from shared.errors import NotFound
from shared.sessions.document import Run, Session, Wait, read, read_state
from shared.sessions.pages import whole
from shared.sessions.projection import status
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
    """Messages, verdicts and other entries that no run has taken yet; 0 in the list of all sessions."""
    inbox_more: bool
    """Whether the inbox has entries that are not counted."""
    usage: Usage
    sequence: int
    """Number of its last event."""
    late: int
    """Messages that came in after a later one had been answered."""
    rejected: int
    """Messages that came while the agent was at work and takes none."""
    unknown: int
    """Deliveries of which nobody can say whether the contact got them."""
    repeated: int
    """Deliveries that the contact may have got twice."""
    changed_at: datetime | None = None
    waits: list[JsonObject] = field(default_factory=list)
    """What its run waits for: `id`, `kind` (`approval`, `callback`, `operator` or `timer`), `tool`, `arguments`,
    `question`, `until`; for an approval and a callback also `callback`, the path that ends it."""
    wait: JsonObject | None = None
    """The first of them."""


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
    """Finished runs with numbers below `before`, the newest first; of a long run the latest steps."""
    key = SessionKey(principal.tenant, session)
    bodies = await parts().store.runs(key, before=before, limit=limit)
    if not bodies:
        await load_session(key)
    return Response(b"[" + b",".join(bodies) + b"]", media_type="application/json")


@router.get("/{session}/runs/{number}", responses={200: {"model": Run}})
async def get_run(principal: Operator, session: SessionId, number: Annotated[int, Path(ge=1, le=LAST_RUN)]) -> Response:
    """One finished run: inputs, plan, all its steps, usage, timings, deliveries."""
    key, store = SessionKey(principal.tenant, session), parts().store
    body = await store.run(key, number)
    if body is None:
        raise NotFound(f"run: session {session} has no finished run {number}")
    run = decode(Run, body)
    return Response(encode(await whole(store, key, run)) if run.moved.pages else body, media_type="application/json")


async def load_session(key: SessionKey) -> Session:
    """The session as it is now. Raises `NotFound`."""
    stored = await parts().store.load(key)
    session = read(key, stored)
    if session is None:
        raise NotFound(f"session: there is none with id {key.session}")
    return session


def _row(row: SessionRow) -> SessionSummary:
    return _summary(read_state(row.state), row.changed_at)


def _summary(session: Session, changed_at: datetime | None = None) -> SessionSummary:
    waits = [_needs(session.key, wait) for wait in (session.run.open if session.run is not None else ())]
    return SessionSummary(
        id=session.id,
        connection=session.connection,
        conversation=session.conversation,
        status=status(session),
        runs=session.runs,
        inbox=len(session.inbox),
        inbox_more=session.more,
        usage=session.usage,
        sequence=session.sequence,
        late=session.late,
        rejected=session.rejected,
        unknown=session.unknown,
        repeated=session.repeated,
        changed_at=changed_at,
        waits=waits,
        wait=waits[0] if waits else None,
    )


def _needs(key: SessionKey, wait: Wait) -> JsonObject:
    needs: JsonObject = {
        "id": wait.id,
        "kind": wait.kind,
        "tool": wait.call.name,
        "arguments": wait.call.arguments,
        "question": wait.question,
        "until": wait.until.isoformat(),
    }
    if wait.kind in ("approval", "callback"):
        needs["callback"] = f"/v1/callbacks/{callback_token.issue(parts().box, key, wait.id)}"
    return needs
