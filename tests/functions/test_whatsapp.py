"""What Meta posts: signed by the app, of many numbers and tenants at once, and statuses never in the way."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest

from shared.bus.local import LocalBus
from shared.channels.whatsapp import SIGNATURE_HEADER
from shared.cli.embedded import WHATSAPP_APP_SECRET, WHATSAPP_NUMBER, WHATSAPP_TOKEN, WHATSAPP_VERIFY_TOKEN
from shared.cli.simulators.whatsapp import WhatsAppSimulator, envelope
from shared.config.demo import TENANT, WHATSAPP_APP, WHATSAPP_CONNECTION
from shared.config.drafts import ConnectionDraft
from shared.config.publishing import publish
from shared.domain import JsonObject, session_key
from tests.functions.conftest import OTHER_AGENT, OTHER_TENANT, Lines, Stack, is_problem

PATH = f"/whatsapp/{WHATSAPP_APP}"
PHONE, BSUID = "16505551234", "US.13491208655302741918"
SESSION = session_key(TENANT, WHATSAPP_CONNECTION, PHONE).session


def simulator(stack: Stack) -> WhatsAppSimulator:
    return stack.dispatcher.whatsapp


async def post(stack: Stack, payload: JsonObject, signature: str | None = None) -> httpx.Response:
    body, signed = simulator(stack).signed(payload)
    return await stack.http.post(PATH, content=body, headers={SIGNATURE_HEADER: signature or signed})


async def say(stack: Stack, text: str, contact: str = PHONE, **person: str) -> list[str]:
    """A contact writes, and everything that follows is done; what the contact has been shown since the beginning."""
    answer = await post(stack, simulator(stack).payload_message(contact, text, **person))
    await stack.idle()
    assert answer.status_code == 200, answer.text
    return shown(stack, contact)


def shown(stack: Stack, contact: str = PHONE) -> list[str]:
    return [message.text for message in simulator(stack).messages(contact)]


async def report(stack: Stack) -> list[httpx.Response]:
    """Post the statuses of what was sent."""
    return [await post(stack, payload) for payload in simulator(stack).make_statuses()]


async def share_app(stack: Stack, number: str) -> WhatsAppSimulator:
    """Another tenant's number through the same app."""
    repository = stack.here.repository
    await repository.put_app(TENANT, WHATSAPP_APP, shared=True)
    draft = ConnectionDraft(id="clerk", channel="whatsapp", agent=OTHER_AGENT, app=WHATSAPP_APP, number=number)
    await repository.put_connection(OTHER_TENANT, draft)
    await publish(repository, stack.here.store)
    return WhatsAppSimulator(WHATSAPP_TOKEN, number, WHATSAPP_APP_SECRET)


async def test_meta_is_given_its_challenge_back_as_it_is(stack: Stack) -> None:
    query = {"hub.mode": "subscribe", "hub.verify_token": WHATSAPP_VERIFY_TOKEN, "hub.challenge": "1158201444"}
    answer = await stack.http.get(PATH, params=query)

    assert (answer.status_code, answer.text) == (200, "1158201444")
    assert answer.headers["content-type"].startswith("text/plain")


@pytest.mark.parametrize("query", [{}, {"hub.mode": "subscribe", "hub.verify_token": "wrong", "hub.challenge": "1"}])
async def test_whoever_does_not_know_the_verify_token_gets_no_challenge(stack: Stack, query: dict[str, str]) -> None:
    assert is_problem(await stack.http.get(PATH, params=query), 403, "hub.verify_token")


async def test_a_message_is_answered_read_and_shown_as_being_worked_on(stack: Stack) -> None:
    answer = await post(stack, payload := simulator(stack).payload_message(PHONE, "Where is order 1042?"))
    await stack.idle()

    assert answer.json() == {"status": "accepted", "sessions": [SESSION], "receipts": 0}
    assert shown(stack) == ["Order 1042 is shipped with Correos and should arrive on 2026-11-24."]
    assert simulator(stack).read == [payload["entry"][0]["changes"][0]["value"]["messages"][0]["id"]]


