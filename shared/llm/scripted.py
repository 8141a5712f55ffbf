"""The demo model: answers by fixed rules, so that everything runs without a key, and the same way each time."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Iterable
from dataclasses import replace

from shared.domain import JsonObject, Message, ModelReply, ModelRequest, ToolCall, Usage, digest
from shared.errors import ModelRefused
from shared.llm import OnText

_WORDS = re.compile(r"\S+\s*|\s+")
_ORDER = re.compile(r"\d{3,}")
_GREETING = re.compile(r"/start|(hi|hello|hey|good (morning|afternoon|evening))\b", re.IGNORECASE)


class Scripted:
    """Plays the models `scripted/*`: finds orders with `lookup_order`, refunds them with `refund_order`.

    It calls only what the request offers, counts words as tokens, and costs nothing. With `replies` it gives those
    instead, one a call, raising the exceptions among them, and refuses once none is left. `history` has every request.
    """

    def __init__(self, replies: Iterable[ModelReply | Exception] | None = None) -> None:
        self.history: list[ModelRequest] = []
        self._replies = None if replies is None else iter(replies)

    async def complete(self, request: ModelRequest, on_text: OnText | None = None) -> ModelReply:
        self.history.append(request)
        if not request.model.startswith("scripted/"):
            raise ModelRefused(f"{request.model}: only scripted/* is played from a script")
        reply = _counted(request, _answer(request)) if self._replies is None else next(self._replies, None)
        if reply is None:
            raise ModelRefused(f"{request.model}: no reply is left in the script")
        if isinstance(reply, Exception):
            raise reply
        if on_text is not None:
            for piece in _WORDS.findall(reply.text):
                on_text(piece)
                await asyncio.sleep(0)  # whoever passes the pieces on gets a turn
        return reply


def _answer(request: ModelRequest) -> ModelReply:
    last = request.messages[-1] if request.messages else None
    if last is not None and last.role == "tool":
        return ModelReply(model=request.model, text=_sentence(last.text))
    text = " ".join(message.text for message in _unanswered(request.messages))
    order = _ORDER.search(text)
    offered = {tool.name for tool in request.tools}
    tool = "refund_order" if "refund" in text.lower() else "lookup_order"
    if order and tool in offered:
        # the same request gives the same call; the contact's message makes it another one in another run
        call = ToolCall(
            id=f"call_{digest(tool, text, last.id if last else '', str(len(request.messages)))[:12]}",
            name=tool,
            arguments={"order_id": order.group()},
        )
        return ModelReply(model=request.model, text="", tool_calls=(call,))
    greeting = "Hello! " if _GREETING.match(text) else ""
    return ModelReply(model=request.model, text=greeting + _abilities(offered))


def _unanswered(messages: tuple[Message, ...]) -> list[Message]:
    """What contacts wrote since anybody else did."""
    start = max((index + 1 for index, message in enumerate(messages) if message.role != "contact"), default=0)
    return list(messages[start:])


def _abilities(offered: set[str]) -> str:
    known = {
        "lookup_order": 'tell you where an order is ("Where is order 1042?")',
        "refund_order": 'refund one ("Refund order 1042")',
    }
    able = " and ".join(words for tool, words in known.items() if tool in offered)
    return f"I am the demo agent. I can {able}." if able else "I am the demo agent, and I have no tools here."


def _sentence(result: str) -> str:
    try:
        found = json.loads(result)
    except ValueError:
        found = None
    match found:
        case {"denied": _}:
            return f"I may not do that: {found.get('reason') or 'it was denied'}."
        case {"error": reason}:
            return f"That did not work: {reason}."
        case {"refunded": True, "order_id": order}:
            return f"Order {order} is refunded: {found.get('amount', 'the money')} is on its way back to you."
        case {"status": status, "order_id": order}:
            return f"Order {order} is {status}{_journey(found)}."
        case _:
            return f"Here is what I found: {result}"


def _journey(order: JsonObject) -> str:
    carrier = f" with {order['carrier']}" if "carrier" in order else ""
    if "delivered_on" in order:
        return f"{carrier}, on {order['delivered_on']}"
    return carrier + (f" and should arrive on {order['eta']}" if "eta" in order else "")


def _counted(request: ModelRequest, reply: ModelReply) -> ModelReply:
    given = " ".join((request.instructions, *(message.text for message in request.messages)))
    made = " ".join((reply.text, *(json.dumps(call.arguments) for call in reply.tool_calls)))
    return replace(reply, usage=Usage(input_tokens=len(given.split()), output_tokens=len(made.split())))
