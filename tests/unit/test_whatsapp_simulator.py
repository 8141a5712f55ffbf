"""The simulator of the Cloud API is as strict as the real one, and tells the command line what a contact sees."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest

from shared.channels.whatsapp import parse, verify
from shared.cli.simulators.whatsapp import WhatsAppSimulator, envelope
from tests.clock import FakeClock

TOKEN, NUMBER, SECRET = "EAA0", "1065", "app-secret"
PHONE, BSUID = "16505551234", "US.13491208655302741918"
PATH = f"/v25.0/{NUMBER}/messages"
HEADERS = {"Authorization": f"Bearer {TOKEN}"}
TEXT = {"messaging_product": "whatsapp", "to": PHONE, "type": "text", "text": {"body": "hi"}}


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def simulator(clock: FakeClock) -> WhatsAppSimulator:
    simulator = WhatsAppSimulator(TOKEN, NUMBER, SECRET, burst=3, clock=clock)
    simulator.payload_message(PHONE, "Hello")
    return simulator


@pytest.fixture
async def client(simulator: WhatsAppSimulator) -> AsyncIterator[httpx.AsyncClient]:
    transport = httpx.ASGITransport(simulator.app)
    async with httpx.AsyncClient(transport=transport, base_url="http://simulator", headers=HEADERS) as made:
        yield made


def asking(*replies: tuple[str, str], body: str = "May I?") -> dict[str, Any]:
    buttons = [{"type": "reply", "reply": {"id": id_, "title": title}} for id_, title in replies]
    question = {"type": "button", "body": {"text": body}, "action": {"buttons": buttons}}
    return {**TEXT, "type": "interactive", "interactive": question}


async def test_a_message_is_shown_and_then_reported_as_sent_delivered_and_read(
    client: httpx.AsyncClient, simulator: WhatsAppSimulator
) -> None:
    answer = (await client.post(PATH, json={**TEXT, "biz_opaque_callback_data": "mine"})).json()

    [shown] = simulator.messages(PHONE)
    assert (answer["messages"], shown.text) == ([{"id": shown.message_id}], "hi")
    reports = [status for payload in simulator.make_statuses() for status in statuses(payload)]
    assert [report["status"] for report in reports] == ["sent", "delivered", "read"]
    assert {(report["id"], report["biz_opaque_callback_data"]) for report in reports} == {(shown.message_id, "mine")}
    assert simulator.make_statuses() == []


def statuses(payload: dict[str, Any]) -> list[dict[str, Any]]:
    return list(payload["entry"][0]["changes"][0]["value"]["statuses"])


async def test_outside_the_service_window_a_message_is_taken_and_reported_as_failed(
    client: httpx.AsyncClient, simulator: WhatsAppSimulator, clock: FakeClock
) -> None:
    clock.advance(86_400)
    late = await client.post(PATH, json=TEXT)
    stranger = await client.post(PATH, json={**TEXT, "to": "16505550000"})

    failed = [status for payload in simulator.make_statuses() for status in statuses(payload)]
    assert (late.status_code, stranger.status_code) == (200, 200)
    assert [(status["status"], status["errors"][0]["code"]) for status in failed] == [("failed", 131047)] * 2
    assert simulator.messages(PHONE) == []


async def test_a_user_id_where_a_number_belongs_is_taken_and_never_heard_of_again(
    client: httpx.AsyncClient, simulator: WhatsAppSimulator
) -> None:
    simulator.payload_message(BSUID, "Hello")
    lost = await client.post(PATH, json={**TEXT, "to": BSUID})

    assert lost.status_code == 200
    assert (simulator.messages(BSUID), simulator.make_statuses()) == ([], [])


async def test_a_contact_with_a_number_and_a_user_id_is_one(
    client: httpx.AsyncClient, simulator: WhatsAppSimulator
) -> None:
    simulator.payload_message(PHONE, "Hello", user_id=BSUID)
    await client.post(PATH, json={**TEXT, "to": None, "recipient": BSUID})
    await client.post(PATH, json=TEXT)

    assert len(simulator.messages(PHONE)) == len(simulator.messages(BSUID)) == 2


@pytest.mark.parametrize(
    ("message", "code"),
    [
        ([], 100),
        ({**TEXT, "messaging_product": "sms"}, 100),
        ({**TEXT, "to": ""}, 100),
        ({**TEXT, "to": "Ana"}, 131009),
        ({**TEXT, "to": "", "recipient": PHONE}, 131009),
        ({**TEXT, "recipient_type": "business_scoped_user_id"}, 100),
        ({**TEXT, "text": {"body": ""}}, 100),
        ({**TEXT, "text": {"body": "x" * 4097}}, 100),
        ({**TEXT, "text": "hi"}, 100),
        ({**TEXT, "biz_opaque_callback_data": "x" * 513}, 100),
        ({**TEXT, "type": "hologram"}, 131051),
        (asking(), 131009),
        (asking(("1", "A"), ("2", "B"), ("3", "C"), ("4", "D")), 131009),
        (asking(("1", "A"), ("2", "A")), 131009),
        (asking(("1", "x" * 21)), 100),
        (asking(("x" * 257, "A")), 100),
        (asking(("1", "A"), body="x" * 1025), 100),
        ({"messaging_product": "whatsapp", "status": "read", "message_id": "wamid.unknown"}, 131009),
    ],
)
async def test_the_simulator_refuses_what_the_graph_api_refuses(
    client: httpx.AsyncClient, simulator: WhatsAppSimulator, message: object, code: int
) -> None:
    answer = await client.post(PATH, json=message)

    assert (answer.status_code, answer.json()["error"]["code"]) == (400, code)
    assert simulator.messages(PHONE) == []


async def test_another_token_and_another_number_are_refused(client: httpx.AsyncClient) -> None:
    wrong = await client.post(PATH, json=TEXT, headers={"Authorization": "Bearer other"})
    elsewhere = await client.post("/v25.0/999/messages", json=TEXT)

    assert (wrong.status_code, wrong.json()["error"]["code"]) == (401, 190)
    assert elsewhere.json()["error"]["code"] == 100


async def test_one_contact_takes_a_burst_and_then_one_in_six_seconds(
    client: httpx.AsyncClient, simulator: WhatsAppSimulator, clock: FakeClock
) -> None:
    simulator.payload_message(BSUID, "Hello")
    burst = [(await client.post(PATH, json=TEXT)).status_code for _ in range(3)]
    limited = await client.post(PATH, json=TEXT)
    elsewhere = await client.post(PATH, json={**TEXT, "to": None, "recipient": BSUID})
    clock.advance(6)
    later = await client.post(PATH, json=TEXT)

    assert burst == [200, 200, 200]
    assert limited.json()["error"]["code"] == 131056
    assert (elsewhere.status_code, later.status_code) == (200, 200)


async def test_a_call_can_be_delayed(client: httpx.AsyncClient, simulator: WhatsAppSimulator, clock: FakeClock) -> None:
    simulator.delay_next("message", 5)
    await client.post(PATH, json=TEXT)

    assert clock.slept == [5]


def test_what_it_posts_is_signed_and_can_be_put_together(simulator: WhatsAppSimulator) -> None:
    other = WhatsAppSimulator(TOKEN, "2065", SECRET)
    payload = envelope(simulator.payload_message(PHONE, "Olá"), other.payload_message(BSUID, "Hi"))
    body, signature = simulator.signed(payload)

    verify(SECRET, body, signature)
    assert [change.number for change in parse(body)] == ["1065", "2065"]


async def test_the_command_line_writes_taps_and_reads_what_the_contact_sees(client: httpx.AsyncClient) -> None:
    await client.post(PATH, json=asking(("a:t1:y", "Approve")))
    written = (await client.post("/simulator/payloads", json={"contact": PHONE, "text": "hi", "name": "Zé"})).json()
    tapped = (await client.post("/simulator/payloads", json={"contact": PHONE, "tap": "a:t1:y"})).json()
    shown = (await client.get(f"/simulator/contacts/{PHONE}/messages")).json()
    reported = (await client.post("/simulator/statuses")).json()

    for posted in (written, tapped, *reported):
        verify(SECRET, posted["body"].encode(), posted["signature"])
    ((hello,), (tap,)) = (parse(posted["body"].encode()) for posted in (written, tapped))
    assert (hello.messages[0].content, hello.people[PHONE].name) == ("hi", "Zé")
    assert tap.messages[0].reply is not None
    assert (shown[0]["text"], shown[0]["buttons"]) == ("May I?", [{"id": "a:t1:y", "title": "Approve"}])
    assert len(reported) == 3


@pytest.mark.parametrize(("body", "status"), [({}, 400), ([], 400), ({"contact": PHONE, "tap": "gone"}, 404)])
async def test_the_command_line_is_told_what_it_got_wrong(client: httpx.AsyncClient, body: object, status: int) -> None:
    assert (await client.post("/simulator/payloads", json=body)).status_code == status
