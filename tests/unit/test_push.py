import base64
import json
from datetime import UTC, datetime
from typing import Any

import pytest

from shared.bus.push import parse_push, parse_receipt, parse_result
from shared.codec import encode
from shared.domain import Receipt, Result, SessionKey, Wake
from shared.errors import BadRequest

SESSION = "0123456789abcdef" * 2
ATTRIBUTES = {"tenant": "demo", "session": SESSION}


def envelope(**message: Any) -> bytes:
    return json.dumps({"message": message, "subscription": "projects/p/subscriptions/wakes-push"}).encode()


def test_an_envelope_is_a_wake_of_the_session_in_its_attributes() -> None:
    body = envelope(messageId="17", message_id="17", publishTime="2026-11-20T12:00:00Z", attributes=ATTRIBUTES)
    assert parse_push(body) == Wake(key=SessionKey("demo", SESSION), id="17")


@pytest.mark.parametrize("name", ["messageId", "message_id"])
def test_either_spelling_of_the_id_is_enough(name: str) -> None:
    assert parse_push(envelope(**{name: "17"}, attributes=ATTRIBUTES)).id == "17"


@pytest.mark.parametrize(
    ("body", "field"),
    [
        (b"", "body"),
        (b"\xff", "body"),
        (b"[]", "body"),
        (b"{}", "message"),
        (envelope(attributes=ATTRIBUTES), "message.messageId"),
        (envelope(messageId="17"), "message.attributes"),
        (envelope(messageId="17", attributes={"session": SESSION}), "message.attributes.tenant"),
        (envelope(messageId="17", attributes={"tenant": "demo"}), "message.attributes.session"),
        (envelope(messageId="17", attributes=ATTRIBUTES | {"session": "../other"}), "message.attributes.session"),
        (envelope(messageId="17", attributes=ATTRIBUTES | {"tenant": "a/sessions/b"}), "message.attributes.tenant"),
    ],
)
def test_anything_else_is_refused_by_the_field_that_does_not_fit(body: bytes, field: str) -> None:
    with pytest.raises(BadRequest, match=rf"^not a Pub/Sub push: {field}: "):
        parse_push(body)


def test_the_data_of_an_envelope_is_a_receipt() -> None:
    at = datetime(2026, 11, 20, tzinfo=UTC)
    receipt = Receipt(
        key=SessionKey("demo", SESSION), delivery="1/reply/1", provider_id="w", status="failed", at=at, reason="Ü"
    )
    assert parse_receipt(envelope(messageId="1", data=base64.b64encode(encode(receipt)).decode())) == receipt


def test_the_data_of_an_envelope_is_a_result() -> None:
    result = Result(
        key=SessionKey("demo", SESSION),
        conversation="s",
        run=1,
        message="m",
        url="https://shop.example/",
        outcome="answered",
        text="Ü",
    )
    assert parse_result(envelope(messageId="1", data=base64.b64encode(encode(result)).decode())) == result


@pytest.mark.parametrize(
    ("body", "field"),
    [
        (b"", "body"),
        (b"{}", "message"),
        (envelope(messageId="1"), "message.data"),
        (envelope(data="x"), "message.data"),
        (envelope(data=base64.b64encode(b"sesame").decode()), "body"),
        (envelope(data=base64.b64encode(b"{}").decode()), "body: [^:]+`key`"),
    ],
)
def test_anything_else_is_no_receipt(body: bytes, field: str) -> None:
    with pytest.raises(BadRequest, match=rf"^not a Pub/Sub push: {field}[:;] ") as refused:
        parse_receipt(body)
    assert "sesame" not in str(refused.value)
