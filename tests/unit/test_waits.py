"""What a run waits for, beside other calls and other waits; what comes early, late, twice; what the model is told."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Literal

import pytest

from shared.domain import Budget, JsonObject, ModelReply, Rule, WaitRequest
from shared.errors import Gone, NotSent, Refused
from shared.sessions import callback
from shared.sessions.document import Wait
from shared.sessions.outbox import ATTEMPTS
from shared.tools import Tool, ToolContext, ToolResult
from tests.clock import NOON, FakeClock
from tests.stage import ASKING, PLAN, PointedStore, Stage, calls, says, tool

Play = Callable[..., Stage]
HOUR = timedelta(hours=1)
Kind = Literal["timer", "callback", "operator"]
KINDS: tuple[Kind, ...] = ("callback", "operator", "timer")
Outside = Literal["callback", "operator"]


@pytest.fixture
async def play(tmp_path: Path) -> AsyncIterator[Play]:
    """A stage whose model gives these replies, one a call; `callback`, `operator` and `timer` each wait an hour for
    that."""
    store = PointedStore(tmp_path / "sessions.db")

    def play(*replies: ModelReply | Exception) -> Stage:
        stage = Stage(store, FakeClock(), replies)
        stage.tools |= {kind: waiting_for(kind) for kind in KINDS}
        more = tuple(tool(kind, "keyed") for kind in KINDS)
        stage.publish(replace(ASKING, tools=(*PLAN.tools, *more)))
        return stage

    yield play
    await store.aclose()


def waiting_for(kind: Kind) -> Tool:
    async def use(arguments: JsonObject, context: ToolContext) -> WaitRequest:
        return WaitRequest(kind=kind, until=NOON + HOUR, question="What shall I say?")

    return use


def given(stage: Stage) -> list[JsonObject]:
    """The results that the model was given last."""
    return [json.loads(said.text) for said in stage.script.history[-1].messages if said.role == "tool"]


async def begin(stage: Stage) -> tuple[Wait, ...]:
    """What the run waits for."""
    await stage.say("Hi")
    await stage.pump()
    session, run = await stage.session(), await stage.unfinished()
    assert (session.lease, run.parked, stage.bus.queue) == (None, True, [])
    return run.open


async def waits(stage: Stage) -> bool:
    return bool((await stage.unfinished()).open)


async def answer(stage: Stage, wait: str, result: JsonObject) -> None:
    await stage.put(callback.answer_to(await stage.session(), wait, result, stage.clock.now()))


@pytest.mark.parametrize("kind", ["callback", "operator"])
async def test_an_answer_from_outside_becomes_the_result_of_the_call(play: Play, kind: Outside) -> None:
    stage = play(calls(kind), says("Done"))
    (wait,) = await begin(stage)
    assert (wait.kind, wait.id, wait.step, wait.question) == (kind, "c1-tool-1-0", "tool-1.0", "What shall I say?")
    await answer(stage, wait.id, {"paid": True})
    await stage.pump()
    assert given(stage) == [{"paid": True}]
    assert await stage.is_quiet()


async def test_the_first_of_two_answers_counts_and_a_later_one_is_refused(play: Play) -> None:
    stage = play(calls("callback"), calls("timer"), says("Done"))
    (wait,) = await begin(stage)
    await answer(stage, wait.id, {"first": True})
    stage.clock.advance(1)
    await answer(stage, wait.id, {"first": False})
    await stage.pump()
    assert given(stage) == [{"first": True}]
    with pytest.raises(Gone):
        await answer(stage, wait.id, {"first": False})
    assert (await stage.session()).inbox == {}, "what fits no wait does not stay"


async def test_an_answer_that_comes_before_the_wait_is_stored_ends_it(play: Play) -> None:
    stage = play(calls("callback"), says("Done"))

    async def quick(arguments: JsonObject, context: ToolContext) -> WaitRequest:
        """The other side answers before this returns."""
        await answer(stage, "c1-tool-1-0", {"early": True})
        return WaitRequest(kind="callback", until=NOON + HOUR)

    stage.tools["callback"] = quick
    await stage.say("Hi")
    await stage.pump()
    assert given(stage) == [{"early": True}]
    assert stage.channel.texts == ["Done"]
    assert (await stage.session()).epoch == 1, "nobody had to come again for it"
    assert await stage.is_quiet()


async def test_an_early_answer_to_a_call_that_waits_for_nothing_leaves_no_trace(play: Play) -> None:
    stage = play(calls("callback"), says("Done"))

    async def changed_its_mind(arguments: JsonObject, context: ToolContext) -> JsonObject:
        await answer(stage, "c1-tool-1-0", {"early": True})
        return {"no": "wait"}

    stage.tools["callback"] = changed_its_mind
    await stage.say("Hi")
    await stage.pump()
    assert given(stage) == [{"no": "wait"}]
    assert await stage.is_quiet()


async def test_an_answer_after_the_deadline_is_refused_and_one_just_before_counts(play: Play) -> None:
    stage = play(calls("callback"), says("Done"))
    (wait,) = await begin(stage)
    stage.clock.advance(HOUR.total_seconds() - 1)
    in_time = callback.answer_to(await stage.session(), wait.id, {"in": "time"}, stage.clock.now())
    stage.clock.advance(1)
    with pytest.raises(Gone, match="it ended at"):
        await answer(stage, wait.id, {"too": "late"})
    await stage.put(in_time)  # read only after the deadline
    await stage.pump()
    assert given(stage) == [{"in": "time"}]


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("callback", {"error": "no answer came until {until}; whether it was done is not known"}),
        ("operator", {"error": "no operator answered until {until}"}),
        ("timer", {"waited_until": "{until}"}),
        ("refund_order", {"denied": True, "reason": "not approved by deadline"}),
    ],
)
async def test_at_the_deadline_the_model_is_told_how_it_ended(play: Play, name: str, told: JsonObject) -> None:
    stage = play(calls(name), says("I see"))
    plan = replace(ASKING, tools=(*ASKING.tools, *(tool(kind, "keyed") for kind in KINDS)))
    stage.publish(replace(plan, budget=Budget(approval_seconds=3600)))
    (wait,) = await begin(stage)
    assert wait.until == NOON + HOUR
    assert await stage.tick(HOUR.total_seconds() - 1) == 0
    assert await stage.tick(1) == 1
    until = wait.until.isoformat()
    said = {key: value.format(until=until) if isinstance(value, str) else value for key, value in told.items()}
    assert given(stage) == [said]
    assert stage.channel.texts[-1] == "I see"
    assert await stage.is_quiet()


async def test_two_approvals_are_asked_at_once_and_may_be_given_in_any_order(play: Play) -> None:
    stage = play(calls("refund_order", "refund_order"), says("Done"))
    first, second = await begin(stage)
    assert [sent.buttons[0].data for sent in stage.channel.sent] == [f"a:{first.id}:y", f"a:{second.id}:y"]
    assert (first.provider_id, second.provider_id) == ("m1", "m2")
    await stage.tap(approved=False, token=second.id, order=100)
    await stage.pump()
    run = await stage.unfinished()
    assert (run.parked, [wait.id for wait in run.open], stage.used) == (True, [first.id], [])
    await stage.tap(approved=True, token=first.id, order=101)
    await stage.pump()
    assert [sorted(result) for result in given(stage)] == [
        ["amount", "order_id", "reference", "refunded"],
        ["denied", "reason"],
    ]
    assert [(told.text, told.replaces) for told in stage.channel.settled] == [
        ("Denied (refund_order), by Ana.", "m2"),
        ("Approved (refund_order), by Ana.", "m1"),
    ]
    assert await stage.is_quiet()


async def test_an_approved_call_is_carried_out_while_another_still_waits(play: Play) -> None:
    stage = play(calls("refund_order", "callback"), says("Done"))
    approval, outside = await begin(stage)
    await stage.tap(approved=True, token=approval.id)
    await stage.pump()
    assert len(stage.used) == 1
    run = await stage.unfinished()
    assert (run.parked, [wait.id for wait in run.open]) == (True, [outside.id])
    await answer(stage, outside.id, {"paid": True})
    await stage.pump()
    assert (len(stage.used), given(stage)[1]) == (1, {"paid": True})
    assert await stage.is_quiet()


async def test_a_run_is_parked_only_when_nothing_but_waits_is_left(play: Play) -> None:
    stage = play(calls("callback", "lookup_order"), says("Done"))
    lookup, go, begun = stage.tools["lookup_order"], asyncio.Event(), asyncio.Event()

    async def slow(arguments: JsonObject, context: ToolContext) -> ToolResult:
        begun.set()
        await asyncio.wait_for(go.wait(), 10)
        return await lookup(arguments, context)

    stage.tools["lookup_order"] = slow
    await stage.say("Hi")
    driving = asyncio.create_task(stage.drive())
    await begun.wait()
    await stage.faults.until(lambda: waits(stage))
    session = await stage.session()
    assert session.run is not None
    assert (session.run.parked, session.lease is not None) == (False, True)
    go.set()
    await driving
    run = await stage.unfinished()
    assert (run.parked, [step.key for step in run.steps if step.result]) == (True, ["model-1", "tool-1.1"])
    assert (await stage.session()).lease is None


async def test_an_answer_that_comes_while_another_call_is_at_work_needs_no_other_wake(play: Play) -> None:
    stage = play(calls("callback", "lookup_order"), says("Done"))
    lookup = stage.tools["lookup_order"]

    async def slow(arguments: JsonObject, context: ToolContext) -> ToolResult:
        await stage.faults.until(lambda: waits(stage))
        await answer(stage, "c1-tool-1-0", {"paid": True})
        return await lookup(arguments, context)

    stage.tools["lookup_order"] = slow
    await stage.say("Hi")
    left = await stage.drive(stage.bus.queue.pop(0).id)
    assert left is not None
    assert (left.run, left.epoch, stage.channel.texts) == (None, 1, ["Done"])
    assert given(stage)[0] == {"paid": True}


@pytest.mark.parametrize("refused", [1, 2])
async def test_of_two_questions_one_that_cannot_be_asked_is_denied_and_the_other_waits(
    play: Play, refused: int
) -> None:
    stage = play(calls("refund_order", "refund_order"), says("Done"))
    stage.channel.failures = [Refused("too long")] if refused == 1 else []
    if refused == 2:
        first_only = stage.channel.send

        async def send(connection: object, conversation: str, delivery: object) -> str:
            stage.channel.failures = [Refused("too long")] if len(stage.channel.sent) == 1 else []
            return await first_only(connection, conversation, delivery)  # type: ignore[arg-type]

        stage.channel.send = send  # type: ignore[method-assign]
    (wait,) = await begin(stage)
    await stage.tap(approved=True, token=wait.id)
    stage.channel.failures = []
    await stage.pump()
    assert len(stage.used) == 1
    reasons = [result.get("reason") for result in given(stage)]
    assert reasons[refused - 1] == "not approved by nobody: it could not be asked"
    assert reasons[2 - refused] is None


async def test_a_question_that_is_put_off_is_asked_later_and_its_run_waits(play: Play) -> None:
    stage = play(calls("refund_order"), says("Done"))
    stage.channel.failures = [NotSent("down")] * ATTEMPTS
    await stage.say("Hi")
    await stage.pump()
    session = await stage.session()
    assert session.run is not None
    assert (session.lease, session.run.parked, len(session.outbox), stage.channel.sent) == (None, True, 1, [])
    assert await stage.tick(60) == 1
    assert len(stage.channel.sent) == 1
    await stage.tap(approved=True)
    await stage.pump()
    assert (len(stage.used), stage.channel.texts[1:]) == (1, ["Done"])
    assert await stage.is_quiet()


async def test_a_rule_that_asks_stands_before_a_tool_that_waits(play: Play) -> None:
    stage = play(calls("callback"), says("Done"))
    rules = (Rule(tool="callback", decision="ask", approvers=("contact",)),)
    stage.publish(replace(PLAN, tools=(tool("callback", "keyed"),), rules=rules))
    (approval,) = await begin(stage)
    assert approval.kind == "approval"
    await stage.tap(approved=True)
    await stage.pump()
    (outside,) = (await stage.unfinished()).open
    assert (outside.kind, outside.id) == ("callback", "c1-tool-1-0")
    await answer(stage, outside.id, {"paid": True})
    await stage.pump()
    assert given(stage) == [{"paid": True}]
    assert await stage.is_quiet()
