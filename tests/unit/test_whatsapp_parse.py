"""What Meta posts, in its own shapes, and what becomes of each piece."""

from __future__ import annotations

import hashlib
import hmac
import json
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from shared.channels.whatsapp import (
    SEEN_FOR,
    Change,
    entries,
    handshake,
    parse,
    read_reference,
    receipts,
    reference,
    verify,
)
from shared.domain import Connection, Contact, Entry, Receipt, SessionKey, digest, session_key
from shared.errors import BadRequest, Forbidden, Unauthenticated, Unreadable

NOW = datetime(2026, 11, 20, 12, 0, tzinfo=UTC)
CONNECTION = Connection(
    id="shop", tenant="demo", channel="whatsapp", agent="demo", plan="0" * 64, app="meta", number="1065"
)
PHONE, BSUID = "16505551234", "US.13491208655302741918"
PERSON = {"profile": {"name": "Ana Sá"}, "wa_id": PHONE}
KEY = session_key("demo", "shop", PHONE)


def message(**fields: Any) -> dict[str, Any]:
    content = {} if "type" in fields else {"type": "text", "text": {"body": "Hello"}}
    return {"from": PHONE, "id": "wamid.1", "timestamp": "1795000000", **content, **fields}


def status(**fields: Any) -> dict[str, Any]:
    known = {"id": "wamid.9", "status": "sent", "timestamp": "1795000000", "recipient_id": PHONE}
    return {**known, "biz_opaque_callback_data": reference(KEY, "3/reply/1"), **fields}


def value(number: str = "1065", **content: Any) -> dict[str, Any]:
    metadata = {"display_phone_number": "15550783881", "phone_number_id": number}
    return {"messaging_product": "whatsapp", "metadata": metadata, **content}


def posted(*changes: Any, field: str = "messages") -> bytes:
    """One entry for each of the changes' values."""
    made = [{"id": "waba", "changes": [{"field": field, "value": change}]} for change in changes]
    return json.dumps({"object": "whatsapp_business_account", "entry": made}).encode()


def change_of(*messages: Any, people: tuple[Any, ...] = (PERSON,)) -> Change:
    (change,) = parse(posted(value(contacts=list(people), messages=list(messages))))
    return change


def entry(*, people: tuple[Any, ...] = (PERSON,), **fields: Any) -> Entry | None:
    found = entries(change_of(message(**fields), people=people), CONNECTION, NOW)
    return found[0] if found else None


def receipt(**fields: Any) -> Receipt | None:
    (change,) = parse(posted(value(statuses=[status(**fields)])))
    found = receipts(change, CONNECTION)
    return found[0] if found else None


def test_a_text_becomes_a_message_of_its_contact() -> None:
    assert entry() == Entry(
        id=digest("shop", "wamid.1"),
        kind="message",
        connection="shop",
        conversation=PHONE,
        order=1_795_000_000,
        received_at=NOW,
        contact=Contact(id=PHONE, name="Ana Sá"),
        text="Hello",
        provider_id="wamid.1",
        seen_for=SEEN_FOR,
    )
    assert timedelta(days=7) < SEEN_FOR


def test_whoever_has_a_user_id_is_known_by_it_with_or_without_a_phone_number() -> None:
    hidden = {"profile": {"name": "", "username": "ana"}, "user_id": BSUID}
    both = {**PERSON, "user_id": BSUID}
    without = {"from_user_id": BSUID, "id": "wamid.1", "timestamp": "1", "type": "text", "text": {"body": "Hi"}}

    (alone,) = entries(change_of(without, people=(hidden,)), CONNECTION, NOW)
    beside = entry(from_user_id=BSUID, people=(both,))
    looked_up = entry(people=(both,))

    assert (alone.conversation, alone.contact) == (BSUID, Contact(id=BSUID, name="ana"))
    for found in (beside, looked_up):
        assert found is not None
        assert (found.conversation, found.contact) == (BSUID, Contact(id=BSUID, name="Ana Sá"))


def test_every_level_of_a_post_is_read_and_grouped_by_number() -> None:
    one = value(contacts=[PERSON], messages=[message(id="a"), message(id="b")])
    two = value("2065", messages=[message(id="c")])
    body = json.loads(posted(one, two))
    body["entry"][0]["changes"].append({"field": "messages", "value": value(messages=[message(id="d")])})
    body["entry"][1]["changes"].append({"field": "messages", "value": value(statuses=[status(), status(id="x")])})

    first, second = parse(json.dumps(body).encode())

    assert (first.number, [found.id for found in first.messages], len(first.statuses)) == ("1065", ["a", "b", "d"], 2)
    assert (second.number, [found.id for found in second.messages]) == ("2065", ["c"])


