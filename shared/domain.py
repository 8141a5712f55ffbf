"""The nouns of Recado as frozen values.

Nothing here reads a clock, the environment, a network or a disk. Every value can be compared, hashed by content and
stored as JSON; `shared.codec` turns them into bytes and back. Words are those of docs/glossary.md.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, Literal

JsonObject = dict[str, Any]
"""A tool's arguments, result or schema: the one place where untyped JSON crosses modules."""

ChannelName = Literal["telegram", "whatsapp", "web", "api"]
Role = Literal["contact", "agent", "operator", "tool"]
Effect = Literal["pure", "keyed", "once"]
Decision = Literal["allow", "deny", "ask"]
StepKind = Literal["model", "tool", "approval"]
QueueMode = Literal["steer", "followup", "collect", "interrupt", "reject"]
"""What becomes of a message that comes in during a run. `steer`: the model sees it at its next call, and tool calls
that have not begun are skipped. `followup`: it gets a run of its own. `collect`: one run takes all that came.
`interrupt`: as `steer`, and what the model is writing is dropped for it. `reject`: the contact is told to wait."""
DeliveryStatus = Literal["pending", "sending", "sent", "refused", "unknown"]
"""`sending` is an intent: the call may be under way, or may have been when its process died."""
Outcome = Literal["answered", "failed", "stopped", "blocked", "cancelled"]


SEEN_FOR = timedelta(hours=26)
"""How long a session knows a message again. Telegram repeats for 24 h; an Idempotency-Key is promised for 24 h."""


@dataclass(frozen=True, slots=True)
class SessionKey:
    """Where a session lives: every store method takes the tenant."""

    tenant: str
    session: str


def session_key(tenant: str, connection: str, conversation: str) -> SessionKey:
    """The key of the session for a channel's conversation, equal wherever it is computed.

    `conversation` is the channel's own key with topic or thread, at most a few hundred characters. The session part is
    32 characters of `[0-9a-f]`, safe in a document path and as a Pub/Sub ordering key (1 KB at most).
    """
    return SessionKey(tenant, digest(connection, conversation))


def api_connection(tenant: str, agent: str) -> str:
    """Id of the connection that every agent has for callers of its invoke. Unambiguous: no tenant's id has a hyphen."""
    return f"api-{tenant}-{agent}"


def digest(*parts: str) -> str:
    """32 hexadecimal characters that name these parts, in this order; "ab","c" and "a","bc" differ."""
    return hashlib.sha256("\x1f".join(parts).encode()).hexdigest()[:32]


