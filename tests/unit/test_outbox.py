"""Was it sent? What the outbox answers by channel, and what becomes of a delivery that nobody takes for now."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from datetime import timedelta
from pathlib import Path
from typing import Literal

import pytest

from shared.channels import Resend
from shared.domain import Delivery, ModelReply, Receipt
from shared.errors import NotSent, Refused, Retryable, SendUnknown
from shared.sessions.outbox import LONGEST_SLEEP, RECEIPT_SECONDS
from shared.sessions.receipts import record
from tests.clock import NOON, FakeClock
from tests.stage import ASKING, Crash, PointedStore, Stage, calls, says

Play = Callable[..., Stage]
LONG = says("word " * 1500)
"""A reply of two parts."""


@pytest.fixture
async def play(tmp_path: Path) -> AsyncIterator[Play]:
    """A stage whose channel allows that of a delivery whose sending was cut."""
    store = PointedStore(tmp_path / "sessions.db")

    def play(resend: Resend, *replies: ModelReply | Exception) -> Stage:
        stage = Stage(store, FakeClock(), replies)
        stage.channel.resend = resend
        return stage

    yield play
    await store.aclose()


class Killing:
    """Kills the process in the first send, before or after the channel took it."""

    def __init__(self, stage: Stage, when: Literal["before", "after"]) -> None:
        self.stage, self.when, self.done = stage, when, False
        self._send = stage.channel.send
        stage.channel.send = self  # type: ignore[method-assign]

    async def __call__(self, connection: object, conversation: str, delivery: Delivery) -> str:
        if not self.done and self.when == "before":
            self.done = True
            raise Crash
        sent = await self._send(connection, conversation, delivery)  # type: ignore[arg-type]
        if not self.done:
            self.done = True
            raise Crash
        return sent


async def cut(stage: Stage, when: Literal["before", "after"]) -> None:
    """A process says Hello and is killed in the middle."""
    Killing(stage, when)
    await stage.say("Hi")
    with pytest.raises(Crash):
        await stage.drive("w")
    (left,) = (await stage.session()).outbox
    assert (left.status, left.epoch, left.text) == ("sending", 1, "Hello")


async def receipt(stage: Stage, status: Literal["sent", "failed"], delivery: str = "1/reply/1") -> None:
    said = Receipt(key=stage.key, delivery=delivery, provider_id="m9", status=status, at=NOON, reason="131026 no")
    await record(stage.store, lambda _, entry: stage.put(entry), said, stage.clock.now(), NOON + timedelta(days=90))


async def delivered(stage: Stage, run: int = 1) -> list[tuple[str, str, int]]:
    assert await stage.is_quiet()
    return [(sent.id, sent.status, sent.repeated) for sent in (await stage.run(run)).deliveries]


async def test_a_reply_is_stored_as_being_sent_before_it_is_sent(play: Play) -> None:
    stage = play("counted", LONG)
    stored: list[tuple[str, ...]] = []
    send = stage.channel.send

    async def look(connection: object, conversation: str, delivery: Delivery) -> str:
        stored.append(tuple(left.status for left in (await stage.session()).outbox))
        return await send(connection, conversation, delivery)  # type: ignore[arg-type]

    stage.channel.send = look  # type: ignore[method-assign]
    await stage.say("Hi")
    await stage.pump()
    assert stored == [("sending", "pending"), ("sending",)]


async def test_the_intent_costs_no_write(play: Play) -> None:
    stage = play("counted", says("Hello"))
    await stage.say("Hi")
    await stage.pump()
    assert stage.faults.passed.count("after commit") == 3, "the claim, the reply, the end"


@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize(("resend", "counted"), [("harmless", 0), ("counted", 1)])
async def test_a_send_that_was_cut_is_made_again_and_counted_where_it_may_be_seen(
    play: Play, resend: Resend, counted: int, when: Literal["before", "after"]
) -> None:
    stage = play(resend, says("Hello"))
    await cut(stage, when)
    await stage.drive("w")
    assert stage.channel.texts == ["Hello"] * (2 if when == "after" else 1)
    assert await delivered(stage) == [("1/reply/1", "sent", counted)]
    assert (await stage.session()).repeated == counted


async def test_a_send_that_was_cut_is_not_made_again_once_its_receipt_says_that_it_was_taken(play: Play) -> None:
    stage = play("receipt", says("Hello"), says("Two"))
    await cut(stage, "after")
    await stage.drive("w")
    session = await stage.session()
    assert [(left.status, left.not_before) for left in session.outbox] == [
        ("unknown", NOON + timedelta(seconds=RECEIPT_SECONDS))
    ]
    assert session.lease is None
    stage.clock.advance(RECEIPT_SECONDS - 1)
    await receipt(stage, "sent")
    await stage.pump()
    assert stage.channel.texts == ["Hello"]
    assert await delivered(stage) == [("1/reply/1", "sent", 0)]
    assert (await stage.run()).deliveries[0].provider_id == "m9"
    assert ((await stage.session()).repeated, (await stage.session()).unknown) == (0, 0)


async def test_a_receipt_that_is_faster_than_the_recovery_settles_it_at_once(play: Play) -> None:
    stage = play("receipt", says("Hello"))
    await cut(stage, "after")
    await receipt(stage, "sent")
    await stage.drive("w")
    assert stage.channel.texts == ["Hello"]
    assert await delivered(stage) == [("1/reply/1", "sent", 0)]


async def test_without_a_receipt_it_is_sent_again_after_half_a_minute_and_counted(play: Play) -> None:
    stage = play("receipt", says("Hello"))
    await cut(stage, "before")
    await stage.drive("w")
    assert await stage.tick(RECEIPT_SECONDS - 1) == 0
    assert stage.channel.texts == []
    assert await stage.tick(31) == 1
    assert stage.channel.texts == ["Hello"]
    assert await delivered(stage) == [("1/reply/1", "sent", 1)]


async def test_a_receipt_of_failure_ends_a_delivery_as_refused(play: Play) -> None:
    stage = play("receipt", says("Hello"))
    await cut(stage, "after")
    await stage.drive("w")
    await receipt(stage, "failed")
    await stage.pump()
    assert await delivered(stage) == [("1/reply/1", "refused", 0)]
    assert (await stage.run()).deliveries[0].reason == "131026 no"


async def test_a_receipt_of_what_was_sent_long_ago_writes_nothing(play: Play) -> None:
    stage = play("receipt", says("Hello"))
    await stage.say("Hi")
    await stage.pump()
    before = stage.faults.passed.count("before append")
    await receipt(stage, "sent")
    assert stage.faults.passed.count("before append") == before
    assert await stage.is_quiet()


async def test_an_unknown_send_is_never_repeated_where_nothing_can_tell(play: Play) -> None:
    stage = play("counted", LONG)
    stage.channel.failures = [SendUnknown("timeout")]
    await stage.say("Hi")
    await stage.pump()
    await stage.tick(86_400)
    assert [tried.id for tried in stage.channel.tried] == ["1/reply/1", "1/reply/2"]
    assert await delivered(stage) == [("1/reply/1", "unknown", 0), ("1/reply/2", "sent", 0)]
    assert ((await stage.session()).unknown, (await stage.session()).repeated) == (1, 0)


async def test_an_unknown_send_waits_for_its_receipt_where_there_are_any(play: Play) -> None:
    stage = play("receipt", LONG)
    stage.channel.failures = [SendUnknown("timeout")]
    await stage.say("Hi")
    await stage.pump()
    assert [tried.id for tried in stage.channel.tried] == ["1/reply/1"], "the second part does not overtake it"
    await receipt(stage, "sent")
    await stage.pump()
    assert [tried.id for tried in stage.channel.tried] == ["1/reply/1", "1/reply/2"]
    assert await delivered(stage) == [("1/reply/1", "sent", 0), ("1/reply/2", "sent", 0)]
    assert ((await stage.session()).unknown, (await stage.session()).repeated) == (0, 0)


async def test_an_unknown_send_without_a_receipt_is_repeated_once_and_counted(play: Play) -> None:
    stage = play("receipt", says("Hello"))
    stage.channel.failures = [SendUnknown("timeout")]
    await stage.say("Hi")
    await stage.pump()
    await stage.tick(60)
    assert [tried.id for tried in stage.channel.tried] == ["1/reply/1"] * 2
    assert await delivered(stage) == [("1/reply/1", "sent", 1)]


async def test_flood_control_above_a_minute_holds_nothing_and_is_due_at_its_time(play: Play) -> None:
    stage = play("counted", says("Hello"))
    stage.channel.failures = [NotSent("429", retry_after=LONGEST_SLEEP + 240)]
    await stage.say("Hi")
    await stage.pump()
    session = await stage.session()
    (left,) = session.outbox
    assert (session.lease, left.not_before, stage.clock.slept) == (None, NOON + timedelta(seconds=300), [])
    assert await stage.tick(299) == 0
    assert await stage.tick(1) == 1
    assert await delivered(stage) == [("1/reply/1", "sent", 0)]


async def test_another_wake_does_not_send_before_the_time_is_over(play: Play) -> None:
    stage = play("counted", says("Hello"), says("Two"))
    stage.channel.failures = [NotSent("429", retry_after=300)]
    await stage.say("Hi")
    await stage.pump()
    await stage.say("And?", 2)
    await stage.pump()
    assert stage.channel.texts == []
    await stage.tick(300)
    assert stage.channel.texts == ["Hello", "Two"]


async def test_the_parts_behind_one_that_is_put_off_wait_for_it(play: Play) -> None:
    stage = play("counted", LONG)
    stage.channel.failures = [NotSent("429", retry_after=300)]
    await stage.say("Hi")
    await stage.pump()
    await stage.tick(300)
    assert [tried.id for tried in stage.channel.tried] == ["1/reply/1", "1/reply/1", "1/reply/2"]


async def put_offs(stage: Stage) -> list[float]:
    """The pauses, in seconds, until nothing is left to be sent."""
    pauses = []
    while (outbox := (await stage.session()).outbox) and (until := outbox[0].not_before) is not None:
        pauses.append((until - stage.clock.now()).total_seconds())
        await stage.tick(pauses[-1] + 60)  # the tick comes once a minute
    return pauses


@pytest.mark.parametrize("failure", [NotSent("down"), Retryable("no token")], ids=["not sent", "retryable"])
async def test_a_channel_that_takes_nothing_is_asked_later_and_later_and_for_a_day(
    play: Play, failure: Exception
) -> None:
    stage = play("counted", says("Hello"), says("Two"))
    stage.channel.failures = [failure] * 10_000
    await stage.say("Hi")
    await stage.pump()
    pauses = await put_offs(stage)
    assert pauses == [10, 20, 40, 80, 160, 320, 640, 1280, 2560, *[3600] * (len(pauses) - 9)]
    assert timedelta(hours=24) < stage.clock.now() - NOON < timedelta(hours=25, minutes=10)
    assert (await stage.run()).outcome == "answered"
    assert await delivered(stage) == [("1/reply/1", "refused", 0)]
    assert (await stage.run()).deliveries[0].reason == str(failure)
    stage.channel.failures = []
    await stage.say("Are you there?", 2)
    await stage.pump()
    assert stage.channel.texts == ["Two"]


async def test_what_is_put_off_again_and_again_is_no_repetition_and_no_stall(play: Play) -> None:
    stage = play("counted", says("Hello"))
    stage.channel.failures = [NotSent("429", retry_after=120)] * 9
    await stage.say("Hi")
    await stage.pump()
    for _ in range(9):
        await stage.tick(120)
    assert await delivered(stage) == [("1/reply/1", "sent", 0)]
    assert ((await stage.run()).stalls, (await stage.run()).outcome) == (0, "answered")


async def test_a_question_that_was_cut_is_asked_again_and_settled_as_one(play: Play) -> None:
    stage = play("counted", calls("refund_order"), says("Done"))
    stage.publish(ASKING)
    Killing(stage, "after")
    await stage.say("Refund")
    with pytest.raises(Crash):
        await stage.drive("w")
    await stage.drive("w")
    assert [sent.id for sent in stage.channel.sent] == ["1/approve-tool-1.0"] * 2
    await stage.tap(approved=True)
    await stage.pump()
    assert (len(stage.used), [told.replaces for told in stage.channel.settled]) == (1, ["m2"])
    assert await stage.is_quiet()


async def test_a_settling_that_was_cut_is_made_again_uncounted(play: Play) -> None:
    stage = play("counted", calls("refund_order"), says("Done"))
    stage.publish(ASKING)
    await stage.say("Refund")
    await stage.pump()
    settle = stage.channel.settle
    done: list[Delivery] = []

    async def killed(connection: object, conversation: str, delivery: Delivery) -> None:
        await settle(connection, conversation, delivery)  # type: ignore[arg-type]
        if not done:
            done.append(delivery)
            raise Crash

    stage.channel.settle = killed  # type: ignore[method-assign]
    await stage.tap(approved=True)
    await stage.pump()
    assert len(stage.channel.settled) == 2
    assert (await stage.session()).repeated == 0
    assert await stage.is_quiet()


async def test_a_refused_part_does_not_keep_the_next_one_back(play: Play) -> None:
    stage = play("harmless", LONG)
    stage.channel.failures = [Refused("too rude")]
    await stage.say("Hi")
    await stage.pump()
    assert await delivered(stage) == [("1/reply/1", "refused", 0), ("1/reply/2", "sent", 0)]
