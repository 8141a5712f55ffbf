"""What a server of one's own may do that OpenAI's does not."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from shared.domain import Message, ModelRequest
from shared.errors import ModelRefused, ModelUnavailable
from shared.llm.chat_completions import ChatCompletions
from tests.chaos.http import Reply, Request, serving

ASKED = ModelRequest(model="openai/llama/3", instructions="Be brief.", messages=(Message(role="contact", text="Hi"),))
CALL = {"id": "c1", "type": "function", "function": {"name": "lookup", "arguments": '{"a": 1}'}}


def whole(message: dict[str, Any], **more: Any) -> Reply:
    choice = {"index": 0, "message": {"role": "assistant", **message}, "finish_reason": "stop"}
    return Reply(200, json.dumps({"choices": [choice], **more}).encode())


def stream(*pieces: object) -> Reply:
    lines = [f"data: {piece if isinstance(piece, str) else json.dumps(piece)}\n\n" for piece in pieces]
    return Reply(200, "".join([": a comment\n\n", *lines]).encode(), "text/event-stream; charset=utf-8")


def piece(delta: dict[str, Any], finish: str | None = None) -> dict[str, Any]:
    return {"choices": [{"index": 0, "delta": delta, "finish_reason": finish}]}


@asynccontextmanager
async def answering(reply: Reply) -> AsyncIterator[tuple[ChatCompletions, list[Any]]]:
    asked: list[Any] = []

    async def handle(request: Request) -> Reply:
        asked.append((request.path, json.loads(request.body)))
        return reply

    async with serving(handle) as address:
        gateway = ChatCompletions(f"{address}/api/v1/")
        try:
            yield gateway, asked
        finally:
            await gateway.aclose()


async def test_the_server_is_asked_for_the_model_by_its_own_name() -> None:
    async with answering(whole({"content": "Hello"})) as (gateway, asked):
        assert (await gateway.complete(ASKED)).text == "Hello"
        assert [(path, body["model"]) for path, body in asked] == [("/api/v1/chat/completions", "llama/3")]


async def test_tokens_that_are_not_told_are_estimated_from_the_characters() -> None:
    async with answering(whole({"content": "Hello"})) as (gateway, asked):
        usage = (await gateway.complete(ASKED)).usage
        sent = len(json.dumps({"messages": asked[0][1]["messages"]}))
        assert (usage.input_tokens, usage.output_tokens) == (-(-sent // 4), 2)


async def test_a_server_that_does_not_stream_gives_its_text_in_one_piece() -> None:
    pieces: list[str] = []
    async with answering(whole({"content": "Hello"}, usage={"prompt_tokens": 3, "completion_tokens": 1})) as (
        gateway,
        _,
    ):
        reply = await gateway.complete(ASKED, pieces.append)
    assert (pieces, reply.text, reply.usage.input_tokens) == (["Hello"], "Hello", 3)


async def test_calls_of_one_reply_may_come_without_numbers_and_at_once() -> None:
    other = {**CALL, "id": "c2", "function": {"name": "refund", "arguments": ""}}
    async with answering(stream(piece({"tool_calls": [CALL, other]}), piece({}, "tool_calls"), "[DONE]")) as (
        gateway,
        _,
    ):
        calls = (await gateway.complete(ASKED, lambda _: None)).tool_calls
    assert [(call.id, call.name, call.arguments) for call in calls] == [
        ("c1", "lookup", {"a": 1}),
        ("c2", "refund", {}),
    ]


async def test_calls_without_numbers_may_come_one_after_the_other_and_in_pieces() -> None:
    begun = {**CALL, "function": {"name": "lookup", "arguments": '{"a":'}}
    other = {**CALL, "id": "c2", "function": {"name": "refund", "arguments": "{}"}}
    rest = {"function": {"arguments": " 1}"}}
    said = stream(*(piece({"tool_calls": [part]}) for part in (begun, rest, other)), piece({}, "tool_calls"))
    async with answering(said) as (gateway, _):
        calls = (await gateway.complete(ASKED, lambda _: None)).tool_calls
    assert [(call.id, call.name, call.arguments) for call in calls] == [
        ("c1", "lookup", {"a": 1}),
        ("c2", "refund", {}),
    ]


async def test_pieces_of_calls_that_come_in_turns_are_put_together_by_their_numbers() -> None:
    def part(index: int, **function: str) -> dict[str, Any]:
        return piece({"tool_calls": [{"index": index, "function": function}]})

    begin = piece({"tool_calls": [{**CALL, "index": 0}, {"index": 1, "id": "c2", "function": {"name": "refund"}}]})
    begin["choices"][0]["delta"]["tool_calls"][0]["function"] = {"name": "lookup", "arguments": ""}
    said = stream(
        begin,
        part(1, arguments='{"b"'),
        part(0, arguments='{"a":'),
        part(1, arguments=": 2}"),
        part(0, arguments="1}"),
        piece({}, "tool_calls"),
    )
    async with answering(said) as (gateway, _):
        calls = (await gateway.complete(ASKED, lambda _: None)).tool_calls
    assert [(call.id, call.arguments) for call in calls] == [("c1", {"a": 1}), ("c2", {"b": 2})]


@pytest.mark.parametrize(
    ("reply", "reason"),
    [
        (Reply(200, b"<html>a proxy's page</html>"), "the answer cannot be read: JSONDecodeError"),
        (Reply(200, b'{"choices": "none"}'), "the answer cannot be read: AttributeError"),
        (Reply(200, b"[]"), "the answer cannot be read: AttributeError"),
        (Reply(502, b"<html>Bad gateway</html>"), "HTTP 502"),
        (
            stream(piece({"content": "Hel"}), {"error": {"message": "Hi", "code": "server_error"}}),
            "an error in the stream server_error",
        ),
        (stream(piece({"content": "Hel"}), "{oops"), "the answer cannot be read: JSONDecodeError"),
    ],
    ids=["a page", "no choices", "a list", "bad gateway", "an error in the stream", "a broken piece"],
)
async def test_what_is_no_answer_is_unavailable(reply: Reply, reason: str) -> None:
    async with answering(reply) as (gateway, _):
        with pytest.raises(ModelUnavailable) as failure:
            await gateway.complete(ASKED, lambda _: None)
    assert str(failure.value) == f"openai/llama/3: {reason}"


async def test_a_server_that_wants_a_key_is_told_which() -> None:
    async with answering(Reply(401, b'{"detail": "Not authenticated"}')) as (gateway, _):
        with pytest.raises(ModelRefused, match=r"^openai/llama/3: HTTP 401 \(not set: OPENAI_API_KEY\)$"):
            await gateway.complete(ASKED)


async def test_an_address_that_is_none_is_unavailable() -> None:
    gateway = ChatCompletions("http://[::1/v1")
    with pytest.raises(ModelUnavailable, match=r"^openai/llama/3: "):
        await gateway.complete(ASKED)
    await gateway.aclose()