async def test_a_person_without_a_phone_number_is_answered(stack: Stack) -> None:
    assert len(await say(stack, "Hello", BSUID)) == 1


async def test_a_person_stays_the_same_when_the_phone_number_goes_away(stack: Stack) -> None:
    await say(stack, "Hello", PHONE, user_id=BSUID)
    await say(stack, "Hello again", BSUID)

    assert stack.rows()["sessions"] == 1


@pytest.mark.parametrize("signature", ["", "sha256=00", "ü"])
async def test_a_wrong_signature_is_refused_and_leaves_one_line(stack: Stack, log: Lines, signature: str) -> None:
    before, payload = stack.rows(), simulator(stack).payload_message(PHONE, "my secret wish")
    answer = await stack.http.post(
        PATH, content=json.dumps(payload), headers={SIGNATURE_HEADER.encode(): signature.encode()}
    )

    assert is_problem(answer, 401, SIGNATURE_HEADER)
    assert stack.rows() == before
    assert len(log.lines) == 1
    assert not log.holding("secret wish", WHATSAPP_APP_SECRET)


async def test_the_signature_of_other_bytes_is_refused(stack: Stack) -> None:
    _, signature = simulator(stack).signed(simulator(stack).payload_message(PHONE, "Hello"))
    assert is_problem(await post(stack, simulator(stack).payload_message(PHONE, "Hello"), signature), 401)


async def test_an_app_whose_secret_does_not_open_lets_nobody_in(stack: Stack, log: Lines) -> None:
    await stack.here.repository.put_secret(TENANT, f"{WHATSAPP_APP}/app_secret", "sealed with another key")
    await stack.here.repository.put_app(TENANT, "bare")
    await publish(stack.here.repository, stack.here.store)

    assert is_problem(await post(stack, simulator(stack).payload_message(PHONE, "Hello")), 401)
    assert is_problem(await stack.http.get("/whatsapp/bare", params={"hub.mode": "subscribe"}), 403)
    assert log.holding("app_secret that opens")


@pytest.mark.parametrize("app", ["nobody", "a.b", "%C3%BC"])
async def test_an_unknown_app_is_not_found(stack: Stack, app: str) -> None:
    assert is_problem(await stack.http.post(f"/whatsapp/{app}"), 404)
    assert is_problem(await stack.http.get(f"/whatsapp/{app}"), 404)


async def test_a_body_that_is_too_large_is_refused_before_all_of_it_is_read(stack: Stack) -> None:
    given = 0

    async def endless() -> AsyncIterator[bytes]:
        nonlocal given
        while given < 100:
            given += 1
            yield b" " * (1 << 18)

    answer = await stack.http.post(PATH, content=endless(), headers={SIGNATURE_HEADER: "sha256=00"})

    assert is_problem(answer, 413, str(3 << 20))
    assert given < 20


async def test_messages_of_several_tenants_in_one_post_reach_each_their_own(stack: Stack) -> None:
    other = await share_app(stack, "2065")
    answer = await post(
        stack,
        envelope(
            simulator(stack).payload_message(PHONE, "Where is order 1042?"),
            other.payload_message(PHONE, "Hello"),
            simulator(stack).payload_message(BSUID, "Hello"),
        ),
    )
    await stack.idle()
    ours, theirs = await stack.read("/v1/sessions"), await stack.read("/v1/sessions", key=stack.keys.stranger)

    assert len(answer.json()["sessions"]) == 3
    assert len(shown(stack)) == len(shown(stack, BSUID)) == 1
    assert [row["connection"] for row in ours.json()] == [WHATSAPP_CONNECTION] * 2
    assert [row["connection"] for row in theirs.json()] == ["clerk"]


