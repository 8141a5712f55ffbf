"""WhatsApp: who posts, what it says, and how a delivery is sent.

Facts are those of https://developers.facebook.com/documentation/business-messaging/whatsapp (Graph API v25.0). One
POST of Meta may hold messages and statuses of many numbers, of several tenants. A person has a phone number, or a
business-scoped user id (BSUID), or both; where there is a BSUID it is their id, as the number may go away later.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, Literal, TypeVar

from shared.channels import Resend
from shared.channels.posting import ConnectionTokens, post, unclear
from shared.channels.reading import judged, read, stops
from shared.channels.split import units
from shared.channels.whatsapp_text import render
from shared.domain import (
    Button,
    Connection,
    Contact,
    Delivery,
    Entry,
    JsonObject,
    Receipt,
    SessionKey,
    digest,
    session_key,
)
from shared.errors import Forbidden, NotSent, Refused, SendError, SendUnknown, Unauthenticated, Unreadable
from shared.secrets import SecretBox

if TYPE_CHECKING:
    import httpx
    from pydantic import BaseModel

    from shared.channels.whatsapp_update import Message, Person, Status

SIGNATURE_HEADER = "X-Hub-Signature-256"
SEEN_FOR = timedelta(days=7, hours=2)
"""Meta repeats a POST for up to 7 days."""

_REFERENCE = re.compile(r"([a-z][a-z0-9_]{0,39})/([0-9a-f]{32})/(.+)", re.DOTALL)
_BSUID = re.compile(r"[A-Z]{2}\.(?:ENT\.)?[A-Za-z0-9]{1,128}")
_STATUS: dict[str, Literal["sent", "delivered", "read", "failed"]] = {
    "sent": "sent",
    "delivered": "delivered",
    "read": "read",
    "played": "read",
    "failed": "failed",
}

Payload = TypeVar("Payload", bound="BaseModel")


@dataclass(frozen=True, slots=True, kw_only=True)
class Aside:
    """A piece of a POST that no schema fits."""

    body: bytes
    reason: str
    """The field, and what is wrong with it; nothing of its content."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """All that one POST says about one number."""

    number: str
    """The `phone_number_id`; empty for unreadable pieces that name none."""
    messages: tuple[Message, ...] = ()
    statuses: tuple[Status, ...] = ()
    people: Mapping[str, Person] = field(default_factory=dict)
    """By phone number and by BSUID."""
    unreadable: tuple[Aside, ...] = ()


def verify(app_secret: str, body: bytes, signature: str | None) -> None:
    """Raise `Unauthenticated` unless `signature`, the value of `SIGNATURE_HEADER`, was made from these very bytes."""
    expected = "sha256=" + hmac.new(app_secret.encode(), body, hashlib.sha256).hexdigest()
    if not app_secret or signature is None or not hmac.compare_digest(expected.encode(), signature.encode()):
        raise Unauthenticated(f"{SIGNATURE_HEADER}: missing or wrong; store this app's secret as <app>/app_secret")


def handshake(verify_token: str, query: Mapping[str, str]) -> str:
    """What to answer Meta when it checks the callback's address. Raises `Forbidden` for another `hub.verify_token`."""
    presented = query.get("hub.verify_token", "")
    if (
        not verify_token
        or query.get("hub.mode") != "subscribe"
        or not hmac.compare_digest(verify_token.encode(), presented.encode())
    ):
        raise Forbidden("hub.verify_token: missing or wrong; give Meta the one that is stored as <app>/verify_token")
    return query.get("hub.challenge", "")


def parse(body: bytes) -> tuple[Change, ...]:
    """Every entry, change, message and status of the POST, one `Change` a number, in the order of arrival.

    What no schema fits stands in `unreadable` and takes nothing else with it. Fields other than `messages` are left
    out. Raises `BadRequest` when the body is not JSON and `Unreadable` when it is not WhatsApp's envelope at all.
    """
    from shared.channels import whatsapp_update as shapes

    found: dict[str, Change] = {}
    nowhere: list[Aside] = []
    for piece in read(shapes.Envelope, body, "what WhatsApp posts").entry:
        entries = _readable(shapes.Entry, [piece], nowhere)
        for change in _readable(shapes.Change, [change for entry in entries for change in entry.changes], nowhere):
            values = [change.value] if change.field == "messages" else []
            for value in _readable(shapes.Value, values, nowhere):
                number = value.metadata.phone_number_id
                found[number] = _merged(found.get(number, Change(number=number)), value)
    return (*found.values(), *([Change(number="", unreadable=tuple(nowhere))] if nowhere else []))


def _merged(change: Change, value: Any) -> Change:
    from shared.channels import whatsapp_update as shapes

    aside: list[Aside] = []
    people = _readable(shapes.Person, value.contacts, aside)
    messages = _readable(shapes.Message, value.messages, aside)
    statuses = _readable(shapes.Status, value.statuses, aside)
    known = {id_: person for person in people for id_ in (person.wa_id, person.user_id) if id_}
    return Change(
        number=change.number,
        messages=(*change.messages, *messages),
        statuses=(*change.statuses, *statuses),
        people={**change.people, **known},
        unreadable=(*change.unreadable, *aside),
    )