def test_within_a_second_messages_keep_the_order_of_arrival() -> None:
    found = entries(change_of(*(message(id=id_) for id_ in "zay")), CONNECTION, NOW)

    assert sorted(found, key=lambda entry: (entry.order, entry.received_at, entry.id)) == found


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"type": "image", "image": {"id": "1", "mime_type": "image/jpeg"}}, "[image, not read]"),
        ({"type": "image", "image": {"id": "1", "caption": "My invoice"}}, "[image, not read]\nMy invoice"),
        ({"type": "audio", "audio": {"id": "1", "voice": True}}, "[voice message, not read]"),
        ({"type": "audio", "audio": {"id": "1", "voice": False}}, "[audio file, not read]"),
        ({"type": "document", "document": {"id": "1", "filename": "a.pdf"}}, "[document, not read]"),
        ({"type": "sticker", "sticker": {"id": "1", "animated": False}}, "[sticker, not read]"),
        ({"type": "location", "location": {"latitude": 1.5, "longitude": 2.5}}, "[location, not read]"),
        ({"type": "contacts", "contacts": [{"name": {"formatted_name": "Bo"}}]}, "[contact card, not read]"),
        (
            {"type": "interactive", "interactive": {"type": "nfm_reply", "nfm_reply": {"response_json": "{}"}}},
            "[form, not read]",
        ),
        (
            {
                "type": "interactive",
                "interactive": {"type": "list_reply", "list_reply": {"id": "7", "title": "Size M"}},
            },
            "Size M",
        ),
        ({"type": "button", "button": {"text": "Stop", "payload": "stop"}}, "Stop"),
    ],
)
def test_what_cannot_be_read_is_said_and_never_dropped(fields: dict[str, Any], said: str) -> None:
    found = entry(**fields)

    assert found is not None
    assert (found.kind, found.text) == ("message", said)


@pytest.mark.parametrize("text", ["/stop", "/Stop", "/stop "])
def test_stop_alone_is_a_stop_and_otherwise_what_a_message_would_be(text: str) -> None:
    stop, said = entry(text={"body": text}), entry()

    assert said is not None
    assert stop == replace(said, kind="stop", text=text)


@pytest.mark.parametrize("text", ["stop", "/stop now", "do not /stop"])
def test_whatever_else_has_the_word_in_it_is_a_message(text: str) -> None:
    found = entry(text={"body": text})

    assert found is not None
    assert (found.kind, found.text) == ("message", text)


@pytest.mark.parametrize(
    "fields",
    [
        {"type": "reaction", "reaction": {"message_id": "wamid.0", "emoji": "👍"}},
        {"type": "system", "system": {"type": "user_changed_number", "body": "Ana changed", "wa_id": "1"}},
        {"type": "unsupported", "errors": [{"code": 131051}], "unsupported": {"type": "poll_update"}},
        {"type": "something_of_next_year", "something": {"id": 1}},
        {"type": "interactive", "interactive": {"type": "call_permission_reply", "call_permission_reply": {}}},
    ],
)
def test_what_no_agent_answers_is_left_out_but_still_counted(fields: dict[str, Any]) -> None:
    change = change_of(message(**fields))

    assert (len(change.messages), change.unreadable) == (1, ())
    assert entries(change, CONNECTION, NOW) == []


@pytest.mark.parametrize(
    ("content", "approved"),
    [
        ({"type": "interactive", "interactive": {"type": "button_reply", "button_reply": {"id": "a:t1:y"}}}, True),
        ({"type": "interactive", "interactive": {"type": "list_reply", "list_reply": {"id": "a:t1:n"}}}, False),
        ({"type": "button", "button": {"text": "Yes", "payload": "a:t1:y"}}, True),
    ],
)
def test_a_tap_on_an_approval_becomes_its_verdict_and_is_answered_by_quoting_it(
    content: dict[str, Any],
    approved: bool,  # noqa: FBT001 a parameter set
) -> None:
    found = entry(**content)

    assert found is not None
    assert (found.kind, found.token, found.approved, found.tap, found.text) == (
        "verdict",
        "t1",
        approved,
        "wamid.1",
        "",
    )
    assert found.contact == Contact(id=PHONE, name="Ana Sá")


def test_an_unreadable_piece_takes_nothing_else_with_it() -> None:
    bad = {"id": "wamid.2", "type": "text", "timestamp": "1", "from": PHONE, "text": {"body": ["sesame"]}}
    nobody = {"id": "wamid.3", "type": "text", "timestamp": "1", "text": {"body": "from nobody"}}
    content = value(contacts=["?", PERSON], messages=[bad, message(), nobody, 7], statuses=[{"id": "x"}, status()])
    change, nowhere = parse(posted(content, {"metadata": {"phone_number_id": "../x"}}, "sesame"))

    assert [found.text for found in entries(change, CONNECTION, NOW)] == ["Hello"]
    assert len(receipts(change, CONNECTION)) == 1
    assert [aside.reason.partition(": ")[0] for aside in change.unreadable] == [
        "person.body",
        "message.text.body",
        "message.body",
        "message.body",
        "status.status",
    ]
    assert json.loads(change.unreadable[1].body) == bad
    assert "sesame" not in "".join(aside.reason for aside in (*change.unreadable, *nowhere.unreadable))
    assert (nowhere.number, len(nowhere.unreadable)) == ("", 2)


