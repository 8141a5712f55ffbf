"""What an invoke takes and gives, as HTTP."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import TYPE_CHECKING

from pydantic import BaseModel, ConfigDict, Field, ValidationError
from starlette.responses import Response

from shared.api.http import json_response, problem
from shared.channels.results import check_url
from shared.clock import Clock
from shared.domain import Connection, Contact, Entry, JsonObject, Outcome, Principal, SessionKey, digest
from shared.errors import BadRequest
from shared.sessions.document import Run, Wait

if TYPE_CHECKING:
    from shared.orchestrator.invoke import Invoked  # which loads all that drives a session

_STATUS: dict[Outcome, int] = {"answered": 200, "failed": 502, "stopped": 422, "blocked": 403, "cancelled": 409}


BUSY = "input: the agent is at work on an earlier message and takes none meanwhile; send it as a new one afterwards"


class InvokeBody(BaseModel):
    """The body of an invoke."""

    model_config = ConfigDict(extra="forbid")

    input: str = Field(min_length=1, max_length=65_536)
    """What the contact says, 1 to 65,536 characters."""
    session: str = Field(default="", max_length=200)
    """The caller's name for the conversation; empty for a new one."""
    contact: str = Field(default="", max_length=200)
    """The caller's id of the person who speaks; empty for the caller itself."""
    callback_url: str = ""
    """Where the result is posted as well; empty for nowhere."""


def message_of(
    body: JsonObject,
    connection: Connection,
    principal: Principal,
    idempotency_key: str | None,
    clock: Clock,
    *,
    development: bool = False,
) -> Entry:
    """The inbox entry of an invoke. The same `Idempotency-Key` of the same principal is the same message for 24 h.

    In `development` a `callback_url` may be on loopback. Raises `BadRequest`, naming the field.
    """
    try:
        asked = InvokeBody.model_validate(body)
    except ValidationError as error:
        first = error.errors(include_input=False, include_url=False)[0]
        raise BadRequest(f"{'.'.join(map(str, first['loc'])) or 'body'}: {first['msg']}") from None
    if idempotency_key is not None and not 1 <= len(idempotency_key) <= 200:
        raise BadRequest("Idempotency-Key: use 1 to 200 characters")
    try:
        if asked.callback_url:
            check_url(asked.callback_url, development=development)
    except ValueError as error:
        raise BadRequest(f"callback_url: {error}") from None
    now = clock.now()
    name = idempotency_key or clock.new_id()
    return Entry(
        id=digest(connection.id, principal.id, name),
        kind="message",
        connection=connection.id,
        # A repeated call that names no session must find the one that the first call made.
        conversation=asked.session or digest("new session", principal.id, name),
        order=int(now.timestamp() * 1_000_000),
        received_at=now,
        contact=Contact(id=asked.contact or principal.id),
        text=asked.input,
        posted_by=principal.id,
        callback_url=asked.callback_url,
    )


def wants_no_answer(prefer: list[str]) -> bool:
    """Whether one of the `Prefer` headers asks not to be kept waiting (RFC 7240, `respond-async`)."""
    wishes = [wish.partition(";")[0].strip().lower() for header in prefer for wish in header.split(",")]
    return "respond-async" in wishes


def last_event_id(headers: Mapping[str, str]) -> int:
    """Number of the last event that the reader of an invoke's stream has seen, from `Last-Event-ID`; 0 for none.

    Raises `BadRequest` for what is no number, and where the request would be another message than that one.
    """
    seen = headers.get("last-event-id", "0")
    if not (seen.isascii() and seen.isdigit() and len(seen) < 19):
        raise BadRequest("Last-Event-ID: send the number of the last event that you saw")
    if int(seen) and "idempotency-key" not in headers:
        raise BadRequest("Idempotency-Key: missing; send the one of the request whose stream goes on")
    return int(seen)


def message_path(key: SessionKey, message: str) -> str:
    """Where the `api` function says what became of a message, before its run has a number."""
    return f"/v1/sessions/{key.session}/messages/{message}"


def accepted_response(key: SessionKey, entry: Entry, addresses: str = "") -> Response:
    """202 with where to ask for the run. `addresses` is the setting: the answer may come from another function."""
    where = message_path(key, entry.id)
    body = {"session": entry.conversation, "session_id": key.session, "message": entry.id, "run": where}
    response = json_response(202, {"status": "accepted", **body})
    response.headers["Location"] = json.loads(addresses or "{}").get("api", "") + where
    response.headers["Preference-Applied"] = "respond-async"
    return response


def outcome_response(invoked: Invoked, entry: Entry) -> Response:
    """200 with the answer; 202 while the run waits or is not over; a problem when it ended without an answer, or when
    the agent takes no message while it is at work."""
    key, run = invoked.session, invoked.run
    where: JsonObject = {"session": entry.conversation, "session_id": key.session}
    if run is None:
        return json_response(202, {"status": "running", **where})
    if run.rejected(entry.id):
        return problem(409, "Busy", BUSY, run=_run_path(run, where), **where)
    if run.outcome is None:
        return json_response(202, waiting_body(run, where))
    if run.outcome != "answered":
        where["run"] = _run_path(run, where)
        return problem(_STATUS[run.outcome], f"The run ended as {run.outcome}", run.reason, text=run.reply, **where)
    return json_response(200, run_body(run, where))


def waiting_body(run: Run, where: JsonObject) -> JsonObject:
    """What a caller is told of a run that waits; `where` has its session."""
    waits = [_wait(wait) for wait in run.open]
    return {"status": "waiting", **where, "run": _run_path(run, where), "wait": next(iter(waits), None), "waits": waits}


def rejected_body(run: Run, where: JsonObject) -> JsonObject:
    """What a caller is told of a message that came while the agent was at work on that run, and takes none then."""
    return {"status": "rejected", **where, "run": _run_path(run, where), "reason": BUSY}


def run_body(run: Run, where: JsonObject) -> JsonObject:
    """What a caller is told of a run that is over: not what tools gave back, which only operators see."""
    usage = run.usage
    counts = {
        "input_tokens": usage.input_tokens,
        "output_tokens": usage.output_tokens,
        "cost_usd": usage.cost_nano_usd / 1e9,
    }
    steps = [{"key": step.key, "kind": step.kind, "name": step.name} for step in run.steps]
    told: JsonObject = {"status": run.outcome, "text": run.reply, **where, "run": _run_path(run, where)}
    if run.reason:
        told["reason"] = run.reason
    return {**told, "steps": steps, "usage": counts}


def _run_path(run: Run, where: JsonObject) -> str:
    return f"/v1/sessions/{where['session_id']}/runs/{run.number}"


def _wait(wait: Wait) -> JsonObject:
    return {
        "kind": wait.kind,
        "tool": wait.call.name,
        "arguments": wait.call.arguments,
        "until": wait.until.isoformat(),
    }