def _readable(shape: type[Payload], pieces: list[Any], aside: list[Aside]) -> list[Payload]:
    """Those of the pieces that fit; the others go aside."""
    values = []
    for piece in pieces:
        body = json.dumps(piece, ensure_ascii=False).encode(errors="replace")
        try:
            values.append(read(shape, body, "a piece of it"))
        except Unreadable as error:
            aside.append(Aside(body=body, reason=f"{shape.__name__.lower()}.{error}"))
    return values


def entries(change: Change, connection: Connection, received_at: datetime) -> list[Entry]:
    """What the messages put into inboxes; fewer than messages, as some are none of an agent's business.

    A text, a caption, the title of a chosen reply; what is not read is named in brackets, such as `[image, not
    read]`. `/stop` alone is a stop. A tap on `a:<token>:y` or `a:<token>:n` is a verdict. Reactions, edits, system
    messages and what WhatsApp itself does not support are left out.
    """
    made = (
        # WhatsApp gives seconds and no sequence: within one second the order of arrival counts
        _entry(message, change.people, connection, received_at + timedelta(microseconds=place))
        for place, message in enumerate(change.messages)
    )
    return [entry for entry in made if entry is not None]


def _entry(
    message: Message, people: Mapping[str, Person], connection: Connection, received_at: datetime
) -> Entry | None:
    person = people.get(message.sender_user_id or message.sender)
    who = message.sender_user_id or (person.user_id if person else "") or message.sender
    verdict = judged(message.reply.id) if message.reply is not None else None
    if verdict is None and not message.content:
        return None
    token, approved = verdict or ("", False)
    kind: Literal["message", "stop"] = "stop" if stops(message.content) else "message"
    return Entry(
        id=digest(connection.id, message.id),
        kind=kind if verdict is None else "verdict",
        connection=connection.id,
        conversation=who,
        order=int(message.timestamp),
        received_at=received_at,
        contact=Contact(id=who, name=person.name if person else ""),
        text=message.content if verdict is None else "",
        token=token,
        approved=approved,
        tap="" if verdict is None else message.id,
        provider_id=message.id,
        seen_for=SEEN_FOR,
    )


def as_asides(change: Change) -> list[Aside]:
    """The messages as pieces to keep, where nobody may take them."""
    return [
        Aside(body=message.model_dump_json(by_alias=True).encode(), reason=f"number {change.number} is not connected")
        for message in change.messages
    ]


def receipts(change: Change, connection: Connection) -> list[Receipt]:
    """What the statuses report about deliveries of this connection's tenant; all other statuses are left out."""
    made = []
    for status in change.statuses:
        named, kind = read_reference(status.biz_opaque_callback_data), _STATUS.get(status.status)
        if named is None or kind is None or named[0].tenant != connection.tenant:
            continue  # several tenants may share an app, and each of them writes its own references
        reason = "; ".join(f"{failure.code} {failure.title}".strip() for failure in status.errors)
        at = datetime.fromtimestamp(int(status.timestamp), UTC)
        made.append(
            Receipt(key=named[0], delivery=named[1], provider_id=status.id, status=kind, at=at, reason=reason[:500])
        )
    return made


def reference(key: SessionKey, delivery: str) -> str:
    """Names a delivery in `biz_opaque_callback_data`, which every status about it repeats (at most 512 characters)."""
    return f"{key.tenant}/{key.session}/{delivery}"


def read_reference(text: str) -> tuple[SessionKey, str] | None:
    """Which delivery of which session a `reference` names; None for any other text."""
    named = _REFERENCE.fullmatch(text)
    return (SessionKey(named[1], named[2]), named[3]) if named is not None else None


_BODY_LIMIT = 1024
"""Characters that a message with buttons can carry."""
_PAIR = 131056
"""Too many messages to one person."""
_WAIT = {1: 1, 2: 1, 131000: 1, 131016: 5, 130429: 5, 131057: 60, 4: 60, 80007: 60}
"""Codes that pass by themselves, with the seconds to wait; 131057 is maintenance of at most a minute."""
_FINAL = frozenset(
    # credentials: a new token, or a permission, is needed
    {0, 3, 10, 190, *range(200, 300), 131005}
    # the account: blocked, unpaid, not registered
    | {368, 131031, 131037, 131042, 131045, 133016}
    # this message or its recipient
    | {100, 130472, 130497, 131008, 131009, 131021, 131026, 131030, 131047, 131048, 131049, 131050, 131051, 131052}
    | {131053, 131062, 131064, 132000, 132001, 132005, 132007, 132008, 132012, 132015, 132016}
)
"""Codes that no repetition helps, whatever the HTTP status; some come with 500."""


