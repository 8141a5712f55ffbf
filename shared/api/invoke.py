"""What an invoke takes and gives, as HTTP."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field, ValidationError
from starlette.responses import Response

from shared.api.http import json_response, problem
from shared.clock import Clock
from shared.domain import Connection, Contact, Entry, JsonObject, Outcome, Principal, digest
from shared.errors import BadRequest
from shared.orchestrator.invoke import Invoked
from shared.sessions.document import Run

_STATUS: dict[Outcome, int] = {"answered": 200, "failed": 502, "stopped": 422, "blocked": 403}


class InvokeBody(BaseModel):
    """The body of an invoke."""

    model_config = ConfigDict(extra="forbid")

    input: str = Field(min_length=1, max_length=65_536)
    """What the contact says, 1 to 65,536 characters."""
    session: str = Field(default="", max_length=200)
    """The caller's name for the conversation; empty for a new one."""
    contact: str = Field(default="", max_length=200)
    """The caller's id of the person who speaks; empty for the caller itself."""


def message_of(
    body: JsonObject, connection: Connection, principal: Principal, idempotency_key: str | None, clock: Clock
) -> Entry:
    """The inbox entry of an invoke. The same `Idempotency-Key` of the same principal is the same message for 24 h.

    Raises `BadRequest`, naming the field.
    """
    try:
        asked = InvokeBody.model_validate(body)
    except ValidationError as error:
        first = error.errors(include_input=False, include_url=False)[0]
        raise BadRequest(f"{'.'.join(map(str, first['loc'])) or 'body'}: {first['msg']}") from None
    if idempotency_key is not None and not 1 <= len(idempotency_key) <= 200:
        raise BadRequest("Idempotency-Key: use 1 to 200 characters")
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
    )


def outcome_response(invoked: Invoked, conversation: str) -> Response:
    """200 with the answer; 202 while the run waits or is not over; a problem when it ended without an answer."""
    key, run = invoked.session, invoked.run
    where: JsonObject = {"session": conversation, "session_id": key.session}
    if run is None:
        return json_response(202, {"status": "running", **where})
    where["run"] = f"/v1/sessions/{key.session}/runs/{run.number}"
    if run.outcome is None:
        return json_response(202, {"status": "waiting", **where, "wait": _wait(run)})
    if run.outcome != "answered":
        return problem(_STATUS[run.outcome], f"The run ended as {run.outcome}", run.reason, text=run.reply, **where)
    usage = run.usage
    counts = {
        "input_tokens": usage.input_tokens,
        "output_tokens": usage.output_tokens,
        "cost_usd": usage.cost_nano_usd / 1e9,
    }
    steps = [{"key": step.key, "kind": step.kind, "name": step.name} for step in run.steps]
    return json_response(200, {"status": "answered", "text": run.reply, **where, "steps": steps, "usage": counts})


def _wait(run: Run) -> JsonObject | None:
    wait = run.wait
    if wait is None:
        return None
    return {
        "kind": "approval",
        "tool": wait.call.name,
        "arguments": wait.call.arguments,
        "until": wait.until.isoformat(),
    }
