"""Which receipts are kept, which of them a session is told, and how operators find the failures."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from shared.domain import Delivery, Entry, Receipt, SessionKey, session_key
from shared.errors import BusDown, StoreDown
from shared.sessions.document import Session, state_bytes
from shared.sessions.receipts import failures, record
from shared.store.sqlite import SqliteStore
from tests.clock import NOON, FakeClock

KEY = session_key("demo", "shop", "16505551234")
FAILED = Receipt(
    key=KEY,
    delivery="3/reply/1",
    provider_id="wamid.1",
    status="failed",
    at=NOON,
    reason="131047 Re-engagement message",
)
SENT = replace(FAILED, status="sent", reason="")
UNTIL = NOON + timedelta(days=90)


class Door:
    """Takes entries as `accept` does; while `down`, it takes none."""

    def __init__(self) -> None:
        self.entries: list[Entry] = []
        self.down = False

    async def __call__(self, key: SessionKey, entry: Entry) -> None:
        if self.down:
            raise BusDown("the bus is down")
        assert key == KEY
        self.entries.append(entry)


class Counted(SqliteStore):
    """The embedded store, with what was asked of it."""

    def __init__(self, path: Path) -> None:
        super().__init__(path, clock=FakeClock())
        self.calls: list[str] = []

    async def load(self, key: SessionKey) -> Any:
        self.calls.append("load")
        return await super().load(key)

    async def put(self, *arguments: Any) -> None:
        self.calls.append("put")
        await super().put(*arguments)


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[Counted]:
    store = Counted(tmp_path / "sessions.db")
    yield store
    await store.aclose()


@pytest.fixture
def door() -> Door:
    return Door()


async def have(store: Counted, *outbox: Delivery) -> None:
    """Store the session with these deliveries on their way."""
    session = Session(tenant=KEY.tenant, id=KEY.session, connection="shop", conversation="16505551234", outbox=outbox)
    await store.commit(KEY, None, state=state_bytes(session), due=None)


def on_its_way(status: Any) -> Delivery:
    return Delivery(id="3/reply/1", text="Hello", status=status)


async def test_a_failed_delivery_is_kept_once_and_told(
    store: Counted, door: Door, caplog: pytest.LogCaptureFixture
) -> None:
    for _ in range(2):
        await record(store, door, FAILED, NOON, UNTIL)

    assert await failures(store, "demo", 10) == [FAILED]
    assert [line.levelno for line in caplog.records] == [logging.WARNING] * 2
    assert door.entries == []


@pytest.mark.parametrize(("status", "cost"), [("sent", ["load"]), ("delivered", []), ("read", [])])
async def test_what_went_well_costs_a_read_at_most(store: Counted, door: Door, status: Any, cost: list[str]) -> None:
    await have(store)
    await record(store, door, replace(SENT, status=status), NOON, UNTIL)

    assert (store.calls, door.entries) == (cost, [])


@pytest.mark.parametrize("status", ["sending", "unknown"])
@pytest.mark.parametrize("receipt", [SENT, FAILED])
async def test_a_session_that_does_not_know_whether_it_was_sent_is_told(
    store: Counted, door: Door, status: str, receipt: Receipt
) -> None:
    await have(store, on_its_way("pending"), on_its_way(status))
    for _ in range(2):
        await record(store, door, receipt, NOON, UNTIL)

    first, again = door.entries
    assert first == again
    assert (first.kind, first.receipt, first.conversation) == ("receipt", receipt, "16505551234")
    assert bool(await failures(store, "demo", 10)) == (receipt is FAILED)


async def test_that_it_failed_after_it_was_sent_is_another_entry(store: Counted, door: Door) -> None:
    await have(store, on_its_way("unknown"))
    for receipt in (SENT, FAILED):
        await record(store, door, receipt, NOON, UNTIL)

    assert len({entry.id for entry in door.entries}) == 2


async def test_a_session_that_knows_is_not_woken(store: Counted, door: Door) -> None:
    other = replace(on_its_way("sending"), id="3/reply/2")
    await have(store, on_its_way("pending"), other)
    await record(store, door, SENT, NOON, UNTIL)

    assert door.entries == []


async def test_a_session_that_cannot_be_told_lets_the_receipt_come_again(store: Counted, door: Door) -> None:
    await have(store, on_its_way("unknown"))
    door.down = True
    with pytest.raises(BusDown):
        await record(store, door, FAILED, NOON, UNTIL)

    assert await failures(store, "demo", 10) == [], "else its second coming would look like one that was dealt with"


async def test_the_newest_stands_first_and_a_tenant_sees_its_own(store: Counted, door: Door) -> None:
    later = replace(FAILED, delivery="4/reply/1", at=NOON + timedelta(hours=1))
    for receipt in (FAILED, later, replace(FAILED, key=session_key("other", "shop", "1"))):
        await record(store, door, receipt, NOON, UNTIL)

    assert await failures(store, "demo", 10) == [later, FAILED]


async def test_a_store_that_is_down_is_not_hidden(tmp_path: Path, door: Door) -> None:
    store = SqliteStore(tmp_path)  # a folder is no file
    with pytest.raises(StoreDown):
        await record(store, door, FAILED, NOON, UNTIL)
    await store.aclose()
