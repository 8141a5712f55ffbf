from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest

from shared.domain import DeliveryStatus, JsonObject, ModelReply, Texts
from shared.errors import BusDown, ModelRefused, NotSent, Refused, Retryable, SendError, SendUnknown
from shared.sessions.document import UNKNOWN
from shared.sessions.outbox import ATTEMPTS, LONGEST_SLEEP
from shared.sessions.transitions import STALLS_ALLOWED
from shared.tools import ToolContext, ToolResult
from tests.clock import FakeClock
from tests.stage import PLAN, Crash, PointedStore, Stage, calls, says

Play = Callable[..., Stage]


@pytest.fixture
async def play(tmp_path: Path) -> AsyncIterator[Play]:
    """A stage whose model gives these replies, one a call."""
    store = PointedStore(tmp_path / "sessions.db")

    def play(*replies: ModelReply | Exception) -> Stage:
        return Stage(store, FakeClock(), replies)

    yield play
    await store.aclose()


async def test_flood_control_is_slept(play: Play) -> None:
    stage = play(says("Hello"))
    stage.channel.failures = [NotSent("429", retry_after=7)]
    await stage.say("Hi")
    await stage.pump()
    assert stage.clock.slept == [7]
    assert [(sent.status, sent.attempts) for sent in (await stage.run()).deliveries] == [("sent", 2)]


@pytest.mark.parametrize(
    ("failures", "tried"),
    [
        ([NotSent("down")] * ATTEMPTS, ATTEMPTS),
        ([NotSent("429", retry_after=LONGEST_SLEEP + 1)], 1),
    ],
    ids=["down for good", "a long flood control"],
)
async def test_a_reply_that_cannot_be_sent_now_is_kept_for_the_next_attempt(
    play: Play, failures: list[Exception], tried: int
) -> None:
    stage = play(says("Hello"))
    stage.channel.failures = list(failures)
    await stage.say("Hi")
    await stage.pump()
    assert len(stage.channel.tried) == tried
    session = await stage.session()
    assert session.lease is None
    assert [(kept.text, kept.status) for kept in session.outbox] == [("Hello", "sending")]
    assert stage.channel.texts == []
    await stage.tick(120)
    assert stage.channel.texts == ["Hello"]
    assert len(stage.script.history) == 1
    assert await stage.is_quiet()


async def test_an_apology_stays_one_although_a_model_would_answer_by_now(play: Play) -> None:
    stage = play(ModelRefused("bad key"), says("A late answer"))
    await stage.say("Hi")
    stage.faults.at = {12}
    with pytest.raises(Crash):
        await stage.drive("w")
    assert stage.faults.passed[-1] == "after send"
    stage.faults.restart()
    await stage.drive("w")
    assert stage.channel.texts == [Texts().failed] * 2, "this is the window in which a channel without ids repeats"
    assert (await stage.run()).outcome == "failed"


async def test_a_channel_that_is_down_for_long_does_not_end_the_run(play: Play) -> None:
    stage = play(says("Hello"))
    stage.channel.failures = [NotSent("down") for _ in range(ATTEMPTS * (STALLS_ALLOWED + 2))]
    await stage.say("Hi")
    await stage.pump()
    for _ in range(STALLS_ALLOWED + 2):
        assert stage.channel.texts == []
        await stage.tick(3600)
    assert stage.channel.texts == ["Hello"]
    assert (await stage.run()).outcome == "answered"


@pytest.mark.parametrize(
    ("failure", "status"), [(Refused("blocked by the user"), "refused"), (SendUnknown("timeout"), "unknown")]
)
async def test_what_was_refused_or_may_have_been_delivered_is_recorded_and_never_repeated(
    play: Play, failure: SendError, status: DeliveryStatus
) -> None:
    stage = play(says("word " * 1500))
    stage.channel.failures = [failure]
    await stage.say("Hi")
    await stage.pump()
    first, second = (await stage.run()).deliveries
    assert (first.status, first.reason, first.attempts, second.status) == (status, str(failure), 1, "sent")
    assert [tried.id for tried in stage.channel.tried] == ["1/reply/1", "1/reply/2"]
    assert await stage.is_quiet()


async def test_parts_that_were_sent_are_not_sent_again_by_the_next_attempt(play: Play) -> None:
    stage = play(says("word " * 1500))
    await stage.say("Hi")
    stage.faults.at = {16}
    with pytest.raises(Crash):
        await stage.drive("w")
    assert stage.faults.passed[-3:] == ["before commit", "after commit", "before send"]
    stage.faults.restart()
    await stage.drive("w")
    assert [sent.id for sent in stage.channel.sent] == ["1/reply/1", "1/reply/2"]