@dataclass(frozen=True, slots=True, kw_only=True)
class Contact:
    """The person who wrote, as the channel names them."""

    id: str
    name: str = ""
    language: str = ""
    """IETF tag as the channel gives it, such as `pt-br`; empty when it gives none."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ToolCall:
    """One use of a tool that a model asked for."""

    id: str
    name: str
    arguments: JsonObject


@dataclass(frozen=True, slots=True, kw_only=True)
class WaitRequest:
    """What a built-in tool asks for instead of giving a result: the run goes on when that is there, holding nothing
    before."""

    until: datetime
    """The end of a timer; for the others the deadline, after which the model is told that nobody answered."""
    kind: Literal["timer", "callback", "operator"] = "timer"
    question: str = ""
    """For `operator`: what a person is asked."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Message:
    """One utterance in a session."""

    role: Role
    text: str
    id: str = ""
    """For a contact's message the hash that makes it idempotent; empty for what a run produced."""
    contact: Contact | None = None
    sent_at: datetime | None = None
    provider_id: str = ""
    """The channel's own id of a contact's message, where the channel wants to be told it again."""
    posted_by: str = ""
    """The API key that posted it; empty for what came by a channel of its own."""
    callback_url: str = ""
    """Where the result of the run that takes it is posted; empty for nowhere."""
    sequence: int = 0
    """Number of the event that shows it, within the session; 0 for what no event shows."""
    tool_calls: tuple[ToolCall, ...] = ()
    """Only for the agent: the tools that it asked for together with this text."""
    tool_call_id: str = ""
    """Only for a tool: the call that it answers."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Usage:
    """What model calls used; the sum of two usages is a usage."""

    input_tokens: int = 0
    output_tokens: int = 0
    cost_nano_usd: int = 0
    """Billionths of a US dollar: the cheapest call of a cheap model is still a whole number."""

    def __add__(self, other: Usage) -> Usage:
        return Usage(
            input_tokens=self.input_tokens + other.input_tokens,
            output_tokens=self.output_tokens + other.output_tokens,
            cost_nano_usd=self.cost_nano_usd + other.cost_nano_usd,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class ToolSpec:
    """What a model and the policy know of a tool."""

    name: str
    description: str
    parameters: JsonObject
    """JSON Schema of the arguments, an object."""
    effect: Effect = "keyed"
    implementation: str
    """Which registered function runs: `builtin:<name>`."""
    timeout_seconds: float = 60.0
    """How long one execution may take. A `once` tool whose process died is held to be at work for as long."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Rule:
    """One line of a policy: the first rule whose `tool` matches decides."""

    tool: str
    """A tool's name, or `*` for every tool."""
    decision: Decision
    approvers: tuple[str, ...] = ()
    """For `ask`: contact ids on the channel who may decide; `contact` stands for whoever wrote in this run."""
    reason: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Budget:
    """What one run may use at most."""

    model_calls: int = 20
    tool_calls: int = 40
    tokens: int = 200_000
    cost_nano_usd: int = 2_000_000_000
    approval_seconds: int = 86_400
    """How long an approval may take before it counts as denied."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Texts:
    """What the platform itself says to a contact, in the tenant's words."""

    failed: str = "Sorry, I could not answer that just now. Please try again in a few minutes."
    stopped: str = "Sorry, that took more steps than I am allowed to take. Could you ask for something smaller?"
    blocked: str = "Sorry, I cannot answer here at the moment."
    cancelled: str = "Stopped."
    idle: str = "There is nothing to stop."
    busy: str = "One moment, please: I am still working on your last message."

    def of(self, outcome: Outcome) -> str:
        """What a contact is told when a run ends like that; empty for `answered`."""
        return "" if outcome == "answered" else str(getattr(self, outcome))


