"""What every gateway promises, on the scripted one and on those that ask a server."""

import json
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass

import pytest

from shared.domain import Message, ModelRequest, ToolCall, ToolSpec
from shared.errors import ModelRefused, ModelUnavailable
from shared.llm import Gateway
from shared.llm.chat_completions import ChatCompletions
from shared.llm.litellm import LiteLLM
from shared.llm.scripted import Scripted
from tests.servers.model_server import UNKNOWN_MODEL, Fault, ModelServer, running

LOOKUP = ToolSpec(
    name="lookup_order",
    description="Where an order is.",
    parameters={"type": "object", "properties": {"order_id": {"type": "string"}}, "required": ["order_id"]},
    implementation="builtin:lookup_order",
)
QUESTION = Message(role="contact", text="Where is order 1042?", id="m1")
CALL = ToolCall(id="call_1", name="lookup_order", arguments={"order_id": "1042"})
FOUND = {"order_id": "1042", "status": "shipped", "carrier": "Correos", "eta": "2026-11-24"}
LOOKED_UP = (
    QUESTION,
    Message(role="agent", text="", tool_calls=(CALL,)),
    Message(role="tool", text=json.dumps(FOUND), tool_call_id="call_1"),
)


@dataclass(frozen=True)
class Subject:
    gateway: Gateway
    broken: Gateway
    """One whose next call fails for a reason that passes."""
    model: str
    unknown: str

    def asks(self, *messages: Message, tools: tuple[ToolSpec, ...] = ()) -> ModelRequest:
        return ModelRequest(model=self.model, instructions="Help customers.", messages=messages, tools=tools)


@pytest.fixture(scope="module")
def server() -> Iterator[ModelServer]:
    with running() as server:
        yield server


@pytest.fixture(params=["scripted", "litellm", "litellm-by-openai-package", "chat-completions"])
async def subject(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Subject]:
    if request.param == "scripted":
        broken = Scripted(replies=[ModelUnavailable("scripted/demo: busy")])
        yield Subject(Scripted(), broken, "scripted/demo", "other/model")
        return
    server: ModelServer = request.getfixturevalue("server")
    server.reset()
    own_client = "false" if request.param.endswith("package") else "true"
    monkeypatch.setenv("EXPERIMENTAL_OPENAI_BASE_LLM_HTTP_HANDLER", own_client)
    gateway = ChatCompletions(server.url) if request.param == "chat-completions" else LiteLLM(api_base=server.url)
    yield Subject(gateway, gateway, "openai/gpt-5-mini", f"openai/{UNKNOWN_MODEL}")
    await gateway.aclose()


async def test_a_model_answers_in_text_when_it_has_no_tools(subject: Subject) -> None:
    reply = await subject.gateway.complete(subject.asks(Message(role="contact", text="Hi", id="m1")))
    assert reply.text
    assert reply.model == subject.model
    assert not reply.tool_calls


async def test_a_model_calls_the_tool_that_it_is_offered(subject: Subject) -> None:
    reply = await subject.gateway.complete(subject.asks(QUESTION, tools=(LOOKUP,)))
    (call,) = reply.tool_calls
    assert (call.name, call.arguments) == ("lookup_order", {"order_id": "1042"})
    assert call.id


async def test_a_model_answers_from_the_result_of_its_tool_call(subject: Subject) -> None:
    reply = await subject.gateway.complete(subject.asks(*LOOKED_UP, tools=(LOOKUP,)))
    assert not reply.tool_calls
    assert "Correos" in reply.text


async def test_the_streamed_pieces_joined_are_the_text_of_the_whole_answer(subject: Subject) -> None:
    pieces: list[str] = []
    streamed = await subject.gateway.complete(subject.asks(*LOOKED_UP, tools=(LOOKUP,)), pieces.append)
    assert len(pieces) > 1
    assert "".join(pieces) == streamed.text
    assert streamed == await subject.gateway.complete(subject.asks(*LOOKED_UP, tools=(LOOKUP,)))


async def test_a_streamed_tool_call_is_the_same_as_a_whole_one(subject: Subject) -> None:
    pieces: list[str] = []
    streamed = await subject.gateway.complete(subject.asks(QUESTION, tools=(LOOKUP,)), pieces.append)
    assert not pieces
    assert streamed == await subject.gateway.complete(subject.asks(QUESTION, tools=(LOOKUP,)))


async def test_usage_is_counted(subject: Subject) -> None:
    reply = await subject.gateway.complete(subject.asks(QUESTION))
    assert reply.usage.input_tokens > 0
    assert reply.usage.output_tokens > 0


async def test_an_unknown_model_is_refused_by_name(subject: Subject) -> None:
    request = ModelRequest(model=subject.unknown, instructions="", messages=(QUESTION,))
    with pytest.raises(ModelRefused, match=subject.unknown):
        await subject.gateway.complete(request)


async def test_a_model_that_is_busy_is_unavailable_by_name(subject: Subject, server: ModelServer) -> None:
    server.fail(Fault(kind="status", status=429))
    with pytest.raises(ModelUnavailable, match=subject.model):
        await subject.broken.complete(subject.asks(QUESTION))
