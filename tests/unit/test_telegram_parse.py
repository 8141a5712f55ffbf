"""Updates in the shapes in which Telegram posts them, and what becomes of each."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest

from shared.channels.telegram import parse, verify
from shared.domain import Connection, Contact, Entry, digest
from shared.errors import BadRequest, Unauthenticated, Unreadable

NOW = datetime(2026, 11, 20, 12, 0, tzinfo=UTC)
CONNECTION = Connection(id="shop-bot", tenant="demo", channel="telegram", agent="demo", plan="0" * 64)
ANA = {"id": 77, "is_bot": False, "first_name": "Ana", "last_name": "Sá", "username": "ana", "language_code": "pt-br"}
PRIVATE = {"id": 77, "first_name": "Ana", "last_name": "Sá", "username": "ana", "type": "private"}
GROUP = {"id": -1001234, "title": "Team", "type": "supergroup"}
FORUM = {**GROUP, "is_forum": True}
BOT = {"id": 4242, "is_bot": True, "first_name": "Shop", "username": "shop_bot"}


def message(**fields: Any) -> dict[str, Any]:
    return {"message_id": 5, "from": ANA, "chat": PRIVATE, "date": 1_795_000_000, **fields}


def entry(**kinds: Any) -> Entry | None:
    return parse(json.dumps({"update_id": 900_100, **kinds}).encode(), CONNECTION, NOW)


def text_of(**fields: Any) -> str:
    found = entry(message=message(**fields))
    assert found is not None
    return found.text


def conversation_of(**fields: Any) -> str:
    found = entry(message=message(text="hi", **fields))
    assert found is not None
    return found.conversation


def tap(data: str, **fields: Any) -> Entry | None:
    under = {"message_id": 6, "from": BOT, "chat": PRIVATE, "date": 1_795_000_001, "text": "Refund?"}
    query = {"id": "3307", "from": ANA, "message": under, "chat_instance": "-88", "data": data, **fields}
    return entry(callback_query=query)


def test_a_private_text_becomes_a_message_of_its_contact() -> None:
    found = entry(
        message=message(text="Where is order 1042?", entities=[{"type": "hashtag", "offset": 0, "length": 1}])
    )

    assert found == Entry(
        id=digest("shop-bot", "900100"),
        kind="message",
        connection="shop-bot",
        conversation="77",
        order=900_100,
        received_at=NOW,
        contact=Contact(id="77", name="Ana Sá", language="pt-br"),
        text="Where is order 1042?",
    )


@pytest.mark.parametrize("text", ["/stop", "/STOP", " /stop\n", "/stop@shop_bot", "/Stop@Shop_Bot"])
def test_stop_alone_is_a_stop_and_otherwise_what_a_message_would_be(text: str) -> None:
    stop, said = entry(message=message(text=text)), entry(message=message(text="hi"))

    assert said is not None
    assert stop == replace(said, kind="stop", text=text)


@pytest.mark.parametrize("text", ["stop", "/stop it", "/stopp", "please /stop", "/stop@", "/stop @bot", "/stop\n/stop"])
def test_whatever_else_has_the_word_in_it_is_a_message(text: str) -> None:
    found = entry(message=message(text=text))

    assert found is not None
    assert (found.kind, found.text) == ("message", text)


def test_the_same_update_again_has_the_same_id_and_another_bots_has_not() -> None:
    body = json.dumps({"update_id": 1, "message": message(text="hi")}).encode()
    other = Connection(id="other-bot", tenant="demo", channel="telegram", agent="demo", plan="0" * 64)

    first, again, others = (parse(body, connection, NOW) for connection in (CONNECTION, CONNECTION, other))

    assert first == again
    assert first is not None
    assert others is not None
    assert first.id != others.id


def test_a_contact_without_a_name_is_called_by_username_and_may_have_no_language() -> None:
    found = entry(
        message=message(text="hi", **{"from": {"id": 8, "is_bot": False, "first_name": "", "username": "zed"}})
    )

    assert found is not None
    assert found.contact == Contact(id="8", name="zed")


def test_each_topic_is_a_conversation_and_a_reply_thread_is_not() -> None:
    assert conversation_of(chat=FORUM, message_thread_id=12, is_topic_message=True) == "-1001234:12"
    assert conversation_of(chat=PRIVATE, message_thread_id=3, is_topic_message=True) == "77:3"
    assert conversation_of(chat=GROUP, message_thread_id=12) == "-1001234"
    assert conversation_of(chat=GROUP) == "-1001234"


def test_the_general_topic_of_a_forum_which_updates_do_not_name_is_topic_one() -> None:
    assert conversation_of(chat=FORUM) == "-1001234:1"


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ({"voice": {"file_id": "A", "file_unique_id": "a", "duration": 3}}, "[voice message, not read]"),
        ({"photo": [{"file_id": "A", "file_unique_id": "a", "width": 9, "height": 9}]}, "[photo, not read]"),
        ({"animation": {"file_id": "A"}, "document": {"file_id": "A"}}, "[animation, not read]"),
        ({"venue": {"title": "Home"}, "location": {"latitude": 1.5, "longitude": 2.5}}, "[venue, not read]"),
        ({"sticker": {"file_id": "A", "emoji": "👍"}}, "[sticker, not read]"),
    ],
)
def test_what_cannot_be_read_is_said_and_never_dropped(content: dict[str, Any], said: str) -> None:
    assert text_of(**content) == said


def test_a_caption_is_read_and_what_it_stands_under_is_named() -> None:
    assert text_of(document={"file_id": "A"}, caption="My invoice") == "[document, not read]\nMy invoice"


@pytest.mark.parametrize(("data", "approved"), [("a:0123abcd:y", True), ("a:0123abcd:n", False)])
def test_a_tap_on_an_approval_becomes_its_verdict(data: str, approved: bool) -> None:  # noqa: FBT001 a parameter set
    found = tap(data)

    assert found == Entry(
        id=digest("shop-bot", "900100"),
        kind="verdict",
        connection="shop-bot",
        conversation="77",
        order=900_100,
        received_at=NOW,
        contact=Contact(id="77", name="Ana Sá", language="pt-br"),
        token="0123abcd",
        approved=approved,
        tap="3307",
    )


def test_a_tap_in_a_topic_belongs_to_the_topics_conversation() -> None:
    under = {"message_id": 6, "chat": FORUM, "date": 1, "message_thread_id": 12, "is_topic_message": True}
    found = tap("a:t:y", message=under)

    assert found is not None
    assert found.conversation == "-1001234:12"


@pytest.mark.parametrize("data", ["", "menu", "a:t:maybe", "a::y", "a:" + "t" * 61 + ":y", "a:t:y\n"])
def test_a_tap_on_any_other_button_is_none_of_our_business(data: str) -> None:
    assert tap(data) is None


def test_a_tap_under_an_inline_message_is_none_of_our_business() -> None:
    assert entry(callback_query={"id": "1", "from": ANA, "inline_message_id": "x", "data": "a:t:y"}) is None


@pytest.mark.parametrize(
    "kinds",
    [
        {"edited_message": message(text="changed", edit_date=1_795_000_009)},
        {"my_chat_member": {"chat": PRIVATE, "from": ANA, "date": 1, "new_chat_member": {"status": "kicked"}}},
        {"channel_post": {"message_id": 1, "chat": {"id": -1009, "type": "channel"}, "date": 1, "text": "news"}},
        {"message": message(text="news", is_automatic_forward=True)},
        {"message": message(text="beep", **{"from": BOT})},
        {"message": {"message_id": 1, "chat": GROUP, "date": 1, "text": "from nobody"}},
        {"message": message(new_chat_members=[ANA])},
        {"message": message(forum_topic_created={"name": "x", "icon_color": 1})},
        {"something_of_next_year": {"id": 1}},
        {},
    ],
)
def test_well_formed_updates_that_no_agent_answers_are_none(kinds: dict[str, Any]) -> None:
    assert entry(**kinds) is None


@pytest.mark.parametrize("body", [b"", b"hello", b'{"update_id":', b"\xff\xfe", b"[" * 10_000])
def test_a_body_that_is_not_json_is_a_bad_request(body: bytes) -> None:
    with pytest.raises(BadRequest) as refused:
        parse(body, CONNECTION, NOW)

    assert type(refused.value) is BadRequest


@pytest.mark.parametrize(
    ("update", "field"),
    [
        ([], "body"),
        (7, "body"),
        ({}, "update_id"),
        ({"update_id": "7"}, "update_id"),
        ({"update_id": 7.5}, "update_id"),
        ({"update_id": True}, "update_id"),
        ({"update_id": 7, "message": "sesame"}, "message"),
        ({"update_id": 7, "message": {"message_id": 1, "text": "sesame"}}, "message.chat"),
        ({"update_id": 7, "message": {"message_id": 1, "chat": {"id": 1}, "text": ["sesame"]}}, "message.text"),
        ({"update_id": 7, "callback_query": {"id": 5, "from": {"id": 1}}}, "callback_query.id"),
    ],
)
def test_json_that_is_no_update_is_unreadable_and_the_error_names_the_field_alone(update: object, field: str) -> None:
    with pytest.raises(Unreadable) as refused:
        parse(json.dumps(update).encode(), CONNECTION, NOW)

    assert str(refused.value).startswith(f"{field}: ")
    assert "sesame" not in str(refused.value)
    assert refused.value.__cause__ is None
    assert refused.value.__context__ is None


def test_the_expected_secret_is_let_in() -> None:
    verify("s" * 64, "s" * 64)


@pytest.mark.parametrize(
    ("expected", "presented"), [("right", None), ("right", ""), ("right", "wrong"), ("", ""), ("", None), ("a", "ü")]
)
def test_any_other_secret_is_refused_without_being_repeated(expected: str, presented: str | None) -> None:
    with pytest.raises(Unauthenticated) as refused:
        verify(expected, presented)

    assert "right" not in str(refused.value)
