import asyncio
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest

from shared.domain import Budget, JsonObject, ModelReply, Rule, Texts
from shared.errors import ModelRefused, NotSent, Refused
from shared.llm.arguments import parse_arguments
from shared.published import plan_path
from shared.sessions.outbox import ATTEMPTS
from shared.tools import RESULT_BYTES, Tool, ToolContext, ToolResult
from tests.clock import NOON, FakeClock
from tests.stage import (
    ASKING,
    BEN,
    PLAN,
    PointedStore,
    Stage,
    calls,
    says,
)

Play = Callable[..., Stage]


@pytest.fixture
async def play(tmp_path: Path) -> AsyncIterator[Play]:
    """A stage whose model gives these replies, one a call."""
    store = PointedStore(tmp_path / "sessions.db")

    def play(*replies: ModelReply | Exception) -> Stage:
        return Stage(store, FakeClock(), replies)

    yield play
    await store.aclose()


def roles(stage: Stage) -> list[str]:
    """Of the messages that the model was given last."""
    return [said.role for said in stage.script.history[-1].messages]


def results(stage: Stage) -> list[str]:
    return [said.text for said in stage.script.history[-1].messages if said.role == "tool"]


async def test_a_reply_that_its_reader_fetches_is_stored_by_the_commit_that_ends_the_run(play: Play) -> None:
    stage = play(says("Hello"))
    stage.channel.fetched = True
    await stage.say("Hi")
    await stage.pump()
    assert stage.faults.passed.count("after commit") == 2, "the claim and the end"
    run = await stage.run()
    assert [(sent.text, sent.status) for sent in run.deliveries] == [("Hello", "sent")]
    assert (run.reply, stage.channel.tried) == ("Hello", [])
    assert await stage.is_quiet()


async def test_a_message_is_answered(play: Play) -> None:
    stage = play(says("Hello"))
    await stage.say("Hi")
    await stage.pump()
    assert stage.channel.texts == ["Hello"]
    run = await stage.run()
    assert (run.outcome, run.reply, run.plan, [step.key for step in run.steps]) == (
        "answered",
        "Hello",
        stage.publish(PLAN),
        ["model-1"],
    )
    assert [(sent.id, sent.status, sent.provider_id) for sent in run.deliveries] == [("1/reply/1", "sent", "m1")]
    assert (await stage.session()).usage == says("").usage
    assert await stage.is_quiet()


async def test_a_tool_is_used_and_its_result_shown_to_the_model(play: Play) -> None:
    stage = play(calls("lookup_order"), says("It is on its way"))
    await stage.say("Where is it?")
    await stage.pump()
    assert roles(stage) == ["contact", "agent", "tool"]
    assert '"carrier":"Correos"' in results(stage)[0]
    assert stage.channel.texts == ["It is on its way"]


