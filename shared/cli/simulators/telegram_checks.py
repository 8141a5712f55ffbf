"""What the Bot API checks in a request before it does anything, and how it says no.

Rules and wording are those of the server: https://github.com/tdlib/telegram-bot-api, and for `parse_mode=HTML`
parse_html in MessageEntity.cpp of https://github.com/tdlib/td.
"""

from __future__ import annotations

import json
import re
from html import unescape
from urllib.parse import parse_qsl

from starlette.requests import Request

from shared.channels.split import units
from shared.domain import JsonObject

_TAGS = frozenset(
    "a b strong i em s strike del u ins tg-spoiler tg-emoji span pre code blockquote".split()  # noqa: SIM905 readable
)
_TAG = re.compile(r"<(?P<end>/?)(?P<name>[^\s>]*)(?P<attributes>(?:\"[^\"]*\"|'[^']*'|[^>\"'])*)(?P<close>>?)")
_ATTRIBUTES = re.compile(r"(\s+[\w-]+\s*=\s*(\"[^\"]*\"|'[^']*'|[A-Za-z0-9.-]+))*\s*|\s+expandable\s*")
_ENTITY = re.compile(r"&(lt|gt|amp|quot|#\d{1,8}|#x[0-9a-fA-F]{1,7})(?:;|(?![A-Za-z0-9]))")


class Refusal(Exception):
    """An answer with `ok: false`."""

    def __init__(self, status: int, description: str, **parameters: int) -> None:
        super().__init__(description)
        self.status, self.description, self.parameters = status, description, parameters


async def read_parameters(request: Request) -> JsonObject:
    """From the query, a form or JSON: the Bot API takes all three."""
    body = await request.body()
    if not request.headers.get("content-type", "").startswith("application/json"):
        return dict(request.query_params) | dict(parse_qsl(body.decode(), keep_blank_values=True))
    try:
        parameters = json.loads(body)
    except ValueError:
        parameters = None
    if not isinstance(parameters, dict):
        raise Refusal(400, "Bad Request: can't parse request: body must be a JSON object")
    return dict(request.query_params) | parameters


def integer(parameters: JsonObject, name: str) -> int:
    try:
        return int(parameters.get(name) or 0)
    except (TypeError, ValueError):
        return 0


def chat_id(parameters: JsonObject) -> int:
    if not parameters.get("chat_id"):
        raise Refusal(400, "Bad Request: chat_id is empty")
    chat = integer(parameters, "chat_id")
    if not chat:
        raise Refusal(400, "Bad Request: chat not found")
    return chat


def text(parameters: JsonObject) -> tuple[str, str]:
    """The text as sent and as shown. Telegram counts at least characters; UTF-16 units are the stricter reading."""
    text = parameters.get("text")
    if not isinstance(text, str) or not text:
        raise Refusal(400, "Bad Request: message text is empty")
    if len(text.encode()) > 1 << 15:
        raise Refusal(400, "Bad Request: text is too long")
    shown = text
    match str(parameters.get("parse_mode", "")).lower():
        case "html":
            try:
                shown = visible(text)
            except BadMarkup as bad:
                raise Refusal(400, f"Bad Request: can't parse entities: {bad}") from None
        case "":
            pass
        case _:
            raise Refusal(400, "Bad Request: unsupported parse_mode")
    shown = shown.strip()
    if not shown:
        raise Refusal(400, "Bad Request: text must be non-empty")
    if units(shown) > 4096:
        raise Refusal(400, "Bad Request: message is too long")
    return text, shown


def buttons(parameters: JsonObject) -> list[list[JsonObject]]:
    markup = parameters.get("reply_markup") or {}
    try:
        markup = json.loads(markup) if isinstance(markup, str) else markup
        rows: list[list[JsonObject]] = [list(row) for row in markup.get("inline_keyboard", [])]
        buttons = [(button["text"], button.get("callback_data"), button.get("url")) for row in rows for button in row]
    except (ValueError, TypeError, KeyError, AttributeError):
        raise Refusal(400, "Bad Request: can't parse reply keyboard markup JSON object") from None
    for text, data, url in buttons:
        if not text or not (data or url):
            raise Refusal(
                400,
                "Bad Request: can't parse inline keyboard button: Text buttons are unallowed in the inline keyboard",
            )
        if data and len(str(data).encode()) > 64:
            raise Refusal(400, "Bad Request: BUTTON_DATA_INVALID")
    return rows


class BadMarkup(ValueError):
    """The text cannot be parsed; the message is what Telegram says after `can't parse entities: `."""


def visible(html: str) -> str:
    """The text that a contact sees. Raises `BadMarkup`; byte offsets are those of the text as it was sent."""
    shown: list[str] = []
    opened: list[str] = []
    end = 0
    for tag in _TAG.finditer(html):
        shown.append(html[end : tag.start()])
        end = tag.end()
        _step(tag, opened, len(html[: tag.start()].encode()))
    if opened:
        raise BadMarkup(f"Can't find end tag corresponding to start tag {opened[-1]}")
    shown.append(html[end:])
    return _ENTITY.sub(lambda entity: unescape(entity[0]), "".join(shown))


def _step(tag: re.Match[str], opened: list[str], offset: int) -> None:
    """Open or close the tag."""
    name = tag["name"].lower()
    if tag["end"]:
        if not opened:
            raise BadMarkup(f"Unexpected end tag at byte offset {offset}")
        if not tag["close"] or tag["attributes"].strip():
            raise BadMarkup(f"Unclosed end tag at byte offset {offset}")
        if name not in ("", opened[-1]):
            raise BadMarkup(f'Unmatched end tag at byte offset {offset}, expected "</{opened[-1]}>", found "</{name}>"')
        opened.pop()
        return
    if name not in _TAGS:
        raise BadMarkup(f'Unsupported start tag "{name}" at byte offset {offset}')
    if not tag["close"]:
        raise BadMarkup(f"Unclosed start tag at byte offset {offset}")
    if not _ATTRIBUTES.fullmatch(tag["attributes"]):
        raise BadMarkup(
            f'Expected equal sign in declaration of an attribute of the tag "{name}" at byte offset {offset}'
        )
    if name == "span" and "tg-spoiler" not in tag["attributes"]:
        raise BadMarkup(f'Tag "span" must have class "tg-spoiler" at byte offset {offset}')
    opened.append(name)
