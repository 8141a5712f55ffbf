from dataclasses import replace
from datetime import datetime, timedelta

import pytest

from shared.codec import decode, encode
from shared.domain import SEEN_FOR, Contact, Delivery, Entry, Message, ModelReply, QueueMode, ToolCall, Usage
from shared.errors import Retryable
from shared.sessions.arrivals import Taking
from shared.sessions.document import (
    SCHEMA_VERSION,
    SERVICE,
    Arrival,
    Lease,
    Run,
    Seen,
    Session,
    Step,
    Wait,
    read,
    state_bytes,
)
from shared.sessions.journal import record
from shared.sessions.transcript import transcript, trim
from shared.sessions.transitions import (
    CONTEXT_AT_MOST,
    Claimant,
    Work,
    claim,
    due,
    finish,
    mark,
    park,
    release,
    respond,
    take,
    work,
)
from shared.sessions.waits import Verdict, judge, suspend
from shared.store import Stored
from tests.clock import NOON
from tests.stage import ANA, BEN, message, verdict

LATER = NOON + timedelta(seconds=30)
CALL = ToolCall(id="c", name="refund_order", arguments={"order_id": "1042"})
WAIT = Wait(id="w1", step="approve-tool-1.0", call=CALL, approvers=("contact",), until=LATER, prompt="1/ask")
PROMPT = Delivery(id="1/ask", text="May I?")


def session(*entries: Entry, **changes: object) -> Session:
    inbox = {entry.id: entry for entry in entries}
    empty = Session(tenant="acme", id="s", connection="bot", conversation="1", inbox=inbox)
    return replace(empty, **changes)  # type: ignore[arg-type]  # a table of fields


def taking(now: datetime = NOON, plan: str = "plan") -> Taking:
    return Taking(now=now, plan=plan)


def lease(wake: str = "w", until: datetime = LATER) -> Lease:
    return Lease(holder="h", wake=wake, until=until)


def running(*inputs: Entry, **changes: object) -> Session:
    """A session whose run 1 took the inputs, by default one of Ana's."""
    taken = take(session(*(inputs or (message(1),))), taking())
    assert taken.run is not None
    return replace(taken, run=replace(taken.run, **changes))  # type: ignore[arg-type]


def waiting(*entries: Entry, provider_id: str = "m1", wait: Wait = WAIT, inputs: tuple[Entry, ...] = ()) -> Session:
    """A session that waits for the approval `wait`, whose question was sent, with entries in its inbox."""
    asked = mark(suspend(running(*inputs), wait, PROMPT), replace(PROMPT, status="sent", provider_id=provider_id), NOON)
    asked = park(asked, NOON)
    return replace(asked, inbox={entry.id: entry for entry in entries})


def run_of(session: Session) -> Run:
    assert session.run is not None
    return session.run


def verdict_of(session: Session) -> Verdict | None:
    step = next((step for step in run_of(session).steps if step.key == WAIT.step), None)
    return decode(Verdict, step.result) if step is not None and step.result is not None else None


def step(key: str, result: str | None = None, attempt: int = 1) -> Step:
    return Step(key=key, kind="tool", name="t", attempt=attempt, started_at=NOON, result=result)


def test_a_claim_takes_the_lease_and_the_messages() -> None:
    who = Claimant(holder="h", wake="w", now=NOON, until=LATER)
    claimed = claim(session(message(1, "Hi")), who, taking())
    assert (claimed.epoch, claimed.lease) == (1, lease())
    assert not claimed.inbox
    run = run_of(claimed)
    assert (run.number, run.plan, run.attempt, [given.text for given in run.inputs]) == (1, "plan", 1, ["Hi"])


def test_messages_are_ordered_by_the_channel_not_by_arrival() -> None:
    third, first = message(3, "third", received_at=NOON), message(1, "first", received_at=LATER)
    second = message(2, "second", BEN)
    taken = take(session(third, first, second), taking())
    assert [given.text for given in run_of(taken).inputs] == ["first", "second", "third"]
    assert [seen.run for seen in taken.seen] == [1, 1, 1]
    assert (taken.sequence, run_of(taken).first_sequence, taken.last_order, taken.late) == (3, 1, 3, 0)


def test_messages_with_the_same_number_come_as_they_arrived() -> None:
    early = replace(message(5, "early"), id="z")
    late = replace(message(5, "late", received_at=LATER), id="a")
    assert [given.text for given in run_of(take(session(late, early), taking())).inputs] == ["early", "late"]


