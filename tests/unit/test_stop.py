"""Somebody says to stop: what is being done is given up or waited for, and what came before is answered by that."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest

from shared.domain import Entry, JsonObject, ModelReply, ModelRequest, Queueing, Texts, WaitRequest, Wake
from shared.llm import OnText
from shared.llm.scripted import Scripted
from shared.sessions import callback
from shared.sessions.document import Run
from shared.sessions.pace import Pace
from shared.tools import Tool, ToolContext
from tests.clock import NOON, FakeClock
from tests.stage import ASKING, PLAN, PointedStore, Stage, calls, message, says

BRISK = Pace(lease=0.03, due=60.0)
"""Its heartbeat comes every 10 ms of real time."""
Play = Callable[..., Stage]


def stop(order: int) -> Entry:
    return replace(message(order, "/stop"), kind="stop")


class Endless(Scripted):
    """A model that thinks until it is given up; what happens meanwhile is `meanwhile`."""

    def __init__(self, stage: Stage, *meanwhile: Entry) -> None:
        super().__init__([says("never said")])
        self.stage, self.meanwhile = stage, meanwhile
        self.given_up = False

    async def complete(self, request: ModelRequest, on_text: OnText | None = None) -> ModelReply:
        self.history.append(request)
        for entry in self.meanwhile:
            await self.stage.put(entry)
        self.stage.clock.advance(BRISK.lease / 3)
        try:
            await asyncio.wait_for(asyncio.Event().wait(), 10)
        except asyncio.CancelledError:
            self.given_up = True
            raise
        raise AssertionError("nobody gave up this call")


@pytest.fixture
async def play(tmp_path: Path) -> AsyncIterator[Play]:
    """A stage whose model gives these replies, one a call."""
    store = PointedStore(tmp_path / "sessions.db")

    def play(*replies: ModelReply | Exception) -> Stage:
        return Stage(store, FakeClock(), replies)

    yield play
    await store.aclose()


async def drive_briskly(stage: Stage) -> None:
    wake = stage.bus.queue.pop(0)
    await replace(stage.driver(), pace=BRISK).drive(Wake(key=stage.key, id=wake.id))
    stage.bus.queue.clear()


def ended(run: Run) -> tuple[str | None, str, str]:
    return run.outcome, run.reply, run.reason


STOPPED = ("cancelled", Texts().cancelled, "stopped by Ana")


async def test_a_model_call_is_cut_at_the_next_heartbeat(play: Play) -> None:
    stage = play()
    stage.script = model = Endless(stage, stop(2))
    await stage.say("Hi")
    await drive_briskly(stage)
    assert model.given_up
    run = await stage.run()
    assert (ended(run), run.steps, stage.channel.texts) == (STOPPED, (), [Texts().cancelled])
    assert await stage.is_quiet()


async def test_a_call_that_must_not_be_repeated_is_waited_for_and_a_pure_one_is_not(play: Play) -> None:
    stage = play(calls("refund_order", "lookup_order"), says("never said"))
    refund, given_up = stage.tools["refund_order"], asyncio.Event()

    async def slow(arguments: JsonObject, context: ToolContext) -> JsonObject:
        await stage.put(stop(2))
        stage.clock.advance(BRISK.lease / 3)
        await asyncio.wait_for(given_up.wait(), 10)  # so the other was cut while this went on
        result = await refund(arguments, context)
        assert isinstance(result, dict)
        return result

    async def endless(arguments: JsonObject, context: ToolContext) -> JsonObject:
        try:
            await asyncio.wait_for(asyncio.Event().wait(), 10)
        except asyncio.CancelledError:
            given_up.set()
            raise
        raise AssertionError("nobody gave up this call")

    stage.tools |= {"refund_order": slow, "lookup_order": endless}
    await stage.say("Do both")
    await drive_briskly(stage)
    run = await stage.run()
    assert ended(run) == STOPPED
    assert [step.key for step in run.steps] == ["model-1", "tool-1.0"]
    assert '"refunded":true' in (run.steps[1].result or "")
    assert (len(stage.used), len(stage.script.history), stage.channel.texts) == (1, 1, [Texts().cancelled])
    assert await stage.is_quiet()


async def test_no_tool_begins_after_a_stop_during_the_model_call_that_asks_for_it(play: Play) -> None:
    stage = play()

    class Stopping(Scripted):
        async def complete(self, request: ModelRequest, on_text: OnText | None = None) -> ModelReply:
            await stage.put(stop(2))
            return await super().complete(request, on_text)

    stage.script = Stopping([calls("refund_order", "lookup_order")])
    await stage.say("Do both")
    await stage.pump()
    assert (ended(await stage.run()), stage.used) == (STOPPED, [])
    assert await stage.is_quiet()


async def asks(arguments: JsonObject, context: ToolContext) -> WaitRequest:
    return WaitRequest(kind="callback", until=NOON + timedelta(hours=1))


async def sleeps(arguments: JsonObject, context: ToolContext) -> WaitRequest:
    return WaitRequest(until=NOON + timedelta(hours=1))


async def parked(stage: Stage, use: Tool | None) -> None:
    """A run that waits for what this tool asks for, or for an approval."""
    plan = ASKING if use is None else PLAN
    if use is not None:
        stage.tools["refund_order"] = use
    stage.publish(plan)
    await stage.say("Hi")
    await stage.pump()
    assert (await stage.unfinished()).parked


@pytest.mark.parametrize("use", [None, asks, sleeps], ids=["approval", "callback", "timer"])
async def test_a_run_that_waits_is_cancelled(play: Play, use: Tool | None) -> None:
    stage = play(calls("refund_order"), says("Fresh"))
    await parked(stage, use)
    wait = (await stage.unfinished()).open[0]
    await stage.put(stop(2))
    await stage.pump()
    run = await stage.run()
    assert (ended(run), stage.channel.texts[-1], stage.used) == (STOPPED, Texts().cancelled, [])
    assert ([over.id for over in run.waits], run.open) == ([wait.id], ())
    assert await stage.is_quiet()
    await stage.tick(7200)
    await stage.say("Again", 3)
    await stage.pump()
    assert stage.channel.texts[-1] == "Fresh"
    assert await stage.is_quiet()


async def test_a_stop_answers_what_came_before_it_and_nothing_that_came_after(play: Play) -> None:
    stage = play(calls("refund_order"), says("To the third"))
    await parked(stage, None)
    await stage.say("second", 2)
    await stage.say("third", 4)
    await stage.put(stop(3))
    await stage.pump()
    first, second = [await stage.run(number) for number in (1, 2)]
    assert [came.message.text for came in first.arrivals] == ["second"]
    assert ([given.text for given in second.inputs], second.reply) == (["third"], "To the third")
    assert stage.channel.texts[1:] == [Texts().cancelled, "To the third"]
    assert await stage.is_quiet()


async def test_what_waits_before_a_run_begins_is_cancelled_too_without_asking_a_model(play: Play) -> None:
    stage = play(says("To the third"))
    for order, text in ((1, "first"), (2, "second"), (4, "third")):
        await stage.say(text, order)
    await stage.put(stop(3))
    await stage.pump()
    runs = [await stage.run(number) for number in (1, 2)]
    assert [[given.text for given in run.inputs] for run in runs] == [["first", "second"], ["third"]]
    assert stage.channel.texts == [Texts().cancelled, "To the third"]
    assert len(stage.script.history) == 1
    assert await stage.is_quiet()


async def test_where_there_is_nothing_to_stop_the_contact_is_told_so_once(play: Play) -> None:
    stage = play(says("Hello"))
    for _ in range(2):
        await stage.put(stop(1))
        await stage.pump()
    assert stage.channel.texts == [Texts().idle]
    assert ((await stage.session()).runs, await stage.is_quiet()) == (0, True)
    await stage.say("Hi", 2)
    await stage.pump()
    assert stage.channel.texts == [Texts().idle, "Hello"]


async def test_a_stop_that_the_channel_brings_again_stops_nothing_more(play: Play) -> None:
    stage = play(calls("refund_order"), calls("refund_order"), says("Refunded"))
    await parked(stage, None)
    await stage.put(stop(2))
    await stage.pump()
    await stage.say("Again", 3)
    await stage.pump()
    await stage.put(stop(2))
    await stage.pump()
    assert (await stage.unfinished()).parked
    await stage.tap(approved=True)
    await stage.pump()
    assert stage.channel.texts[-1] == "Refunded"
    assert await stage.is_quiet()


async def test_two_who_say_to_stop_are_told_once(play: Play) -> None:
    stage = play(calls("refund_order"))
    await parked(stage, None)
    await stage.put(stop(2))
    await stage.put(stop(3))
    await stage.pump()
    assert stage.channel.texts[1:] == [Texts().cancelled]
    assert await stage.is_quiet()


async def test_an_operator_stops_a_run_by_the_api_and_what_comes_later_is_answered(play: Play) -> None:
    stage = play(calls("refund_order"), says("To the third"))
    await parked(stage, None)
    stage.clock.advance(10)
    await stage.put(message(900_000_000, "second", received_at=stage.clock.now()))
    stage.clock.advance(10)
    request = callback.stop(await stage.session(), "request-1", stage.clock.now(), by="key-7")
    assert request.order == int(stage.clock.now().timestamp() * 1_000_000)
    for _ in range(2):
        await stage.put(request)
    stage.clock.advance(10)
    await stage.put(message(900_000_001, "third", received_at=stage.clock.now()))
    await stage.pump()
    first, second = [await stage.run(number) for number in (1, 2)]
    assert ended(first) == ("cancelled", Texts().cancelled, "stopped by an operator")
    assert [came.message.text for came in first.arrivals] == ["second"]
    assert (second.reply, (await stage.session()).late) == ("To the third", 0)
    assert (await stage.session()).last_order == 900_000_001, "the order of an operator is not the channel's"
    assert await stage.is_quiet()


async def test_the_conversation_goes_on_after_a_stop_with_every_call_answered(play: Play) -> None:
    stage = play(calls("refund_order"), says("Hello"))
    await parked(stage, None)
    await stage.put(stop(2))
    await stage.pump()
    await stage.say("Hi again", 3)
    await stage.pump()
    said = stage.script.history[-1].messages
    assert [(message.role, message.text) for message in said] == [
        ("contact", "Hi"),
        ("agent", ""),
        ("tool", '{"error": "not carried out"}'),
        ("agent", Texts().cancelled),
        ("contact", "Hi again"),
    ]


async def test_an_interrupting_message_and_a_stop_at_once_stop(play: Play) -> None:
    stage = play()
    stage.publish(replace(PLAN, queueing=Queueing(mode="interrupt", debounce_seconds=0)))
    stage.script = Endless(stage, message(2, "second"), stop(3))
    await stage.say("Hi")
    await drive_briskly(stage)
    run = await stage.run()
    assert (ended(run), [came.message.text for came in run.arrivals]) == (STOPPED, ["second"])
    assert stage.channel.texts == [Texts().cancelled]
    assert await stage.is_quiet()
