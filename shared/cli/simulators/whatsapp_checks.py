"""What the Graph API checks in a message before it takes it, and how it says no.

Limits and codes are those of https://developers.facebook.com/documentation/business-messaging/whatsapp (reference of
messages, error codes).
"""

from __future__ import annotations

import json
import re
from typing import Any

from starlette.requests import Request

from shared.channels.split import units
from shared.domain import JsonObject

BSUID = re.compile(r"[A-Z]{2}\.(?:ENT\.)?[A-Za-z0-9]{1,128}")
_PHONE = re.compile(r"\+?[0-9]{6,15}")


class Refusal(Exception):
    """An answer with `error`."""

    def __init__(self, status: int, code: int, message: str) -> None:
        super().__init__(message)
        self.status, self.code, self.message = status, code, message

    def as_json(self) -> JsonObject:
        """The body of the answer."""
        shown = f"(#{self.code}) {self.message}"
        return {"error": {"message": shown, "type": "OAuthException", "code": self.code, "fbtrace_id": "simulated"}}


async def read_body(request: Request) -> JsonObject:
    try:
        body = json.loads(await request.body())
    except ValueError:
        body = None
    if not isinstance(body, dict):
        raise Refusal(400, 100, "Invalid parameter: the body must be a JSON object")
    _require(body.get("messaging_product") == "whatsapp", "The parameter messaging_product is required.")
    return body


def address(message: JsonObject) -> str:
    """To whom the message goes. A phone number wins over a BSUID; a BSUID in `to` is taken for a phone number."""
    _require(message.get("recipient_type", "individual") in ("individual", None), "recipient_type must be individual")
    to, recipient = message.get("to"), message.get("recipient")
    if to:
        _require(isinstance(to, str) and (_PHONE.fullmatch(to) or BSUID.fullmatch(to)), "to is no phone number", 131009)
        return str(to).lstrip("+")
    _require(recipient, "The parameter to is required.")
    _require(isinstance(recipient, str) and BSUID.fullmatch(recipient), "recipient is no user id", 131009)
    return str(recipient)


def content(message: JsonObject) -> tuple[str, list[JsonObject]]:
    """The text and the reply buttons of a `text` or `interactive` message."""
    _require(len(str(message.get("biz_opaque_callback_data", ""))) <= 512, "biz_opaque_callback_data: at most 512")
    match message.get("type", "text"):
        case "text":
            return _text(_object(message, "text").get("body"), 4096, "text.body"), []
        case "interactive":
            return _interactive(_object(message, "interactive"))
    raise Refusal(400, 131051, "Unsupported message type")


def _interactive(interactive: JsonObject) -> tuple[str, list[JsonObject]]:
    _require(interactive.get("type") == "button", "interactive.type: the simulator knows button alone")
    text = _text(_object(interactive, "body").get("text"), 1024, "interactive.body.text")
    buttons = _object(interactive, "action").get("buttons")
    _require(isinstance(buttons, list) and 1 <= len(buttons) <= 3, "action.buttons: 1 to 3", 131009)
    replies = [_object(button, "reply") for button in buttons or [] if isinstance(button, dict)]
    for reply in replies:
        _text(reply.get("id"), 256, "reply.id")
        _text(reply.get("title"), 20, "reply.title")
    for name in ("id", "title"):
        _require(len({reply[name] for reply in replies}) == len(buttons or []), f"reply.{name}: each once", 131009)
    return text, [{"id": reply["id"], "title": reply["title"]} for reply in replies]


def _text(text: Any, limit: int, where: str) -> str:
    _require(isinstance(text, str) and text.strip(), f"The parameter {where} is required.")
    _require(units(str(text)) <= limit, f"Param {where} must be at most {limit} characters long.")
    return str(text)


def _object(parent: JsonObject, name: str) -> JsonObject:
    found = parent.get(name)
    if not isinstance(found, dict):
        raise Refusal(400, 100, f"The parameter {name} is required.")
    return found


def _require(condition: object, otherwise: str, code: int = 100) -> None:
    if not condition:
        raise Refusal(400, code, otherwise)
