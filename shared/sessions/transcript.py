"""A run as the messages that a model is given: derived from its journal, so a resumed attempt sees the same."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from itertools import dropwhile

from shared.codec import decode, encode
from shared.domain import Message, ModelReply
from shared.sessions.document import UNKNOWN, Run, Step

CONTEXT_BYTES = 64_000
"""How much of the conversation a model is given word for word, about 16,000 tokens; a summary stands for the rest."""
MESSAGE_OVERHEAD_BYTES = 300
"""What a message takes in a session's document besides its text, about."""
_TURN = re.compile(r"(\d+)(?:\.\d+)?$")


def model_step(turn: int) -> str:
    """Key of the step that asks the model for the `turn`-th time, from 1."""
    return f"model-{turn}"


def tool_step(turn: int, index: int) -> str:
    """Key of the step that carries out the `index`-th call, from 0, of that turn's reply."""
    return f"tool-{turn}.{index}"


def turn_of(key: str) -> int:
    """The turn that a step belongs to."""
    found = _TURN.search(key)
    assert found is not None, key
    return int(found.group(1))


def transcript(run: Run, after: int = 0) -> tuple[Message, ...]:
    """What the run added to the conversation after that many turns, as far as its steps are not in pages: the agent's
    texts and tool calls, each call with its result, and what contacts wrote meanwhile."""
    return tuple(_messages(run, max(after, run.moved.turns)))


def turns_of(run: Run, after: int, last: int) -> tuple[Message, ...]:
    """The agent's texts and tool calls, each call with its result, of the turns behind `after` up to `last`."""
    steps = {step.key: step for step in run.steps}
    return tuple(message for turn in range(after + 1, last + 1) for message in _turn(run, steps, turn))


def _messages(run: Run, after: int) -> Iterator[Message]:
    steps = {step.key: step for step in run.steps}
    said, turn = "", after + 1
    yield from _arrived(run, 0, after)
    while (step := steps.get(model_step(turn))) is not None and step.result is not None:
        for message in _turn(run, steps, turn):
            said = message.text if message.role == "agent" else said
            yield message
        yield from _arrived(run, turn, turn)
        turn += 1
    yield from _arrived(run, turn, 2**31)
    if run.reply and run.reply != said:
        yield Message(role="agent", text=run.reply, sequence=run.reply_sequence)


def _turn(run: Run, steps: Mapping[str, Step], turn: int) -> Iterator[Message]:
    step = steps.get(model_step(turn))
    if step is None or step.result is None or step.dropped:
        return
    reply = decode(ModelReply, step.result)
    final = bool(run.reply) and not reply.tool_calls and reply.text == run.reply
    sequence = run.reply_sequence if final else 0
    yield Message(role="agent", text=reply.text, sequence=sequence, tool_calls=reply.tool_calls)
    for index, call in enumerate(reply.tool_calls):
        key = tool_step(turn, index)
        used, asked = steps.get(key), steps.get(f"approve-{key}")
        text = used.result if used is not None and used.result else _missing(run, asked)
        yield Message(role="tool", text=text, tool_call_id=call.id)


def _missing(run: Run, asked: Step | None) -> str:
    """What stands for a result that is not there: a model rejects a call without one, and a run that ended early leaves
    some. An attempt that died may have carried the call out, unless a person never approved it."""
    refused = asked is not None and '"approved":false' in (asked.result or "")
    return encode(UNKNOWN).decode() if run.attempt > 1 and not refused else '{"error": "not carried out"}'


def _arrived(run: Run, first: int, last: int) -> Iterator[Message]:
    """What the model sees behind these turns of what came in; messages of turns in pages stay word for word."""
    for arrival in run.arrivals:
        if first <= arrival.after <= last and not arrival.rejected:
            yield arrival.message


def trim(messages: tuple[Message, ...], limit: int, stored_limit: int = 2**31) -> tuple[Message, ...]:
    """The latest messages of at most `limit` bytes together, or `stored_limit` as `stored` counts, beginning with a
    contact's, so that no tool call is parted from its result; at least the last message, unless that is a tool's."""
    size = overhead = 0
    kept = len(messages)
    while kept > 0:
        size, overhead = size + _size(messages[kept - 1]), overhead + MESSAGE_OVERHEAD_BYTES
        if size > limit or size + overhead > stored_limit:
            break
        kept -= 1
    latest = tuple(dropwhile(lambda message: message.role != "contact", messages[kept:]))
    return latest or tuple(message for message in messages[-1:] if message.role != "tool")


def total(messages: tuple[Message, ...]) -> int:
    """Bytes of text and arguments."""
    return sum(map(_size, messages))


def stored(messages: tuple[Message, ...]) -> int:
    """Bytes that they take in a session's document, about."""
    return total(messages) + len(messages) * MESSAGE_OVERHEAD_BYTES


def _size(message: Message) -> int:
    return len(message.text.encode()) + sum(len(str(call.arguments)) for call in message.tool_calls)
