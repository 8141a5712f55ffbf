import asyncio
from collections.abc import AsyncIterator
from contextlib import aclosing
from pathlib import Path
from typing import Any

import pytest

from shared.api.follow import follow
from shared.domain import JsonObject
from shared.sessions.events import Event, events
from shared.tools import ToolContext, ToolResult
from tests.clock import FakeClock
from tests.stage import ASKING, BEN, PointedStore, Stage, calls, says


@pytest.fixture
async def stage(tmp_path: Path) -> AsyncIterator[Stage]:
    store = PointedStore(tmp_path / "sessions.db")
    turns = [calls("lookup_order", "refund_order"), says("Refunded"), *[says("Hello")] * 30]
    stage = Stage(store, FakeClock(), turns)
    stage.publish(ASKING)
    yield stage
    await store.aclose()


async def refunded(stage: Stage) -> None:
    """Run 1: two messages, a tool, an approval, another tool, a reply."""
    await stage.say("Refund 1042", 1)
    await stage.say("please", 2, BEN)
    await stage.pump()
    await stage.tap(approved=True)
    await stage.pump()


def short(event: Event) -> tuple[int, str, Any]:
    return event.sequence, event.kind, event.data.get("step") or event.data.get("wait") or event.data["text"]


async def archived(stage: Stage) -> list[Event]:
    runs = (await stage.session()).runs
    return [event for number in range(1, runs + 1) for event in events(await stage.run(number))]


async def followed(stage: Stage, after: int, until: int) -> list[Event]:
    """What a reader gets that has seen number `after`, up to number `until`."""
    got: list[Event] = []
    async with asyncio.timeout(10), aclosing(follow(stage.store, stage.store, stage.key, after)) as stream:
        while not got or got[-1].sequence < until:
            got.append(await anext(stream))
    return got


async def test_the_events_of_a_run_tell_it_in_order_without_gaps(stage: Stage) -> None:
    await refunded(stage)
    run = await stage.run()
    assert [short(event) for event in events(run)] == [
        (1, "message", "Refund 1042"),
        (2, "message", "please"),
        (3, "step", "model-1"),
        (4, "wait", run.waits[0].id),
        (5, "step", "tool-1.0"),
        (6, "step", "approve-tool-1.1"),
        (7, "step", "tool-1.1"),
        (8, "step", "model-2"),
        (9, "text", "Refunded"),
    ]
    first, *_, last = events(run)
    assert first.data["contact"] == "Ana"
    assert last.data == {"text": "Refunded", "outcome": "answered", "reason": ""}


async def test_the_next_run_counts_on(stage: Stage) -> None:
    await refunded(stage)
    await stage.say("Hi", 3)
    await stage.pump()
    assert [event.sequence for event in await archived(stage)] == list(range(1, 13))
    assert {event.run for event in await archived(stage)} == {1, 2}


async def test_what_was_shown_of_an_active_run_is_what_the_archive_tells(stage: Stage) -> None:
    await stage.say("Refund 1042", 1)
    await stage.say("please", 2, BEN)
    await stage.pump()
    waiting = await stage.session()
    assert waiting.run is not None
    shown = list(events(waiting.run))
    assert [event.kind for event in shown] == ["message", "message", "step", "wait", "step"]
    await stage.tap(approved=True)
    await stage.pump()
    assert (await archived(stage))[:5] == shown


async def test_an_intent_is_no_event_before_its_result(stage: Stage) -> None:
    seen: list[Event] = []
    refund = stage.tools["refund_order"]

    async def looks(arguments: JsonObject, context: ToolContext) -> ToolResult:
        run = (await stage.session()).run
        assert run is not None
        seen.extend(events(run))
        return await refund(arguments, context)

    stage.tools["refund_order"] = looks
    await refunded(stage)
    assert [event.sequence for event in seen] == [1, 2, 3, 4, 5, 6]
    assert (await archived(stage))[:6] == seen


async def test_a_reader_gets_what_it_missed_from_any_number_on(stage: Stage) -> None:
    await refunded(stage)
    await stage.say("Hi", 3)
    await stage.pump()
    everything = await archived(stage)
    for after in range(len(everything)):
        assert await followed(stage, after, len(everything)) == everything[after:]


async def test_a_reader_of_many_runs_gets_all_of_them(stage: Stage) -> None:
    await refunded(stage)
    for order in range(3, 25):
        await stage.say("Hi", order)
        await stage.pump()
    everything = await archived(stage)
    assert everything[-1].run == 23
    assert await followed(stage, 0, everything[-1].sequence) == everything


async def test_a_reader_sees_each_event_once_as_it_happens(stage: Stage) -> None:
    await stage.say("Refund 1042", 1)
    await stage.pump()
    reader = asyncio.create_task(followed(stage, 1, until=11))
    await stage.tap(approved=True)
    await stage.pump()
    await stage.say("Hi", 3)
    await stage.pump()
    assert await reader == (await archived(stage))[1:]


async def test_a_reader_waits_for_what_is_yet_to_come(stage: Stage) -> None:
    await refunded(stage)
    reader = asyncio.create_task(followed(stage, 9, until=10))
    done, _ = await asyncio.wait({reader}, timeout=0.05)
    assert not done
    await stage.say("Hi", 3)
    await stage.pump()
    assert [short(event) for event in await reader] == [(10, "message", "Hi")]
