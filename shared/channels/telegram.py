"""Telegram: who posts an update, what it says, and how a delivery is sent.

Facts are those of https://core.telegram.org/bots/api (Bot API 10) and, where it is silent, of the server's source
(https://github.com/tdlib/telegram-bot-api). The bot's token is part of every address, so no error here carries an
address or an exception of the HTTP library; that library logs addresses at INFO and must be kept at WARNING.
"""

from __future__ import annotations

import hmac
import re
from dataclasses import dataclass
from datetime import datetime
from html import unescape
from typing import TYPE_CHECKING, Any

from shared.channels import Resend
from shared.channels.posting import ConnectionTokens, post, unclear
from shared.channels.reading import judged, read, stops
from shared.channels.split import units
from shared.channels.telegram_html import render
from shared.domain import Connection, Contact, Delivery, Entry, JsonObject, digest
from shared.errors import NotSent, Refused, SendError, SendUnknown, Unauthenticated
from shared.secrets import SecretBox

if TYPE_CHECKING:
    import httpx

    from shared.channels.telegram_update import CallbackQuery, Message, User

SECRET_HEADER = "X-Telegram-Bot-Api-Secret-Token"  # noqa: S105 the name of a header, not a secret
ALLOWED_UPDATES = ("message", "callback_query")
"""What `parse` reads: the `allowed_updates` of setWebhook."""

_GENERAL_TOPIC = "1"
_HTML_BYTES = 1 << 15
"""The server refuses longer texts before it parses them."""


def secret_for(box: SecretBox, connection_id: str) -> str:
    """The `secret_token` of the connection's webhook: 64 hexadecimal characters, derived, stored nowhere."""
    return box.derive(f"telegram/{connection_id}")


def verify(expected: str, presented: str | None) -> None:
    """Raise `Unauthenticated` unless the value of `SECRET_HEADER` is the expected one; takes the same time for each."""
    if not expected or presented is None or not hmac.compare_digest(expected.encode(), presented.encode()):
        raise Unauthenticated(f"{SECRET_HEADER}: missing or wrong; call setWebhook with this connection's secret_token")


def parse(body: bytes, connection: Connection, received_at: datetime) -> Entry | None:
    """What the update puts into the inbox; None for one that is none of an agent's business.

    A message's text, or its caption; what came with or instead of text and is not read is named in brackets, such as
    `[voice message, not read]`. `/stop` alone, also with a bot's name behind it, is a stop. A tap on `a:<token>:y` or
    `a:<token>:n` is a verdict. Edits, service messages, channel posts, messages of bots and taps of other buttons are
    None. Raises `BadRequest` when the body is not JSON
    and `Unreadable` when it is, but not an update.
    """
    from shared.channels.telegram_update import Update

    update = read(Update, body, "a Telegram update")
    if update.callback_query is not None:
        return _verdict(update.update_id, update.callback_query, connection, received_at)
    if update.message is not None:
        return _message(update.update_id, update.message, connection, received_at)
    return None


def _message(update_id: int, message: Message, connection: Connection, received_at: datetime) -> Entry | None:
    unread = f"[{message.unread}, not read]" if message.unread else ""
    text = message.text or "\n".join(filter(None, (unread, message.caption)))
    if message.sender is None or message.sender.is_bot or message.is_automatic_forward or not text:
        return None
    return Entry(
        id=digest(connection.id, str(update_id)),
        kind="stop" if stops(text) else "message",
        connection=connection.id,
        conversation=message.conversation,
        order=update_id,
        received_at=received_at,
        contact=_contact(message.sender),
        text=text,
    )


def _verdict(update_id: int, query: CallbackQuery, connection: Connection, received_at: datetime) -> Entry | None:
    verdict = judged(query.data)
    if verdict is None or query.message is None:
        return None
    return Entry(
        id=digest(connection.id, str(update_id)),
        kind="verdict",
        connection=connection.id,
        conversation=query.message.conversation,
        order=update_id,
        received_at=received_at,
        contact=_contact(query.sender),
        token=verdict[0],
        approved=verdict[1],
        tap=query.id,
    )


def _contact(user: User) -> Contact:
    return Contact(id=str(user.id), name=user.name, language=user.language_code)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Answer:
    """What the Bot API said."""

    method: str
    status: int
    ok: bool
    result: Any
    description: str
    parameters: JsonObject

    def says(self, phrase: str) -> bool:
        return self.status == 400 and phrase in self.description.lower()


