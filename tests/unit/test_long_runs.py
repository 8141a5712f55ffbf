"""What a run must not forget or invent when it is cut, stopped, summed up, or cannot tell whether it was heard."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest

from shared.codec import encode
from shared.domain import Delivery, JsonObject, Message, ModelReply, Queueing, Texts, ToolCall
from shared.errors import SendUnknown
from shared.sessions.arrivals import INPUT_BYTES
from shared.sessions.document import Arrival, Run, Session, Step, Wait, message_of
from shared.sessions.journal import condense, size
from shared.sessions.outbox import RECEIPT_SECONDS, REPEATS
from shared.sessions.pages import page_document, whole
from shared.sessions.transcript import model_step, tool_step, transcript, turns_of
from shared.tools import ToolContext
from tests.clock import NOON, FakeClock
from tests.fakes import FakeDocuments
from tests.stage import PLAN, Crash, PointedStore, Stage, calls, message, says, tool

Play = Callable[..., Stage]


@pytest.fixture
async def play(tmp_path: Path) -> AsyncIterator[Play]:
    """A stage whose model gives these replies, one a call."""
    store = PointedStore(tmp_path / "sessions.db")

    def play(*replies: ModelReply | Exception) -> Stage:
        return Stage(store, FakeClock(), replies)

    yield play
    await store.aclose()


async def test_a_keyed_call_that_was_cut_is_made_again_although_a_message_came(play: Play) -> None:
    stage = play(calls("refund_order"), says("Refunded, and hello"))
    stage.publish(replace(PLAN, tools=(tool("refund_order", "keyed"),)))
    await stage.say("Refund it")
    stage.faults.stop_at("after tool", 1)
    with pytest.raises(Crash):
        await stage.drive("w")
    stage.faults.restart()
    await stage.say("Are you there?", 2)
    await stage.drive("w")
    assert len(stage.used) == 2
    assert len(set(stage.used)) == 1
    told = [said.text for said in stage.script.history[-1].messages if said.role == "tool"]
    assert len(told) == 1
    assert "refunded" in told[0]


def long_run(turns: int, *after: int) -> Run:
    """A run of so many turns of one call each, with a message behind each of these."""
    steps: list[Step] = []
    for turn in range(1, turns + 1):
        asked = encode(calls("lookup_order")).decode()
        common = {"attempt": 1, "started_at": NOON}
        steps.append(Step(key=model_step(turn), kind="model", name="m", result=asked, **common))  # type: ignore[arg-type]
        steps.append(Step(key=tool_step(turn, 0), kind="tool", name="t", result=f'{{"turn":{turn}}}', **common))  # type: ignore[arg-type]
    arrivals = tuple(Arrival(message=replace(says_so(number), sequence=number), after=number) for number in after)
    return Run(
        number=1,
        plan="",
        inputs=(says_so(0),),
        first_sequence=1,
        started_at=NOON,
        steps=tuple(steps),
        arrivals=arrivals,
    )


def says_so(number: int) -> Message:

    return message_of(message(number + 1), f"said after {number}", number)


def test_what_leaves_with_a_summary_is_every_turn_whole_however_many_messages_came_meanwhile() -> None:
    run = long_run(25, 3, 7)
    leaving = turns_of(run, 0, 23)
    assert [said.role for said in leaving] == ["agent", "tool"] * 23
    assert leaving[-1].text == '{"turn":23}'
    left = transcript(run, 23)
    assert [said.text for said in left if said.role == "contact"] == ["said after 3", "said after 7"]
    assert [said.text for said in left if said.role == "tool"] == ['{"turn":24}', '{"turn":25}']


async def test_waits_and_deliveries_of_turns_that_leave_go_along_and_are_found_again() -> None:
    run = long_run(4)
    call = ToolCall(id="c", name="t", arguments={})
    waits = tuple(
        Wait(id=f"w{turn}", step=tool_step(turn, 0), call=call, until=NOON, sequence=100 + turn) for turn in range(1, 5)
    )
    asked = Delivery(id="1/approve-tool-1.0", text="May I?", status="sent")
    run = replace(run, waits=waits, deliveries=(asked,))
    session = Session(tenant="acme", id="5" * 32, connection="bot", conversation="1", run=run)
    moved = condense(session, summary="In short", kept=0, turns=3)
    assert moved.run is not None
    assert ([wait.id for wait in moved.run.waits], moved.run.deliveries) == (["w4"], ())
    assert size(moved.run) < size(run)
    page = page_document(moved, NOON)
    assert page is not None
    documents = FakeDocuments()
    await documents.put(page[0], page[1].body)
    again = await whole(documents, session.key, moved.run)
    assert again == replace(run, moved=again.moved)
    assert again.moved.pages == 0


async def test_a_blank_summary_takes_nothing_away(play: Play) -> None:
    stage = play(says("one"), says("two"), says("  "), says("three"))
    for order in range(1, 4):
        await stage.say(f"{order} " + "x" * (INPUT_BYTES // 3 + 2_000), order)
        await stage.pump()
    assert stage.channel.texts == ["one", "two", "three"]
    assert "are left out here" in (await stage.session()).summary


async def test_a_stop_takes_all_that_came_before_it_also_when_each_would_have_a_run_of_its_own(play: Play) -> None:
    stage = play(says("never asked for"))
    stage.publish(replace(PLAN, queueing=Queueing(mode="followup", debounce_seconds=0)))
    for order in range(1, 4):
        received = NOON + timedelta(seconds=10 * order)
        await stage.put(replace(message(order, f"{order}", received_at=received), conversation=stage.conversation))
    received = NOON + timedelta(seconds=40)
    stopping = replace(message(4, "/stop", received_at=received), kind="stop", conversation=stage.conversation)
    await stage.put(stopping)
    stage.clock.advance(60)
    await stage.pump()
    session = await stage.session()
    assert stage.script.history == []
    assert stage.channel.texts == [Texts().cancelled]
    run = await stage.run(1)
    assert [said.text for said in (*run.inputs, *(came.message for came in run.arrivals))] == ["1", "2", "3"]
    assert session.runs == 1
    assert await stage.is_quiet()


async def test_a_delivery_that_no_receipt_ever_settles_is_unknown_in_the_end(play: Play) -> None:
    stage = play(says("Hello"), says("Hello again"))
    stage.channel.resend = "receipt"
    stage.channel.failures = [SendUnknown("no answer") for _ in range(REPEATS + 1)]
    await stage.say("Hi")
    await stage.pump()
    for _ in range(REPEATS):
        stage.clock.advance(RECEIPT_SECONDS + 1)
        await stage.drive("tick")
    session = await stage.session()
    assert (session.unknown, session.repeated, session.run) == (1, REPEATS, None)
    await stage.say("Hi again", 2)
    await stage.pump()
    assert stage.channel.texts == ["Hello again"]


async def test_results_beyond_what_a_document_holds_are_left_out_and_said_to_be(play: Play) -> None:
    stage = play(calls(*["lookup_order"] * 12), says("In short"), says("Done"))
    stage.publish(replace(PLAN, tools=(tool("lookup_order", "keyed"),)))

    async def huge(arguments: JsonObject, context: ToolContext) -> JsonObject:
        return {"text": '"' * 14_000}

    stage.tools["lookup_order"] = huge
    await stage.say("Hi")
    await stage.pump()
    assert stage.channel.texts == ["Done"]
    summed_up = stage.script.history[1].messages
    told = [said.text for said in summed_up if said.role == "tool"]
    assert len(told) == 12
    left_out = [text for text in told if "gave too much together" in text]
    assert 0 < len(left_out) < 12
