"""An invoke as a stream: what happens as it happens, from the loop that does it, and the result at the end."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import httpx
import pytest

from shared.domain import JsonObject, ModelReply, ModelRequest
from shared.errors import ModelRefused
from shared.llm import OnText
from shared.llm.scripted import Scripted
from shared.orchestrator.invoke import Invoker
from tests.functions.conftest import Stack, is_problem

ASKED: JsonObject = {"input": "Where is order 1042?", "session": "s"}
ANSWER = "Order 1042 is shipped with Correos and should arrive on 2026-11-24."


class Slow(Scripted):
    """Says its answer in pieces, and waits before the last one until `go_on` is set."""

    def __init__(self, *pieces: str) -> None:
        super().__init__()
        self.pieces = pieces
        self.go_on = asyncio.Event()

    async def complete(self, request: ModelRequest, on_text: OnText | None = None) -> ModelReply:
        for piece in self.pieces[:-1]:
            if on_text is not None:
                on_text(piece)
        await self.go_on.wait()
        if on_text is not None:
            on_text(self.pieces[-1])
        return ModelReply(model=request.model, text="".join(self.pieces))


@asynccontextmanager
async def streaming(stack: Stack, server: str, **headers: str) -> AsyncIterator[AsyncIterator[tuple[str, JsonObject]]]:
    """The stream's events by name and data."""
    sent = {"Authorization": f"Bearer {stack.keys.invoker}", "Accept": "text/event-stream", **headers}
    async with (
        httpx.AsyncClient(base_url=server, timeout=20) as client,
        client.stream("POST", "/v1/agents/shop/invoke", headers=sent, json=ASKED) as response,
    ):
        assert response.status_code == 200
        assert response.headers["content-type"].startswith("text/event-stream")
        yield _events(response)


async def _events(response: httpx.Response) -> AsyncIterator[tuple[str, JsonObject]]:
    name = ""
    async for line in response.aiter_lines():
        if line.startswith("event: "):
            name = line.removeprefix("event: ")
        if line.startswith("data: "):
            yield name, json.loads(line.removeprefix("data: "))


@asynccontextmanager
async def going_on(stack: Stack, server: str, after: int, key: str = "k") -> AsyncIterator[AsyncIterator[str]]:
    """The stream's events for a reader that comes again, each as `number name step`."""
    sent = {"Authorization": f"Bearer {stack.keys.invoker}", "Accept": "text/event-stream"}
    again = {"Idempotency-Key": key, "Last-Event-ID": str(after)}
    async with (
        httpx.AsyncClient(base_url=server, timeout=20) as client,
        client.stream("POST", "/v1/agents/shop/invoke", headers=sent | again, json=ASKED) as response,
    ):
        assert response.status_code == 200
        yield _short(response)


async def _short(response: httpx.Response) -> AsyncIterator[str]:
    fields = {"id": "-"}
    async for line in response.aiter_lines():
        name, _, value = line.partition(": ")
        if name:
            fields[name] = value
        elif "data" in fields:
            yield " ".join([fields["id"], fields["event"], json.loads(fields["data"]).get("step", "")]).strip()
            fields = {"id": "-"}


class Second(Scripted):
    """Calls a tool at once, and answers when it may go on."""

    def __init__(self) -> None:
        super().__init__()
        self.go_on = asyncio.Event()

    async def complete(self, request: ModelRequest, on_text: OnText | None = None) -> ModelReply:
        if request.messages[-1].role == "tool":
            await self.go_on.wait()
        return await super().complete(request, on_text)


def grown(events: list[tuple[str, JsonObject]]) -> str:
    """The text that a reader has who applies resets and deltas in turn."""
    text = ""
    for name, data in events:
        if name == "text.reset":
            text = data["text"]
        if name == "text.delta":
            text = text[: data["offset"]] + data["text"]
    return text


async def test_events_and_text_come_from_the_running_loop_and_the_result_last(stack: Stack, server: str) -> None:
    async with streaming(stack, server) as events:
        seen = [event async for event in events]

    durable = [name for name, _ in seen if not name.startswith("text.")]
    assert durable == ["message", "step", "step", "step", "text", "result"]
    assert grown(seen) == ANSWER
    assert sum(name == "text.delta" for name, _ in seen) > 3
    result = dict(seen)["result"]
    assert (result["status"], result["text"], result["session"]) == ("answered", ANSWER, "s")


async def test_text_comes_before_the_model_is_done(stack: Stack, server: str) -> None:
    model = stack.model = Slow("Order ", "1042 ", "is shipped.")
    async with streaming(stack, server) as events:
        seen = [await anext(events), await anext(events), await anext(events)]
        assert [name for name, _ in seen] == ["message", "text.reset", "text.delta"]
        assert grown(seen) == "Order 1042 "
        model.go_on.set()
        seen += [event async for event in events]
    assert grown(seen) == "Order 1042 is shipped."


