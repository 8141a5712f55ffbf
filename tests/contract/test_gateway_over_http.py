"""What every gateway that asks a server promises of it: what is sent, what is read, and how failures are told."""

import asyncio
import logging
import traceback
from collections.abc import AsyncIterator, Iterator
from typing import Literal, Protocol

import pytest

from shared.domain import Message, ModelRequest, ToolCall, ToolSpec
from shared.errors import ModelError, ModelRefused, ModelUnavailable
from shared.llm import Gateway, OnText
from shared.llm.arguments import malformed
from shared.llm.chat_completions import ChatCompletions
from shared.llm.litellm import LiteLLM
from tests.servers.model_server import Fault, ModelServer, running

LOOKUP = ToolSpec(
    name="lookup_order",
    description="Where an order is.",
    parameters={"type": "object", "properties": {"order_id": {"type": "string"}}},
    implementation="builtin:lookup_order",
)
MODEL = "openai/gpt-5-mini"
ASKED = ModelRequest(model=MODEL, instructions="", messages=(Message(role="contact", text="my pin is swordfish"),))
WITH_TOOL = ModelRequest(model=MODEL, instructions="", messages=ASKED.messages, tools=(LOOKUP,))

streamed_or_whole = pytest.mark.parametrize("on_text", [None, lambda _: None], ids=["whole", "streamed"])


@pytest.fixture(scope="module")
def shared_server() -> Iterator[ModelServer]:
    with running() as server:
        yield server


@pytest.fixture
def server(shared_server: ModelServer) -> ModelServer:
    shared_server.reset()
    return shared_server


class Closing(Gateway, Protocol):
    async def aclose(self) -> None: ...


class Make(Protocol):
    """A gateway that asks that server."""

    def __call__(self, url: str, api_key: str = "", *, timeout: float = 120.0) -> Closing: ...


def litellm(url: str, api_key: str = "", *, timeout: float = 120.0) -> Closing:
    return LiteLLM(api_base=url, api_key=api_key, timeout=timeout)


@pytest.fixture(params=[litellm, ChatCompletions], ids=["litellm", "chat-completions"])
def make(request: pytest.FixtureRequest) -> Make:
    made: Make = request.param
    return made


@pytest.fixture
async def gateway(make: Make, server: ModelServer) -> AsyncIterator[Closing]:
    gateway = make(server.url)
    yield gateway
    await gateway.aclose()


async def test_a_conversation_reaches_the_model_in_its_own_terms(gateway: Closing, server: ModelServer) -> None:
    call = ToolCall(id="call_7", name="lookup_order", arguments={"order_id": "1042"})
    messages = (
        Message(role="contact", text="Where is it?", id="m1"),
        Message(role="agent", text="", tool_calls=(call,)),
        Message(role="tool", text='{"status":"shipped"}', tool_call_id="call_7"),
        Message(role="agent", text="Shipped."),
        Message(role="operator", text="It arrives tomorrow."),
        Message(role="contact", text="Thanks", id="m2"),
    )
    await gateway.complete(ModelRequest(model=MODEL, instructions="Be brief.", messages=messages, tools=(LOOKUP,)))
    asked = server.requests[-1]
    asked["messages"] = [
        {name: value for name, value in sent.items() if value is not None} for sent in asked["messages"]
    ]
    function = {"name": "lookup_order", "arguments": '{"order_id": "1042"}'}
    assert asked["messages"] == [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "Where is it?"},
        {
            "role": "assistant",
            "tool_calls": [{"id": "call_7", "type": "function", "function": function}],
        },
        {"role": "tool", "content": '{"status":"shipped"}', "tool_call_id": "call_7"},
        {"role": "assistant", "content": "Shipped."},
        {"role": "assistant", "content": "It arrives tomorrow."},
        {"role": "user", "content": "Thanks"},
    ]
    described = {"name": "lookup_order", "description": "Where an order is.", "parameters": LOOKUP.parameters}
    assert asked["tools"] == [{"type": "function", "function": described}]
    assert asked["model"] == "gpt-5-mini"


async def test_what_is_not_there_is_not_sent(gateway: Closing, server: ModelServer) -> None:
    await gateway.complete(ASKED)
    assert server.requests[-1] == {
        "model": "gpt-5-mini",
        "messages": [{"role": "user", "content": "my pin is swordfish"}],
    }


@streamed_or_whole
@pytest.mark.parametrize("written", ["{oops", '["1042"]', '{"order_id": NaN}', '{"order_id": "\\ud83d"}'])
async def test_malformed_arguments_can_be_told_and_sent_back(
    gateway: Closing, server: ModelServer, written: str, on_text: OnText | None
) -> None:
    server.fail(Fault(kind="arguments", arguments=written))
    (call,) = (await gateway.complete(WITH_TOOL, on_text)).tool_calls
    assert malformed(call) == written
    told = (
        *WITH_TOOL.messages,
        Message(role="agent", text="", tool_calls=(call,)),
        Message(role="tool", text='{"error": "not a JSON object"}', tool_call_id=call.id),
    )
    reply = await gateway.complete(ModelRequest(model=MODEL, instructions="", messages=told, tools=(LOOKUP,)))
    assert "not a JSON object" in reply.text


@streamed_or_whole
async def test_no_arguments_at_all_are_an_empty_object(
    gateway: Closing, server: ModelServer, on_text: OnText | None
) -> None:
    server.fail(Fault(kind="arguments", arguments=""))
    (call,) = (await gateway.complete(WITH_TOOL, on_text)).tool_calls
    assert (call.arguments, malformed(call)) == ({}, None)


