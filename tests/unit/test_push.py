import json
from typing import Any

import pytest

from shared.bus.push import parse_push
from shared.domain import SessionKey, Wake
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
