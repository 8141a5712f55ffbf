"""What became of an invoked message, for whoever posted it and for operators."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Path
from starlette.responses import Response

from shared.api.http import json_response
from shared.api.invoke import message_path, rejected_body, run_body, waiting_body
from shared.api.principals import Caller
from shared.api.sessions import SessionId, load_session
from shared.codec import decode
from shared.domain import JsonObject, Principal, SessionKey
from shared.errors import Forbidden, NotFound
from shared.sessions.document import Run, Session
from shared.sessions.pages import whole
from shared.sessions.seen import run_of
from shared.wiring import parts

router = APIRouter(prefix="/v1/sessions", tags=["sessions"])
MessageId = Annotated[str, Path(pattern="^[0-9a-f]{32}$", description="32 hexadecimal characters")]


@router.get("/{session}/messages/{message}", responses={202: {"description": "no run with it is over yet"}})
async def get_message(caller: Caller, session: SessionId, message: MessageId) -> Response:
    """200 with how the run that took the message ended; 202 while none did, for a day and more after it was posted.

    An API key of the role invoker sees the messages that were posted with it, and no others.
    """
    if caller.role == "contact":
        raise Forbidden("a contact reads the session's events; this needs an API key")
    status, body = await _state(caller, await load_session(SessionKey(caller.tenant, session)), message)
    response = json_response(status, body)
    if status == 202:
        response.headers["Retry-After"] = "1"
    return response


async def _state(caller: Principal, session: Session, message: str) -> tuple[int, JsonObject]:
    where: JsonObject = {"session": session.conversation, "session_id": session.id, "message": message}
    pending = {**where, "run": message_path(session.key, message)}
    store, entry, run = parts().store, session.inbox.get(message), session.run
    number = await run_of(store, session, message)
    if number is None and (session.more if entry is None else _may_read(caller, entry.posted_by)):
        return 202, {"status": "accepted", **pending}  # an id that is nobody's may lie among what was not read, too
    if number is not None and (run is None or run.number != number):
        body = await store.run(session.key, number)
        run = decode(Run, body) if body is not None else None
    if run is None or run.number != number or not _took(run, message, caller):
        raise NotFound("message: no such message in this session, or it is more than a day old")
    if run.rejected(message):
        return 200, rejected_body(run, where)
    if run.ended_at is not None:
        return 200, run_body(await whole(store, session.key, run), where)
    return 202, waiting_body(run, where) if run.parked else {"status": "running", **pending}


def _took(run: Run, message: str, caller: Principal) -> bool:
    """Whether the run has this message, and the caller may know."""
    known = (*run.inputs, *(arrival.message for arrival in run.arrivals))
    return any(taken.id == message and _may_read(caller, taken.posted_by) for taken in known)


def _may_read(caller: Principal, posted_by: str) -> bool:
    return caller.role == "operator" or (caller.role == "invoker" and caller.id == posted_by)
