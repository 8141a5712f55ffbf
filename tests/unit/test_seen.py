"""Ids that a channel may bring again: known for as long as it may, in a document that stays small."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path

import pytest

from shared.domain import SEEN_FOR, Entry, digest
from shared.sessions.accept import pending
from shared.sessions.document import Seen, Session, state_bytes
from shared.sessions.seen import KEPT, MOVED, note, run_of, segment_document, segment_path, suspects
from tests.clock import NOON, FakeClock
from tests.fakes import FakeDocuments
from tests.stage import PLAN, PointedStore, Stage, message, says

EMPTY = Session(tenant="acme", id="s" * 32, connection="bot", conversation="1")


def seen(id_: str, run: int = 1, at: datetime = NOON, seen_for: timedelta = SEEN_FOR) -> Seen:
    return Seen(id=id_, run=run, at=at, seen_for=seen_for)


async def noted(session: Session, documents: FakeDocuments, *ids: Seen, now: datetime = NOON) -> Session:
    """The session after a commit that takes these ids, and what that writes beside it."""
    session = note(session, ids, now)
    document = segment_document(session)
    if document is not None:
        path, written = document
        await documents.put(path, written.body, written.expires_at)
    return replace(session, forgotten=())


async def many(count: int, documents: FakeDocuments) -> Session:
    """A session that took so many ids, one a run."""
    session = EMPTY
    for number in range(1, count + 1):
        session = await noted(replace(session, runs=number), documents, seen(digest("taken", str(number)), number))
    return session


async def test_no_id_is_forgotten_while_its_channel_may_bring_it_again() -> None:
    documents = FakeDocuments()
    session = await many(1_000, documents)
    for number in range(1, 1_001):
        assert await run_of(documents, session, digest("taken", str(number))) == number
    assert len(session.seen) <= KEPT
    assert len(session.segments) == (1_000 - KEPT + MOVED - 1) // MOVED


async def test_fewer_than_two_in_a_thousand_new_ids_are_suspected_by_a_segment() -> None:
    session = await many(KEPT + 1, FakeDocuments())
    assert len(session.segments) == 1
    asked = [digest("new", str(number)) for number in range(20_000)]
    assert sum(bool(suspects(session, id_)) for id_ in asked) < 0.002 * len(asked)


async def test_a_suspected_id_that_is_new_is_not_taken_for_one_that_was_seen() -> None:
    documents = FakeDocuments()
    session = await many(1_000, documents)
    suspected = [id_ for id_ in (digest("new", str(number)) for number in range(20_000)) if suspects(session, id_)]
    assert suspected
    assert [await run_of(documents, session, id_) for id_ in suspected] == [None] * len(suspected)


async def test_an_id_that_no_segment_suspects_costs_no_read() -> None:
    documents = FakeDocuments()
    session = await many(KEPT + 1, documents)
    for id_ in (digest("new", str(number)) for number in range(1_000)):
        if not suspects(session, id_):
            assert await run_of(documents, session, id_) is None
    assert len(documents.reads) < 5


async def test_a_segment_goes_when_the_last_of_its_ids_is_brought_no_more() -> None:
    documents = FakeDocuments()
    session = EMPTY
    for number in range(KEPT):
        week = timedelta(days=7) if number == 0 else SEEN_FOR
        session = await noted(session, documents, seen(str(number), seen_for=week))
    session = await noted(session, documents, seen("one more"))
    (segment,) = session.segments
    assert segment.until == NOON + timedelta(days=7)
    assert documents.expiries == {segment_path(EMPTY.key, segment.number): segment.until}
    before = await noted(session, documents, seen("x"), now=segment.until - timedelta(seconds=1))
    after = await noted(session, documents, seen("x"), now=segment.until)
    assert (len(before.segments), len(after.segments)) == (1, 0)


async def test_numbers_of_segments_are_never_used_again() -> None:
    documents, session, numbers = FakeDocuments(), EMPTY, []
    now = NOON
    for number in range(1, 1_500):
        now += timedelta(minutes=5)
        session = await noted(replace(session, runs=number), documents, seen(str(number), number, now), now=now)
        numbers += [segment.number for segment in session.segments if segment.number not in numbers]
    assert len(numbers) == len(set(numbers)) == len(documents.writes) == len(set(documents.writes))
    assert numbers == sorted(numbers)


async def test_one_commit_that_takes_many_ids_keeps_them_all() -> None:
    documents = FakeDocuments()
    session = await noted(EMPTY, documents, *(seen(str(number)) for number in range(400)))
    assert len(session.seen) <= KEPT
    for number in range(400):
        assert await run_of(documents, session, str(number)) == 1


async def test_the_document_of_a_busy_day_stays_small() -> None:
    session = await many(5_000, FakeDocuments())
    assert len(state_bytes(session)) < 40_000


@pytest.fixture
async def stage(tmp_path: Path) -> AsyncIterator[Stage]:
    store = PointedStore(tmp_path / "sessions.db")
    stage = Stage(store, FakeClock(), [says("Hello")] * 10_000)
    stage.publish(replace(PLAN, instructions=""))
    yield stage
    await store.aclose()


async def taken(stage: Stage, numbers: range) -> None:
    """Messages of these numbers, answered a hundred at a time."""
    for first in range(numbers.start, numbers.stop, 100):
        batch = [arrived(number, stage) for number in range(first, min(first + 100, numbers.stop))]
        await stage.store.append(stage.key, {entry.id: pending(entry) for entry in batch}, NOON)
        await stage.bus.wake(stage.key)
        stage.clock.advance(1)
        await stage.pump()


def arrived(number: int, stage: Stage) -> Entry:
    return message(number, "x", received_at=stage.clock.now())


async def test_a_message_that_is_repeated_after_five_thousand_others_changes_nothing(stage: Stage) -> None:
    await taken(stage, range(1, 5_002))
    before = await stage.session()
    stage.clock.advance(86_400)
    for number in (1, 2, 63, 64, 65, 2_500, 5_001):
        await stage.put(arrived(number, stage))
        await stage.pump()
    after = await stage.session()
    assert (after.runs, after.rejected, after.late, after.sequence) == (before.runs, 0, 0, before.sequence)
    assert len(stage.channel.sent) == before.runs
    assert len(state_bytes(after)) < 200_000, "however short the messages are"
    assert await stage.is_quiet()


async def test_an_id_is_forgotten_when_its_channel_brings_it_no_more(stage: Stage) -> None:
    await taken(stage, range(1, 202))
    runs = (await stage.session()).runs
    stage.clock.advance(SEEN_FOR.total_seconds())
    await taken(stage, range(202, 203))
    await taken(stage, range(1, 2))
    assert (await stage.session()).runs == runs + 2
    assert (await stage.session()).segments == ()


async def test_segments_cost_no_commit_and_one_document_in_sixty_four_messages(stage: Stage) -> None:
    written: list[str] = []
    commit = stage.store.commit

    async def counting(*arguments: object, **named: object) -> object:
        documents = named.get("documents")
        assert isinstance(documents, dict)
        written.extend(documents)
        return await commit(*arguments, **named)  # type: ignore[arg-type]

    stage.store.commit = counting  # type: ignore[method-assign]
    count = KEPT + MOVED + 2
    for number in range(1, count):
        await stage.put(arrived(number, stage))
        await stage.pump()
    summaries = len(stage.script.history) - (count - 1)  # of so long a conversation; each is a commit of its own
    assert stage.faults.passed.count("after commit") == 3 * (count - 1) + summaries
    assert len(written) == 2
    assert stage.faults.passed.count("after load") == count - 1