class Telegram:
    """The port `shared.channels.Channel` over the Bot API; the client's own time limits apply.

    A refusal that names a fault of form (markup, a closed topic, a group that became a supergroup) is mended and sent
    once more: the channel has surely not shown it. Nothing else is repeated here.
    """

    text_limit = 4096
    typing_seconds = 4.0
    """Shown for at most five, or until a message arrives."""
    resend: Resend = "counted"
    fetched = False

    def __init__(self, client: httpx.AsyncClient, box: SecretBox, api_root: str = "https://api.telegram.org") -> None:
        self._client = client
        self._tokens = ConnectionTokens(box)
        self._api_root = api_root

    async def send(self, connection: Connection, conversation: str, delivery: Delivery) -> str:
        chat, _, topic = conversation.partition(":")
        parameters: JsonObject = {"chat_id": int(chat), **_text(delivery.text)}
        if topic and topic != _GENERAL_TOPIC:  # which sendMessage does not know by its number
            parameters["message_thread_id"] = int(topic)
        if delivery.buttons:
            row = [{"text": button.label, "callback_data": button.data} for button in delivery.buttons]
            parameters["reply_markup"] = {"inline_keyboard": [row]}
        answer = await self._call(connection, "sendMessage", parameters, plain=delivery.text, repeatable=False)
        if not answer.ok:
            raise _failure(answer)
        if not isinstance(answer.result, dict) or "message_id" not in answer.result:
            raise SendUnknown("telegram sendMessage: accepted, but the answer names no message_id")
        return str(answer.result["message_id"])

    async def typing(self, connection: Connection, conversation: str, message: str = "") -> None:
        chat, _, topic = conversation.partition(":")
        parameters: JsonObject = {"chat_id": int(chat), "action": "typing"}
        if topic:
            parameters["message_thread_id"] = int(topic)
        answer = await self._call(connection, "sendChatAction", parameters)
        if not answer.ok:
            raise _failure(answer)

    async def settle(self, connection: Connection, conversation: str, delivery: Delivery) -> None:
        if delivery.tap:
            answer = await self._call(connection, "answerCallbackQuery", {"callback_query_id": delivery.tap})
            if not answer.ok and not answer.says("query is too old"):  # too old, or answered before
                raise _failure(answer)
        if delivery.replaces:
            chat = conversation.partition(":")[0]
            parameters = {"chat_id": int(chat), "message_id": int(delivery.replaces), **_text(delivery.text)}
            answer = await self._call(connection, "editMessageText", parameters, plain=delivery.text)
            if not answer.ok and not answer.says("message is not modified"):
                raise _failure(answer)

    async def _call(
        self, connection: Connection, method: str, parameters: JsonObject, *, plain: str = "", repeatable: bool = True
    ) -> _Answer:
        answer = await self._post(connection, method, parameters, repeatable=repeatable)
        for _ in range(3):  # as many faults as can be mended
            mended = _mended(parameters, answer, plain)
            if mended is None:
                break
            parameters = mended
            answer = await self._post(connection, method, parameters, repeatable=repeatable)
        return answer

    async def _post(self, connection: Connection, method: str, parameters: JsonObject, *, repeatable: bool) -> _Answer:
        """The Bot API's answer. Raises `NotSent` when the call never left or may be repeated, else `SendUnknown`."""
        token = self._tokens.of(connection)
        url = f"{connection.api_root or self._api_root}/bot{token}/{method}"
        call = f"telegram {method}"
        response = await post(self._client, url, parameters, call=call, repeatable=repeatable)
        answer = _read(method, response, token)
        if answer.ok or answer.status >= 400:
            return answer
        raise unclear(f"{call}: {answer.status}, not an answer of the Bot API", repeatable=repeatable)


def _text(text: str) -> JsonObject:
    """Formatted, unless formatting would make it too long (tables grow) or leave nothing to see."""
    html = render(text)
    visible = unescape(re.sub(r"<[^>]*>", "", html))
    # A preview would be fetched unasked: a link that a stranger's text made the model write must not carry data out.
    preview = {"link_preview_options": {"is_disabled": True}}
    if visible.strip() and units(visible) <= Telegram.text_limit and len(html.encode()) <= _HTML_BYTES:
        return {"text": html, "parse_mode": "HTML", **preview}
    return {"text": text, **preview}


def _mended(parameters: JsonObject, answer: _Answer, plain: str) -> JsonObject | None:
    """The same call without what Telegram refused in it; None when nothing can be mended."""
    if answer.says("can't parse entities") and "parse_mode" in parameters:
        return {**{name: value for name, value in parameters.items() if name != "parse_mode"}, "text": plain}
    if answer.says("thread not found") and "message_thread_id" in parameters:
        return {name: value for name, value in parameters.items() if name != "message_thread_id"}
    moved = answer.parameters.get("migrate_to_chat_id")
    if answer.status == 400 and isinstance(moved, int) and moved != parameters.get("chat_id"):
        return {**parameters, "chat_id": moved}
    return None


def _read(method: str, response: httpx.Response, token: str) -> _Answer:
    try:
        body = response.json()
    except ValueError:
        body = None
    body = body if isinstance(body, dict) else {}
    parameters = body.get("parameters")
    return _Answer(
        method=method,
        status=response.status_code,
        ok=response.is_success and body.get("ok") is True,
        result=body.get("result"),
        description=str(body.get("description", response.reason_phrase)).replace(token, "<token>")[:200],
        parameters=parameters if isinstance(parameters, dict) else {},
    )


def _failure(answer: _Answer) -> SendError:
    said = f"telegram {answer.method}: {answer.status} {answer.description}"
    if answer.status == 429:
        wait = answer.parameters.get("retry_after")
        return NotSent(said, retry_after=float(wait) if isinstance(wait, int) else 1.0)
    return NotSent(said) if answer.status >= 500 else Refused(said)
