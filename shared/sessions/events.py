"""What a reader may follow of a session: durable events, numbered, derived from the journal and nothing else.

Nothing here stores an event: the same journal always gives the same events, so a reader that says which number it saw
last gets exactly what it missed, from the archive if need be.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Literal

from shared.domain import JsonObject, Message
from shared.sessions.document import Run
from shared.sessions.projection import Audience

_FOR_OPERATORS = ("result", "reason")


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """One thing that happened in a session."""

    sequence: int
    """1 for the first event of the session; without gaps."""
    run: int
    kind: Literal["message", "step", "wait", "text"]
    """`text` is the run's reply, the last event of a run."""
    data: JsonObject = field(default_factory=dict)

    def seen_by(self, audience: Audience) -> JsonObject:
        """The data without what this audience may not see."""
        if audience == "operator":
            return self.data
        return {name: value for name, value in self.data.items() if name not in _FOR_OPERATORS}


def events(run: Run) -> Iterator[Event]:
    """The events of one run so far, in order."""
    yield from sorted(_events(run), key=lambda event: event.sequence)


def _events(run: Run) -> Iterator[Event]:
    for place, message in enumerate(run.inputs):
        yield Event(sequence=run.first_sequence + place, run=run.number, kind="message", data=_message(message))
    for arrival in run.arrivals:
        data = _message(arrival.message) | {"rejected": arrival.rejected}
        yield Event(sequence=arrival.message.sequence, run=run.number, kind="message", data=data)
    for step in run.steps:
        if step.result is None:
            continue
        seconds = (step.ended_at - step.started_at).total_seconds() if step.ended_at is not None else 0.0
        data = {"step": step.key, "kind": step.kind, "name": step.name, "result": step.result, "seconds": seconds}
        yield Event(sequence=step.sequence, run=run.number, kind="step", data=data)
    for wait in (*run.waits, *run.open):
        data = {
            "wait": wait.id,
            "kind": wait.kind,
            "tool": wait.call.name,
            "arguments": wait.call.arguments,
            "until": wait.until.isoformat(),
            "approve": "contact" in wait.approvers,
            "question": wait.question,
        }
        yield Event(sequence=wait.sequence, run=run.number, kind="wait", data=data)
    if run.outcome is not None:
        data = {"text": run.reply, "outcome": run.outcome, "reason": run.reason}
        yield Event(sequence=run.reply_sequence, run=run.number, kind="text", data=data)


def _message(message: Message) -> JsonObject:
    return {
        "message": message.provider_id or message.id,
        "contact": message.contact.name or message.contact.id if message.contact is not None else "",
        "text": message.text,
        "at": message.sent_at.isoformat() if message.sent_at is not None else None,
    }