async def test_a_run_goes_on_when_its_reader_goes_away(stack: Stack, server: str) -> None:
    model = stack.model = Slow("Order ", "1042.")
    async with streaming(stack, server, **{"Idempotency-Key": "k"}) as events:
        await anext(events)
        await anext(events)
    model.go_on.set()
    again = await stack.invoke(ASKED, Idempotency_Key="k")

    assert (again.status_code, again.json()["text"]) == (200, "Order 1042.")
    assert again.json()["run"].endswith("/runs/1")


async def test_the_same_message_again_streams_its_run_from_the_archive(stack: Stack, server: str) -> None:
    first = await stack.invoke(ASKED, Idempotency_Key="k")
    asked = len(stack.model.history)
    async with streaming(stack, server, **{"Idempotency-Key": "k"}) as events:
        seen = [event async for event in events]

    assert [name for name, _ in seen] == ["message", "step", "step", "step", "text", "result"]
    assert seen[-1][1] == first.json()
    assert len(stack.model.history) == asked


async def test_a_run_that_waits_ends_the_stream_with_what_it_waits_for(stack: Stack, server: str) -> None:
    refund = {**ASKED, "input": "Please refund order 1042"}
    sent = {"Authorization": f"Bearer {stack.keys.invoker}", "Accept": "text/event-stream"}
    async with httpx.AsyncClient(base_url=server, timeout=20) as client:
        answer = await client.post("/v1/agents/shop/invoke", headers=sent, json=refund)
    lines = answer.text.splitlines()
    assert [line for line in lines if line.startswith("event: ")][-2:] == ["event: wait", "event: result"]
    assert json.loads(lines[-2].removeprefix("data: "))["status"] == "waiting"


async def test_a_run_that_fails_ends_the_stream_with_the_problem(stack: Stack, server: str) -> None:
    stack.model = Scripted([ModelRefused("scripted/demo: refused")])
    async with streaming(stack, server) as events:
        seen = [event async for event in events]

    assert [name for name, _ in seen] == ["message", "text", "result"]
    assert (seen[-1][1]["status"], seen[-1][1]["title"]) == (502, "The run ended as failed")


async def test_a_store_that_does_not_take_the_message_is_told_in_the_stream(
    stack: Stack, server: str, locked: None
) -> None:
    async with streaming(stack, server) as events:
        seen = [event async for event in events]
    assert [(name, data["status"]) for name, data in seen] == [("error", 503)]


# A reader that comes again


ALL = ["1 message", "2 step model-1", "3 step tool-1.0", "4 step model-2", "5 text", "- result"]


@pytest.mark.parametrize("after", range(1, 6))
async def test_what_was_missed_of_a_run_that_is_over_comes_once_and_then_the_result(
    stack: Stack, server: str, after: int
) -> None:
    await stack.invoke(ASKED, Idempotency_Key="k")
    asked = len(stack.model.history)
    async with going_on(stack, server, after) as events:
        assert [event async for event in events] == ALL[after:]
    assert len(stack.model.history) == asked


@pytest.mark.parametrize("elsewhere", [False, True])
async def test_what_was_missed_of_a_run_that_goes_on_comes_at_once_and_the_rest_as_it_happens(
    stack: Stack,
    server: str,
    elsewhere: bool,  # noqa: FBT001  a parameter set
) -> None:
    model = stack.model = Second()
    async with streaming(stack, server, **{"Idempotency-Key": "k"}) as first:
        await anext(first)
    if elsewhere:  # another process, which drives nothing
        stack.here.invoker = Invoker(stack.here.driver, stack.here.store)
    async with going_on(stack, server, 1) as events:
        seen = [await anext(events)]  # what a pure tool gave is stored with the next answer of the model
        assert seen == ALL[1:2], "before the run is over"
        model.go_on.set()
        seen += [event async for event in events]
    assert seen == ALL[1:]


async def test_a_reader_may_come_again_and_again(stack: Stack, server: str) -> None:
    model = stack.model = Second()
    async with streaming(stack, server, **{"Idempotency-Key": "k"}) as first:
        await anext(first)
    seen = []
    for _ in range(3):
        async with going_on(stack, server, 1) as events:
            seen.append(await anext(events))
    model.go_on.set()
    async with going_on(stack, server, 2) as events:
        seen += [event async for event in events]
    assert seen == [*ALL[1:2] * 3, *ALL[2:]]


async def test_a_reader_from_the_future_gets_the_result(stack: Stack, server: str) -> None:
    await stack.invoke(ASKED, Idempotency_Key="k")
    async with going_on(stack, server, 99) as events:
        assert [event async for event in events] == ["- result"]


@pytest.mark.parametrize("number", ["x", "-1", "1.5", "", "9" * 30])
async def test_a_number_that_is_none_is_refused_before_anything_is_taken(stack: Stack, number: str) -> None:
    before = stack.rows()
    sent = {"accept": "text/event-stream", "idempotency-key": "k", "last-event-id": number}
    assert is_problem(await stack.invoke(ASKED, **sent), 400, "Last-Event-ID: ")
    assert stack.rows() == before


async def test_going_on_without_the_key_of_the_first_request_is_refused(stack: Stack) -> None:
    answer = await stack.invoke(ASKED, accept="text/event-stream", last_event_id="3")
    assert is_problem(answer, 400, "Idempotency-Key: missing")
