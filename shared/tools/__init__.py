"""Tools: what they are given, what they give back, and the registry that finds them."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass

from shared.codec import decode, encode
from shared.domain import JsonObject, ToolSpec
from shared.errors import Retryable

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class ToolContext:
    """For whom and in which step a tool runs."""

    tenant: str
    session: str
    idempotency_key: str
    """The same in every attempt at this call: pass it to whatever must not happen twice."""


Tool = Callable[[JsonObject, ToolContext], Awaitable[JsonObject]]
"""Takes the model's arguments, which may be anything, and returns a JSON object of at most about 30 KB."""


class ToolError(Exception):
    """A tool could not do what was asked; the model is told the message and may try otherwise."""


class Toolbox:
    """The registered tools by implementation, such as `builtin:lookup_order`."""

    def __init__(self, tools: Mapping[str, Tool]) -> None:
        self._tools = tools

    async def use(self, spec: ToolSpec, arguments: JsonObject, context: ToolContext) -> JsonObject:
        """The tool's result. A tool that fails gives `{"error": reason}`: the model must know, and the run goes on.

        Only `Retryable` passes: the step is then taken again by a later attempt.
        """
        tool = self._tools.get(spec.implementation)
        if tool is None:
            return {"error": f"{spec.name} is not installed here"}
        try:
            return decode(dict, encode(await tool(arguments, context)))  # what cannot be stored is the tool's mistake
        except Retryable:
            raise
        except ToolError as error:
            return {"error": str(error)}
        except Exception as error:  # somebody else's code: its bug must not take the conversation down
            logger.exception("tool raised", extra={"fields": {"tool": spec.name}})
            return {"error": f"{spec.name} failed: {type(error).__name__}"}