async def test_a_slice_that_ends_in_a_run_is_continued_after_the_wake_it_published(play: Play) -> None:
    stage = play(calls("lookup_order"), says("Found"))
    stage.slice_seconds = 60
    lookup = stage.tools["lookup_order"]

    async def slow(arguments: JsonObject, context: ToolContext) -> ToolResult:
        stage.clock.advance(60)
        return await lookup(arguments, context)

    stage.tools["lookup_order"] = slow
    await stage.say("Hi")
    first = await stage.drive(stage.bus.queue.pop(0).id)
    assert first is not None
    assert first.lease is None
    assert [step.key for step in (await stage.unfinished()).steps] == ["model-1", "tool-1.0"]
    assert len(stage.bus.queue) == 1
    await stage.pump()
    assert (len(stage.used), len(stage.script.history), stage.channel.texts) == (1, 2, ["Found"])
    assert ((await stage.run()).attempt, (await stage.run()).stalls) == (2, 0)
    assert await stage.is_quiet()


async def test_a_slice_that_ends_between_runs_leaves_the_next_to_the_wake_it_published(play: Play) -> None:
    stage = play(calls("lookup_order"), says("One"), says("Two"))

    async def slow(arguments: JsonObject, context: ToolContext) -> JsonObject:
        await stage.say("second", 2)
        return {}

    stage.tools["lookup_order"] = slow
    stage.slice_seconds = 60
    stage.channel.failures = [NotSent("429", retry_after=60)]
    await stage.say("first", 1)
    wake = stage.bus.queue.pop(0).id
    left = await stage.drive(wake)
    assert left is not None
    assert (left.run, left.lease, len(left.inbox), stage.channel.texts) == (None, None, 1, ["One"])
    await stage.pump()
    assert stage.channel.texts == ["One", "Two"]


async def test_a_run_that_makes_no_progress_ends_as_failed(play: Play) -> None:
    stage = play(*[RuntimeError("a bug") for _ in range(STALLS_ALLOWED + 1)], says("never asked for"))
    await stage.say("Hi")
    for _ in range(STALLS_ALLOWED):
        with pytest.raises(RuntimeError):
            await stage.drive("w")
    await stage.drive("w")
    run = await stage.run()
    assert (run.outcome, run.reason) == ("failed", f"{STALLS_ALLOWED} attempts in a row recorded nothing")
    assert stage.channel.texts == [Texts().failed]
    assert len(stage.script.history) == STALLS_ALLOWED
    assert await stage.is_quiet()


async def test_attempts_that_get_further_are_not_counted_against_the_run(play: Play) -> None:
    broken = RuntimeError("a bug")
    turns = [reply for _ in range(STALLS_ALLOWED + 1) for reply in (broken, calls("refund_order"))]
    stage = play(*turns, says("Done"))
    await stage.say("Hi")
    for _ in range(STALLS_ALLOWED + 1):
        with pytest.raises(RuntimeError):
            await stage.drive("w")
    await stage.drive("w")
    assert (await stage.run()).outcome == "answered"
    assert len(stage.used) == STALLS_ALLOWED + 1


async def test_a_tool_that_may_not_be_repeated_is_reported_as_unknown_after_a_crash(play: Play) -> None:
    stage = play(calls("refund_order"), says("I am not sure"))
    await stage.say("Refund 1042")
    refund = stage.tools["refund_order"]

    async def killed(arguments: JsonObject, context: ToolContext) -> JsonObject:
        await refund(arguments, context)
        raise Crash

    stage.tools["refund_order"] = killed
    with pytest.raises(Crash):
        await stage.drive("w")
    with pytest.raises(Retryable, match="may still be running"):
        await stage.drive("w")
    stage.clock.advance(PLAN.tools[1].timeout_seconds)
    await stage.drive("w")
    assert len(stage.used) == 1
    assert UNKNOWN["error"] in stage.script.history[-1].messages[-1].text
    assert stage.channel.texts == ["I am not sure"]


async def test_a_wake_that_cannot_be_published_brings_its_own_wake_again(play: Play) -> None:
    stage = play(says("One"))
    await stage.say("Hi")
    stage.slice_seconds = 0
    stage.bus.down = True
    with pytest.raises(BusDown):
        await stage.drive("w")
    session = await stage.session()
    assert session.lease is None
    assert session.run is not None
    assert await stage.due() == [stage.key]
