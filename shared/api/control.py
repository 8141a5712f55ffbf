"""What an operator does to a session: stop its run, end one of its waits."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Path
from pydantic import BaseModel, ConfigDict, Field

from shared.api.principals import Operator
from shared.api.sessions import SessionId, load_session
from shared.domain import JsonObject, SessionKey
from shared.errors import BadRequest
from shared.sessions import callback
from shared.wiring import parts

router = APIRouter(prefix="/v1/sessions", tags=["sessions"])
WaitId = Annotated[str, Path(pattern="^[A-Za-z0-9_-]{1,60}$", description="as in the session's `waits`")]


class Decision(BaseModel):
    """How an operator ends a wait: one of the two."""

    model_config = ConfigDict(extra="forbid", strict=True)

    approved: bool | None = None
    """Of an approval."""
    answer: str | None = Field(default=None, min_length=1, max_length=20_000)
    """To a question that a tool asks an operator."""


@router.post("/{session}/stop", status_code=202)
async def stop_session(principal: Operator, session: SessionId) -> JsonObject:
    """Cancel the session's run, with everything that was written before; the contact is told."""
    here, key = parts(), SessionKey(principal.tenant, session)
    found = await load_session(key)
    await here.accept(key, callback.stop(found, here.clock.new_id(), here.clock.now(), principal.id))
    return {"status": "accepted", "session_id": session}


@router.post("/{session}/waits/{wait}", status_code=202)
async def end_wait(principal: Operator, session: SessionId, wait: WaitId, decision: Decision) -> JsonObject:
    """Decide on an approval, whoever else may, or answer a question; 410 when the wait is over."""
    here, key = parts(), SessionKey(principal.tenant, session)
    if (decision.approved is None) == (decision.answer is None):
        raise BadRequest("approved, answer: send one of them")
    found, now = await load_session(key), here.clock.now()
    if decision.answer is not None:
        entry = callback.answer_by(found, wait, decision.answer, now, principal.id)
    else:
        entry = callback.verdict_on(found, wait, approved=bool(decision.approved), now=now, by=principal.id)
    await here.accept(key, entry)
    return {"status": "accepted", "session_id": session}
