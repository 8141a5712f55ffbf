"""Tools: what they are given, what they give back, and the registry that finds them."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import TypeAlias

from shared.codec import decode, encode
from shared.domain import JsonObject, SessionKey, ToolSpec, WaitRequest
from shared.errors import Retryable

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class ToolContext:
    """For whom and in which step a tool runs."""

    tenant: str
    session: str
    idempotency_key: str
    """The same in every attempt at this call: pass it to whatever must not happen twice."""
    callback: Callable[[], str] = str
    """Gives the address that a tool hands out before it asks to wait for a callback: whoever posts `{"result": {...}}`
    there answers this call. It proves itself; keep it out of logs."""


RESULT_BYTES = 30_000
"""The journal keeps every result in the session document, whose limit is 1 MiB (Firestore)."""
ToolResult: TypeAlias = JsonObject | WaitRequest
"""A JSON object of at most `RESULT_BYTES`, or what the session shall do instead."""
Tool = Callable[[JsonObject, ToolContext], Awaitable[ToolResult]]
"""Takes the model's arguments, which may be anything."""
LookUp = Callable[[JsonObject, ToolContext], Awaitable[JsonObject | None]]
"""The hook of a `once` tool: given the same as a call that was cut, what that call gave; None when it cannot be found
out. It must change nothing."""


class ToolError(Exception):
    """A tool could not do what was asked; the model is told the message and may try otherwise."""


class Toolbox:
    """The registered tools by implementation, such as `builtin:lookup_order`, and the look-up hooks of those that have
    one; `callback` makes the address of a wait."""

    def __init__(
        self,
        tools: Mapping[str, Tool],
        look_ups: Mapping[str, LookUp] | None = None,
        callback: Callable[[SessionKey, str], str] = lambda key, wait: "",
    ) -> None:
        self._tools = tools
        self._look_ups = look_ups or {}
        self.callback = callback

    async def use(self, spec: ToolSpec, arguments: JsonObject, context: ToolContext) -> ToolResult:
        """What the tool returns. One that fails or takes too long gives `{"error": reason}`: the model must know, and
        the run goes on.

        Only `Retryable` passes: the step is then taken again by a later attempt.
        """
        tool = self._tools.get(spec.implementation)
        if tool is None:
            return {"error": f"{spec.name} is not installed here"}
        try:
            async with asyncio.timeout(spec.timeout_seconds):
                result = await tool(arguments, context)
            return result if isinstance(result, WaitRequest) else _storable(spec, result)
        except Retryable:
            raise
        except ToolError as error:
            return {"error": str(error)}
        except TimeoutError:
            logger.warning("tool timed out", extra={"fields": {"tool": spec.name, "seconds": spec.timeout_seconds}})
            said = f"{spec.name} gave no answer in {spec.timeout_seconds:g} s"
            return {"error": said if spec.effect == "pure" else f"{said}: it may or may not have happened"}
        except Exception as error:  # somebody else's code: its bug must not take the conversation down
            logger.exception("tool raised", extra={"fields": {"tool": spec.name}})
            return {"error": f"{spec.name} failed: {type(error).__name__}"}

    async def look_up(self, spec: ToolSpec, arguments: JsonObject, context: ToolContext) -> JsonObject | None:
        """What a call that was cut gave, as the tool's hook finds out; None when there is no hook or it cannot tell.

        `Retryable` passes.
        """
        hook = self._look_ups.get(spec.implementation)
        if hook is None:
            return None
        try:
            async with asyncio.timeout(spec.timeout_seconds):
                found = await hook(arguments, context)
            return _storable(spec, found) if found is not None else None
        except Retryable:
            raise
        except Exception:  # likewise; that nothing is known is a result
            logger.exception("look-up raised", extra={"fields": {"tool": spec.name}})
            return None


def _storable(spec: ToolSpec, result: JsonObject) -> JsonObject:
    stored = encode(result)  # what cannot be stored is the tool's mistake
    if len(stored) > RESULT_BYTES:
        return {"error": f"{spec.name} gave {len(stored)} bytes, more than {RESULT_BYTES}; ask it for less"}
    return decode(dict, stored)
