"""What a session document holds, and how it becomes bytes.

`state` is everything that only the executor writes; the inbox lies beside it because `append` adds to it without
reading. Both are changed together by compare-and-swap, so a `Session` here always shows one moment.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import Literal

from shared.codec import decode, encode
from shared.domain import (
    SEEN_FOR,
    Contact,
    Delivery,
    Entry,
    Message,
    Outcome,
    SessionKey,
    StepKind,
    ToolCall,
    Usage,
)
from shared.errors import Retryable
from shared.store import Stored

SCHEMA_VERSION = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Lease:
    """The expiring right to drive the session."""

    holder: str
    """The attempt that holds it, unique."""
    wake: str
    """Id of the wake that it works for: a redelivery of that wake takes over at once."""
    until: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class Seen:
    """A message id that the channel may still repeat, and the run that took it."""

    id: str
    run: int
    at: datetime
    seen_for: timedelta = SEEN_FOR


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """One recorded effect of a run. Without a result it is an intent: begun, outcome unknown."""

    key: str
    """Names the effect within the run, such as `model-2` or `tool-2.1`: equal in every attempt."""
    kind: StepKind
    name: str
    """The model, or the tool."""
    attempt: int
    started_at: datetime
    result: str | None = None
    """The stored answer as JSON; what the step returns ever after."""
    sequence: int = 0
    """Number of the event that shows it, within the session; given when it is recorded."""
    ended_at: datetime | None = None
    usage: Usage = field(default_factory=Usage)


@dataclass(frozen=True, slots=True, kw_only=True)
class Wait:
    """What a suspended run needs before it can go on: the verdict on an approval, or a time."""

    id: str
    """Of an approval it stands in the buttons and in the signed callback token."""
    kind: Literal["approval", "timer"] = "approval"
    step: str
    """Key of the step that the end of the wait completes."""
    call: ToolCall
    until: datetime
    """The deadline of an approval; the end of a timer."""
    approvers: tuple[str, ...] = ()
    prompt: str = ""
    """Id of the delivery that asks; a timer asks nobody."""
    sequence: int = 0
    provider_id: str = ""
    """The channel's id of that message, once sent."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """The execution that answers what was claimed from the inbox."""

    number: int
    plan: str
    """SHA-256 of the plan; empty when none could be resolved."""
    inputs: tuple[Message, ...]
    first_sequence: int
    """Number of the event of the first input; the others follow."""
    started_at: datetime
    attempt: int = 1
    stalls: int = 0
    """Attempts in a row that recorded nothing."""
    steps: tuple[Step, ...] = ()
    wait: Wait | None = None
    waits: tuple[Wait, ...] = ()
    """Waits that are over, so that their events can be replayed."""
    outcome: Outcome | None = None
    """Set with the reply; the run ends once the reply is delivered."""
    reason: str = ""
    """For the operator, when the outcome is not `answered`."""
    reply: str = ""
    reply_sequence: int = 0
    deliveries: tuple[Delivery, ...] = ()
    ended_at: datetime | None = None

    @property
    def usage(self) -> Usage:
        """The sum over its steps."""
        return sum((step.usage for step in self.steps), Usage())


@dataclass(frozen=True, slots=True, kw_only=True)
class Session:
    """The whole document."""

    tenant: str
    id: str
    connection: str
    conversation: str
    schema_version: int = SCHEMA_VERSION
    epoch: int = 0
    """Fencing number: grows with every claim, and only its holder commits."""
    nonce: str = ""
    """Of the last commit: tells a lost answer from a lost race."""
    lease: Lease | None = None
    run: Run | None = None
    outbox: tuple[Delivery, ...] = ()
    seen: tuple[Seen, ...] = ()
    context: tuple[Message, ...] = ()
    """The conversation before this run, as a model is given it."""
    usage: Usage = field(default_factory=Usage)
    runs: int = 0
    """Number of the last run."""
    sequence: int = 0
    """Number of the last durable event."""
    last_order: int = 0
    """The channel's sequence number of the last message that a run took."""
    viewer: str = ""
    """Web: the user whose view shows this session."""
    watched_until: datetime | None = None
    """Until when an operator's console is shown it."""
    late: int = 0
    """Messages that came in after a later one had been answered."""
    inbox: Mapping[str, Entry] = field(default_factory=dict)
    """Entries by id; stored beside the state."""
    finished: Run | None = None
    """A run that this change ends; its commit archives it, and it is never part of the state."""

    @property
    def key(self) -> SessionKey:
        """Where it lives."""
        return SessionKey(self.tenant, self.id)

    def run_of(self, message_id: str) -> int | None:
        """Number of the run that took this message, if one did and the id is still kept."""
        return next((seen.run for seen in self.seen if seen.id == message_id), None)


def read(key: SessionKey, stored: Stored) -> Session | None:
    """The session of a stored document; None for one that holds nothing at all.

    Raises `Retryable` for a document of a newer release: an instance of that release will take the wake, and this one
    must not write back what it does not understand.
    """
    inbox = {entry_id: decode(Entry, body) for entry_id, body in stored.inbox.items()}
    if stored.state is not None:
        session = decode(Session, stored.state)
        if session.schema_version > SCHEMA_VERSION:
            raise Retryable(f"session {key.session} has schema {session.schema_version}, known is {SCHEMA_VERSION}")
        return replace(session, inbox=inbox)
    if not inbox:
        return None
    first = next(iter(inbox.values()))
    return Session(
        tenant=key.tenant,
        id=key.session,
        connection=first.connection,
        conversation=first.conversation,
        viewer=first.viewer,
        inbox=inbox,
    )


def state_bytes(session: Session) -> bytes:
    """What is stored as `state`: everything but the inbox and a run that goes to the archive."""
    return encode(replace(session, inbox={}, finished=None))


def inbox_bytes(session: Session) -> dict[str, bytes]:
    """What is stored as the inbox."""
    return {entry_id: encode(entry) for entry_id, entry in session.inbox.items()}


def message_of(entry: Entry, sequence: int) -> Message:
    """The contact's message that an inbox entry carries, shown by the event of that number."""
    return Message(
        role="contact",
        text=entry.text,
        id=entry.id,
        contact=entry.contact,
        sent_at=entry.received_at,
        provider_id=entry.provider_id,
        posted_by=entry.posted_by,
        callback_url=entry.callback_url,
        sequence=sequence,
    )


SERVICE = Contact(id="service", name="callback")
"""Who decides when the verdict came by a signed callback rather than by a person's tap."""
