"""A run that makes no progress is set aside with all that is known of it, the contact is told, the session goes on."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from pathlib import Path

import pytest

from shared.domain import Delivery, JsonObject, ModelReply, Rule, Texts
from shared.errors import NotSent
from shared.sessions.dead import DeadRun, dead_runs
from shared.sessions.outbox import ATTEMPTS
from shared.sessions.transitions import STALLS_ALLOWED
from shared.tools import ToolContext
from tests.clock import FakeClock
from tests.stage import PLAN, Crash, PointedStore, Stage, calls, message, says

Play = Callable[..., Stage]
COULD_NOT_SEND = f"{STALLS_ALLOWED} attempts in a row could not send it"
NOTHING = f"{STALLS_ALLOWED} attempts in a row recorded nothing"


@pytest.fixture
async def play(tmp_path: Path) -> AsyncIterator[Play]:
    """A stage whose model gives these replies, one a call."""
    store = PointedStore(tmp_path / "sessions.db")

    def play(*replies: ModelReply | Exception) -> Stage:
        return Stage(store, FakeClock(), replies)

    yield play
    await store.aclose()


async def dead(stage: Stage) -> list[DeadRun]:
    return list(await dead_runs(stage.store, "acme", 10))


async def fail(stage: Stage, times: int, error: type[BaseException]) -> None:
    """So many claims whose process dies."""
    for _ in range(times):
        with pytest.raises(error):
            await stage.drive("w")
        stage.faults.restart()


async def test_five_claims_without_progress_set_the_run_aside_and_tell_the_contact(play: Play) -> None:
    stage = play(calls("lookup_order"), *[RuntimeError("a bug")] * (STALLS_ALLOWED + 1))
    await stage.say("first")
    with pytest.raises(RuntimeError):
        await stage.drive("w")  # it recorded the model's reply
    await fail(stage, STALLS_ALLOWED, RuntimeError)
    assert await dead(stage) == []
    await stage.drive("w")
    run = await stage.run()
    assert (run.outcome, run.reason, stage.channel.texts) == ("failed", NOTHING, [Texts().failed])
    (aside,) = await dead(stage)
    assert (aside.session, aside.number, aside.plan, aside.reason) == (stage.key.session, 1, run.plan, NOTHING)
    assert [said.text for said in aside.inputs] == ["first"]
    assert [step.key for step in aside.steps] == ["model-1"]
    assert await stage.is_quiet()


async def test_the_session_goes_on_with_the_next_message(play: Play) -> None:
    stage = play(*[RuntimeError("a bug")] * STALLS_ALLOWED, says("To the second"))
    await stage.say("first")
    await fail(stage, STALLS_ALLOWED, RuntimeError)
    await stage.drive("w")
    await stage.say("second", 2)
    await stage.pump()
    assert stage.channel.texts == [Texts().failed, "To the second"]
    assert len(await dead(stage)) == 1
    assert await stage.is_quiet()


async def test_what_came_during_a_run_that_is_set_aside_is_not_lost(play: Play) -> None:
    stage = play(*[RuntimeError("a bug")] * STALLS_ALLOWED, says("To the second"))
    await stage.say("first")
    await fail(stage, STALLS_ALLOWED - 1, RuntimeError)
    await stage.say("second", 2)
    await fail(stage, 1, RuntimeError)
    stage.bus.queue.clear()
    await stage.drive("w")
    texts = [text for text in stage.channel.texts if text == "To the second"]
    taken = [said.text for aside in await dead(stage) for said in aside.inputs]
    assert texts == ["To the second"] or taken == ["first", "second"]
    assert await stage.is_quiet()


async def test_an_apology_that_was_cut_once_is_told_all_the_same(play: Play) -> None:
    stage = play(*[RuntimeError("a bug")] * STALLS_ALLOWED)
    await stage.say("first")
    await fail(stage, STALLS_ALLOWED, RuntimeError)
    stage.faults.stop_at("before send", 1)
    await fail(stage, 1, Crash)
    await stage.drive("w")
    assert stage.channel.texts == [Texts().failed]
    assert [aside.reason for aside in await dead(stage)] == [NOTHING]
    assert await stage.is_quiet()


async def test_a_run_that_brings_processes_down_with_a_question_unsent_is_set_aside(play: Play) -> None:
    asking = replace(PLAN, rules=(Rule(tool="refund_order", decision="ask", approvers=("contact",)),))
    stage = play(calls("refund_order", "lookup_order"))
    stage.publish(asking)

    async def deadly(arguments: JsonObject, context: ToolContext) -> JsonObject:
        raise Crash

    stage.tools["lookup_order"] = deadly
    stage.channel.failures = [Crash()] * 100  # type: ignore[list-item]
    await stage.say("first")
    await end(stage)
    assert [aside.number for aside in await dead(stage)] == [1]
    assert await stage.is_quiet()


class Deadly:
    """A channel that brings every process down that sends on it, unless `harmless` or for any text but `only`."""

    def __init__(self, stage: Stage, only: str = "") -> None:
        self.tried = 0
        self.harmless = False
        self._only = only
        self._send = stage.channel.send
        stage.channel.send = self  # type: ignore[method-assign]

    async def __call__(self, connection: object, conversation: str, delivery: Delivery) -> str:
        self.tried += 1
        if not self.harmless and self._only in delivery.text:
            raise Crash
        return await self._send(connection, conversation, delivery)  # type: ignore[arg-type]


async def end(stage: Stage) -> None:
    """Claim the session until its run is over."""
    for _ in range(3 * STALLS_ALLOWED):
        try:
            await stage.drive("w")
        except Crash:
            stage.faults.restart()
        if (await stage.session()).run is None:
            return
    raise AssertionError("it is tried for ever")


async def test_the_contact_is_told_when_only_the_reply_brings_processes_down(play: Play) -> None:
    stage = play(says("poison"))
    Deadly(stage, only="poison")
    await stage.put(replace(message(1), callback_url="https://caller.example/result"))
    await end(stage)
    assert stage.channel.texts == [Texts().failed]
    (told,) = (await stage.run()).deliveries[1:]
    assert [(result.message, result.url) for result in told.results] == [
        (message(1).id, "https://caller.example/result")
    ]
    assert [aside.reason for aside in await dead(stage)] == [COULD_NOT_SEND]
    stage.bus.queue.clear()
    assert await stage.is_quiet()


async def test_a_run_whose_delivery_brings_every_process_down_is_set_aside_too(play: Play) -> None:
    stage = play(says("first answer"), says("To the second"))
    deadly = Deadly(stage)
    await stage.say("first")
    await end(stage)
    (aside,) = await dead(stage)
    assert ([said.text for said in aside.inputs], aside.reason) == (["first"], COULD_NOT_SEND)
    assert deadly.tried <= 2 * (STALLS_ALLOWED + 1)  # the answer, and the apology for it
    run = await stage.run()
    assert [(sent.id, sent.status) for sent in run.deliveries] == [
        ("1/reply/1", "refused"),
        ("1/stalled", "refused"),
    ]
    assert run.reply == "first answer", "what it had to say can be read"
    deadly.harmless = True
    await stage.say("second", 2)
    await stage.pump()
    assert stage.channel.texts == ["To the second"]
    assert await stage.is_quiet()


async def test_an_apology_that_is_put_off_is_still_said_and_the_run_still_kept(play: Play) -> None:
    stage = play(*[RuntimeError("a bug")] * STALLS_ALLOWED)
    stage.channel.failures = [NotSent("down")] * ATTEMPTS
    await stage.say("first")
    await fail(stage, STALLS_ALLOWED, RuntimeError)
    stage.bus.queue.clear()
    await stage.drive("w")
    assert (stage.channel.texts, await dead(stage)) == ([], [])
    await stage.tick(60)
    assert stage.channel.texts == [Texts().failed]
    assert [aside.reason for aside in await dead(stage)] == [NOTHING]
    assert await stage.is_quiet()


async def test_a_delivery_that_is_put_off_is_no_stall(play: Play) -> None:
    stage = play(says("Hello"))
    rounds = 2 * STALLS_ALLOWED
    stage.channel.failures = [NotSent("down")] * (ATTEMPTS * rounds)
    await stage.say("Hi")
    await stage.pump()
    for _ in range(rounds):
        await stage.tick(3_660)
    assert stage.channel.texts == ["Hello"]
    assert ((await stage.run()).outcome, (await stage.run()).stalls, await dead(stage)) == ("answered", 0, [])


async def test_slices_that_get_further_are_no_stall(play: Play) -> None:
    turns = 2 * STALLS_ALLOWED
    stage = play(*[calls("lookup_order")] * turns, says("Done"))
    stage.slice_seconds = 1
    lookup = stage.tools["lookup_order"]

    async def slow(arguments: dict[str, object], context: object) -> object:
        stage.clock.advance(1)
        return await lookup(arguments, context)  # type: ignore[arg-type]

    stage.tools["lookup_order"] = slow  # type: ignore[assignment]
    await stage.say("Hi")
    await stage.pump()
    run = await stage.run()
    assert (run.outcome, run.attempt > STALLS_ALLOWED, len(stage.used)) == ("answered", True, turns)
    assert await dead(stage) == []


async def test_a_run_that_is_stopped_or_fails_by_itself_is_not_set_aside(play: Play) -> None:
    stage = play(says(" "))
    stage.publish(PLAN)
    await stage.say("Hi")
    await stage.pump()
    assert ((await stage.run()).outcome, await dead(stage)) == ("failed", [])
