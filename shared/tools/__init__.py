"""Tools: what they are given, what they give back, and the registry that finds them."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import TypeAlias

from shared.codec import decode, encode
from shared.domain import JsonObject, ToolSpec, WaitRequest
from shared.errors import Retryable

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class ToolContext:
    """For whom and in which step a tool runs."""

    tenant: str
    session: str
    idempotency_key: str
    """The same in every attempt at this call: pass it to whatever must not happen twice."""


RESULT_BYTES = 30_000
"""The journal keeps every result in the session document, whose limit is 1 MiB (Firestore)."""
ToolResult: TypeAlias = JsonObject | WaitRequest
"""A JSON object of at most `RESULT_BYTES`, or what the session shall do instead."""
Tool = Callable[[JsonObject, ToolContext], Awaitable[ToolResult]]
"""Takes the model's arguments, which may be anything."""


class ToolError(Exception):
    """A tool could not do what was asked; the model is told the message and may try otherwise."""


class Toolbox:
    """The registered tools by implementation, such as `builtin:lookup_order`."""

    def __init__(self, tools: Mapping[str, Tool]) -> None:
        self._tools = tools

    async def use(self, spec: ToolSpec, arguments: JsonObject, context: ToolContext) -> ToolResult:
        """What the tool returns. One that fails gives `{"error": reason}`: the model must know, and the run goes on.

        Only `Retryable` passes: the step is then taken again by a later attempt.
        """
        tool = self._tools.get(spec.implementation)
        if tool is None:
            return {"error": f"{spec.name} is not installed here"}
        try:
            result = await tool(arguments, context)
            if isinstance(result, WaitRequest):
                return result
            stored = encode(result)  # what cannot be stored is the tool's mistake
            if len(stored) > RESULT_BYTES:
                return {"error": f"{spec.name} gave {len(stored)} bytes, more than {RESULT_BYTES}; ask it for less"}
            return decode(dict, stored)
        except Retryable:
            raise
        except ToolError as error:
            return {"error": str(error)}
        except Exception as error:  # somebody else's code: its bug must not take the conversation down
            logger.exception("tool raised", extra={"fields": {"tool": spec.name}})
            return {"error": f"{spec.name} failed: {type(error).__name__}"}