def test_a_message_that_comes_after_a_later_one_was_taken_is_counted_as_late() -> None:
    taken = take(session(message(4), message(6), last_order=5), taking())
    assert (taken.late, taken.last_order) == (1, 6)
    assert take(session(message(4), last_order=5), taking()).last_order == 5


def test_a_message_that_was_taken_before_starts_no_run() -> None:
    again = message(1)
    taken = take(session(again, seen=(Seen(id=again.id, run=1, at=NOON),)), taking(LATER))
    assert (taken.run, dict(taken.inbox)) == (None, {})


def test_an_id_is_known_for_as_long_as_its_channel_may_bring_it_again() -> None:
    week, day = replace(message(1), seen_for=timedelta(days=7)), message(2)
    first = finish(running(week, day), NOON)
    later = take(replace(first, inbox={"3": message(3)}), taking(NOON + timedelta(days=6)))
    assert (later.run_of(week.id), later.run_of(day.id)) == (1, None)


def test_ids_are_forgotten_once_no_channel_repeats_them() -> None:
    seen = (Seen(id="old", run=1, at=NOON), Seen(id="young", run=2, at=NOON + timedelta(hours=2)))
    taken = take(session(message(1), seen=seen), taking(NOON + SEEN_FOR))
    assert [known.id for known in taken.seen] == ["young", message(1).id]
    assert (taken.run_of("young"), taken.run_of("old")) == (2, None)


def test_a_message_during_a_run_stays_in_the_inbox() -> None:
    busy = replace(running(), inbox={"x": message(2)})
    assert take(busy, taking()).inbox == {"x": message(2)}
    assert run_of(take(busy, taking(NOON, "another"))).plan == "plan"


def arrived(attempt: int, mode: QueueMode) -> Session:
    """A run at its first attempt, to which a message came in that one."""
    before = running(stalls=3, queue_mode=mode)
    (message_,) = run_of(running(message(2))).inputs
    return replace(before, run=replace(run_of(before), arrivals=(Arrival(message=message_, after=0, attempt=attempt),)))


@pytest.mark.parametrize(
    ("before", "stalls"),
    [
        (running(), 1),
        (running(stalls=3), 4),
        (running(stalls=3, steps=(step("a", "1"),)), 0),
        (running(stalls=3, attempt=2, steps=(step("a", "1", attempt=1),)), 4),
        (replace(waiting(), run=replace(run_of(waiting()), stalls=3)), 0),
        (arrived(1, "interrupt"), 0),
        (arrived(0, "interrupt"), 4),
        (arrived(1, "steer"), 4),
    ],
    ids=[
        "nothing recorded",
        "again nothing",
        "a step",
        "only older steps",
        "it waits",
        "interrupted by a message",
        "interrupted before",
        "a message that interrupts nothing",
    ],
)
def test_attempts_that_record_nothing_are_counted(before: Session, stalls: int) -> None:
    run = run_of(claim(before, Claimant(holder="h", wake="w", now=NOON, until=LATER), taking()))
    assert (run.stalls, run.attempt) == (stalls, run_of(before).attempt + 1)


@pytest.mark.parametrize(
    ("approvers", "by", "counts"),
    [
        (("contact",), ANA, True),
        (("contact",), BEN, False),
        (("8",), BEN, True),
        (("8",), ANA, False),
        (("contact", "8"), BEN, True),
        ((), ANA, False),
        ((), SERVICE, True),
    ],
)
def test_only_whom_the_rule_names_decides(approvers: tuple[str, ...], by: Contact, counts: bool) -> None:  # noqa: FBT001 a table
    tap = verdict(9, "w1", approved=True, by=by)
    after = judge(waiting(tap, wait=replace(WAIT, approvers=approvers)), NOON)
    assert verdict_of(after) == (Verdict(approved=True, by=by.name) if counts else None)
    assert (run_of(after).wait is None) == counts
    assert not after.inbox
    said = f"Approved (refund_order), by {by.name}." if counts else "You may not decide this."
    assert [(answer.text, answer.tap) for answer in after.outbox] == [(said, "tap")]


def test_everybody_who_wrote_in_this_run_is_its_contact() -> None:
    both = (message(1), message(2, by=BEN))
    after = judge(waiting(verdict(9, "w1", approved=False, by=BEN), inputs=both), NOON)
    assert verdict_of(after) == Verdict(approved=False, by="Ben")


