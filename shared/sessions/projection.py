"""What a reader may see of a session: a pure function of the session.

No browser reads the session document. A web contact's browser listens to its own view, an operator's console to
another that also shows what tools gave back.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import datetime
from typing import Literal

from shared.domain import JsonObject, Message, SessionKey
from shared.sessions.document import Run, Session, Wait

Audience = Literal["contact", "operator"]
MESSAGES_SHOWN = 50
TEXT_SHOWN = 20_000
"""Characters of one text: a view stays far below a document's limit."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PartialText:
    """The text of a model call as far as it has come; a new attempt begins anew."""

    step: str
    attempt: int
    text: str


def contact_view(tenant: str, viewer: str, session: str) -> str:
    """Path of a web contact's view of one session."""
    return f"tenants/{tenant}/contacts/{viewer}/views/{session}"


def console_view(key: SessionKey) -> str:
    """Path of an operator's view of one session."""
    return f"tenants/{key.tenant}/consoles/{key.session}"


def console_watches(session: Session, now: datetime) -> bool:
    """Whether an operator's console shows the session."""
    return session.watched_until is not None and session.watched_until > now


def is_viewed(session: Session, now: datetime) -> bool:
    """Whether the session has a view that anybody may look at."""
    return bool(session.viewer) or console_watches(session, now)


def views(session: Session, *, watched: bool, partial: PartialText | None = None) -> dict[str, bytes]:
    """The views to be written, by path: the web contact's always, the console's only while it is watched."""
    shown: dict[str, bytes] = {}
    if session.viewer:
        shown[contact_view(session.tenant, session.viewer, session.id)] = _body(session, "contact", partial)
    if watched:
        shown[console_view(session.key)] = _body(session, "operator", partial)
    return shown


def _body(session: Session, audience: Audience, partial: PartialText | None) -> bytes:
    return json.dumps(project(session, audience, partial), ensure_ascii=False).encode()


def project(session: Session, audience: Audience, partial: PartialText | None = None) -> JsonObject:
    """What this audience may see: status, the latest messages, the active run's steps, its wait, its partial text."""
    run = session.run
    spoken = [*session.context, *(run.inputs if run is not None else ()), *_arrived(run), *_reply(run)]
    numbered = [message for message in spoken if message.sequence and message.role != "tool"]
    return {
        "session": session.id,
        "sequence": session.sequence,
        "run": session.runs,
        "epoch": session.epoch,
        "status": status(session),
        "messages": [_message(message) for message in numbered[-MESSAGES_SHOWN:]],
        "steps": _steps(run, audience),
        "wait": _wait(run.wait, audience) if run is not None and run.wait is not None else None,
        "waits": [_wait(wait, audience) for wait in run.open] if run is not None else [],
        "text": None
        if partial is None
        else {"step": partial.step, "attempt": partial.attempt, "text": partial.text[:TEXT_SHOWN]},
    }


def status(session: Session) -> Literal["idle", "running", "waiting"]:
    """What the session is doing, in one word."""
    if session.run is None:
        return "idle"
    return "waiting" if session.run.parked else "running"


def _reply(run: Run | None) -> tuple[Message, ...]:
    if run is None or run.outcome is None:
        return ()
    return (Message(role="agent", text=run.reply, sequence=run.reply_sequence),)


def _arrived(run: Run | None) -> tuple[Message, ...]:
    return () if run is None else tuple(arrival.message for arrival in run.arrivals)


def _message(message: Message) -> JsonObject:
    return {
        "sequence": message.sequence,
        "role": message.role,
        "id": message.provider_id or message.id,
        "text": message.text[:TEXT_SHOWN],
        "at": message.sent_at.isoformat() if message.sent_at is not None else None,
    }


def _steps(run: Run | None, audience: Audience) -> list[JsonObject]:
    steps = [] if run is None else [step for step in run.steps if step.result is not None]
    shown: list[JsonObject] = []
    for step in steps:
        fields: JsonObject = {"sequence": step.sequence, "step": step.key, "kind": step.kind, "name": step.name}
        if audience == "operator":
            fields["result"] = (step.result or "")[:TEXT_SHOWN]
        shown.append(fields)
    return shown


def _wait(wait: Wait, audience: Audience) -> JsonObject:
    return {
        "id": wait.id,
        "kind": wait.kind,
        "tool": wait.call.name,
        "arguments": wait.call.arguments,
        "until": wait.until.isoformat(),
        "question": wait.question,
        "approve": wait.kind == "approval" and (audience == "operator" or "contact" in wait.approvers),
    }
