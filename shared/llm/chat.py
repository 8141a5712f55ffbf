"""A conversation in the terms of OpenAI's chat completions, which litellm takes and most servers of one's own speak.

The format: https://platform.openai.com/docs/api-reference/chat/create
"""

from __future__ import annotations

import json
from collections.abc import Iterable

from shared.domain import JsonObject, Message, ModelReply, ModelRequest, ToolCall, ToolSpec, Usage
from shared.errors import ModelRefused, ModelUnavailable
from shared.llm.arguments import parse_arguments

_ROLES = {"contact": "user", "agent": "assistant", "operator": "assistant", "tool": "tool"}
_TRANSIENT = {408, 409, 425, 429}


def asked(request: ModelRequest) -> JsonObject:
    """`messages`, and `tools` where there are some."""
    system = [{"role": "system", "content": request.instructions}] if request.instructions else []
    tools = {"tools": [_tool(tool) for tool in request.tools]} if request.tools else {}
    return {"messages": [*system, *map(_message, request.messages)], **tools}


def reply(model: str, text: str, calls: Iterable[tuple[str, str, str]], finish: str, usage: Usage) -> ModelReply:
    """What the model said, with its calls as id, name and arguments in JSON.

    Raises `ModelUnavailable` for an answer with neither, or `ModelRefused` when a content filter took it.
    """
    tool_calls = tuple(ToolCall(id=id_, name=name, arguments=parse_arguments(written)) for id_, name, written in calls)
    text = text.encode(errors="replace").decode()  # half a surrogate pair can neither be stored nor sent
    if not text and not tool_calls:
        raise (ModelRefused if finish == "content_filter" else ModelUnavailable)(f"{model}: empty answer ({finish})")
    return ModelReply(model=model, text=text, tool_calls=tool_calls, usage=usage)


def is_refusal(status: int) -> bool:
    """Whether a server that answers with this HTTP status will never answer the request otherwise."""
    return 400 <= status < 500 and status not in _TRANSIENT


def _message(message: Message) -> JsonObject:
    plain: JsonObject = {"role": _ROLES[message.role], "content": message.text}
    if message.role == "tool":
        return plain | {"tool_call_id": message.tool_call_id}
    if not message.tool_calls:
        return plain
    calls = [
        {"id": call.id, "type": "function", "function": {"name": call.name, "arguments": json.dumps(call.arguments)}}
        for call in message.tool_calls
    ]
    return plain | {"content": message.text or None, "tool_calls": calls}


def _tool(tool: ToolSpec) -> JsonObject:
    function = {"name": tool.name, "description": tool.description, "parameters": tool.parameters}
    return {"type": "function", "function": function}
