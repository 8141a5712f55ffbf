import asyncio
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from pathlib import Path

import pytest

from shared.domain import Connection, Delivery, Entry, JsonObject, ModelReply, Queueing, Wake
from shared.errors import NotSent
from shared.orchestrator.drive import Driver
from shared.orchestrator.invoke import Invoked, Invoker
from shared.sessions.accept import pending
from shared.sessions.document import Run
from shared.sessions.outbox import LONGEST_SLEEP
from shared.tools import ToolContext, ToolResult
from tests.clock import FakeClock
from tests.stage import ASKING, PACE, PLAN, PointedStore, Stage, calls, message, says

FIRST, SECOND = message(1, "first"), message(2, "second")
Play = Callable[..., Stage]


@pytest.fixture
async def play(tmp_path: Path) -> AsyncIterator[Play]:
    """A stage whose model gives these replies, one a call."""
    store = PointedStore(tmp_path / "sessions.db")

    def play(*replies: ModelReply | Exception) -> Stage:
        return Stage(store, FakeClock(), replies)

    yield play
    await store.aclose()


class Gate:
    """Holds up the first use of `lookup_order` until it is opened."""

    def __init__(self, stage: Stage) -> None:
        self.reached, self.opened = asyncio.Event(), asyncio.Event()
        self._lookup = stage.tools["lookup_order"]
        stage.tools["lookup_order"] = self._wait

    async def _wait(self, arguments: JsonObject, context: ToolContext) -> ToolResult:
        if not self.reached.is_set():
            self.reached.set()
            await self.opened.wait()
        return await self._lookup(arguments, context)


def invoker(stage: Stage, driver: Driver | None = None) -> Invoker:
    """What a process has that just started."""
    return Invoker(driver or stage.driver(), stage.store)


async def invoke(stage: Stage, entry: Entry, by: Invoker | None = None, patience: float = 10) -> Invoked:
    return await (by or invoker(stage)).invoke(stage.key, entry, patience=patience)


def run_of(invoked: Invoked) -> Run:
    assert invoked.run is not None
    return invoked.run


async def test_an_invoke_returns_the_run_that_answered(play: Play) -> None:
    stage = play(calls("lookup_order"), says("Found"))
    invoked = await invoke(stage, FIRST)
    assert invoked.session == stage.key
    assert (run_of(invoked).outcome, run_of(invoked).reply) == ("answered", "Found")
    assert run_of(invoked) == await stage.run()
    assert stage.bus.queue == []
    assert await stage.is_quiet()


async def test_the_same_entry_again_returns_the_same_run(play: Play) -> None:
    stage = play(says("One"), says("Two"))
    first = run_of(await invoke(stage, FIRST))
    assert run_of(await invoke(stage, SECOND)).number == 2
    assert run_of(await invoke(stage, FIRST)) == first
    assert len(stage.script.history) == 2
    assert await stage.is_quiet()


@pytest.mark.parametrize("processes", [1, 2])
async def test_the_same_entry_again_meanwhile_waits_for_the_run_and_does_not_disturb_it(
    play: Play, processes: int
) -> None:
    stage = play(calls("lookup_order"), says("Found"))
    gate, here = Gate(stage), invoker(stage)
    there = here if processes == 1 else invoker(stage)
    first = asyncio.create_task(invoke(stage, FIRST, here))
    await gate.reached.wait()
    again = asyncio.create_task(invoke(stage, FIRST, there))
    await stage.faults.passes("after append" if processes == 1 else "after load", 2)
    gate.opened.set()
    assert run_of(await first) == run_of(await again) == await stage.run()
    assert (run_of(await again).attempt, len(stage.used)) == (1, 1)


async def test_a_busy_session_is_watched_until_the_message_is_answered(play: Play) -> None:
    stage = play(calls("lookup_order"), says("One"), says("Two"))
    gate = Gate(stage)
    await stage.put(FIRST)
    holder = asyncio.create_task(stage.drive("w"))
    await gate.reached.wait()
    second = asyncio.create_task(invoke(stage, SECOND))
    await stage.faults.passes("after load", 2)
    gate.opened.set()
    run = run_of(await second)
    assert (run.number, run.reply, [given.text for given in run.inputs]) == (2, "Two", ["second"])
    session = await holder
    assert session is not None
    assert session.epoch == 1


async def test_an_invoke_returns_when_its_run_waits_for_a_person(play: Play) -> None:
    stage = play(calls("refund_order"), says("Refunded"))
    stage.publish(ASKING)
    run = run_of(await invoke(stage, FIRST))
    assert run.outcome is None
    assert run.wait is not None
    assert run.wait.call.name == "refund_order"
    behind = run_of(await invoke(stage, SECOND))
    assert (behind.number, behind.wait) == (1, run.wait), "a message during the wait stands behind it"