@dataclass(frozen=True, slots=True, kw_only=True)
class Queueing:
    """How an agent takes messages that come in quick succession, or while it is at work."""

    mode: QueueMode = "steer"
    debounce_seconds: float = 0.5
    """A run begins once nobody has written for so long; 0: at once. Callers of an invoke, commands and button taps do
    not wait."""
    debounce_most_seconds: float = 2.5
    """A run begins so long after its first message, however fast they come."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ExecutionPlan:
    """Everything that a run needs of the configuration, resolved once; immutable, named by the hash of its content."""

    tenant: str
    agent: str
    agent_version: int
    instructions: str
    models: tuple[str, ...]
    """litellm names in the order in which they are tried; `scripted/demo` is the built-in scripted model."""
    tools: tuple[ToolSpec, ...] = ()
    rules: tuple[Rule, ...] = ()
    budget: Budget = field(default_factory=Budget)
    texts: Texts = field(default_factory=Texts)
    queueing: Queueing = field(default_factory=Queueing)

    def tool(self, name: str) -> ToolSpec | None:
        """The tool of that name, if the plan has it."""
        return next((spec for spec in self.tools if spec.name == name), None)


@dataclass(frozen=True, slots=True, kw_only=True)
class Connection:
    """One configured bot, number or door of a tenant on a channel, as published for the functions."""

    id: str
    tenant: str
    channel: ChannelName
    agent: str
    plan: str
    """SHA-256 of the plan that new runs get; a run keeps the one that it started with."""
    enabled: bool = True
    secrets: dict[str, str] = field(default_factory=dict)
    """Name to ciphertext, such as `token` of a Telegram bot; `shared.secrets` opens them."""
    api_root: str = ""
    """Where the channel's API is; empty for the vendor's own address."""
    app: str = ""
    """WhatsApp: the app whose callback brings this connection's messages."""
    number: str = ""
    """WhatsApp: the `phone_number_id` that it receives on and sends from."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Receipt:
    """A provider's report about one delivery."""

    key: SessionKey
    delivery: str
    """The delivery's id, as it was given to the provider."""
    provider_id: str
    status: Literal["sent", "delivered", "read", "failed"]
    at: datetime
    reason: str = ""
    """Of a failure: the provider's codes and titles."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Principal:
    """Who makes a request, once it is known."""

    tenant: str
    """Empty for a contact: the session that it asks for says whose it is."""
    id: str
    role: Literal["invoker", "operator", "contact"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """What waits in a session's inbox: a message, or a control entry. `verdict`: on an approval; `answer`: what a
    callback or an operator brings to a wait; `stop`: cancel what is being done; `receipt`: whether a delivery was
    taken; `watch`: an operator looks on."""

    id: str
    """Hash of the connection and the channel's own id: a channel that repeats itself writes the same entry again."""
    kind: Literal["message", "verdict", "answer", "stop", "receipt", "watch"]
    connection: str
    conversation: str
    order: int
    """The channel's own sequence: Telegram's update id; WhatsApp's time in seconds; for the API the time of arrival in
    microseconds."""
    received_at: datetime
    contact: Contact
    text: str = ""
    blob: str = ""
    """Name of the blob that has the text, when that is long: then `text` is empty."""
    size: int = 0
    """Bytes of the text in the blob."""
    token: str = ""
    """Only for a verdict or an answer: id of the wait that it ends."""
    result: JsonObject | None = None
    """Only for an answer: what the tool call gives to the model."""
    receipt: Receipt | None = None
    """Only for a receipt."""
    approved: bool = False
    tap: str = ""
    """Only for a verdict by a button: the channel's id of the tap, to be answered."""
    provider_id: str = ""
    """The channel's own id of the message, where typing and read marks need it."""
    seen_for: timedelta = SEEN_FOR
    """How long the channel may bring it again."""
    viewer: str = ""
    """Web: the user whose view the session is shown in."""
    posted_by: str = ""
    """API: id of the key that posted it, which may ask what became of it."""
    callback_url: str = ""
    """API: where the result is posted; empty for nowhere."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Button:
    """A choice that a contact can tap. `data` comes back in the tap: at most 64 bytes (Telegram's limit)."""

    label: str
    data: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """How a run ended, for the caller of one of its messages who named an address."""

    key: SessionKey
    conversation: str
    run: int
    message: str
    url: str
    outcome: Outcome
    reason: str = ""
    text: str = ""
    """The reply; empty while it lies in the outbox, where the delivery has it."""

    @property
    def id(self) -> str:
        """Equal however often it is posted."""
        return digest(self.key.tenant, self.key.session, str(self.run), self.message)


@dataclass(frozen=True, slots=True, kw_only=True)
class Delivery:
    """One reply on its way to the contact."""

    id: str
    """`<run number>/<step or "reply">/<part>`: the same reply has the same id in every attempt."""
    text: str
    buttons: tuple[Button, ...] = ()
    replaces: str = ""
    """The channel's id of an earlier message that this text takes the place of; empty for a new message."""
    results: tuple[Result, ...] = ()
    """Of a reply: which callers are told as well, at addresses of theirs."""
    tap: str = ""
    """The channel's id of the tap that this answers; with it or with `replaces` the channel settles, not sends."""
    status: DeliveryStatus = "pending"
    attempts: int = 0
    epoch: int = 0
    """Of the attempt that means to send it, or meant to."""
    repeated: int = 0
    """How often it was sent again although an earlier attempt, cut by a crash, may have sent it: the contact may have
    seen it so many times more."""
    not_before: datetime | None = None
    """When it is tried again: the channel's flood control, or how long a receipt is waited for."""
    first_tried: datetime | None = None
    """Since when the channel does not take it; empty while nothing was in its way."""
    provider_id: str = ""
    """The channel's id of the sent message; empty until it is known."""
    reason: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Wake:
    """The bus message that says: look at this session."""

    key: SessionKey
    id: str
    """The bus's message id: a redelivery has the same."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelRequest:
    """What a model is asked."""

    model: str
    instructions: str
    messages: tuple[Message, ...]
    tools: tuple[ToolSpec, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelReply:
    """What a model answered: text, tool calls, or both."""

    model: str
    text: str
    tool_calls: tuple[ToolCall, ...] = ()
    usage: Usage = field(default_factory=Usage)