@pytest.mark.parametrize(("k", "t"), [(1, 0), (2, 1), (3, 4), (5, 6)])
async def test_a_turn_costs_a_write_for_each_model_call_and_three_more(play: Play, k: int, t: int) -> None:
    """The three are ingest's append, the claim, and the end; pure tools cost none."""
    share = [t // (k - 1) + (turn < t % (k - 1)) for turn in range(k - 1)] if k > 1 else []
    stage = play(*(calls(*["lookup_order"] * number) for number in share), says("Done"))
    await stage.say("Hi")
    await stage.pump()
    assert (len(stage.script.history), len(stage.used)) == (k, t)
    passed = stage.faults.passed
    assert passed.count("after append") + passed.count("after commit") == k + 3
    assert passed.count("after load") == 1


async def test_a_long_answer_is_sent_in_parts(play: Play) -> None:
    stage = play(says("word " * 1500))
    await stage.say("Hi")
    await stage.pump()
    assert [sent.id for sent in stage.channel.sent] == ["1/reply/1", "1/reply/2"]
    assert [sent.status for sent in (await stage.run()).deliveries] == ["sent", "sent"]


async def test_two_messages_before_a_claim_share_a_run(play: Play) -> None:
    stage = play(says("Hello both"))
    await stage.say("second", 2, BEN)
    await stage.say("first", 1)
    await stage.pump()
    assert [given.text for given in (await stage.run()).inputs] == ["first", "second"]
    assert stage.channel.texts == ["Hello both"]
    assert await stage.is_quiet()


async def test_a_message_that_comes_during_a_run_is_answered_by_the_next_in_the_same_claim(play: Play) -> None:
    stage = play(calls("lookup_order"), says("One"), says("Two"))
    await stage.say("first", 1)
    lookup = stage.tools["lookup_order"]

    async def slow(arguments: JsonObject, context: ToolContext) -> ToolResult:
        await stage.say("second", 2)
        return await lookup(arguments, context)

    stage.tools["lookup_order"] = slow
    session = await stage.drive(stage.bus.queue.pop(0).id)
    assert session is not None
    assert (session.epoch, session.runs, session.run) == (1, 2, None)
    assert stage.channel.texts == ["One", "Two"]
    assert roles(stage) == ["contact", "agent", "tool", "agent", "contact"]
    written = len(stage.faults.passed)
    await stage.pump()
    assert stage.faults.passed[written:] == ["before load", "after load"], "the second wake finds nothing to do"


async def test_a_session_that_does_not_exist_is_nothing_to_do(play: Play) -> None:
    assert await play().drive() is None


async def test_a_tool_that_the_policy_denies_is_not_used(play: Play) -> None:
    stage = play(calls("lookup_order", "unheard_of"), says("I may not"))
    stage.publish(replace(PLAN, rules=(Rule(tool="lookup_order", decision="deny", reason="closed today"),)))
    await stage.say("Hi")
    await stage.pump()
    assert stage.used == []
    assert results(stage) == [
        '{"denied":true,"reason":"closed today"}',
        '{"denied":true,"reason":"this agent has no tool \'unheard_of\'"}',
    ]


async def test_arguments_that_are_no_json_are_shown_to_the_model_and_to_nobody_else(play: Play) -> None:
    stage = play(calls("refund_order", arguments=parse_arguments('{"order_id": 10')), says("Which order?"))
    stage.publish(ASKING)
    await stage.say("Hi")
    await stage.pump()
    assert (stage.used, stage.channel.texts) == ([], ["Which order?"])
    assert '"written":"{\\"order_id\\": 10"' in results(stage)[0]


async def raising(arguments: JsonObject, context: ToolContext) -> JsonObject:
    raise ZeroDivisionError


async def returning_no_json(arguments: JsonObject, context: ToolContext) -> JsonObject:
    return {"lock": asyncio.Lock()}


async def returning_nothing(arguments: JsonObject, context: ToolContext) -> JsonObject:
    return None  # type: ignore[return-value]  # what a plugin without types may do


async def test_a_result_that_would_fill_the_session_is_the_tools_mistake(play: Play) -> None:
    async def boundless(arguments: JsonObject, context: ToolContext) -> JsonObject:
        return {"rows": "x" * RESULT_BYTES}

    stage = play(calls("lookup_order"), says("Too much"))
    stage.tools["lookup_order"] = boundless
    await stage.say("Hi")
    await stage.pump()
    assert f"more than {RESULT_BYTES}; ask it for less" in results(stage)[0]
    assert stage.channel.texts == ["Too much"]


@pytest.mark.parametrize("broken", [raising, returning_no_json, returning_nothing])
async def test_a_tool_with_a_mistake_fails_alone(play: Play, broken: Tool) -> None:
    stage = play(calls("lookup_order"), says("It is broken"))
    stage.tools["lookup_order"] = broken
    await stage.say("Hi")
    await stage.pump()
    assert results(stage)[0].startswith('{"error":"lookup_order failed: ')
    assert stage.channel.texts == ["It is broken"]


async def asked(stage: Stage) -> None:
    """Ana asked for a refund, and the session waits for her approval."""
    stage.publish(ASKING)
    await stage.say("Refund 1042")
    await stage.pump()


async def test_a_run_that_asks_holds_nothing_while_it_waits(play: Play) -> None:
    stage = play(calls("refund_order"))
    await asked(stage)
    session = await stage.session()
    assert session.run is not None
    assert session.run.wait is not None
    assert (session.lease, session.outbox, stage.used) == (None, (), [])
    (question,) = stage.channel.sent
    assert [button.label for button in question.buttons] == ["Approve", "Deny"]
    assert session.run.wait.provider_id == "m1"
    deadline = NOON + timedelta(seconds=ASKING.budget.approval_seconds)
    assert [key async for key in stage.store.due(deadline - timedelta(seconds=1))] == []
    assert [key async for key in stage.store.due(deadline)] == [stage.key]
    before = len(stage.faults.passed)
    await stage.drive("another")
    assert stage.faults.passed[before:] == ["before load", "after load"]


async def test_an_approved_call_is_made_once_and_the_question_settled(play: Play) -> None:
    stage = play(calls("refund_order"), says("Refunded"))
    await asked(stage)
    await stage.tap(approved=True)
    await stage.pump()
    assert stage.used == [f"{stage.key.session}-1-tool-1.0"]
    (settled,) = stage.channel.settled
    assert (settled.text, settled.replaces, settled.tap) == ("Approved (refund_order), by Ana.", "m1", "tap")
    assert stage.channel.texts[1:] == ["Refunded"]
    assert [step.key for step in (await stage.run()).steps] == ["model-1", "approve-tool-1.0", "tool-1.0", "model-2"]
    assert await stage.is_quiet()


async def test_a_denied_call_is_not_made_and_the_model_told(play: Play) -> None:
    stage = play(calls("refund_order"), says("As you like"))
    await asked(stage)
    await stage.tap(approved=False)
    await stage.pump()
    assert stage.used == []
    assert results(stage) == ['{"denied":true,"reason":"not approved by Ana"}']
    assert stage.channel.texts[1:] == ["As you like"]


async def test_an_approval_that_nobody_gives_in_time_counts_as_denied(play: Play) -> None:
    stage = play(calls("refund_order"), says("Too late"))
    await asked(stage)
    stage.clock.advance(ASKING.budget.approval_seconds)
    await stage.drive("tick")
    assert results(stage) == ['{"denied":true,"reason":"not approved by deadline"}']
    assert [(settled.replaces, settled.tap) for settled in stage.channel.settled] == [("m1", "")]
    assert await stage.is_quiet()


async def test_a_question_that_the_channel_refuses_counts_as_denied_and_the_run_goes_on(play: Play) -> None:
    stage = play(calls("refund_order"), says("I could not ask you"))
    stage.channel.failures.append(Refused("message is too long"))
    await asked(stage)
    assert results(stage) == ['{"denied":true,"reason":"not approved by nobody: it could not be asked"}']
    assert (stage.used, stage.channel.texts) == ([], ["I could not ask you"])
    assert await stage.is_quiet()


async def test_a_tap_of_somebody_else_is_answered_and_changes_nothing(play: Play) -> None:
    stage = play(calls("refund_order"), says("Refunded"))
    await asked(stage)
    await stage.tap(approved=True, by=BEN)
    await stage.pump()
    assert [told.text for told in stage.channel.settled] == ["You may not decide this."]
    assert stage.used == []
    await stage.tap(approved=True, order=101)
    await stage.pump()
    assert len(stage.used) == 1


async def test_a_message_during_a_wait_is_answered_with_what_waited(play: Play) -> None:
    stage = play(calls("refund_order"), says("Refunded, and hello"))
    await asked(stage)
    await stage.say("And hello", 2)
    await stage.pump()
    await stage.tap(approved=True)
    await stage.pump()
    assert roles(stage) == ["contact", "agent", "tool", "contact"]
    assert stage.channel.texts[1:] == ["Refunded, and hello"]
    assert (await stage.session()).runs == 1
    assert await stage.is_quiet()


async def test_a_late_tap_after_the_run_is_answered(play: Play) -> None:
    stage = play(says("Hello"))
    await stage.say("Hi")
    await stage.pump()
    await stage.tap(approved=True, token="over")
    await stage.pump()
    assert [told.tap for told in stage.channel.settled] == ["tap"]
    assert await stage.is_quiet()


async def test_a_question_that_cannot_be_settled_does_not_hold_up_the_run(play: Play) -> None:
    stage = play(calls("refund_order"), says("Refunded"))
    await asked(stage)
    await stage.tap(approved=True)
    stage.channel.failures = [NotSent("down") for _ in range(ATTEMPTS)]
    await stage.pump()
    assert (len(stage.used), stage.channel.texts[1:]) == (1, ["Refunded"])
    settled = next(delivery for delivery in (await stage.run()).deliveries if delivery.tap)
    assert (settled.status, settled.reason) == ("refused", "down")


async def test_when_no_model_answers_the_contact_is_told_and_the_run_archived(play: Play) -> None:
    stage = play(ModelRefused("queue: bad key"))
    await stage.say("Hi")
    await stage.pump()
    run = await stage.run()
    assert (run.outcome, run.reason) == ("failed", "queue: bad key")
    assert stage.channel.texts == [run.reply] == [Texts().failed]
    assert await stage.is_quiet()


async def test_a_model_that_says_nothing_has_failed(play: Play) -> None:
    stage = play(says(" \n"))
    await stage.say("Hi")
    await stage.pump()
    assert (await stage.run()).outcome == "failed"


@pytest.mark.parametrize(
    ("budget", "named"),
    [
        (Budget(model_calls=2), "model_calls is 2, used 2"),
        (Budget(tool_calls=3), "tool_calls is 3, used 3"),
        (Budget(tokens=20), "tokens is 20, used 24"),
    ],
)
async def test_a_run_that_spent_its_budget_is_stopped(play: Play, budget: Budget, named: str) -> None:
    stage = play(*[calls("lookup_order", "lookup_order")] * 5)
    stage.publish(replace(PLAN, budget=budget, texts=Texts(stopped="Enough")))
    await stage.say("Hi")
    await stage.pump()
    run = await stage.run()
    assert (run.outcome, run.reason, stage.channel.texts) == ("stopped", f"budget: {named}", ["Enough"])
    assert len(stage.script.history) == 2


async def test_a_disabled_connection_blocks_its_runs(play: Play) -> None:
    stage = play()
    stage.publish(PLAN, enabled=False)
    await stage.say("Hi")
    await stage.pump()
    run = await stage.run()
    assert (run.outcome, run.reason, run.reply) == ("blocked", "connection bot is disabled", Texts().blocked)
    assert stage.script.history == []


async def test_a_plan_that_is_not_published_blocks_the_run(play: Play) -> None:
    stage = play()
    sha = stage.publish(PLAN)
    del stage.documents.bodies[plan_path("acme", sha)]
    await stage.say("Hi")
    await stage.pump()
    run = await stage.run()
    assert (run.outcome, stage.channel.texts) == ("blocked", [Texts().blocked])
    assert f"plan {sha} of tenant acme is not published" in run.reason


async def test_a_run_keeps_the_plan_that_it_started_with(play: Play) -> None:
    stage = play(calls("refund_order"), says("Refunded"))
    await asked(stage)
    stage.publish(replace(PLAN, tools=(), instructions="Be rude."))
    await stage.tap(approved=True)
    await stage.pump()
    assert len(stage.used) == 1
    assert stage.script.history[-1].instructions == PLAN.instructions
