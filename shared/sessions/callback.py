"""What comes from outside to end a wait, as inbox entries: verdicts, answers, and that a run is to stop."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from datetime import datetime
from typing import Any, Literal

from shared.codec import encode
from shared.domain import Contact, Entry, JsonObject, SessionKey, digest
from shared.errors import BadRequest, Gone, TooLarge
from shared.sessions.document import SERVICE, Run, Session, Wait, read
from shared.sessions.waits import outside_wait
from shared.store import SessionStore
from shared.tools import RESULT_BYTES

RESULT_DEPTH = 50
_OUTSIDE = re.compile(r"c([1-9][0-9]{0,9})-[a-z]+-([0-9]{1,9})-.+")
"""As `outside_wait` makes them: the run, the turn, the call."""
_OVER = "it is over, or its run is"
_AWAITED = {
    "approval": 'an approval; send {"approved": true} or {"approved": false}',
    "callback": 'what its callback brings; post {"result": {…}} to the callback\'s address',
    "operator": 'an operator\'s answer; post {"answer": "…"} to /v1/sessions/{session}/waits/{wait}',
    "timer": "a time, and nothing else ends it",
}


def takes_result(wait: str) -> bool:
    """Whether this is the id of a wait for a tool's result, as a callback brings it; else it is an approval's."""
    return _OUTSIDE.fullmatch(wait) is not None


def read_result(body: JsonObject) -> JsonObject:
    """The result in a callback's body. Raises `BadRequest`, naming the field, and `TooLarge`."""
    result = body.get("result")
    if not isinstance(result, dict):
        raise BadRequest('result: missing or not an object; this wait takes {"result": {…}}')
    if _depth(result) > RESULT_DEPTH:
        raise BadRequest(f"result: nested more than {RESULT_DEPTH} deep; send it flatter")
    try:
        size = len(json.dumps(result, ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode())
    except ValueError:
        raise BadRequest("result: has half a character or a number that is none; send what JSON allows") from None
    if size > RESULT_BYTES:
        raise TooLarge(f"result: {size} bytes; {RESULT_BYTES} is the limit: send an address of what is larger")
    return result


async def verdict(store: SessionStore, key: SessionKey, wait: str, *, approved: bool, now: datetime) -> Entry:
    """The entry with the verdict on this approval. One read; the caller has verified the token.

    Raises `Gone` when the wait is over. Two verdicts at once are both entered: the earlier one counts.
    """
    return verdict_on(await _session(store, key), wait, approved=approved, now=now)


async def answer(store: SessionStore, key: SessionKey, wait: str, result: JsonObject, now: datetime) -> Entry:
    """The entry with the result that a callback brings. One read; the caller has verified the token.

    While the tool call that is to wait is still at work its answer is early: it stays in the inbox until then. Raises
    `Gone` when the wait is over. Two answers at once are both entered: the earlier one counts.
    """
    return answer_to(await _session(store, key), wait, result, now)


def verdict_on(session: Session, wait: str, *, approved: bool, now: datetime, by: str = "") -> Entry:
    """As `verdict`, of a session that was read already; `by` is the id of the operator whose verdict it is."""
    found = _open(session.run, wait)
    if found is None:
        raise Gone("wait: this approval was already decided, or its run is over")
    if found.kind == "timer":
        raise Gone("wait: the run waits for a time, which no callback ends")
    if found.kind != "approval":
        raise BadRequest(f"approved: this wait is for {_AWAITED[found.kind]}")
    if found.until <= now:
        raise Gone(f"wait: this approval expired at {found.until.isoformat()}")
    id_ = digest("callback", wait, str(approved), *([by] if by else []))
    return _entry(session, id_, "verdict", now, token=wait, approved=approved, posted_by=by)


def answer_to(session: Session, wait: str, result: JsonObject, now: datetime, by: str = "") -> Entry:
    """As `answer`, of a session that was read already; `by` is the id of the operator who answers."""
    run = session.run
    found = _open(run, wait)
    if found is None and (run is None or not _is_early(run, wait)):
        raise Gone(f"wait: {_OVER}")
    if found is not None and found.kind not in ("callback", "operator"):
        raise BadRequest(f"result: this wait is for {_AWAITED[found.kind]}")
    if found is not None and found.until <= now:
        raise Gone(f"wait: it ended at {found.until.isoformat()}")
    id_ = digest("answer", session.id, wait, encode(result).decode())
    return _entry(session, id_, "answer", now, token=wait, result=result, posted_by=by)


def answer_by(session: Session, wait: str, text: str, now: datetime, by: str) -> Entry:
    """What the operator with the id `by` answers to a question that is open. Raises `Gone` when it is not."""
    found = _open(session.run, wait)
    if found is None:
        raise Gone(f"wait: {_OVER}")
    if found.kind != "operator":
        raise BadRequest(f"answer: this wait is for {_AWAITED[found.kind]}")
    return answer_to(session, wait, {"answer": text, "by": by}, now, by)


def stop(session: Session, request: str, now: datetime, by: str) -> Entry:
    """That the session's run is to be cancelled, with everything that came before; the same `request` is the same."""
    entry = _entry(session, digest("stop", session.id, request), "stop", now, posted_by=by)
    behind_all = int(now.timestamp() * 1_000_000)  # whatever any channel has numbered so far
    return replace(entry, order=behind_all, contact=Contact(id=by, name="an operator"))


async def _session(store: SessionStore, key: SessionKey) -> Session:
    stored = await store.load(key)
    session = read(key, stored)
    if session is None:
        raise Gone("wait: its session is no longer there")
    return session


def _open(run: Run | None, wait: str) -> Wait | None:
    return next((known for known in run.open if known.id == wait), None) if run is not None else None


def _is_early(run: Run, wait: str) -> bool:
    """Whether the run is at work on the tool call that is to wait, or has yet to come to it."""
    named = _OUTSIDE.fullmatch(wait)
    if named is None or int(named[1]) != run.number or run.outcome is not None or run.parked:
        return False
    over = {known.id for known in run.waits}
    over |= {outside_wait(run.number, step.key) for step in run.steps if step.result is not None}
    return wait not in over and int(named[2]) > run.moved.turns


def _entry(session: Session, id_: str, kind: Literal["verdict", "answer", "stop"], now: datetime, **more: Any) -> Entry:
    return Entry(
        id=id_,
        kind=kind,
        connection=session.connection,
        conversation=session.conversation,
        order=0,
        received_at=now,
        contact=SERVICE,
        **more,
    )


def _depth(value: object) -> int:
    """How many objects and lists lie in each other, this one included."""
    depth, level = 0, [value]
    while level := [each for each in level if isinstance(each, dict | list)]:
        depth += 1
        level = [inner for each in level for inner in (each.values() if isinstance(each, dict) else each)]
    return depth
