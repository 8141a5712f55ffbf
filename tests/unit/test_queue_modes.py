"""What becomes of a message that comes in while a run is at work, and of bursts before one begins."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import replace
from pathlib import Path

import pytest

from shared.domain import JsonObject, ModelReply, ModelRequest, Queueing, QueueMode, Texts
from shared.llm import OnText
from shared.llm.scripted import Scripted
from shared.sessions.accept import pending
from shared.sessions.document import Run, state_bytes
from shared.sessions.seen import KEPT
from shared.tools import ToolContext, ToolResult
from tests.clock import FakeClock
from tests.stage import ASKING, BEN, PLAN, PointedStore, Stage, calls, message, says

SKIPPED_RESULT = '{"skipped":"a newer message came in before this began; it was not carried out"}'
DENIED = '{"denied":true,"reason":"not approved by a newer message"}'
Step = Callable[[], Awaitable[None]]


class Interrupted(Scripted):
    """A script, with something that happens during one of its calls, counted from 1."""

    def __init__(self, *replies: ModelReply | Exception) -> None:
        super().__init__(replies)
        self.during: dict[int, Step] = {}

    async def complete(self, request: ModelRequest, on_text: OnText | None = None) -> ModelReply:
        happens = self.during.pop(len(self.history) + 1, None)
        if happens is not None:
            await happens()
        return await super().complete(request, on_text)


class Scene(Stage):
    """A stage whose messages come in during model calls and tools."""

    script: Interrupted

    def in_mode(self, mode: QueueMode, *replies: ModelReply | Exception) -> Scene:
        self.publish(replace(PLAN, queueing=Queueing(mode=mode, debounce_seconds=0)))
        self.script = Interrupted(*replies)
        return self

    def during_call(self, number: int, *texts: str, first: int = 2) -> None:
        async def happens() -> None:
            for order, text in enumerate(texts, first):
                await self.say(text, order)

        self.script.during[number] = happens

    def during_tool(self, name: str, text: str) -> None:
        use = self.tools[name]

        async def interrupted(arguments: JsonObject, context: ToolContext) -> ToolResult:
            await self.say(text, 2)
            return await use(arguments, context)

        self.tools[name] = interrupted

    @property
    def given(self) -> list[str]:
        """What the model was given last: what contacts wrote, what tools gave."""
        said = self.script.history[-1].messages
        return [message.text for message in said if message.role in ("contact", "tool")]

    async def begin(self, text: str = "first") -> None:
        await self.say(text, 1)
        await self.pump()


@pytest.fixture
async def scene(tmp_path: Path) -> AsyncIterator[Scene]:
    store = PointedStore(tmp_path / "sessions.db")
    yield Scene(store, FakeClock(), [])
    await store.aclose()


def arrivals(run: Run) -> list[tuple[str, int, bool]]:
    return [(came.message.text, came.after, came.rejected) for came in run.arrivals]


# steer


async def test_a_message_during_a_model_call_skips_its_tools_and_is_seen_by_the_next_call(scene: Scene) -> None:
    scene.in_mode("steer", calls("lookup_order", "refund_order"), says("Both"))
    scene.during_call(1, "second")
    await scene.begin()
    assert scene.used == []
    assert scene.given == ["first", SKIPPED_RESULT, SKIPPED_RESULT, "second"]
    assert scene.channel.texts == ["Both"]
    run = await scene.run()
    assert arrivals(run) == [("second", 1, False)]
    assert ((await scene.session()).runs, [step.key for step in run.steps]) == (
        1,
        ["model-1", "tool-1.0", "tool-1.1", "model-2"],
    )
    assert await scene.is_quiet()


async def test_a_message_during_the_last_model_call_gets_the_next_run(scene: Scene) -> None:
    scene.in_mode("steer", says("One"), says("Two"))
    scene.during_call(1, "second")
    await scene.begin()
    assert scene.channel.texts == ["One", "Two"]
    assert [arrivals(await scene.run(number)) for number in (1, 2)] == [[], []]
    assert (await scene.session()).epoch == 1, "in the same claim"


async def test_a_tool_that_runs_is_recorded_and_one_that_has_not_begun_is_skipped(scene: Scene) -> None:
    """Of nine calls eight are carried out at once: the ninth has not begun when the message comes."""
    scene.in_mode("steer", calls(*["lookup_order"] * 9), says("Both"))
    seen_by_all = 0
    use = scene.tools["lookup_order"]

    async def interrupted(arguments: JsonObject, context: ToolContext) -> ToolResult:
        nonlocal seen_by_all
        seen_by_all += 1
        if seen_by_all == 8:
            await scene.say("second", 2)
        await scene.faults.passes("after append", 2)
        return await use(arguments, context)

    scene.tools["lookup_order"] = interrupted
    scene.publish(replace(PLAN, tools=tuple(replace(spec, effect="keyed") for spec in PLAN.tools)))
    await scene.begin()
    assert len(scene.used) == 8
    assert scene.given[9:] == [SKIPPED_RESULT, "second"]
    assert all('"carrier":"Correos"' in result for result in scene.given[1:9])
    assert scene.channel.texts == ["Both"]


async def test_an_approved_call_is_carried_out_although_a_message_came_meanwhile(scene: Scene) -> None:
    scene.in_mode("steer", calls("refund_order"), says("Both"))
    scene.publish(ASKING)
    await scene.begin()
    await scene.say("second", 2)
    await scene.pump()
    assert (scene.used, (await scene.unfinished()).parked) == ([], True)
    await scene.tap(approved=True)
    await scene.pump()
    assert len(scene.used) == 1
    assert scene.given[-1] == "second"
    assert scene.channel.texts[1:] == ["Both"]


async def test_an_arrival_is_part_of_the_conversation_of_later_runs(scene: Scene) -> None:
    scene.in_mode("steer", calls("lookup_order"), says("Both"), says("Three"))
    scene.during_call(1, "second")
    await scene.begin()
    await scene.say("third", 3)
    await scene.pump()
    assert scene.given == ["first", SKIPPED_RESULT, "second", "third"]


# followup and collect


async def test_in_followup_each_message_gets_a_run_of_its_own_in_order(scene: Scene) -> None:
    scene.in_mode("followup", calls("lookup_order"), says("One"), says("Two"), says("Three"))

    async def happens() -> None:
        for order in (3, 2):
            scene.clock.advance(1)
            entry = message(order, f"message {order}", received_at=scene.clock.now())
            await scene.put(entry)

    scene.script.during[1] = happens
    await scene.begin()
    assert len(scene.used) == 1, "nothing is skipped"
    assert scene.channel.texts == ["One", "Two", "Three"]
    inputs = [[given.text for given in (await scene.run(number)).inputs] for number in (1, 2, 3)]
    assert inputs == [["first"], ["message 2"], ["message 3"]]
    assert (await scene.session()).late == 0


async def test_in_followup_a_burst_within_the_window_is_one_message(scene: Scene) -> None:
    scene.in_mode("followup", says("One"), says("Two"))
    scene.publish(replace(PLAN, queueing=Queueing(mode="followup", debounce_seconds=2, debounce_most_seconds=3)))
    for order, seconds in enumerate((0, 1, 1, 1.5), 1):
        scene.clock.advance(seconds)
        await scene.put(message(order, f"message {order}", received_at=scene.clock.now()))
    await scene.pump()
    inputs = [[given.text for given in (await scene.run(number)).inputs] for number in (1, 2)]
    assert inputs == [["message 1", "message 2", "message 3"], ["message 4"]], "the fourth came after the longest wait"


async def test_in_collect_one_run_takes_all_that_came(scene: Scene) -> None:
    scene.in_mode("collect", calls("lookup_order"), says("One"), says("The rest"))
    scene.during_call(1, "second", "third")
    await scene.begin()
    assert len(scene.used) == 1
    assert scene.channel.texts == ["One", "The rest"]
    assert [given.text for given in (await scene.run(2)).inputs] == ["second", "third"]


# interrupt


@pytest.mark.parametrize("fetched", [False, True])
async def test_an_interrupted_reply_is_dropped_with_its_usage_kept_and_both_are_asked_again(
    scene: Scene, *, fetched: bool
) -> None:
    scene.channel.fetched = fetched
    scene.in_mode("interrupt", says("Only the first"), says("Both"))
    scene.during_call(1, "second")
    await scene.begin()
    assert scene.channel.texts == ([] if fetched else ["Both"])
    assert [sent.text for sent in (await scene.run()).deliveries] == ["Both"]
    assert scene.given == ["first", "second"]
    assert [said.role for said in scene.script.history[-1].messages] == ["contact", "contact"]
    run = await scene.run()
    assert [(step.key, step.dropped) for step in run.steps] == [("model-1", True), ("model-2", False)]
    assert run.usage == says("").usage + says("").usage
    assert await scene.is_quiet()


async def test_a_dropped_reply_with_tool_calls_carries_out_none_of_them(scene: Scene) -> None:
    scene.in_mode("interrupt", calls("refund_order"), says("Both"))
    scene.during_call(1, "second")
    await scene.begin()
    assert (scene.used, scene.given) == ([], ["first", "second"])


async def test_a_message_that_interrupts_an_approval_denies_it(scene: Scene) -> None:
    scene.in_mode("interrupt", calls("refund_order"), says("Both"))
    scene.publish(replace(ASKING, queueing=Queueing(mode="interrupt", debounce_seconds=0)))
    await scene.begin()
    token = (await scene.unfinished()).open[0].id
    await scene.say("second", 2)
    await scene.pump()
    assert scene.used == []
    assert scene.given == ["first", DENIED, "second"]
    assert [told.text for told in scene.channel.settled] == ["Denied (refund_order), by a newer message."]
    await scene.tap(approved=True, token=token)
    await scene.pump()
    assert scene.used == []
    assert await scene.is_quiet()


# reject


async def test_a_rejected_message_is_told_so_and_counted_and_its_run_goes_on(scene: Scene) -> None:
    scene.in_mode("reject", calls("lookup_order"), says("One"))
    scene.during_call(1, "second")
    await scene.begin()
    assert scene.channel.texts == [Texts().busy, "One"]
    assert len(scene.used) == 1, "nothing is skipped for it"
    assert "second" not in scene.given
    assert arrivals(await scene.run()) == [("second", 1, True)]
    session = await scene.session()
    assert (session.runs, session.rejected) == (1, 1)
    assert "second" not in [said.text for said in session.context]
    assert await scene.is_quiet()


async def test_a_message_is_rejected_while_the_run_waits_and_the_wait_goes_on(scene: Scene) -> None:
    scene.in_mode("reject", calls("refund_order"), says("Refunded"))
    scene.publish(replace(ASKING, queueing=Queueing(mode="reject", debounce_seconds=0)))
    await scene.begin()
    await scene.say("second", 2)
    await scene.pump()
    assert scene.channel.texts[1:] == [Texts().busy]
    run = await scene.unfinished()
    assert (run.parked, len(run.open), (await scene.session()).lease) == (True, 1, None)
    await scene.tap(approved=True)
    await scene.pump()
    assert (len(scene.used), scene.channel.texts[2:]) == (1, ["Refunded"])
    assert await scene.is_quiet()


@pytest.mark.parametrize("mode", ["steer", "interrupt", "reject"])
async def test_a_flood_during_a_wait_stays_bounded_and_what_the_run_cannot_take_is_left_to_the_next(
    scene: Scene, mode: QueueMode
) -> None:
    scene.in_mode(mode, calls("refund_order"), *[says("Done")] * 30)
    scene.publish(replace(ASKING, queueing=Queueing(mode=mode, debounce_seconds=0)))
    await scene.begin()
    count, order = 400, 2
    while order < 2 + count:
        entries = [message(number, "x" * 1_000) for number in range(order, order + 50)]
        await scene.store.append(scene.key, {entry.id: pending(entry) for entry in entries}, scene.clock.now())
        await scene.bus.wake(scene.key)
        await scene.pump()
        order += 50
        assert len(state_bytes(await scene.session())) < 600_000
    if (await scene.session()).run is not None:
        await scene.tap(approved=False, order=10_000)
        await scene.pump()
    assert await scene.is_quiet()
    session = await scene.session()
    runs = [await scene.run(number) for number in range(1, session.runs + 1)]
    texts = [said for run in runs for said in (*run.inputs, *(came.message for came in run.arrivals))]
    assert len({said.id for said in texts}) == len(texts) == 1 + count


async def test_a_message_during_the_last_call_of_a_rejecting_run_gets_the_next_run(scene: Scene) -> None:
    scene.in_mode("reject", says("One"), says("Two"))
    scene.during_call(1, "second")
    await scene.begin()
    assert scene.channel.texts == ["One", "Two"]
    assert (await scene.session()).rejected == 0


# what the channel brings again


@pytest.mark.parametrize("mode", ["steer", "followup", "collect", "interrupt", "reject"])
@pytest.mark.parametrize("segment", [False, True], ids=["lately", "long ago"])
async def test_a_message_that_was_taken_before_changes_no_run(scene: Scene, mode: QueueMode, segment: bool) -> None:  # noqa: FBT001 a table
    scene.in_mode(mode, says("One"), calls("lookup_order"), says("Two"))
    await scene.begin()
    if segment:
        await others_taken(scene)
    scene.during_call(len(scene.script.history) + 1, "first", first=1)
    await scene.say("new", 1000, BEN)
    await scene.pump()
    assert scene.channel.texts[-1] == "Two"
    assert len(scene.used) == 1
    runs = (await scene.session()).runs
    run = await scene.run(runs)
    assert (arrivals(run), [step.dropped for step in run.steps]) == ([], [False, False, False])
    assert await scene.is_quiet()


async def others_taken(scene: Scene) -> None:
    """So many messages since that their ids lie in segments."""
    script = scene.script
    scene.script = Interrupted(*[says("Other")] * (KEPT + 10))
    for order in range(2, KEPT + 12):
        await scene.say("other", order)
        await scene.pump()
    assert (await scene.session()).segments
    scene.script = script
