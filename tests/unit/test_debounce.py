"""A burst of messages is answered at once, and nobody waits for longer than is said."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest

from shared.domain import Entry, Queueing
from tests.clock import FakeClock
from tests.stage import ASKING, PLAN, PointedStore, Stage, calls, message, says

BURSTS = Queueing(debounce_seconds=0.5, debounce_most_seconds=2.5)


class Bursting(FakeClock):
    """While somebody sleeps, the next of `coming` messages comes in."""

    stage: Stage
    coming: tuple[str, ...] = ()
    pause = 0.4

    async def sleep(self, seconds: float) -> None:
        if not self.coming:
            await super().sleep(seconds)
            return
        text, *rest = self.coming
        self.coming = tuple(rest)
        self.advance(self.pause)
        order = 100 - len(rest)
        await self.stage.put(message(order, text, received_at=self.now()))
        await super().sleep(seconds - self.pause)


@pytest.fixture
async def stage(tmp_path: Path) -> AsyncIterator[Stage]:
    store, clock = PointedStore(tmp_path / "sessions.db"), Bursting()
    clock.stage = stage = Stage(store, clock, [says(str(number)) for number in range(10)])
    stage.publish(replace(PLAN, queueing=BURSTS))
    yield stage
    await store.aclose()


def coming(stage: Stage, *texts: str) -> None:
    assert isinstance(stage.clock, Bursting)
    stage.clock.coming = texts


async def inputs(stage: Stage) -> list[list[str]]:
    runs = (await stage.session()).runs
    return [[given.text for given in (await stage.run(number)).inputs] for number in range(1, runs + 1)]


async def test_a_burst_within_the_window_is_one_run(stage: Stage) -> None:
    coming(stage, "two", "three")
    await stage.say("one")
    await stage.pump()
    assert await inputs(stage) == [["one", "two", "three"]]
    assert stage.channel.texts == ["0"]


async def test_a_single_message_waits_for_the_window_and_no_longer(stage: Stage) -> None:
    await stage.say("one")
    await stage.pump()
    assert stage.clock.slept == [0.5]


async def test_what_was_said_long_ago_waits_for_nothing(stage: Stage) -> None:
    await stage.say("one")
    stage.clock.advance(0.5)
    await stage.pump()
    assert stage.clock.slept == []


async def test_a_run_begins_after_the_longest_wait_however_fast_they_come(stage: Stage) -> None:
    coming(stage, *(f"message {number}" for number in range(2, 12)))
    await stage.say("message 1")
    await stage.drive(stage.bus.queue.pop(0).id)
    first, *_ = await inputs(stage)
    assert first == [f"message {number}" for number in range(1, 8)], "at 0, 0.4, … 2.4 s"


@pytest.mark.parametrize("text", ["/start", "/help me"])
async def test_a_command_does_not_wait(stage: Stage, text: str) -> None:
    await stage.say(text)
    await stage.pump()
    assert (stage.clock.slept, stage.channel.texts) == ([], ["0"])


async def test_a_command_ends_the_wait_of_what_came_before_it(stage: Stage) -> None:
    coming(stage, "/go", "much later")
    await stage.say("one")
    await stage.drive(stage.bus.queue.pop(0).id)
    assert (await inputs(stage))[0] == ["one", "/go"]


async def test_a_caller_of_the_api_does_not_wait(stage: Stage) -> None:
    await stage.put(replace(message(1), posted_by="key"))
    await stage.pump()
    assert (stage.clock.slept, stage.channel.texts) == ([], ["0"])


async def test_a_button_tap_does_not_wait(stage: Stage) -> None:
    stage.script = type(stage.script)([calls("refund_order"), says("Refunded")])
    stage.publish(replace(ASKING, queueing=BURSTS))
    await stage.say("Refund 1042")
    await stage.pump()
    slept = list(stage.clock.slept)
    await stage.tap(approved=True)
    await stage.pump()
    assert (stage.clock.slept, stage.channel.texts[1:]) == (slept, ["Refunded"])


@pytest.mark.parametrize("kind", ["verdict", "stop"])
async def test_a_control_entry_without_a_run_does_not_wait(stage: Stage, kind: str) -> None:
    entry: Entry = replace(message(1), kind=kind, tap="t")  # type: ignore[arg-type]  # a table
    await stage.put(entry)
    await stage.pump()
    assert stage.clock.slept == []
    assert await stage.is_quiet()


@pytest.mark.parametrize(("more", "reads"), [(0, 1), (1, 2), (3, 4)])
async def test_each_message_that_extends_a_burst_costs_one_read_and_no_other_does(
    stage: Stage, more: int, reads: int
) -> None:
    coming(stage, *["again"] * more)
    await stage.say("one")
    await stage.drive(stage.bus.queue.pop(0).id)
    assert stage.faults.passed.count("after load") == reads
    assert len((await inputs(stage))[0]) == 1 + more


async def test_debounce_costs_no_write(stage: Stage) -> None:
    await stage.say("one")
    await stage.pump()
    passed = stage.faults.passed
    assert passed.count("after append") + passed.count("after commit") == 1 + 3


async def test_the_end_of_a_run_leaves_a_burst_that_is_under_way_to_its_own_wake(stage: Stage) -> None:
    stage.script = type(stage.script)([calls("lookup_order"), says("One"), says("Two")])
    stage.publish(replace(PLAN, queueing=replace(BURSTS, mode="collect")))
    use = stage.tools["lookup_order"]

    async def slow(arguments: dict[str, object], context: object) -> object:
        await stage.put(message(2, "two", received_at=stage.clock.now()))
        return await use(arguments, context)  # type: ignore[arg-type]

    stage.tools["lookup_order"] = slow  # type: ignore[assignment]
    await stage.say("one")
    await stage.pump()
    assert stage.channel.texts == ["One", "Two"]
    assert stage.clock.slept == [0.5, 0.5]
    assert await stage.is_quiet()
