"""The events of a session as a stream: what was missed, then what happens, each once and in order."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace

import httpx
import pytest

from shared.domain import JsonObject
from tests.functions.conftest import Lines, Stack, is_problem

Events = AsyncIterator[JsonObject]


@asynccontextmanager
async def following(
    stack: Stack, server: str, session: str, after: int | None = None, query: str = ""
) -> AsyncIterator[Events]:
    """The stream's events, each as its data with `id` and `event`; ends when the block does."""
    headers = {"Authorization": f"Bearer {stack.keys.operator}"}
    if after is not None:
        headers["Last-Event-ID"] = str(after)
    async with (
        httpx.AsyncClient(base_url=server, timeout=20) as client,
        client.stream("GET", f"/v1/sessions/{session}/events{query}", headers=headers) as response,
    ):
        assert response.status_code == 200
        assert response.headers["content-type"].startswith("text/event-stream")
        yield _events(response)


async def _events(response: httpx.Response) -> Events:
    fields: dict[str, str] = {}
    async for line in response.aiter_lines():
        name, _, value = line.partition(": ")
        if line:
            fields[name] = value
        elif "data" in fields:
            yield {"id": int(fields["id"]), "event": fields["event"], **json.loads(fields["data"])}
            fields = {}


async def take(events: Events, count: int) -> list[JsonObject]:
    return [await asyncio.wait_for(anext(events), 20) for _ in range(count)]


async def test_what_happened_is_replayed_in_order(stack: Stack, server: str) -> None:
    session = await stack.say("Where is order 1042?")
    async with following(stack, server, session) as events:
        seen = await take(events, 5)

    assert [(event["id"], event["event"]) for event in seen] == [
        (1, "message"),
        (2, "step"),
        (3, "step"),
        (4, "step"),
        (5, "text"),
    ]
    assert seen[0]["text"] == "Where is order 1042?"
    assert [event["step"] for event in seen[1:4]] == ["model-1", "tool-1.0", "model-2"]
    assert (seen[4]["outcome"], seen[4]["text"]) == ("answered", stack.shown()[0])


async def test_only_what_was_missed_comes_again_and_then_what_happens(stack: Stack, server: str) -> None:
    session = await stack.say("Hello")
    await stack.say("Hello")
    async with following(stack, server, session, after=2) as events:
        missed = await take(events, 4)
        await stack.say("Hello")
        live = await take(events, 3)

    assert [event["id"] for event in missed + live] == list(range(3, 10))
    assert [event["run"] for event in missed + live] == [1, 2, 2, 2, 3, 3, 3]
    assert [event["event"] for event in live] == ["message", "step", "text"]


async def test_a_wait_and_what_ended_it_are_events(stack: Stack, server: str) -> None:
    session, path = await stack.waiting()
    async with following(stack, server, session) as events:
        asked = await take(events, 3)
        await stack.http.post(path, json={"approved": True})
        done = await take(events, 4)

    assert [event["event"] for event in asked] == ["message", "step", "wait"]
    assert asked[2]["tool"] == "refund_order"
    assert [(event["event"], event.get("kind")) for event in done] == [
        ("step", "approval"),
        ("step", "tool"),
        ("step", "model"),
        ("text", None),
    ]
    assert [event["id"] for event in asked + done] == list(range(1, 8))


async def test_a_long_history_is_read_whole(stack: Stack, server: str) -> None:
    for _ in range(25):
        session = await stack.say("Hello")
    async with following(stack, server, session) as events:
        seen = await take(events, 75)

    assert [event["id"] for event in seen] == list(range(1, 76))


async def test_two_readers_see_the_same(stack: Stack, server: str) -> None:
    session = await stack.say("Hello")
    async with following(stack, server, session) as one, following(stack, server, session) as other:
        await stack.say("Where is order 1042?")
        seen = await asyncio.gather(take(one, 8), take(other, 8))

    assert seen[0] == seen[1]


async def test_a_reader_from_the_future_hears_only_what_comes_after(stack: Stack, server: str) -> None:
    session = await stack.say("Hello")
    async with following(stack, server, session, after=4) as events:
        await stack.say("Hello")
        assert [event["id"] for event in await take(events, 2)] == [5, 6]


@pytest.mark.parametrize("last", ["x", "-1", "1.5"])
async def test_a_last_event_id_that_is_no_number_is_refused(stack: Stack, last: str) -> None:
    session = await stack.say("Hello")
    answer = await stack.read(f"/v1/sessions/{session}/events", last_event_id=last)

    assert is_problem(answer, 400)
    assert answer.json()["detail"].startswith("last-event-id: ")


async def test_a_store_that_goes_down_ends_the_stream_with_one_line(stack: Stack, server: str, log: Lines) -> None:
    session = await stack.say("Hello")
    async with following(stack, server, session) as events:
        await take(events, 3)
        await stack.here.store.aclose()
        assert [event async for event in events] == []

    assert len(log.holding("events cut")) == 1
    assert not log.holding("ERROR")


async def test_a_stream_ends_in_good_order_when_its_time_is_over_and_goes_on_from_the_last_number(
    stack: Stack, server: str
) -> None:
    stack.here.settings = replace(stack.here.settings, stream_seconds=0.5)
    session = await stack.say("Hello")
    async with following(stack, server, session) as events:
        first = [event["id"] async for event in events]
    await stack.say("Where is order 1042?")
    async with following(stack, server, session, after=first[-1]) as events:
        second = [event["id"] async for event in events]
    assert first + second == list(range(1, 9))
