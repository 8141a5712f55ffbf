"""The arguments of a tool call as models write them: JSON in a string, most of the time."""

from __future__ import annotations

import json

from shared.domain import JsonObject, ToolCall

_MALFORMED = "_malformed"
_KEPT = 2_000


def parse_arguments(text: str) -> JsonObject:
    """The object that the text is; an empty text is a call without arguments.

    What is no JSON object, or could not be stored as one (NaN, half a surrogate pair), becomes an object that
    `malformed` knows. It is valid JSON all the same: providers refuse a conversation in which an earlier call's
    arguments are not, so the model can be shown what it wrote and asked to write it again.
    """
    try:
        value = json.loads(text.strip() or "{}", parse_constant=_not_json)
        json.dumps(value, ensure_ascii=False).encode()
    except (ValueError, RecursionError):
        value = None
    return value if isinstance(value, dict) else {_MALFORMED: text[:_KEPT].encode(errors="replace").decode()}


def malformed(call: ToolCall) -> str | None:
    """The first 2,000 characters of what the model wrote in place of arguments, or None for a call that may be run.

    Such a call must neither be run nor shown to the policy: its result is an error that says so to the model.
    """
    text = call.arguments.get(_MALFORMED)
    return text if isinstance(text, str) else None


def _not_json(constant: str) -> None:
    raise ValueError(constant)