def test_the_first_of_two_verdicts_counts_and_the_other_is_answered() -> None:
    yes = verdict(9, "w1", approved=True, received_at=NOON + timedelta(seconds=1), tap="late")
    no = verdict(8, "w1", approved=False, received_at=NOON, tap="early")
    after = judge(waiting(yes, no), LATER)
    assert verdict_of(after) == Verdict(approved=False, by="Ana")
    assert [(answer.tap, answer.text) for answer in after.outbox] == [
        ("early", "Denied (refund_order), by Ana."),
        ("late", "This was already decided, or its time is over."),
    ]


def test_a_tap_that_the_channel_brings_again_is_answered_once() -> None:
    tap = verdict(9, "w1", approved=True)
    after = judge(waiting(tap), NOON)
    again = judge(replace(after, inbox={tap.id: tap}), LATER)
    assert len(after.outbox) == 1
    assert again == after


@pytest.mark.parametrize("state", [waiting(), running(), session()], ids=["another wait", "no wait", "no run"])
def test_a_verdict_that_fits_nothing_is_answered_and_changes_nothing(state: Session) -> None:
    stale = verdict(9, "w0", approved=True)
    after = judge(replace(state, inbox={stale.id: stale}), NOON)
    assert replace(after, outbox=(), seen=state.seen) == state
    assert [answer.text for answer in after.outbox] == ["This was already decided, or its time is over."]
    silent = verdict(9, "w0", approved=True, tap="")
    assert judge(replace(state, inbox={silent.id: silent}), NOON) == state


def test_nothing_decided_by_the_deadline_is_denied() -> None:
    assert judge(waiting(), LATER - timedelta(seconds=1)) == waiting()
    after = judge(waiting(), LATER)
    assert verdict_of(after) == Verdict(approved=False, by="deadline")
    assert [(told.replaces, told.tap) for told in after.outbox] == [("m1", "")]
    assert run_of(after).waits[0].id == "w1"


def test_a_verdict_counts_by_when_it_came_not_by_when_it_is_read() -> None:
    in_time = verdict(9, "w1", approved=True, received_at=LATER - timedelta(seconds=1))
    assert verdict_of(judge(waiting(in_time), LATER + timedelta(hours=1))) == Verdict(approved=True, by="Ana")
    late = verdict(9, "w1", approved=True, received_at=LATER)
    after = judge(waiting(late), LATER)
    assert verdict_of(after) == Verdict(approved=False, by="deadline")
    assert after.outbox[0].text == "This was already decided, or its time is over."


def test_a_question_that_was_not_sent_before_its_verdict_is_never_sent() -> None:
    by_callback = verdict(0, "w1", approved=True, by=SERVICE, tap="")
    asked = suspend(running(), WAIT, PROMPT)
    after = judge(replace(asked, inbox={by_callback.id: by_callback}), NOON)
    assert verdict_of(after) == Verdict(approved=True, by="callback")
    assert after.outbox == ()


def test_a_record_keeps_the_place_of_its_intent_and_takes_the_number_of_its_event() -> None:
    begun = record(record(running(), step("a")), step("b", "2"))
    ended = record(begun, step("a", "1"))
    assert [(known.key, known.result, known.sequence) for known in run_of(ended).steps] == [
        ("a", "1", 3),
        ("b", "2", 2),
    ]
    assert ended.sequence == 3


def test_a_reply_lies_in_the_outbox_in_its_parts_until_each_is_marked() -> None:
    told = respond(running(), outcome="failed", reply="ab", parts=("a", "b"), reason="why")
    assert [part.id for part in told.outbox] == ["1/reply/1", "1/reply/2"]
    assert (run_of(told).outcome, run_of(told).reason, run_of(told).reply_sequence) == ("failed", "why", 2)
    sent = mark(told, replace(told.outbox[0], status="sent", provider_id="m1"), NOON)
    assert [part.id for part in sent.outbox] == ["1/reply/2"]
    assert [part.provider_id for part in run_of(sent).deliveries] == ["m1"]


def test_a_finished_run_leaves_its_conversation_and_its_usage() -> None:
    reply = ModelReply(model="m", text="Done", usage=Usage(input_tokens=3))
    recorded = replace(step("model-1", encode(reply).decode()), kind="model", usage=reply.usage)
    ended = finish(respond(record(running(), recorded), outcome="answered", reply="Done", parts=("Done",)), LATER)
    assert ended.run is None
    assert ended.finished is not None
    assert (ended.finished.ended_at, ended.finished.reply) == (LATER, "Done")
    assert [(said.role, said.text) for said in ended.context] == [("contact", "Hi"), ("agent", "Done")]
    assert ended.usage == reply.usage
    assert decode(Session, state_bytes(ended)).finished is None