@streamed_or_whole
@pytest.mark.parametrize(
    ("status", "failure"),
    [
        *((status, ModelUnavailable) for status in (408, 409, 429, 500, 502, 503, 529)),
        *((status, ModelRefused) for status in (400, 401, 402, 403, 404, 413, 422)),
    ],
)
async def test_a_failure_that_passes_is_unavailable_and_a_wrong_request_refused_after_one_request(
    gateway: Closing, server: ModelServer, status: int, failure: type[ModelError], on_text: OnText | None
) -> None:
    server.fail(Fault(kind="status", status=status, count=10))
    with pytest.raises(failure):
        await gateway.complete(ASKED, on_text)
    assert len(server.requests) == 1


@streamed_or_whole
async def test_an_error_names_model_and_reason_but_neither_key_nor_message(
    make: Make,
    server: ModelServer,
    on_text: OnText | None,
    caplog: pytest.LogCaptureFixture,
    capfd: pytest.CaptureFixture[str],
) -> None:
    caplog.set_level(logging.INFO)
    gateway = make(server.url, "sk-live-4242")
    quoting = "Incorrect API key provided: sk-live-4242, for: my pin is swordfish"
    server.fail(Fault(kind="status", status=401, code="invalid_api_key", message=quoting))
    with pytest.raises(ModelRefused) as failure:
        await gateway.complete(ASKED, on_text)
    await gateway.aclose()
    reason = {litellm: "AuthenticationError", ChatCompletions: "HTTP"}[make]
    assert str(failure.value) == f"openai/gpt-5-mini: {reason} 401 invalid_api_key"
    written = "".join([*traceback.format_exception(failure.value), caplog.text, *capfd.readouterr()])
    assert failure.value.__context__ is None
    assert "sk-live" not in written
    assert "swordfish" not in written


@streamed_or_whole
async def test_a_model_that_hangs_is_left_after_the_timeout(
    make: Make, server: ModelServer, on_text: OnText | None
) -> None:
    gateway = make(server.url, timeout=0.3)
    server.fail(Fault(kind="hang"))
    with pytest.raises(ModelUnavailable, match=r"openai/gpt-5-mini: no answer within 0\.3 s"):
        await gateway.complete(ASKED, on_text)
    assert await asyncio.to_thread(server.abandoned.wait, 5)
    await gateway.aclose()


async def test_a_cancelled_call_is_cancelled_at_the_server(gateway: Closing, server: ModelServer) -> None:
    server.fail(Fault(kind="hang"))
    task = asyncio.create_task(gateway.complete(ASKED))
    assert await asyncio.to_thread(server.hanging.wait, 5)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert await asyncio.to_thread(server.abandoned.wait, 5)


async def test_an_answer_that_breaks_off_is_unavailable(gateway: Closing, server: ModelServer) -> None:
    server.fail(Fault(kind="drop"))
    with pytest.raises(ModelUnavailable):
        await gateway.complete(ASKED)


@pytest.mark.parametrize("kind", ["drop", "end"])
async def test_a_stream_that_breaks_off_is_unavailable_after_the_pieces_that_came(
    gateway: Closing, server: ModelServer, kind: Literal["drop", "end"]
) -> None:
    pieces: list[str] = []
    server.fail(Fault(kind=kind))
    with pytest.raises(ModelUnavailable):
        await gateway.complete(ASKED, pieces.append)
    assert "".join(pieces) == "Hello, I "


async def test_a_server_that_is_not_there_is_unavailable(make: Make) -> None:
    gateway = make("http://127.0.0.1:1/v1")
    with pytest.raises(ModelUnavailable):
        await gateway.complete(ASKED)
    await gateway.aclose()


@streamed_or_whole
async def test_an_empty_answer_is_unavailable(gateway: Closing, server: ModelServer, on_text: OnText | None) -> None:
    server.fail(Fault(kind="empty"))
    with pytest.raises(ModelUnavailable, match="empty answer"):
        await gateway.complete(ASKED, on_text)


@streamed_or_whole
async def test_an_answer_that_a_filter_took_is_refused(
    gateway: Closing, server: ModelServer, on_text: OnText | None
) -> None:
    server.fail(Fault(kind="empty", code="content_filter"))
    with pytest.raises(ModelRefused, match="content_filter"):
        await gateway.complete(ASKED, on_text)


async def test_half_a_character_in_an_answer_becomes_a_question_mark(gateway: Closing, server: ModelServer) -> None:
    server.fail(Fault(kind="text", message="half \ud83d here"))
    assert (await gateway.complete(ASKED)).text == "half ? here"


@streamed_or_whole
async def test_a_model_with_a_known_price_costs_it_and_another_nothing(
    gateway: Closing, on_text: OnText | None
) -> None:
    known = (await gateway.complete(ASKED, on_text)).usage
    # gpt-5-mini: 0.25 and 2.00 USD a million tokens
    assert known.cost_nano_usd == 250 * known.input_tokens + 2_000 * known.output_tokens
    other = ModelRequest(model="openai/of-our-own", instructions="", messages=ASKED.messages)
    assert (await gateway.complete(other, on_text)).usage.cost_nano_usd == 0


async def test_a_closed_gateway_opens_again(gateway: Closing, server: ModelServer) -> None:
    await gateway.complete(ASKED)
    await gateway.aclose()
    await gateway.complete(ASKED)
    assert len(server.requests) == 2
