"""The built-in tool by which an agent asks a person of its tenant, and waits for the answer."""

from __future__ import annotations

from datetime import timedelta

from shared.clock import Clock
from shared.domain import JsonObject, WaitRequest
from shared.tools import Tool, ToolContext, ToolError

QUESTION_CHARACTERS = 2_000
PATIENCE = timedelta(hours=24)


def ask_operator(clock: Clock) -> Tool:
    """The tool `builtin:ask_operator`: the run goes on once an operator has answered `question`, at most 2,000
    characters; after a day the agent is told that nobody did."""

    async def tool(arguments: JsonObject, context: ToolContext) -> WaitRequest:
        question = arguments.get("question")
        if not isinstance(question, str) or not 0 < len(question.strip()) <= QUESTION_CHARACTERS:
            raise ToolError(f"question: write what you ask as text of 1 to {QUESTION_CHARACTERS} characters")
        return WaitRequest(kind="operator", question=question.strip(), until=clock.now() + PATIENCE)

    return tool