async def test_several_messages_of_a_contact_are_one_write_and_keep_their_order(stack: Stack) -> None:
    texts = [f"Message {number}" for number in range(20)]
    await post(stack, envelope(*(simulator(stack).payload_message(PHONE, text) for text in texts)))
    await stack.idle()
    runs = (await stack.read(f"/v1/sessions/{SESSION}/runs")).json()

    assert [[message["text"] for message in run["inputs"]] for run in runs] == [texts]


async def test_the_same_post_again_makes_one_run_and_one_reply(stack: Stack) -> None:
    payload = simulator(stack).payload_message(PHONE, "Hello")
    for _ in range(2):
        assert (await post(stack, payload)).status_code == 200
    await stack.idle()
    stack.clock.advance(6 * 86_400)
    assert (await post(stack, payload)).status_code == 200
    await stack.idle()

    assert len(shown(stack)) == 1
    assert stack.rows()["runs"] == 1


async def test_an_unreadable_message_is_kept_aside_and_the_others_are_answered(stack: Stack, log: Lines) -> None:
    bad = simulator(stack).payload_message(PHONE, "my secret wish")
    bad["entry"][0]["changes"][0]["value"]["messages"][0]["timestamp"] = "my secret wish"
    answer = await post(stack, envelope(bad, simulator(stack).payload_message(PHONE, "Hello")))
    await stack.idle()

    assert answer.status_code == 200
    assert len(shown(stack)) == 1
    assert (await stack.read("/health/detailed")).json()["unreadable_updates"] == 1
    assert not log.holding("my secret wish")


async def test_a_signed_body_that_is_no_post_of_whatsapp_is_kept_aside(stack: Stack) -> None:
    answer = await post(stack, {"object": "page"})

    assert (answer.status_code, answer.json()) == (200, {"status": "unreadable"})
    assert (await stack.read("/health/detailed")).json()["unreadable_updates"] == 1


async def test_a_number_that_nobody_connected_is_kept_aside_and_disturbs_nobody(stack: Stack, log: Lines) -> None:
    stray = WhatsAppSimulator(WHATSAPP_TOKEN, "999", WHATSAPP_APP_SECRET)
    mixed = envelope(stray.payload_message(PHONE, "Lost"), simulator(stack).payload_message(PHONE, "Hello"))
    answer = await post(stack, mixed)
    await stack.idle()
    ((_, kept),) = await stack.here.store.list(f"tenants/{TENANT}/unreadable")

    assert (answer.status_code, len(shown(stack))) == (200, 1)
    assert json.loads(kept)["text"] == {"body": "Lost"}
    assert len(log.holding("number is not connected")) >= 1


async def test_what_no_agent_answers_is_taken_and_written_nowhere(stack: Stack) -> None:
    before = stack.rows()
    content = {"type": "reaction", "reaction": {"message_id": "wamid.1", "emoji": "👍"}}
    answer = await post(stack, simulator(stack).payload(PHONE, content))

    assert (answer.status_code, answer.json()["sessions"]) == (200, [])
    assert stack.rows() == before


@pytest.mark.usefixtures("locked")
async def test_a_message_that_the_store_does_not_take_shall_be_posted_again(stack: Stack) -> None:
    before = stack.rows()
    answer = await post(stack, simulator(stack).payload_message(PHONE, "Hello"))

    assert is_problem(answer, 503)
    assert stack.rows() == before


async def test_a_tap_approves_and_the_contact_is_told(stack: Stack) -> None:
    await say(stack, "Please refund order 1042")
    question = simulator(stack).messages(PHONE)[-1]
    tap = simulator(stack).payload_tap(PHONE, question.buttons[0]["id"])
    for _ in range(2):  # Meta brings it again
        await post(stack, tap)
        await stack.idle()

    assert len(stack.refunded) == 1
    assert shown(stack)[1:] == [
        "Approved (refund_order), by Ana.",
        "Order 1042 is refunded: 49.90 EUR is on its way back to you.",
    ]