class WhatsApp:
    """The port `shared.channels.Channel` over the Cloud API; the client's own time limits apply.

    WhatsApp cannot edit: a settled approval is a new message that quotes the tap, or else the question. A text above
    1,024 characters goes before its buttons, which then quote it.
    """

    text_limit = 4096
    typing_seconds = 20.0
    """Shown for at most 25, or until a message arrives."""
    resend: Resend = "receipt"
    fetched = False

    def __init__(
        self, client: httpx.AsyncClient, box: SecretBox, api_root: str = "https://graph.facebook.com/v25.0"
    ) -> None:
        self._client = client
        self._tokens = ConnectionTokens(box)
        self._api_root = api_root

    async def send(self, connection: Connection, conversation: str, delivery: Delivery) -> str:
        text, quoted = _formatted(delivery.text), ""
        if not delivery.buttons:
            return await self._send(connection, conversation, delivery, _text(text))
        if units(text) > _BODY_LIMIT:
            quoted = await self._send(connection, conversation, delivery, _text(text))
            text = "👆"
        return await self._send(connection, conversation, delivery, _question(text, delivery.buttons), quoted)

    async def typing(self, connection: Connection, conversation: str, message: str = "") -> None:
        if not message:
            return
        shown = {"status": "read", "message_id": message, "typing_indicator": {"type": "text"}}
        await self._call(connection, shown, repeatable=True)

    async def settle(self, connection: Connection, conversation: str, delivery: Delivery) -> None:
        text = _text(_formatted(delivery.text))
        await self._send(connection, conversation, delivery, text, delivery.tap or delivery.replaces)

    async def _send(
        self, connection: Connection, conversation: str, delivery: Delivery, content: JsonObject, quoted: str = ""
    ) -> str:
        # A BSUID in `to` is answered 200 and never arrives: it is taken for a phone number.
        recipient = "recipient" if _BSUID.fullmatch(conversation) else "to"
        key = session_key(connection.tenant, connection.id, conversation)
        message: JsonObject = {
            "recipient_type": "individual",
            recipient: conversation,
            **content,
            "biz_opaque_callback_data": reference(key, delivery.id),
        }
        if quoted:
            message["context"] = {"message_id": quoted}
        answer = await self._call(connection, message, repeatable=False, attempt=delivery.attempts)
        try:
            return str(answer["messages"][0]["id"])
        except (KeyError, IndexError, TypeError):
            raise SendUnknown("whatsapp: accepted, but the answer names no message") from None

    async def _call(
        self, connection: Connection, body: JsonObject, *, repeatable: bool, attempt: int = 1
    ) -> JsonObject:
        token = self._tokens.of(connection)
        response = await post(
            self._client,
            f"{connection.api_root or self._api_root}/{connection.number}/messages",
            {"messaging_product": "whatsapp", **body},
            call="whatsapp",
            repeatable=repeatable,
            headers={"Authorization": f"Bearer {token}"},
        )
        answer = _json(response)
        if response.is_success and answer:
            return answer
        if response.status_code >= 400:
            raise _failure(response.status_code, answer.get("error"), token, attempt)
        raise unclear(f"whatsapp: {response.status_code}, not an answer of the Graph API", repeatable=repeatable)


def _formatted(text: str) -> str:
    """With WhatsApp's marks, unless they would make it too long (tables grow) or leave nothing to see."""
    formatted = render(text)
    return formatted if formatted.strip() and units(formatted) <= WhatsApp.text_limit else text


def _text(body: str) -> JsonObject:
    # A preview would be fetched unasked: a link that a stranger's text made the model write must not carry data out.
    return {"type": "text", "text": {"body": body, "preview_url": False}}


def _question(body: str, buttons: tuple[Button, ...]) -> JsonObject:
    replies = [{"type": "reply", "reply": {"id": button.data, "title": button.label[:20]}} for button in buttons]
    return {
        "type": "interactive",
        "interactive": {"type": "button", "body": {"text": body}, "action": {"buttons": replies}},
    }


def _json(response: httpx.Response) -> JsonObject:
    try:
        body = response.json()
    except ValueError:
        body = None
    return body if isinstance(body, dict) else {}


def _failure(status: int, error: Any, token: str, attempt: int) -> SendError:
    """What https://developers.facebook.com/documentation/business-messaging/whatsapp/support/error-codes calls for."""
    error = error if isinstance(error, dict) else {}
    code = error["code"] if isinstance(error.get("code"), int) else -1
    said = f"whatsapp: {status} {code if code >= 0 else ''} {error.get('message', '')}"
    said = " ".join(said.replace(token, "<token>")[:300].split())
    if code == _PAIR:
        return NotSent(said, retry_after=4.0 ** min(max(attempt - 1, 0), 6))
    if code in _WAIT:
        return NotSent(said, retry_after=_WAIT[code])
    passes = code not in _FINAL and (status >= 500 or status == 429)
    return NotSent(said) if passes else Refused(said)