@pytest.mark.parametrize("broken", ["?", {"changes": 1}, {"id": "waba", "changes": ["?", 7]}])
def test_an_unreadable_level_takes_nothing_else_with_it(broken: Any) -> None:
    body = json.loads(posted(value(messages=[message()])))
    body["entry"].insert(0, broken)

    change, nowhere = parse(json.dumps(body).encode())

    assert len(change.messages) == 1
    assert nowhere.unreadable


def test_other_fields_than_messages_are_left_out() -> None:
    assert parse(posted({"event": "FLAGGED"}, field="account_update")) == ()


@pytest.mark.parametrize("body", [b"", b"hello", b"\xff\xfe", b"[" * 10_000])
def test_a_body_that_is_not_json_is_a_bad_request(body: bytes) -> None:
    with pytest.raises(BadRequest) as refused:
        parse(body)

    assert type(refused.value) is BadRequest


@pytest.mark.parametrize(
    "body", [b"[]", b"{}", b'{"object": "page", "entry": []}', b'{"object": 1, "entry": "sesame"}']
)
def test_json_that_is_no_post_of_whatsapp_is_unreadable(body: bytes) -> None:
    with pytest.raises(Unreadable) as refused:
        parse(body)

    assert "sesame" not in str(refused.value)


def test_a_status_with_our_reference_is_a_receipt() -> None:
    errors = [{"code": 131047, "title": "Re-engagement message", "message": "x"}, {"code": 131026}]

    assert receipt(status="failed", errors=errors) == Receipt(
        key=KEY,
        delivery="3/reply/1",
        provider_id="wamid.9",
        status="failed",
        at=datetime.fromtimestamp(1_795_000_000, UTC),
        reason="131047 Re-engagement message; 131026",
    )


def test_played_is_read() -> None:
    found = receipt(status="played")

    assert found is not None
    assert found.status == "read"


@pytest.mark.parametrize(
    "fields",
    [
        {"biz_opaque_callback_data": ""},
        {"biz_opaque_callback_data": "campaign-7"},
        {"biz_opaque_callback_data": reference(SessionKey("other", KEY.session), "3/reply/1")},
        {"biz_opaque_callback_data": "demo/../3"},
        {"status": "deleted"},
    ],
)
def test_a_status_that_is_not_about_a_delivery_of_this_tenant_is_left_out(fields: dict[str, Any]) -> None:
    assert receipt(**fields) is None


def test_a_reference_says_which_delivery_it_names() -> None:
    named = reference(KEY, "3/approve-tool-1.0/settled")

    assert read_reference(named) == (KEY, "3/approve-tool-1.0/settled")
    assert len(named) < 512


BODY = '{"name": "Sá"}'.encode()


def sign(secret: str, body: bytes = BODY) -> str:
    return "sha256=" + hmac.new(secret.encode(), body, hashlib.sha256).hexdigest()


def test_the_apps_signature_over_these_bytes_is_let_in() -> None:
    verify("right", BODY, sign("right"))


@pytest.mark.parametrize(
    ("secret", "signature"),
    [
        ("right", None),
        ("right", ""),
        ("right", "sha256="),
        ("right", sign("wrong")),
        ("right", sign("right").removeprefix("sha256=")),
        ("right", sign("right", b"{}")),
        ("right", "ü"),
        ("", sign("")),
    ],
)
def test_any_other_signature_is_refused(secret: str, signature: str | None) -> None:
    with pytest.raises(Unauthenticated, match="X-Hub-Signature-256"):
        verify(secret, BODY, signature)


def test_the_handshake_gives_the_challenge_back() -> None:
    query = {"hub.mode": "subscribe", "hub.verify_token": "v", "hub.challenge": "1158201444"}

    assert handshake("v", query) == "1158201444"
    for wrong in ({"hub.verify_token": "w"}, {"hub.verify_token": "ü"}, {"hub.mode": "unsubscribe"}):
        with pytest.raises(Forbidden):
            handshake("v", query | wrong)
    for token, asked in (("", query | {"hub.verify_token": ""}), ("v", {})):
        with pytest.raises(Forbidden):
            handshake(token, asked)


def test_the_same_message_again_has_the_same_id_and_another_connections_has_not() -> None:
    change = change_of(message())
    (first,), (again,) = entries(change, CONNECTION, NOW), entries(change, CONNECTION, NOW + timedelta(days=1))
    (other,) = entries(change, replace(CONNECTION, id="other"), NOW)

    assert first.id == again.id != other.id
