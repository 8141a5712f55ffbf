"""The push of receipts: 204 acknowledges, 503 brings the receipt again, and nobody but Pub/Sub gets in."""

from __future__ import annotations

import base64
from dataclasses import replace
from datetime import timedelta

import pytest

from shared.cli.embedded import TENANT
from shared.codec import encode
from shared.domain import Delivery, JsonObject, Receipt, session_key
from shared.sessions.document import Session, read, state_bytes
from tests.clock import NOON
from tests.functions.conftest import Stack, is_problem

FAILED = Receipt(
    key=session_key(TENANT, "demo-whatsapp", "16505551234"),
    delivery="3/reply/1",
    provider_id="wamid.1",
    status="failed",
    at=NOON,
    reason="131026 Message undeliverable",
)


@pytest.fixture
def emulator(stack: Stack) -> None:
    """Pushes come without a token, as the Pub/Sub emulator sends them."""
    stack.here.settings = replace(stack.here.settings, pubsub_emulator="127.0.0.1:1")


def envelope(receipt: Receipt = FAILED) -> JsonObject:
    data = base64.b64encode(encode(receipt)).decode()
    return {"message": {"messageId": "1", "data": data}, "subscription": "projects/p/subscriptions/deliveries"}


@pytest.mark.usefixtures("emulator")
async def test_a_failure_that_is_pushed_is_listed_once(stack: Stack) -> None:
    answers = [await stack.http.post("/deliveries", json=envelope()) for _ in range(2)]

    assert [(answer.status_code, answer.content) for answer in answers] == [(204, b"")] * 2
    (listed,) = (await stack.read("/v1/receipts")).json()
    assert (listed["delivery"], listed["at"]) == ("3/reply/1", "2026-11-20T12:00:00Z")


@pytest.mark.usefixtures("emulator")
async def test_a_receipt_settles_a_delivery_that_may_have_been_sent(stack: Stack) -> None:
    """As a process leaves it that dies while it sends."""
    doubtful = Delivery(id="1/reply/1", text="Hello", status="unknown", not_before=NOON + timedelta(seconds=30))
    session = Session(
        tenant=FAILED.key.tenant,
        id=FAILED.key.session,
        connection="demo-whatsapp",
        conversation="16505551234",
        outbox=(doubtful,),
    )
    await stack.here.store.commit(FAILED.key, None, state=state_bytes(session), due=None)
    sent = replace(FAILED, delivery="1/reply/1", status="sent", reason="")
    answers = [await stack.http.post("/deliveries", json=envelope(sent)) for _ in range(2)]
    await stack.idle()
    stored = await stack.here.store.load(FAILED.key)
    left = read(FAILED.key, stored) if stored is not None else None

    assert [answer.status_code for answer in answers] == [204, 204]
    assert left is not None
    assert (left.outbox, dict(left.inbox), left.unknown, left.repeated) == ((), {}, 0, 0)
    assert stack.dispatcher.whatsapp.messages("16505551234") == []


@pytest.mark.usefixtures("emulator")
@pytest.mark.parametrize(
    "body", [b"", b"{", b"[]", b'{"message": {}}', b'{"message": {"data": "?"}}', b'{"message": {"data": "e30="}}']
)
async def test_a_push_that_is_no_receipt_is_refused(stack: Stack, body: bytes) -> None:
    assert is_problem(await stack.http.post("/deliveries", content=body), 400, "not a Pub/Sub push")


@pytest.mark.usefixtures("emulator")
async def test_a_push_that_is_too_large_is_refused(stack: Stack) -> None:
    assert is_problem(await stack.http.post("/deliveries", content=b" " * (1 << 16) + b"{}"), 413)


async def test_off_the_emulator_a_push_without_a_token_is_refused(stack: Stack) -> None:
    assert is_problem(await stack.http.post("/deliveries", json=envelope()), 401, "push: ")
    assert (await stack.read("/v1/receipts")).json() == []


@pytest.mark.usefixtures("emulator", "locked")
async def test_a_receipt_that_the_store_does_not_take_comes_again(stack: Stack) -> None:
    assert is_problem(await stack.http.post("/deliveries", json=envelope()), 503)


@pytest.mark.parametrize("limit", ["0", "1001", "x"])
async def test_a_limit_out_of_range_is_refused_by_name(stack: Stack, limit: str) -> None:
    assert is_problem(await stack.read(f"/v1/receipts?limit={limit}"), 400, "limit")
