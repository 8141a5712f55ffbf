"""What every channel reads alike: a payload of its own shape, the tap on an approval's button, and `/stop`."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, TypeVar

from shared.errors import BadRequest, Unreadable

if TYPE_CHECKING:
    from pydantic import BaseModel

Payload = TypeVar("Payload", bound="BaseModel")

_TAP = re.compile(r"a:([\w.-]{1,60}):([yn])", re.ASCII)
_STOP = re.compile(r"/stop(@\w+)?", re.ASCII | re.IGNORECASE)
"""In a Telegram group a command is written with the bot's name."""


def read(shape: type[Payload], body: bytes, what: str) -> Payload:
    """The payload. Raises `BadRequest` when the body is not JSON and `Unreadable`, which names the first field that
    does not fit and nothing of its content, when it is, but not `what`."""
    from pydantic import ValidationError

    problem: BadRequest
    try:
        return shape.model_validate_json(body)
    except ValidationError as invalid:
        first = invalid.errors(include_input=False, include_url=False, include_context=False)[0]
        if first["type"] == "json_invalid":
            problem = BadRequest(f"body: not JSON; send {what}")
        else:
            problem = Unreadable(f"{'.'.join(map(str, first['loc'])) or 'body'}: {first['msg']}")
    raise problem  # outside the handler: pydantic's error, with the input in it, must not hang on ours


def judged(data: str) -> tuple[str, bool] | None:
    """Which approval a button's data answers and whether it approves; None for any other button."""
    tap = _TAP.fullmatch(data)
    return (tap[1], tap[2] == "y") if tap is not None else None


def stops(text: str) -> bool:
    """Whether a contact who wrote this wants what is being done to be cancelled: nothing but `/stop`, in any case."""
    return _STOP.fullmatch(text.strip()) is not None
