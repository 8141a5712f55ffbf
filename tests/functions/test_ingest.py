"""What channels post: only an update of the bot gets in, and 200 means that it is in the store."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path

import functions_framework.aio
import pytest

from shared.channels.telegram import SECRET_HEADER
from shared.cli.embedded import AGENT, TENANT
from shared.config.demo import CONNECTION
from shared.domain import api_connection
from tests.functions.conftest import Lines, Stack, is_problem

ROOT = Path(__file__).parents[2]


async def test_a_message_is_answered(stack: Stack) -> None:
    answer = await stack.update(stack.simulator.update_message(77, "Where is order 1042?"))
    await stack.idle()

    assert (answer.status_code, answer.json()["status"]) == (200, "accepted")
    assert stack.shown() == ["Order 1042 is shipped with Correos and should arrive on 2026-11-24."]


@pytest.mark.parametrize("secret", ["", "wrong-secret", "ü"])
async def test_a_wrong_secret_is_refused_and_leaves_one_line_without_it(stack: Stack, log: Lines, secret: str) -> None:
    before, update = stack.rows(), json.dumps(stack.simulator.update_message(77, "Hello"))
    answer = await stack.http.post(
        f"/telegram/{CONNECTION}", content=update, headers={SECRET_HEADER.encode(): secret.encode()}
    )

    assert is_problem(answer, 401, SECRET_HEADER)
    assert stack.rows() == before
    assert len(log.lines) == 1
    assert not log.holding(secret or stack.secret, stack.secret)


async def test_a_missing_secret_is_refused(stack: Stack) -> None:
    before = stack.rows()
    answer = await stack.http.post(f"/telegram/{CONNECTION}", json=stack.simulator.update_message(77, "Hello"))

    assert is_problem(answer, 401, SECRET_HEADER)
    assert stack.rows() == before


async def test_the_secret_of_another_connection_is_refused(stack: Stack) -> None:
    other = stack.here.box.derive("telegram/another-bot")
    assert is_problem(await stack.update(stack.simulator.update_message(77, "Hello"), secret=other), 401)


@pytest.mark.parametrize("body", [b"", b"{", b"hello", b"\xff\xfe", b"[" * 50_000])
async def test_what_is_not_json_is_refused(stack: Stack, body: bytes) -> None:
    before = stack.rows()
    assert is_problem(await stack.update(body), 400, "body: not JSON")
    assert stack.rows() == before


@pytest.mark.parametrize(
    "body",
    [
        b"{}",
        b"[]",
        b'{"update_id": "x"}',
        b'{"update_id": 7, "message": 1}',
        '{"update_id": 7, "message": "ü"}'.encode(),
    ],
)
async def test_an_update_that_no_schema_fits_is_kept_aside_and_counted(stack: Stack, body: bytes) -> None:
    answer = await stack.update(body)
    again = await stack.update(body)
    kept = await stack.here.store.list(f"tenants/{TENANT}/unreadable")

    assert (answer.status_code, answer.json()) == (200, {"status": "unreadable"})
    assert again.status_code == 200
    assert [found for _, found in kept] == [body]
    assert (await stack.read("/health/detailed")).json()["unreadable_updates"] == 1


async def test_what_is_kept_aside_expires(stack: Stack) -> None:
    await stack.update(b"{}")
    stack.clock.advance(timedelta(days=90, seconds=1).total_seconds())
    await stack.update(b"[]")
    assert [body for _, body in await stack.here.store.list(f"tenants/{TENANT}/unreadable")] == [b"[]"]


async def test_what_an_unreadable_update_says_is_not_logged(stack: Stack, log: Lines) -> None:
    await stack.update({"update_id": 7, "message": {"message_id": "my secret wish", "text": "my secret wish"}})

    assert len(log.holding("kept aside as unreadable")) == 1
    assert not log.holding("my secret wish")


async def test_a_body_that_is_too_large_is_refused_before_all_of_it_is_read(stack: Stack) -> None:
    given = 0

    async def endless() -> AsyncIterator[bytes]:
        nonlocal given
        while given < 100:
            given += 1
            yield b" " * (1 << 18)

    answer = await stack.http.post(f"/telegram/{CONNECTION}", content=endless(), headers={SECRET_HEADER: stack.secret})

    assert is_problem(answer, 413, "1048576")
    assert given < 10


async def test_a_body_of_a_stranger_is_not_read_at_all(stack: Stack) -> None:
    async def unreadable() -> AsyncIterator[bytes]:
        raise AssertionError("read")
        yield b""

    assert is_problem(await stack.http.post(f"/telegram/{CONNECTION}", content=unreadable()), 401)


@pytest.mark.parametrize("connection", ["nobody", api_connection(TENANT, AGENT), "a.b", "%C3%BC"])
async def test_a_connection_that_is_not_a_telegram_bot_is_not_found(stack: Stack, connection: str) -> None:
    before = stack.rows()
    answer = await stack.http.post(f"/telegram/{connection}", json={}, headers={SECRET_HEADER: stack.secret})

    assert is_problem(answer, 404)
    assert stack.rows() == before


@pytest.mark.usefixtures("locked")
async def test_a_message_that_the_store_does_not_take_shall_be_sent_again(stack: Stack) -> None:
    before = stack.rows()
    answer = await stack.update(stack.simulator.update_message(77, "Hello"))

    assert is_problem(answer, 503)
    assert answer.headers["retry-after"] == "1"
    assert stack.rows() == before


@pytest.mark.usefixtures("locked")
async def test_an_unreadable_update_that_cannot_be_kept_shall_be_sent_again(stack: Stack) -> None:
    assert is_problem(await stack.update(b"{}"), 503)


async def test_the_same_update_again_makes_one_run_and_one_reply(stack: Stack) -> None:
    update = stack.simulator.update_message(77, "Hello")
    first = await stack.update(update)
    beside = await stack.update(update)
    await stack.idle()
    late = await stack.update(update)
    await stack.idle()

    assert [answer.status_code for answer in (first, beside, late)] == [200, 200, 200]
    assert len(stack.shown()) == len(stack.model.history) == 1
    assert stack.rows()["runs"] == 1


async def test_two_messages_at_once_are_both_answered_in_one_conversation(stack: Stack) -> None:
    first = await stack.update(stack.simulator.update_message(77, "Where is order 1042?"))
    second = await stack.update(stack.simulator.update_message(77, "And order 1041?"))
    await stack.idle()
    session = (await stack.read(f"/v1/sessions/{first.json()['session']}")).json()

    assert first.json()["session"] == second.json()["session"]
    assert (session["status"], session["inbox"]) == ("idle", 0)
    runs = (await stack.read(f"/v1/sessions/{first.json()['session']}/runs")).json()
    assert [message["text"] for run in reversed(runs) for message in run["inputs"]] == [
        "Where is order 1042?",
        "And order 1041?",
    ]


@pytest.mark.parametrize(
    "kind", ["edited_message", "channel_post", "my_chat_member", "inline_query", "kind_of_the_future"]
)
async def test_other_kinds_of_updates_are_ignored(stack: Stack, kind: str) -> None:
    before = stack.rows()
    answer = await stack.update({"update_id": 7, kind: {"message_id": 1}})

    assert (answer.status_code, answer.json()) == (200, {"status": "ignored"})
    assert stack.rows() == before


async def test_a_tap_approves_and_the_question_shows_it(stack: Stack) -> None:
    await stack.say("Please refund order 1042")
    question = stack.simulator.messages(77)[-1]
    data = question.buttons[0][0]["callback_data"]
    await stack.update(stack.simulator.update_tap(77, question.message_id, data))
    await stack.update(stack.simulator.update_tap(77, question.message_id, data))
    await stack.idle()

    assert len(stack.refunded) == 1
    assert stack.shown() == [
        "Approved (refund_order), by Ana.",
        "Order 1042 is refunded: 49.90 EUR is on its way back to you.",
    ]


async def test_whoever_did_not_ask_cannot_approve(stack: Stack) -> None:
    await stack.say("Please refund order 1042")
    question = stack.simulator.messages(77)[-1]
    tap = stack.simulator.update_tap(77, question.message_id, question.buttons[0][0]["callback_data"])
    tap["callback_query"]["from"]["id"] = 78
    await stack.update(tap)
    await stack.idle()

    assert stack.refunded == []


async def test_only_post_is_allowed_and_the_answer_says_so(stack: Stack) -> None:
    answer = await stack.http.get(f"/telegram/{CONNECTION}")

    assert is_problem(answer, 405)
    assert answer.headers["allow"] == "POST"


@pytest.mark.usefixtures("log")
@pytest.mark.parametrize(("path", "method", "status"), [(f"/telegram/{CONNECTION}", "GET", 405), ("/x", "POST", 404)])
async def test_behind_the_framework_the_errors_are_the_same(stack: Stack, path: str, method: str, status: int) -> None:
    source = str(ROOT / "functions/ingest/main.py")
    app = functions_framework.aio.create_asgi_app("ingest", source, "http")  # type: ignore[no-untyped-call]  # untyped
    async with stack.client(app) as client:
        assert is_problem(await client.request(method, path), status)


async def test_no_word_of_a_conversation_and_no_secret_is_logged(stack: Stack, log: Lines) -> None:
    await stack.say("Hello, I am Xaviera and my order is 1042")
    await stack.say("Please refund order 1042")
    question = stack.simulator.messages(77)[-1]
    tap = stack.simulator.update_tap(77, question.message_id, question.buttons[0][0]["callback_data"])
    await stack.update(tap)
    await stack.update(stack.simulator.update_message(77, "Hello Xaviera"), secret="wrong-secret")
    await stack.invoke({"input": "Xaviera again: where is order 1042?"})
    await stack.idle()

    assert len(stack.refunded) == 1
    assert len(log.holding("run finished")) == 3
    words = ("Xaviera", "1042", "Correos", "EUR", "wrong-secret", stack.secret)
    assert not log.holding(*words, *vars(stack.keys).values(), "recado-simulated-telegram-bot", "callbacks/")
