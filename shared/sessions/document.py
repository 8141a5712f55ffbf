"""What a session document holds, and how it becomes bytes.

`state` is everything that only the executor writes; the inbox lies beside it because `append` adds to it without
reading. Both are changed together by compare-and-swap, so a `Session` here always shows one moment.
"""

from __future__ import annotations

import json
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
    JsonObject,
    Message,
    Outcome,
    QueueMode,
    SessionKey,
    StepKind,
    ToolCall,
    Usage,
)
from shared.errors import Retryable
from shared.store import Stored

SCHEMA_VERSION = 2
UNKNOWN: JsonObject = {"error": "the outcome is unknown: it may or may not have happened, and was not tried again"}
"""What a model is told of a call that was cut and must not be repeated."""


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
class Segment:
    """Ids seen longer ago, in a document of their own; kept here is a filter that tells most ids that are not there."""

    number: int
    """Its document is `…/seen/{number}`."""
    filter: str
    """As `shared.sessions.seen` makes it."""
    until: datetime
    """When the last of its ids is no longer brought again."""


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
    until: datetime | None = None
    """Only for an intent: when its execution is surely over."""
    dropped: bool = False
    """Only for a model's reply: a newer message came before it counted."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Wait:
    """What a suspended run needs before it can go on: the verdict on an approval, an answer from outside, a time."""

    id: str
    """Stands in an approval's buttons and in the signed callback token."""
    kind: Literal["approval", "callback", "timer", "operator"] = "approval"
    step: str
    """Key of the step that the end of the wait completes."""
    call: ToolCall
    until: datetime
    """The end of a timer; for the others the deadline."""
    approvers: tuple[str, ...] = ()
    question: str = ""
    """What an operator is asked."""
    prompt: str = ""
    """Id of the delivery that asks the contact; only an approval does."""
    sequence: int = 0
    provider_id: str = ""
    """The channel's id of that message, once sent."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Stop:
    """Up to where the contact, or an operator, wanted nothing done any more."""

    order: int
    received_at: datetime
    by_operator: bool
    """An operator's word stands in no order with a channel's numbers."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Arrival:
    """A message that came while the run was at work, and became part of it."""

    message: Message
    after: int
    """The model sees it behind the tool results of its so many-th call."""
    rejected: bool = False
    """The model never sees it: the contact was told to wait."""
    attempt: int = 0
    """The run's, when it came; 0 in documents of releases that did not say."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Moved:
    """What of a long run's journal lies in pages, documents `…/runs/{number}/steps/{page}` from 1 on."""

    pages: int = 0
    turns: int = 0
    """All steps of so many turns; the session's summary stands for them before the model."""
    model_calls: int = 0
    tool_calls: int = 0
    usage: Usage = field(default_factory=Usage)


@dataclass(frozen=True, slots=True, kw_only=True)
class Page:
    """What moved out of a long run's document at once."""

    steps: tuple[Step, ...]
    waits: tuple[Wait, ...] = ()
    deliveries: tuple[Delivery, ...] = ()


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
    set_aside: bool = False
    """It made no progress, and is kept as a dead run as well."""
    queue_mode: QueueMode = "collect"
    unwanted: bool = False
    """What it takes came before a stop that another run has told of: it ends without a word."""
    steps: tuple[Step, ...] = ()
    moved: Moved = field(default_factory=Moved)
    arrivals: tuple[Arrival, ...] = ()
    open: tuple[Wait, ...] = ()
    """What it waits for."""
    parked: bool = False
    """Nothing can be done before one of the open waits is over."""
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
        return sum((step.usage for step in self.steps), self.moved.usage)

    @property
    def wait(self) -> Wait | None:
        """The first of the open waits."""
        return self.open[0] if self.open else None

    def took(self, message_id: str) -> bool:
        """Whether this message is one of its inputs, or came while it was at work."""
        messages = (*self.inputs, *(arrival.message for arrival in self.arrivals))
        return any(message.id == message_id for message in messages)

    def rejected(self, message_id: str) -> bool:
        """Whether this message came during the run and its contact was told to wait."""
        return any(arrival.rejected and arrival.message.id == message_id for arrival in self.arrivals)

    def step(self, key: str) -> Step | None:
        """The step of that key, if it is there and not in a page."""
        return next((step for step in self.steps if step.key == key), None)


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
    segments: tuple[Segment, ...] = ()
    summary: str = ""
    """What was said before `context` begins, in short."""
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
    stopped: Stop | None = None
    """The last stop: messages from before it that one run could not take are not answered by the next either."""
    rejected: int = 0
    """Messages that came during a run whose agent takes none then."""
    unknown: int = 0
    """Deliveries of which nobody will ever know whether the contact saw them."""
    repeated: int = 0
    """Times that a contact may have seen a delivery once more."""
    inbox: Mapping[str, Entry] = field(default_factory=dict)
    """Entries by id; stored beside the state."""
    more: bool = False
    """Whether the inbox has entries that were not read yet; never part of the state, as all that follows."""
    read_to: int | None = None
    """With `more`: messages beyond this order must not be taken yet."""
    finished: Run | None = None
    """A run that this change ends; its commit archives it."""
    paged: Page | None = None
    """What this change moves out: its commit writes it as the last page of the run."""
    forgotten: tuple[Seen, ...] = ()
    """Ids that this change moves out: its commit writes them as the last segment."""

    @property
    def key(self) -> SessionKey:
        """Where it lives."""
        return SessionKey(self.tenant, self.id)

    def run_of(self, message_id: str) -> int | None:
        """Number of the run that took this message, if one did and the id is still kept."""
        return next((seen.run for seen in self.seen if seen.id == message_id), None)


def read(key: SessionKey, stored: Stored | None) -> Session | None:
    """The session of a stored document; None where there is none, or one that holds nothing at all.

    Documents of older releases are brought to the present shape. Raises `Retryable` for one of a newer release: an
    instance of that release will take the wake, and this one must not write back what it does not understand.
    """
    if stored is None:
        return None
    inbox = {entry_id: decode(Entry, body) for entry_id, body in stored.inbox.items()}
    if stored.state is not None:
        return replace(read_state(stored.state), inbox=inbox, more=stored.more, read_to=stored.read_to)
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
        more=stored.more,
        read_to=stored.read_to,
    )


def read_state(state: bytes) -> Session:
    """The session without its inbox. Raises `Retryable` as `read` does."""
    if b'"schema_version":1,' in state:  # no text can hold this: its quotation marks would be escaped
        state = _from_version_1(state)
    session = decode(Session, state)
    if session.schema_version > SCHEMA_VERSION:
        raise Retryable(f"session {session.id} has schema {session.schema_version}, known is {SCHEMA_VERSION}")
    return session


def _from_version_1(state: bytes) -> bytes:
    """A run had one wait at most, and stood still for it."""
    document: JsonObject = json.loads(state)
    run = document["run"]
    if run is not None and (wait := run.pop("wait")) is not None:
        run |= {"open": [wait], "parked": True}
    return json.dumps(document | {"schema_version": SCHEMA_VERSION}).encode()


def state_bytes(session: Session) -> bytes:
    """What is stored as `state`: everything but the inbox and what goes into documents of its own."""
    stored = replace(session, inbox={}, more=False, read_to=None, finished=None, paged=None, forgotten=())
    return encode(stored if stored.schema_version == SCHEMA_VERSION else replace(stored, schema_version=SCHEMA_VERSION))


def message_of(entry: Entry, text: str, sequence: int) -> Message:
    """The contact's message that an inbox entry carries, with its text, shown by the event of that number."""
    return Message(
        role="contact",
        text=text,
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