async def test_an_answered_entry_keeps_its_run_while_a_later_one_waits(play: Play) -> None:
    stage = play(says("One"), calls("refund_order"))
    stage.publish(ASKING)
    first = run_of(await invoke(stage, FIRST))
    assert run_of(await invoke(stage, SECOND)).wait is not None
    assert run_of(await invoke(stage, FIRST)) == first


async def test_after_its_patience_the_caller_has_no_run_and_the_run_goes_on(play: Play) -> None:
    stage = play(calls("lookup_order"), says("Found"))
    gate, here = Gate(stage), invoker(stage)
    assert (await invoke(stage, FIRST, here, patience=0.05)).run is None
    gate.opened.set()
    assert run_of(await invoke(stage, FIRST, here)).reply == "Found"
    assert len(stage.used) == 1


async def test_when_the_caller_goes_away_the_run_goes_on(play: Play) -> None:
    stage = play(calls("lookup_order"), says("Found"))
    gate, here = Gate(stage), invoker(stage)
    caller = asyncio.create_task(invoke(stage, FIRST, here))
    await gate.reached.wait()
    caller.cancel()
    with pytest.raises(asyncio.CancelledError):
        await caller
    gate.opened.set()
    run = run_of(await invoke(stage, FIRST))
    assert (run.reply, run.attempt, stage.channel.texts) == ("Found", 1, ["Found"])


async def test_what_came_in_during_an_invoke_is_left_to_a_wake(play: Play) -> None:
    stage = play(calls("lookup_order"), says("One"), says("Two"))
    gate = Gate(stage)
    first = asyncio.create_task(invoke(stage, FIRST))
    await gate.reached.wait()
    await stage.store.append(stage.key, {SECOND.id: pending(SECOND)}, stage.clock.now())
    gate.opened.set()
    assert run_of(await first).reply == "One"
    assert (await stage.session()).runs == 1
    assert len(stage.bus.queue) == 1
    await stage.pump()
    assert stage.channel.texts == ["One", "Two"]


async def test_an_invoke_first_ends_the_run_that_a_dead_process_left(play: Play) -> None:
    stage = play(RuntimeError("killed"), says("One"), says("Two"))
    stage.publish(replace(PLAN, queueing=Queueing(mode="followup", debounce_seconds=0)))
    await stage.put(FIRST)
    with pytest.raises(RuntimeError):
        await stage.drive("w")
    stage.clock.advance(PACE.lease)
    run = run_of(await invoke(stage, SECOND))
    assert (run.number, run.reply, stage.channel.texts) == (2, "Two", ["One", "Two"])


async def test_an_invoke_may_join_the_run_that_a_dead_process_left(play: Play) -> None:
    stage = play(RuntimeError("killed"), says("Both"))
    await stage.put(FIRST)
    with pytest.raises(RuntimeError):
        await stage.drive("w")
    stage.clock.advance(PACE.lease)

    run = run_of(await invoke(stage, SECOND))
    assert (run.number, run.reply, [came.message.text for came in run.arrivals]) == (1, "Both", ["second"])
    assert (stage.channel.texts, (await stage.session()).runs) == (["Both"], 1)


async def test_a_caller_whose_message_joined_a_run_drives_no_other(play: Play) -> None:
    stage = play(RuntimeError("killed"), says("Both"), says("Three"))
    await stage.put(FIRST)
    with pytest.raises(RuntimeError):
        await stage.drive("w")
    stage.bus.queue.clear()
    stage.clock.advance(PACE.lease)
    send, third = stage.channel.send, message(3, "third")

    async def meanwhile(connection: Connection, conversation: str, delivery: Delivery) -> str:
        await stage.store.append(stage.key, {third.id: pending(third)}, stage.clock.now())
        return await send(connection, conversation, delivery)

    stage.channel.send = meanwhile  # type: ignore[method-assign]
    assert run_of(await invoke(stage, SECOND)).reply == "Both"
    assert ((await stage.session()).runs, len(stage.bus.queue)) == (1, 1), "the third is left to a wake"


async def test_a_caller_whose_process_was_fenced_gets_the_run_of_the_one_that_took_over(play: Play) -> None:
    stage = play(calls("lookup_order"), says("Found"))
    gate = Gate(stage)
    caller = asyncio.create_task(invoke(stage, FIRST))
    await gate.reached.wait()
    stage.clock.advance(PACE.lease)
    await stage.driver().drive(Wake(key=stage.key, id="another"))
    gate.opened.set()
    run = run_of(await caller)
    assert (run.reply, run.attempt, stage.channel.texts) == ("Found", 2, ["Found"])


async def test_an_invoke_that_must_be_repeated_goes_on_where_it_was(play: Play) -> None:
    stage = play(says("Hello"))
    stage.channel.failures = [NotSent("429", retry_after=LONGEST_SLEEP + 1)]
    here = invoker(stage)
    assert (await invoke(stage, FIRST, here, patience=0.05)).run is None, "its reply is put off"
    stage.clock.advance(LONGEST_SLEEP + 1)
    assert run_of(await invoke(stage, FIRST, here)).reply == "Hello"
    assert len(stage.script.history) == 1
