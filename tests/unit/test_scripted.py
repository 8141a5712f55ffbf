import json

import pytest

from shared.domain import JsonObject, Message, ModelReply, ModelRequest, ToolCall, ToolSpec
from shared.errors import ModelRefused, ModelUnavailable
from shared.llm.scripted import Scripted

LOOKUP, REFUND = (
    ToolSpec(name=name, description="", parameters={"type": "object"}, implementation=f"builtin:{name}")
    for name in ("lookup_order", "refund_order")
)
BOTH = (LOOKUP, REFUND)


async def ask(*messages: Message, tools: tuple[ToolSpec, ...] = BOTH) -> ModelReply:
    request = ModelRequest(model="scripted/demo", instructions="", messages=messages, tools=tools)
    return await Scripted().complete(request)


def contact(text: str, id: str = "m1") -> Message:  # noqa: A002 - the field's name
    return Message(role="contact", text=text, id=id)


async def answer_to(result: JsonObject | str) -> str:
    call = ToolCall(id="c", name="lookup_order", arguments={})
    text = result if isinstance(result, str) else json.dumps(result)
    asked = Message(role="agent", text="", tool_calls=(call,))
    return (await ask(contact("?"), asked, Message(role="tool", text=text, tool_call_id="c"))).text


@pytest.mark.parametrize("text", ["Hi", "hello there", "Good morning!", "/start"])
async def test_a_greeting_is_answered_with_one_and_what_it_can_do(text: str) -> None:
    reply = await ask(contact(text))
    assert reply.text.startswith("Hello!")
    assert "Where is order 1042?" in reply.text


@pytest.mark.parametrize(
    ("text", "tool"),
    [
        ("Where is order 1042?", "lookup_order"),
        ("refund order 1042", "refund_order"),
        ("Refund #1042!", "refund_order"),
    ],
)
async def test_a_question_about_an_order_calls_the_tool_for_it(text: str, tool: str) -> None:
    (call,) = (await ask(contact(text))).tool_calls
    assert (call.name, call.arguments) == (tool, {"order_id": "1042"})


async def test_messages_that_came_together_are_read_together() -> None:
    before = (contact("Where is order 1040?", "m1"), Message(role="agent", text="Delivered."))
    (call,) = (await ask(*before, contact("And the other,", "m2"), contact("1042?", "m3"))).tool_calls
    assert call.arguments == {"order_id": "1042"}


async def test_only_a_tool_that_is_offered_is_called() -> None:
    reply = await ask(contact("refund order 1042"), tools=(LOOKUP,))
    assert not reply.tool_calls
    assert "refund" not in reply.text
    assert not (await ask(contact("Where is order 1042?"), tools=())).tool_calls


async def test_anything_else_is_answered_with_what_it_can_do() -> None:
    reply = await ask(contact("What is the meaning of life?"))
    assert reply.text.startswith("I am the demo agent")


async def test_the_same_request_gives_the_same_call_and_another_message_another_id() -> None:
    first, again, other = [(await ask(contact("order 1042?", name))).tool_calls[0].id for name in ("m1", "m1", "m2")]
    assert first == again
    assert first != other


@pytest.mark.parametrize(
    ("result", "answer"),
    [
        (
            {"order_id": "1042", "status": "shipped", "carrier": "Correos", "eta": "2026-11-24"},
            "Order 1042 is shipped with Correos and should arrive on 2026-11-24.",
        ),
        (
            {"order_id": "1040", "status": "delivered", "carrier": "SEUR", "delivered_on": "2026-11-16"},
            "Order 1040 is delivered with SEUR, on 2026-11-16.",
        ),
        ({"order_id": "1041", "status": "being packed"}, "Order 1041 is being packed."),
        (
            {"order_id": "1042", "refunded": True, "amount": "49.90 EUR"},
            "Order 1042 is refunded: 49.90 EUR is on its way back to you.",
        ),
        ({"denied": True, "reason": "Ana did not approve"}, "I may not do that: Ana did not approve."),
        ({"error": "there is no order 7"}, "That did not work: there is no order 7."),
        ('{"temperature": 21}', 'Here is what I found: {"temperature": 21}'),
        ("not JSON", "Here is what I found: not JSON"),
    ],
)
async def test_a_result_is_told_in_a_sentence(result: JsonObject | str, answer: str) -> None:
    assert await answer_to(result) == answer


async def test_words_are_counted_as_tokens_and_cost_nothing() -> None:
    request = ModelRequest(model="scripted/demo", instructions="Be kind.", messages=(contact("Where is order 1042?"),))
    usage = (await Scripted().complete(request)).usage
    assert (usage.input_tokens, usage.output_tokens, usage.cost_nano_usd) == (6, 11, 0)


async def test_given_replies_are_played_in_turn_and_requests_remembered() -> None:
    reply = ModelReply(model="scripted/demo", text="one  two\n")
    scripted = Scripted(replies=[reply, ModelUnavailable("scripted/demo: busy")])
    request = ModelRequest(model="scripted/demo", instructions="", messages=(contact("x"),))
    pieces: list[str] = []
    assert await scripted.complete(request, pieces.append) is reply
    assert pieces == ["one  ", "two\n"]
    with pytest.raises(ModelUnavailable, match="busy"):
        await scripted.complete(request)
    with pytest.raises(ModelRefused, match="no reply is left"):
        await scripted.complete(request)
    assert scripted.history == [request] * 3