def test_what_the_platform_said_is_part_of_the_conversation() -> None:
    told = respond(running(), outcome="stopped", reply="Sorry", parts=("Sorry",))
    assert [said.text for said in finish(told, LATER).context] == ["Hi", "Sorry"]


def test_a_call_without_a_result_gets_one_in_the_transcript() -> None:
    reply = ModelReply(model="m", text="", tool_calls=(CALL, replace(CALL, id="d")))
    steps = (replace(step("model-1", encode(reply).decode()), kind="model"), step("tool-1.0", '{"ok": 1}'))
    said = transcript(run_of(running(steps=steps)))
    assert [(part.role, part.tool_call_id, part.text) for part in said[1:]] == [
        ("tool", "c", '{"ok": 1}'),
        ("tool", "d", '{"error": "not carried out"}'),
    ]


def test_trimming_never_parts_a_call_from_its_result() -> None:
    turn = (
        Message(role="contact", text="a" * 10),
        Message(role="agent", text="", tool_calls=(CALL,)),
        Message(role="tool", text="b" * 10, tool_call_id="c"),
        Message(role="agent", text="c" * 10),
    )
    size = 30 + len(str(CALL.arguments))
    assert trim(turn * 2, 2 * size) == turn * 2
    for limit in range(size, 2 * size):
        assert trim(turn * 2, limit) == turn
    assert trim(turn, size - 1) == turn[-1:]
    assert trim(turn[:-1], 5) == ()
    assert trim((), 5) == ()


def test_the_context_stays_within_its_limit() -> None:
    long = running(message(1, "x" * (CONTEXT_AT_MOST - 10)))
    long = replace(long, context=(Message(role="contact", text="old" * 10),))
    told = respond(long, outcome="answered", reply="", parts=())
    assert [said.text[:3] for said in finish(told, NOON).context] == ["xxx"]


@pytest.mark.parametrize(
    ("state", "now", "expected"),
    [
        (session(), NOON, Work.NOTHING),
        (session(message(1)), NOON, Work.READY),
        (session(outbox=(PROMPT,)), NOON, Work.READY),
        (running(), NOON, Work.READY),
        (waiting(), NOON, Work.WAITING),
        (waiting(message(2)), NOON, Work.WAITING),
        (waiting(verdict(9, "w1", approved=True)), NOON, Work.READY),
        (waiting(), LATER, Work.READY),
        (replace(running(), lease=lease("other")), NOON, Work.HELD),
        (replace(running(), lease=lease("other")), LATER, Work.READY),
        (replace(running(), lease=lease()), NOON, Work.READY),
        (replace(running(steps=(step("a"),)), lease=lease()), NOON, Work.HELD),
        (replace(running(steps=(step("a"),)), lease=lease()), LATER, Work.READY),
        (replace(session(), lease=lease("other")), LATER, Work.READY),
        (replace(waiting(), lease=lease("other", NOON)), NOON, Work.READY),
    ],
)
def test_what_there_is_to_do(state: Session, now: datetime, expected: Work) -> None:
    assert work(state, wake="w", now=now) is expected


@pytest.mark.parametrize(
    ("state", "expected"),
    [
        (session(), None),
        (session(message(1)), NOON),
        (session(outbox=(PROMPT,)), NOON),
        (running(), NOON),
        (replace(running(), lease=lease(until=LATER)), LATER),
        (waiting(), LATER),
        (waiting(wait=replace(WAIT, until=NOON)), NOON),
        (release(replace(waiting(message(2)), lease=lease())), LATER),
    ],
)
def test_when_the_tick_must_look(state: Session, expected: datetime | None) -> None:
    assert due(state, NOON) == expected


def test_a_session_is_read_as_it_was_stored() -> None:
    before = waiting(message(2), verdict(9, "w1", approved=True))
    stored = Stored(
        state=state_bytes(before), inbox={key: encode(entry) for key, entry in before.inbox.items()}, version=1
    )
    assert read(before.key, stored) == before


def test_a_session_that_nobody_claimed_is_known_by_its_first_entry() -> None:
    entry = message(1)
    fresh = read(session().key, Stored(state=None, inbox={entry.id: encode(entry)}, version=1))
    assert fresh == session(entry)
    assert read(session().key, Stored(state=None, inbox={}, version=1)) is None


def test_a_document_of_a_newer_release_is_left_to_that_release() -> None:
    newer = encode(session(schema_version=SCHEMA_VERSION + 1))
    with pytest.raises(Retryable, match="schema 3"):
        read(session().key, Stored(state=newer, inbox={}, version=1))
