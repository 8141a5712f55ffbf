"""Runs that were set aside: what is known of them, and that their messages can be put back once."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path

import pytest

from shared.codec import decode, encode
from shared.domain import Entry, Message, SessionKey
from shared.errors import BusDown, Gone, NotFound
from shared.sessions.dead import RESULT_SHOWN, DeadRun, dead_run, dead_runs, entries, of, path, requeue
from shared.sessions.document import Arrival, Run, Session, Step, message_of, state_bytes
from shared.store.sqlite import SqliteStore
from tests.clock import NOON, FakeClock
from tests.stage import BEN, message

KEY = SessionKey("demo", "5" * 32)
SESSION = Session(
    tenant=KEY.tenant, id=KEY.session, connection="bot", conversation="7", last_order=900, viewer="uid", runs=9
)
STEP = Step(key="model-1", kind="model", name="m", attempt=1, started_at=NOON, result="x" * 9_000)


def asked(order: int, text: str) -> Message:
    entry = replace(message(order, text, BEN), provider_id=f"m{order}", posted_by="key", callback_url="https://a.b")
    return message_of(entry, text, order)


RUN = Run(
    number=3,
    plan="p" * 64,
    inputs=(asked(1, "One"), asked(2, "Two")),
    arrivals=(Arrival(message=asked(3, "Three"), after=1), Arrival(message=asked(4, "Four"), after=1, rejected=True)),
    steps=(STEP, replace(STEP, key="tool-1.0", result=None)),
    first_sequence=1,
    started_at=NOON,
)
DEAD = of(SESSION, RUN, "5 attempts in a row recorded nothing", NOON)


class Door:
    """Takes entries as `accept` does; while `down`, it takes none."""

    def __init__(self) -> None:
        self.taken: dict[str, Entry] = {}
        self.down = False

    async def __call__(self, key: SessionKey, *entries: Entry) -> None:
        assert key == KEY
        self.taken |= {entry.id: entry for entry in entries}
        if self.down:
            raise BusDown("the bus is down")


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[SqliteStore]:
    store = SqliteStore(tmp_path / "sessions.db", clock=FakeClock())
    yield store
    await store.aclose()


async def put(store: SqliteStore, dead: DeadRun) -> None:
    await store.put(path(dead.key, dead.number), encode(dead))


async def again(store: SqliteStore, door: Door) -> DeadRun:
    return await requeue(store, door, "demo", DEAD.id, now=NOON, expiry=expiry)


def expiry(now: datetime) -> datetime:
    return now + timedelta(days=90)


def test_what_is_kept_is_what_contacts_wrote_and_what_was_done_in_short() -> None:
    assert [kept.text for kept in DEAD.inputs] == ["One", "Two", "Three"], "the fourth was told to wait"
    assert [step.result and len(step.result) for step in DEAD.steps] == [RESULT_SHOWN, None]
    assert (DEAD.plan, DEAD.reason, DEAD.requeued_at) == (RUN.plan, "5 attempts in a row recorded nothing", None)
    assert decode(DeadRun, encode(DEAD)) == DEAD


def test_messages_that_are_put_back_are_new_ones_behind_what_was_answered() -> None:
    made = entries(DEAD, SESSION, NOON)
    first = made[0]

    assert [entry.text for entry in made] == ["One", "Two", "Three"]
    assert sorted(made, key=lambda entry: (entry.order, entry.received_at, entry.id)) == list(made)
    assert {entry.order for entry in made} == {900}
    assert not {entry.id for entry in made} & {kept.id for kept in DEAD.inputs}, "a run has seen those"
    assert (first.contact, first.provider_id, first.viewer) == (BEN, "m1", "uid")
    assert (first.posted_by, first.callback_url) == ("key", "https://a.b")
    assert entries(DEAD, SESSION, NOON) == made


async def test_a_dead_run_is_put_back_once(store: SqliteStore) -> None:
    await put(store, DEAD)
    await store.commit(KEY, None, state=state_bytes(SESSION), due=None)
    door = Door()

    assert (await again(store, door)).requeued_at == NOON
    assert [entry.text for entry in door.taken.values()] == ["One", "Two", "Three"]
    with pytest.raises(Gone, match="put back at 2026-11-20T12:00"):
        await again(store, door)
    assert (await dead_run(store, "demo", DEAD.id)).requeued_at == NOON


async def test_an_operator_whose_request_broke_off_may_send_it_again(store: SqliteStore) -> None:
    await put(store, DEAD)
    door = Door()
    door.down = True
    with pytest.raises(BusDown):
        await again(store, door)
    door.down = False
    await again(store, door)

    assert len(door.taken) == 3, "the same messages"


async def test_the_newest_stands_first_and_a_tenant_sees_its_own(store: SqliteStore) -> None:
    newer = replace(DEAD, number=2, at=NOON + timedelta(hours=1))
    for dead in (DEAD, newer, replace(DEAD, tenant="other")):
        await put(store, dead)

    assert await dead_runs(store, "demo", 10) == [newer, DEAD]
    assert await dead_runs(store, "demo", 1) == [newer]
    with pytest.raises(NotFound):
        await dead_run(store, "nobody", DEAD.id)
