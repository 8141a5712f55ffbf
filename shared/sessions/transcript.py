"""A run as the messages that a model is given: derived from its journal, so a resumed attempt sees the same."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import dropwhile

from shared.codec import decode
from shared.domain import Message, ModelReply
from shared.sessions.document import Run


def model_step(turn: int) -> str:
    """Key of the step that asks the model for the `turn`-th time, from 1."""
    return f"model-{turn}"


def tool_step(turn: int, index: int) -> str:
    """Key of the step that carries out the `index`-th call, from 0, of that turn's reply."""
    return f"tool-{turn}.{index}"


def transcript(run: Run) -> tuple[Message, ...]:
    """What the run added to the conversation so far: the agent's texts and tool calls, each call with its result."""
    return tuple(_messages(run))


def _messages(run: Run) -> Iterator[Message]:
    results = {step.key: step.result for step in run.steps}
    said = ""
    turn = 1
    while (stored := results.get(model_step(turn))) is not None:
        reply = decode(ModelReply, stored)
        said = reply.text
        final = bool(run.reply) and not reply.tool_calls and reply.text == run.reply
        sequence = run.reply_sequence if final else 0
        yield Message(role="agent", text=reply.text, sequence=sequence, tool_calls=reply.tool_calls)
        for index, call in enumerate(reply.tool_calls):
            # A model rejects a call without its result; a run that ended early leaves some without.
            result = results.get(tool_step(turn, index)) or '{"error": "not carried out"}'
            yield Message(role="tool", text=result, tool_call_id=call.id)
        turn += 1
    if run.reply and run.reply != said:
        yield Message(role="agent", text=run.reply, sequence=run.reply_sequence)


def trim(messages: tuple[Message, ...], limit: int) -> tuple[Message, ...]:
    """The latest messages of at most `limit` bytes together, beginning with a contact's, so that no tool call is
    parted from its result; at least the last message, unless that is a tool's."""
    size = 0
    kept = len(messages)
    while kept > 0 and (size := size + _size(messages[kept - 1])) <= limit:
        kept -= 1
    latest = tuple(dropwhile(lambda message: message.role != "contact", messages[kept:]))
    return latest or tuple(message for message in messages[-1:] if message.role != "tool")


def _size(message: Message) -> int:
    return len(message.text.encode()) + sum(len(str(call.arguments)) for call in message.tool_calls)
