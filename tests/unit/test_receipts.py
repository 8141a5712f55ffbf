"""Which receipts are kept, and how operators find them."""

from __future__ import annotations

import logging
from dataclasses import replace
from datetime import timedelta

import pytest

from shared.domain import Receipt, session_key
from shared.errors import StoreDown
from shared.sessions.receipts import failures, record
from tests.clock import NOON
from tests.fakes import FakeDocuments

FAILED = Receipt(
    key=session_key("demo", "shop", "16505551234"),
    delivery="3/reply/1",
    provider_id="wamid.1",
    status="failed",
    at=NOON,
    reason="131047 Re-engagement message",
)
UNTIL = NOON + timedelta(days=90)


async def test_a_failed_delivery_is_kept_once_and_told(caplog: pytest.LogCaptureFixture) -> None:
    documents = FakeDocuments()
    await record(documents, FAILED, UNTIL)
    await record(documents, FAILED, UNTIL)

    assert await failures(documents, "demo", 10) == [FAILED]
    assert list(documents.expiries.values()) == [UNTIL]
    assert [line.levelno for line in caplog.records] == [logging.WARNING] * 2


@pytest.mark.parametrize("status", ["sent", "delivered", "read"])
async def test_what_went_well_costs_no_write(status: str) -> None:
    documents = FakeDocuments()
    await record(documents, replace(FAILED, status=status), UNTIL)  # type: ignore[arg-type]  # one of them

    assert documents.writes == []


async def test_the_newest_stands_first_and_a_tenant_sees_its_own() -> None:
    documents = FakeDocuments()
    later = replace(FAILED, delivery="4/reply/1", at=NOON + timedelta(hours=1))
    for receipt in (FAILED, later, replace(FAILED, key=session_key("other", "shop", "1"))):
        await record(documents, receipt, UNTIL)

    assert await failures(documents, "demo", 10) == [later, FAILED]


async def test_a_store_that_is_down_is_not_hidden() -> None:
    documents = FakeDocuments()
    documents.down = True
    with pytest.raises(StoreDown):
        await record(documents, FAILED, UNTIL)
