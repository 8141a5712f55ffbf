"""What an operator hands in, and the checks that need nothing but the draft itself."""

from __future__ import annotations

import re
from dataclasses import asdict, dataclass, field
from typing import Any, get_args

from shared.domain import (
    Budget,
    ChannelName,
    Decision,
    Effect,
    JsonObject,
    Queueing,
    QueueMode,
    Rule,
    Texts,
    ToolSpec,
)
from shared.errors import BadRequest


@dataclass(frozen=True, slots=True, kw_only=True)
class AgentDraft:
    """What a new version of an agent shall be; the fields mean what they mean in `ExecutionPlan`."""

    id: str
    instructions: str
    models: tuple[str, ...]
    name: str = ""
    """Shown to operators; empty: the id. Not part of a version."""
    tools: tuple[str, ...] = ()
    """Names of the tenant's tools."""
    rules: tuple[Rule, ...] = ()
    budget: Budget = field(default_factory=Budget)
    texts: Texts = field(default_factory=Texts)
    queueing: Queueing = field(default_factory=Queueing)


@dataclass(frozen=True, slots=True, kw_only=True)
class ConnectionDraft:
    """What a connection shall be. Whether it is enabled, and its secrets, are changed apart from this."""

    id: str
    """Unique over all tenants: it is all that a webhook's address holds."""
    channel: ChannelName
    """Fixed once the connection is made."""
    agent: str
    api_root: str = ""
    """http or https address of the channel's API; empty for the vendor's own."""
    settings: JsonObject = field(default_factory=dict)
    app: str = ""
    """WhatsApp only, and there needed: the app whose callback brings the messages."""
    number: str = ""
    """WhatsApp only, and there needed: Meta's `phone_number_id`, digits; each is connected to an app once."""


LONGEST_TOOL_SECONDS = 300
"""A slice of the run takes at most 480 seconds; whoever waits for a `once` tool whose process died waits so long."""
LONGEST_WINDOW, LONGEST_DEBOUNCE = 10, 30
"""Seconds: a run that waits for a burst to end holds its process, and its contact waits with it."""

_TENANT = re.compile(r"[a-z][a-z0-9_]{0,39}")
_ID = re.compile(r"[a-z0-9][a-z0-9_-]{0,63}")
_TOOL = re.compile(r"[A-Za-z_][A-Za-z0-9_-]{0,63}")
_SECRET = re.compile(r"[a-z0-9_-]{1,64}(/[a-z0-9_-]{1,64})?")
_NUMBER = re.compile(r"[0-9]{1,32}")
_UID = re.compile(r"(?!\.\.?\Z|__.*__\Z)[^/\x00-\x1f\x7f\ud800-\udfff]{1,128}")
"""Firebase takes more; these are the ones that can be a document's id: firebase.google.com/docs/firestore/quotas."""
_IMPLEMENTATION = re.compile(r"builtin:[a-z0-9_]+")


def check_tenant(tenant: str) -> None:
    _matches("tenant", tenant, _TENANT, "1 to 40 of a-z, 0-9 and _, a letter first")


def check_secret_name(name: str) -> None:
    _matches("name", name, _SECRET, "<name>, or <connection or app>/<name>, of a-z, 0-9, _ and -")


def check_app(app: str) -> None:
    _matches("app", app, _ID, "1 to 64 of a-z, 0-9, _ and -, a letter or digit first")


def check_uid(uid: str) -> None:
    _matches("uid", uid, _UID, "the user's Firebase uid: 1 to 128 characters without /, not ., .. or __…__")


def check_tool(tool: ToolSpec) -> None:
    _matches("name", tool.name, _TOOL, "1 to 64 of A-Z, a-z, 0-9, _ and -, a letter or _ first")
    _require(tool.description.strip(), "description is empty: say when a model should use the tool")
    _require(tool.parameters.get("type") == "object", 'parameters: use a JSON Schema with "type": "object"')
    _one_of("effect", tool.effect, Effect)
    _matches("implementation", tool.implementation, _IMPLEMENTATION, "builtin:<name>")
    longest = LONGEST_TOOL_SECONDS
    _within("timeout_seconds", tool.timeout_seconds, 0 < tool.timeout_seconds <= longest, f"above 0, at most {longest}")


def check_agent(agent: AgentDraft) -> None:
    _matches("id", agent.id, _ID, "1 to 64 of a-z, 0-9, _ and -, a letter or digit first")
    _require(agent.instructions.strip(), "instructions are empty: say what the agent is for")
    _require(agent.models, "models is empty: name at least one, such as openai/gpt-5-mini")
    _require(all(agent.models), "models: one has an empty name: leave it out")
    _require(len(set(agent.tools)) == len(agent.tools), "tools: a name stands there twice: name each once")
    for number, rule in enumerate(agent.rules):
        _check_rule(f"rules[{number}]", rule, agent.tools)
    for name, limit in asdict(agent.budget).items():
        _require(limit > 0, f"budget.{name} is {limit}: use a number above 0")
    for name, text in asdict(agent.texts).items():
        _require(text.strip(), f"texts.{name} is empty: a contact would get no answer")
    _check_queueing(agent.queueing)


def check_connection(connection: ConnectionDraft) -> None:
    _matches("id", connection.id, _ID, "1 to 64 of a-z, 0-9, _ and -, a letter or digit first")
    _require(
        not connection.id.startswith("api-") and connection.channel != "api",
        "id and channel: api connections are made with their agent: use another id and channel",
    )
    _one_of("channel", connection.channel, ChannelName)
    _require(
        re.fullmatch(r"(https?://\S+)?", connection.api_root),
        "api_root: use an address that begins with https:// or http://, or leave it empty",
    )
    if connection.channel == "whatsapp":
        check_app(connection.app)
        _matches("number", connection.number, _NUMBER, "Meta's phone_number_id, digits only")
    else:
        _require(not (connection.app or connection.number), "app and number: WhatsApp's alone: leave them empty")


def _check_queueing(queueing: Queueing) -> None:
    window, most = queueing.debounce_seconds, queueing.debounce_most_seconds
    _one_of("queueing.mode", queueing.mode, QueueMode)
    _within("queueing.debounce_seconds", window, 0 <= window <= LONGEST_WINDOW, f"from 0 to {LONGEST_WINDOW}")
    reach = f"from queueing.debounce_seconds to {LONGEST_DEBOUNCE}"
    _within("queueing.debounce_most_seconds", most, window <= most <= LONGEST_DEBOUNCE, reach)


def _check_rule(where: str, rule: Rule, tools: tuple[str, ...]) -> None:
    _require(rule.tool == "*" or rule.tool in tools, f"{where}.tool is {rule.tool!r}: name a tool of the agent, or *")
    _one_of(f"{where}.decision", rule.decision, Decision)
    if rule.decision == "ask":
        _require(rule.approvers, f"{where}.approvers is empty: name who may decide, such as contact")


def _matches(field_name: str, value: str, pattern: re.Pattern[str], what: str) -> None:
    _require(pattern.fullmatch(value), f"{field_name} is {value[:100]!r}: use {what}")


def _within(field_name: str, value: float, fits: bool, reach: str) -> None:  # noqa: FBT001  as `_require`'s condition
    _require(fits, f"{field_name} is {value}: use a number of seconds {reach}")


def _one_of(field_name: str, value: str, choices: Any) -> None:
    _require(value in get_args(choices), f"{field_name} is {value!r}: use one of {', '.join(get_args(choices))}")


def _require(condition: object, otherwise: str) -> None:
    if not condition:
        raise BadRequest(otherwise)