async def test_a_second_tap_is_told_that_it_comes_too_late(stack: Stack) -> None:
    await say(stack, "Please refund order 1042")
    approve, deny = simulator(stack).messages(PHONE)[-1].buttons
    for button in (approve, deny):
        await post(stack, simulator(stack).payload_tap(PHONE, button["id"]))
        await stack.idle()

    assert len(stack.refunded) == 1
    assert shown(stack)[-1] == "This was already decided, or its time is over."


async def test_whoever_did_not_ask_cannot_approve(stack: Stack) -> None:
    await say(stack, "Please refund order 1042")
    tap = simulator(stack).payload_tap(PHONE, simulator(stack).messages(PHONE)[-1].buttons[0]["id"])
    value = tap["entry"][0]["changes"][0]["value"]
    value["messages"][0]["from"] = value["contacts"][0]["wa_id"] = "16505550000"
    await post(stack, tap)
    await stack.idle()

    assert stack.refunded == []
    assert (await stack.read(f"/v1/sessions/{SESSION}")).json()["status"] == "waiting"


async def test_statuses_become_receipts_and_cost_no_write_while_all_goes_well(stack: Stack, log: Lines) -> None:
    await say(stack, "Hello")
    before = stack.rows()
    answers = await report(stack)

    assert [answer.json()["receipts"] for answer in answers] == [1, 1, 1]
    assert stack.rows() == before
    assert [len(log.holding(f"status={status}")) for status in ("sent", "delivered", "read")] == [1, 1, 1]
    assert (await stack.read("/v1/receipts")).json() == []


async def test_a_reply_that_did_not_arrive_is_listed_for_operators_of_its_tenant(stack: Stack) -> None:
    await say(stack, "Hello")
    sent, *_ = simulator(stack).make_statuses()
    status = sent["entry"][0]["changes"][0]["value"]["statuses"][0]
    status |= {"status": "failed", "errors": [{"code": 131047, "title": "Re-engagement message"}]}
    for _ in range(2):
        await post(stack, sent)

    (failed,) = (await stack.read("/v1/receipts")).json()
    assert (failed["session"], failed["delivery"]) == (SESSION, "1/reply/1")
    assert failed["reason"] == "131047 Re-engagement message"
    assert (await stack.read("/v1/receipts", key=stack.keys.stranger)).json() == []
    assert is_problem(await stack.read("/v1/receipts", key=stack.keys.invoker), 403)


async def test_receipts_that_cannot_be_published_come_again_after_the_messages_were_taken(stack: Stack) -> None:
    await say(stack, "Hello")
    del stack.here.bus
    stack.here.bus = LocalBus(stack.here.run_agent, stack.clock)  # nobody takes receipts
    mixed = envelope(*simulator(stack).make_statuses(), simulator(stack).payload_message(PHONE, "Where is order 1042?"))
    first = await post(stack, mixed)
    await stack.idle()
    del stack.here.bus
    again = await post(stack, mixed)
    await stack.idle()

    assert is_problem(first, 503)
    assert (again.status_code, again.json()["receipts"]) == (200, 3)
    assert len(shown(stack)) == 2


async def test_no_word_of_a_conversation_and_no_secret_is_logged(stack: Stack, log: Lines) -> None:
    await say(stack, "Hello, I am Xaviera and my order is 1042", name="Xaviera")
    await report(stack)
    await post(stack, simulator(stack).payload_message(PHONE, "Hello Xaviera"), "sha256=00")

    assert log.holding("run finished")
    words: tuple[Any, ...] = ("Xaviera", "1042", PHONE, WHATSAPP_TOKEN, WHATSAPP_APP_SECRET, WHATSAPP_VERIFY_TOKEN)
    assert not log.holding(*words)
    assert WHATSAPP_NUMBER not in "".join(log.lines)
